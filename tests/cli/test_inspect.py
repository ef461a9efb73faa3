"""All that a file holds, in words, and no more than is true."""

from pathlib import Path

import pytest
from safetensors.numpy import save_file

from brainfed import plan as plans
from brainfed.core.architecture import tensor_table
from brainfed.formats.manifest import Manifest
from brainfed.formats.record import Record
from brainfed.steps.admit import admit
from tests.builders import a_plan
from tests.cli.typed import Typed, too_wide
from tests.federation import (
    Small,
    a_federation,
    an_unstarted_federation,
    close_round,
    enrolment_of,
    random_weights,
    say_yes,
    sign,
    train,
)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    small = a_federation(tmp_path_factory.mktemp("federation"))
    close_round(small)
    return small


def the_update(small: Small) -> Path:
    return next(small.coordinator.round_folder(1).glob("*hospital-a.update.safetensors"))


def flat(text: str) -> str:
    return " ".join(text.split())


def test_every_field_and_tensor_of_an_update_is_printed(typed: Typed, small: Small) -> None:
    answer = typed("inspect", the_update(small), "--workspace", small.coordinator.root)
    assert answer.code == 0
    shown = answer.out.split()
    for name in {*Manifest.model_fields} - {"plan", "versions"}:
        assert name in shown
    for name, shape in tensor_table(small.known.first_plan).items():
        assert name in shown
        assert " x ".join(map(str, shape)) in answer.out
    assert too_wide(answer.out) == []


def test_the_signer_is_named_in_a_workspace_and_only_the_key_outside(
    typed: Typed, small: Small
) -> None:
    inside = typed("inspect", the_update(small), "--workspace", small.coordinator.root)
    assert "made by hospital-a (site)" in flat(inside.out)
    outside = typed("inspect", the_update(small))
    assert "whose owner isn't known here" in flat(outside.out)


def test_no_more_is_claimed_of_weights_than_is_true(typed: Typed, small: Small) -> None:
    words = flat(typed("inspect", the_update(small)).out)
    assert "no check of numbers proves that nothing of a patient can be drawn out" in words
    assert "learned from the patients of the site" in words
    assert "anonym" not in words.lower()


def test_the_first_weights_are_said_to_be_random(typed: Typed, small: Small) -> None:
    first = next(small.coordinator.round_folder(0).glob("*.safetensors"))
    words = flat(typed("inspect", first).out)
    assert "drawn at random" in words
    assert "learned from" not in words


def test_first_weights_that_were_given_are_not_said_to_be_random(
    typed: Typed, tmp_path: Path
) -> None:
    small = an_unstarted_federation(tmp_path)
    places = small.sites.values()
    admit(small.coordinator, [enrolment_of(site) for site in places], confirm=say_yes)
    plan, mine = tmp_path / "plan.toml", tmp_path / "mine.safetensors"
    plan.write_text(plans.render(a_plan()))
    save_file(random_weights(a_plan(), 7), mine)
    where = ("--workspace", small.coordinator.root)
    assert typed("start", plan, "--weights", mine, *where).code == 0
    first = next(small.coordinator.round_folder(0).glob("*.safetensors"))
    words = flat(typed("inspect", first).out)
    assert "drawn at random" not in words
    assert "may have been learned from patients elsewhere" in words
    assert "no check of numbers proves that nothing of a patient can be drawn out" in words


def test_every_field_of_a_record_a_roster_and_a_start_is_printed(
    typed: Typed, small: Small
) -> None:
    record = next(small.coordinator.round_folder(1).glob("*.record.json"))
    shown = typed("inspect", record).out
    assert all(name in shown for name in Record.model_fields)
    assert "sender: hospital-b" in shown
    for path in sorted(small.coordinator.federation_folder.glob("*.json")):
        answer = typed("inspect", path)
        assert answer.code == 0
        if path.name.startswith(("start", "roster")):
            assert all(site in answer.out for site in small.sites)
        assert too_wide(answer.out) == []


def test_bytes_beside_the_format_are_warned_of(typed: Typed, tmp_path: Path) -> None:
    small = a_federation(tmp_path)
    path = train(small.sites["hospital-a"])
    path.write_bytes(path.read_bytes() + b"Erika Mustermann")
    sign(path, small.sites["hospital-a"])
    words = flat(typed("inspect", path).out)
    assert "Beware" in words
    assert "nothing else" not in words


def test_inspect_prints_json_and_changes_nothing(typed: Typed, small: Small) -> None:
    answer = typed("inspect", the_update(small), "--json")
    assert answer.json["content"]["sender"] == "hospital-a"
    assert len(answer.json["tensors"]) == len(tensor_table(small.known.first_plan))
    assert answer.err == ""


@pytest.mark.parametrize(("data", "code"), [(None, 2), (b"", 6), (b"holiday", 6), (b'{"a":1}', 6)])
def test_a_file_that_is_none_of_ours_is_said_to_be_so(
    typed: Typed, tmp_path: Path, data: bytes | None, code: int
) -> None:
    path = tmp_path / "file"
    if data is not None:
        path.write_bytes(data)
    answer = typed("inspect", path)
    assert answer.code == code
    assert "Traceback" not in answer.err
