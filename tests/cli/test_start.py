"""`admit` and `start`, and who may answer for a fingerprint."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from brainfed import plan as plans
from brainfed.core.sshsig import public_key
from brainfed.formats import federation, rounds
from brainfed.formats.workspace import Workspace
from tests.builders import a_plan
from tests.cli.typed import Typed
from tests.federation import (
    Small,
    a_federation,
    an_unstarted_federation,
    enrolment_of,
    random_weights,
)


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return an_unstarted_federation(tmp_path)


def fingerprint_of(place: Workspace) -> str:
    return public_key(place.private_key()).fingerprint


def admit_words(small: Small, *more: str) -> list[object]:
    files = [enrolment_of(site) for site in small.sites.values()]
    return ["admit", *files, "--workspace", small.coordinator.root, *more]


def test_admit_shows_each_fingerprint_and_asks_for_each(typed: Typed, small: Small) -> None:
    answer = typed(*admit_words(small), answers="y\nn\n")
    assert answer.code == 0
    assert all(fingerprint_of(site) in answer.err for site in small.sites.values())
    assert "Admitted: hospital-a" in answer.out
    assert "Not admitted: hospital-b" in answer.out
    assert federation.newest_roster(small.coordinator).get("hospital-b") is None


def test_admit_takes_the_fingerprints_of_a_script(typed: Typed, small: Small) -> None:
    given = [f"--fingerprint={fingerprint_of(site)}" for site in small.sites.values()]
    answer = typed(*admit_words(small, *given, "--json"))
    assert answer.code == 0
    assert answer.json["admitted"] == ["hospital-a", "hospital-b"]


def test_admit_refuses_a_key_whose_fingerprint_was_not_given(typed: Typed, small: Small) -> None:
    given = f"--fingerprint={fingerprint_of(small.sites['hospital-a'])}"
    answer = typed(*admit_words(small, given, "--json"))
    assert answer.code == 6
    assert answer.json["error"]["found"] == fingerprint_of(small.sites["hospital-b"])
    assert federation.newest_roster(small.coordinator) is None


def test_admit_without_a_terminal_names_the_option(typed: Typed, small: Small) -> None:
    answer = typed(*admit_words(small))
    assert answer.code == 2
    assert "--fingerprint SHA256:..." in answer.err
    assert federation.newest_roster(small.coordinator) is None


def test_no_yes_answers_for_a_fingerprint(typed: Typed, small: Small) -> None:
    answer = typed(*admit_words(small, "--yes"))
    assert answer.code == 2
    assert federation.newest_roster(small.coordinator) is None


@pytest.mark.parametrize("text", ["SHA256:short", "MD5:00:11", "", "yes"])
def test_a_fingerprint_that_is_none_is_a_usage_error(typed: Typed, small: Small, text: str) -> None:
    answer = typed(*admit_words(small, f"--fingerprint={text}"))
    assert answer.code == 2
    assert "no fingerprint" in answer.err


def test_start_freezes_the_plan_and_says_what_comes_next(typed: Typed, small: Small) -> None:
    typed(*admit_words(small), answers="y\ny\n")
    path = small.root / "plan.toml"
    path.write_text(plans.render(a_plan()))
    words = ("start", path, "--workspace", small.coordinator.root)
    answer = typed(*words)
    assert answer.code == 0
    assert rounds.newest_round(small.coordinator) == 0
    assert small.known.digest in answer.out
    again = typed(*words, "--json")
    assert again.json["already"] is True
    assert again.json["federation"] == small.known.digest


def test_a_misspelt_key_is_named_with_the_nearest_right_one(typed: Typed, small: Small) -> None:
    path = small.root / "plan.toml"
    path.write_text('name = "x"\n[training]\nfloreground_fraction = 0.5\n')
    answer = typed("start", path, "--workspace", small.coordinator.root, "--json")
    assert answer.code == 4
    assert "training.floreground_fraction" in answer.json["error"]["message"]
    assert "training.foreground_fraction" in answer.json["error"]["expected"]


def test_another_plan_after_the_start_is_refused(typed: Typed, tmp_path: Path) -> None:
    small = a_federation(tmp_path, joined=False)
    path = tmp_path / "other.toml"
    path.write_text(plans.render(a_plan(rounds=7)))
    answer = typed("start", path, "--workspace", small.coordinator.root)
    assert answer.code == 4


def test_start_takes_given_weights_and_holds_to_them(
    typed: Typed, small: Small, tmp_path: Path
) -> None:
    plan = a_plan()
    plan_path = tmp_path / "plan.toml"
    plan_path.write_text(plans.render(plan))
    given = {name: array + 1 for name, array in random_weights(plan, 7).items()}
    mine, other = tmp_path / "mine.safetensors", tmp_path / "other.safetensors"
    save_file(given, mine)
    save_file(random_weights(plan, 8), other)
    given_fingerprints = [f"--fingerprint={fingerprint_of(s)}" for s in small.sites.values()]
    typed(*admit_words(small, *given_fingerprints))
    words = ["start", plan_path, "--workspace", small.coordinator.root, "--weights"]
    del given["head.bias"]
    short = tmp_path / "short.safetensors"
    save_file(given, short)
    refused = typed(*words, short)
    assert refused.code == 6
    assert "missing" in refused.err
    assert not federation.has_started(small.coordinator)
    assert typed(*words, mine).code == 0
    path = rounds.global_path(small.coordinator, 0)
    assert path is not None
    found = load_file(path)
    assert all(np.array_equal(found[name], array) for name, array in given.items())
    assert typed(*words, mine).code == 0
    assert typed(*words, other).code == 6
    assert typed(*words[:-1]).code == 0


def test_layers_that_stay_local_are_not_written_drawn_or_given(
    typed: Typed, small: Small, tmp_path: Path
) -> None:
    plan = a_plan(network={"local": ("head.bias", "head.weight")})
    plan_path, mine = tmp_path / "plan.toml", tmp_path / "mine.safetensors"
    plan_path.write_text(plans.render(plan))
    given = {name: array + 1 for name, array in random_weights(a_plan(), 7).items()}
    save_file(given, mine)
    fingerprints = [f"--fingerprint={fingerprint_of(s)}" for s in small.sites.values()]
    typed(*admit_words(small, *fingerprints))
    shutil.copytree(small.coordinator.root, tmp_path / "copy")
    for root, more in ((small.coordinator.root, ()), (tmp_path / "copy", ("--weights", mine))):
        answer = typed("start", plan_path, "--workspace", root, *more)
        assert answer.code == 0
        assert "of which each site keeps 5 to itself" in " ".join(answer.out.split())
        (path,) = root.glob("rounds/r0000/*.global.safetensors")
        assert set(load_file(path)) == set(given) - {"head.bias", "head.weight"}
    assert np.array_equal(
        load_file(path)["decoder.level1.conv1.bias"], given["decoder.level1.conv1.bias"]
    )


def test_an_external_network_is_started_with_given_weights_alone(
    typed: Typed, small: Small, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.safetensors"
    save_file({"a.weight": np.ones((2, 3), np.float32), "n": np.array(1, np.int64)}, mine)
    table = typed("plan", "from-weights", mine).out
    plan_path = tmp_path / "plan.toml"
    plan_path.write_text('name = "own"\n\n' + table)
    words = typed("plan", "check", plan_path)
    assert words.code == 0
    assert "the sites' own" in " ".join(words.out.split())
    given_fingerprints = [f"--fingerprint={fingerprint_of(s)}" for s in small.sites.values()]
    typed(*admit_words(small, *given_fingerprints))
    start = ["start", plan_path, "--workspace", small.coordinator.root]
    refused = typed(*start)
    assert refused.code == 4
    assert "own-trainer" in refused.err
    assert not federation.has_started(small.coordinator)
    assert typed(*start, "--weights", mine).code == 0
