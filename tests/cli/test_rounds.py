from pathlib import Path
from typing import get_args

import pytest

from brainfed.cli import options
from brainfed.formats import rounds, weights
from brainfed.formats.record import Reason
from brainfed.formats.roster import Role
from tests.cli.typed import Typed, too_wide
from tests.federation import (
    a_federation,
    a_waiting_federation,
    a_workspace,
    an_update_manifest,
    carry,
)


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


def test_a_dry_run_shows_the_table_and_the_distances_and_writes_nothing(
    typed: Typed, tmp_path: Path
) -> None:
    place = a_waiting_federation(tmp_path, sites=("a1", "b2", "c3")).coordinator
    answer = typed("aggregate", "--dry-run", "--workspace", place.root)
    assert answer.code == 0
    assert "nothing was written" in answer.out
    assert "Euclidean distances between the updates" in answer.out
    assert too_wide(answer.out) == []
    assert not [*place.rounds.rglob("*.record.json")]


def test_who_is_left_out_is_shown_with_the_reason_and_can_be_taken_in_again(
    typed: Typed, tmp_path: Path
) -> None:
    place = a_waiting_federation(tmp_path, sites=("a1", "b2", "c3")).coordinator
    words = ("aggregate", "--workspace", place.root)
    answer = typed(*words, "--without", "b2", "--reason", "ethics", "--words", "the board said no")
    assert "excluded: ethics" in answer.out
    assert "the board said no" not in answer.out
    again = typed(*words, "--again", "--with", "b2")
    assert "Round 1, edition 2 is closed" in again.out
    assert again.out.count("included") == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--without", "hospital-a"), "needs its reason"),
        (("--reason", "ethics"), "needs its reason"),
        (("--without", "hospital-a", "--reason", "mood"), "no reason for leaving a site out"),
        (("--with", "hospital-a"), "needs --again"),
        (("--without", "hospital-z", "--reason", "late"), "no active site of that name"),
    ],
)
def test_a_wish_typed_wrong_says_how_it_is_typed_right(
    words: tuple[str, ...], message: str, typed: Typed, tmp_path: Path
) -> None:
    place = a_waiting_federation(tmp_path).coordinator
    answer = typed("aggregate", "--workspace", place.root, *words)
    assert answer.code == 2
    assert message in " ".join(answer.err.split())
    assert not [*place.rounds.rglob("*.record.json")]


def test_flags_are_explained_below_the_table(typed: Typed, tmp_path: Path) -> None:
    small = a_federation(tmp_path)
    for name, n in (("hospital-a", 12), ("hospital-b", 12)):
        site = small.sites[name]
        known = small.known
        newest = rounds.newest_global(site, known)
        manifest = an_update_manifest(site, n_patients=n)
        path = site.round_folder(1) / known.weights_name(manifest)
        path.parent.mkdir(exist_ok=True)
        weights.write(path, manifest, weights.read_tensors(newest.path, known.table))
        carry(site, small.coordinator, small.medium(name))
    answer = typed("aggregate", "--workspace", small.coordinator.root)
    assert answer.out.count("unchanged") == 3  # of two sites, and what it means
    assert "nothing was trained" in " ".join(answer.out.split())


def test_the_reasons_that_can_be_typed_are_those_of_the_record_but_one() -> None:
    assert {*get_args(options.ReasonChoice)} == {*map(str, Reason)} - {"revoked"}
