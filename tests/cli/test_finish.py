"""`brainfed status --rounds` and `brainfed finish` as they are typed."""

from pathlib import Path

import pytest

from brainfed.formats import rounds
from tests.builders import a_plan
from tests.cli.typed import Typed, too_wide
from tests.federation import Small, a_federation, close_round, copy_of
from tests.reported import a_reported_federation


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return a_reported_federation(tmp_path_factory.mktemp("reported"))


@pytest.fixture
def small(told: Small, tmp_path: Path) -> Small:
    return copy_of(told, tmp_path / "federation")


def flat(text: str) -> str:
    return " ".join(text.split())


def test_the_table_of_rounds_marks_the_best_and_says_what_it_does_not_see(
    typed: Typed, small: Small
) -> None:
    words = ("status", "--rounds", "--workspace", small.coordinator.root)
    answer = typed(*words)
    assert answer.code == 0
    assert too_wide(answer.out) == []
    rows = [line.split() for line in answer.out.splitlines() if line.lstrip()[:1].isdigit()]
    assert [row[0] for row in rows] == ["0", "1", "2", "3"]
    assert ["best" in row for row in rows] == [False, False, False, True]
    assert "Mean Dice of WT, ET" in flat(answer.out)
    assert "over 36 patients of hospital-a, hospital-b" in flat(answer.out)
    assert "- hospital-c: fewer than 5 patients" in answer.out
    as_json = typed(*words, "--json").json
    assert as_json["best"] == 3
    assert [entry["n"] for entry in as_json["rounds"]] == [36] * 4
    assert as_json["unseen"][0]["site"] == "hospital-c"


def test_a_round_that_cannot_be_compared_is_named_with_the_reason(
    typed: Typed, small: Small
) -> None:
    for path in small.coordinator.rounds.rglob("*.hospital-b.scores.json"):
        path.unlink()
    answer = typed("status", "--rounds", "--workspace", small.coordinator.root)
    assert "- Round 3: no figure of hospital-b." in answer.out
    assert "The best round is 2" in answer.out


def test_a_site_sees_its_own_rounds(typed: Typed, small: Small) -> None:
    answer = typed("status", "--rounds", "--workspace", small.sites["hospital-a"].root)
    assert "Only what this site told itself" in answer.out
    assert "best" not in answer.out
    assert "hospital-b" not in answer.out


def test_finish_says_what_was_chosen_and_what_is_allowed_now(typed: Typed, small: Small) -> None:
    words = ("finish", "--workspace", small.coordinator.root)
    answer = typed(*words)
    assert answer.code == 0
    assert too_wide(answer.out) == []
    assert "The final is signed: round 3 of 5." in answer.out
    assert "over 36 patients of hospital-a, hospital-b" in flat(answer.out)
    assert "hospital-c: fewer than 5 patients" in flat(answer.out)
    assert "brainfed evaluate --subset test" in flat(answer.out)
    assert "No further round is closed." in answer.out
    again = typed(*words)
    assert "The final was signed before: round 3 of 5." in again.out
    as_json = typed(*words, "--json").json
    assert (as_json["already"], as_json["final"]["round"]) == (True, 3)
    other = typed(*words, "--round", "1")
    assert other.code == 6
    assert "can't be taken back" in flat(other.err)


def test_another_round_than_the_best_is_a_usage_error(typed: Typed, small: Small) -> None:
    answer = typed("finish", "--round", "1", "--workspace", small.coordinator.root, "--json")
    assert answer.code == 2
    assert answer.json["error"]["expected"] == "round 3"
    assert rounds.final_paths(small.coordinator) == []


def test_where_nobody_has_told_anything_a_person_must_name_the_round(
    typed: Typed, tmp_path: Path
) -> None:
    small = a_federation(tmp_path)
    close_round(small)
    place = small.coordinator.root
    assert "Validation can't tell" in typed("status", "--rounds", "--workspace", place).out
    unnamed = typed("finish", "--workspace", place)
    assert unnamed.code == 2
    assert "--round R" in flat(unnamed.err)
    named = typed("finish", "--round", "1", "--workspace", place)
    assert "Named by a person" in named.out
    assert "Round 1" not in named.out  # nothing is called compared or not where nobody told


def test_of_weights_with_local_layers_it_says_that_they_do_not_run_elsewhere(
    typed: Typed, tmp_path: Path
) -> None:
    small = a_federation(tmp_path, plan=a_plan(network={"local": ("head.bias", "head.weight")}))
    close_round(small)
    at = ("--workspace", small.coordinator.root)
    answer = typed("finish", "--round", "1", *at)
    assert "do not run outside of the sites: 2 tensors" in flat(answer.out)
    assert typed("report", "--model-card", "--out", tmp_path / "card.html", *at).code == 0
    card = flat((tmp_path / "card.html").read_text())
    assert "These weights do not run outside of their sites: 2 tensors" in card
    assert "5 of them (2 tensors) kept by each site" in card


def test_a_site_cannot_finish(typed: Typed, small: Small) -> None:
    assert typed("finish", "--workspace", small.sites["hospital-a"].root).code == 3
