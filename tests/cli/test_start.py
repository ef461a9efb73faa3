"""`admit` and `start`, and who may answer for a fingerprint."""

from pathlib import Path

import pytest

from brainfed import plan as plans
from brainfed.core.sshsig import public_key
from brainfed.formats import federation, rounds
from brainfed.formats.workspace import Workspace
from tests.builders import a_plan
from tests.cli.typed import Typed
from tests.federation import Small, a_federation, an_unstarted_federation, enrolment_of


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
