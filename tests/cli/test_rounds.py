from pathlib import Path

from brainfed.formats.roster import Role
from tests.cli.typed import Typed, too_wide
from tests.federation import a_federation, a_waiting_federation, a_workspace


def test_status_works_before_any_federation(typed: Typed, tmp_path: Path) -> None:
    a_workspace(tmp_path, Role.SITE, "hospital-a")
    answer = typed("status", "--workspace", tmp_path)
    assert answer.code == 0
    assert "hospital-a.enrolment.json" in answer.out
    assert "brainfed import" in answer.out


def test_status_of_the_coordinator_says_whose_update_is_missing(
    typed: Typed, tmp_path: Path
) -> None:
    small = a_federation(tmp_path)
    answer = typed("status", "--workspace", small.coordinator.root / "rounds")
    assert answer.out.count("missing") == 2
    assert too_wide(answer.out) == []
    seats = typed("status", "--workspace", small.coordinator.root, "--json").json["seats"]
    assert seats == [
        {"site": "hospital-a", "has_sent": False},
        {"site": "hospital-b", "has_sent": False},
    ]


def test_status_of_a_site_says_what_comes_next(typed: Typed, tmp_path: Path) -> None:
    small = a_federation(tmp_path)
    assert "brainfed preprocess" in typed("status", "--workspace", tmp_path / "hospital-a").out
    assert small.known.digest[:16] in typed("status", "--workspace", tmp_path / "hospital-a").out


def test_aggregate_prints_who_took_part_and_closes_the_round_once(
    typed: Typed, tmp_path: Path
) -> None:
    small = a_waiting_federation(tmp_path)
    words = ("aggregate", "--workspace", small.coordinator.root)
    answer = typed(*words)
    assert answer.code == 0
    assert "Round 1 is closed" in answer.out
    assert answer.out.count("included") == 2
    assert too_wide(answer.out) == []
    again = typed(*words, "--json")
    assert again.code == 7
    assert "round 1 is closed" in again.json["error"]["found"]


def test_aggregate_prints_json(typed: Typed, tmp_path: Path) -> None:
    small = a_waiting_federation(tmp_path)
    answer = typed("aggregate", "--workspace", small.coordinator.root, "--json")
    assert sum(part["share"] for part in answer.json["parts"]) == 1
    assert Path(answer.json["record"]).is_file()
