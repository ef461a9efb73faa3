"""`cli.withdrawal`: exclude and purge, as they are typed."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from brainfed.cli import options
from brainfed.formats import checkpoint, dataset, federation, identities, signature
from brainfed.formats.dataset import ExclusionReason
from brainfed.formats.erasure import ErasureReason
from brainfed.formats.workspace import Workspace
from brainfed.steps.exchange import export
from tests.cli.typed import Typed, too_wide
from tests.federation import a_federation, snapshot, train
from tests.steps.patients import a_site_with_patients


@pytest.fixture
def site(tmp_path: Path) -> Workspace:
    return a_site_with_patients(a_federation(tmp_path / "federation").sites["hospital-a"])


def test_the_choices_are_those_of_the_code() -> None:
    assert list(get_args(options.ExclusionChoice)) == list(ExclusionReason)
    assert list(get_args(options.ErasureChoice)) == list(ErasureReason)


def flat(text: str) -> str:
    return " ".join(text.split())


def test_exclude_says_what_goes_asks_and_says_what_it_can_not_reach(
    typed: Typed, site: Workspace
) -> None:
    words = ("exclude", "anna-2019", "--reason", "withdrawn", "--workspace", site.root)
    before = snapshot(site)
    unasked = typed(*words)
    assert unasked.code == 2
    assert "--yes" in unasked.err
    declined = typed(*words, answers="n\n")
    assert declined.code == 2
    assert "Nothing was erased" in declined.err
    assert "anna" not in declined.err
    assert snapshot(site) == before
    answer = typed(*words, answers="y\n")
    assert answer.code == 0
    assert "3 cases of one patient" in answer.err
    assert "3 cases excluded: withdrawn. 3 cases left." in answer.out
    assert "past global weights keep what they learned" in " ".join(answer.out.split())
    assert too_wide(answer.out) == []
    assert too_wide(answer.err) == []
    again = typed(*words)  # nothing to erase, so nothing to ask
    assert again.code == 0
    assert "3 cases excluded before" in again.out


def test_exclude_tells_of_updates_and_what_to_do(typed: Typed, site: Workspace) -> None:
    update = train(site)
    words = ("--reason", "bad-label", "--workspace", site.root, "--yes")
    erased = typed("exclude", "carl-2020", *words)
    assert f"never signed: {update.name}" in " ".join(erased.err.split())
    assert "Next: brainfed train-round" in erased.out
    assert not update.exists()
    train(site)
    export(site, None)
    signed = typed("exclude", "bert-2020", *words)
    assert "is signed and may have left" in signed.out
    assert "tell the coordinator" in " ".join(signed.out.split())
    assert update.exists()


def test_exclude_gives_its_result_as_json_without_a_name(typed: Typed, site: Workspace) -> None:
    case = identities.read(site.data).case_id("carl-2020")
    words = ("--reason", "duplicate", "--workspace", site.root, "--yes", "--json")
    answer = typed("exclude", case, *words)
    assert [entry["id"] for entry in answer.json["chosen"]["cases"]] == [case]
    assert answer.json["n_cases"] == len(dataset.read_index(site.data)) == 4
    assert "carl" not in answer.out


def test_a_wrong_name_or_reason_ends_with_2(typed: Typed, site: Workspace) -> None:
    for words in (("emil-2020", "--reason", "withdrawn"), ("anna-2019", "--reason", "boredom")):
        assert typed("exclude", *words, "--workspace", site.root, "--yes").code == 2
    unsaid = typed("exclude", "anna-2019", "--workspace", site.root, "--yes")
    assert unsaid.code == 2
    assert "withdrawn, opted-out, duplicate, bad-label, bad-scan" in " ".join(unsaid.err.split())
    odd = typed("purge", "--reason", "boredom", "--workspace", site.root)
    assert "'boredom' is not one of 'ended', 'left', 'ordered'" in " ".join(odd.err.split())
    assert "Value error" not in odd.err


def test_exclude_tells_of_the_site_s_own_layers(typed: Typed, site: Workspace) -> None:
    paths = [site.round_folder(number) / checkpoint.LAYERS for number in (1, 2)]
    for number, path in enumerate(paths, start=1):
        path.parent.mkdir(exist_ok=True)
        layers = checkpoint.Layers(number, 1, {"head.bias": np.zeros(1, np.float32)})
        checkpoint.write_layers(path, layers)
    words = ("exclude", "carl-2020", "--reason", "bad-label", "--workspace", site.root)
    declined = typed(*words, answers="n\n")
    assert "own layers, which may have learned from them, of 2 rounds" in flat(declined.err)
    assert all(path.exists() for path in paths)
    done = typed(*words, "--yes")
    assert "may have learned from them: this site's own layers" in flat(done.out)
    assert not any(path.exists() for path in paths)


def test_purge_asks_erases_and_prints_the_line_that_checks_it(
    typed: Typed, site: Workspace
) -> None:
    words = ("purge", "--reason", "left", "--workspace", site.root)
    before = snapshot(site)
    assert typed(*words, answers="n\n").code == 2
    assert typed(*words).code == 2
    assert snapshot(site) == before
    answer = typed(*words, answers="y\n")
    assert answer.code == 0
    assert not site.data.exists()
    path = federation.erasure_path(site, site.name, 1)
    assert signature.verify_file(path).key == site.public_key()
    (line,) = [line for line in answer.out.splitlines() if "ssh-keygen" in line]
    assert line.strip() == (
        "ssh-keygen -Y verify -n brainfed -f federation/roster -I hospital-a "
        f"-s federation/{path.name}.sig < federation/{path.name}"
    )
    again = typed(*words)
    assert again.code == 0
    assert "nothing to erase" in again.out


def test_inspect_says_what_the_statement_is(typed: Typed, site: Workspace) -> None:
    typed("purge", "--reason", "ordered", "--workspace", site.root, "--yes")
    path = federation.erasure_path(site, site.name, 1)
    answer = typed("inspect", path, "--workspace", site.root)
    assert "a site states what it has erased" in " ".join(answer.out.split())
    assert "no image and no weights" in answer.out
    for field in ("reason", "dataset", "erased", "kept"):
        (line,) = [line for line in answer.out.splitlines() if line.startswith(f"{field} ")]
        assert len(line.split()) > 2


def test_the_coordinator_has_nothing_to_purge(typed: Typed, tmp_path: Path) -> None:
    lead = a_federation(tmp_path / "federation").coordinator
    assert typed("purge", "--reason", "ended", "--workspace", lead.root, "--yes").code == 3
