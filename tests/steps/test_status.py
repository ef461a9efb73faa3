from pathlib import Path

import pytest

from brainfed.steps.admit import admit
from brainfed.steps.aggregate import aggregate
from brainfed.steps.exchange import export
from brainfed.steps.status import status
from tests.builders import a_plan, write_dataset
from tests.federation import (
    TODAY,
    Small,
    a_federation,
    an_unstarted_federation,
    carry,
    close_round,
    enrolment_of,
    say_yes,
    snapshot,
    train,
)
from tests.scored import rows_of, score, with_a_split


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return a_federation(tmp_path)


def todo(place) -> str:
    before = snapshot(place)
    text = " | ".join(status(place).todo)
    assert snapshot(place) == before, "looking changed something"
    return text


def test_before_the_start_each_side_is_told_what_to_do(tmp_path: Path) -> None:
    small = an_unstarted_federation(tmp_path)
    assert "brainfed admit" in todo(small.coordinator)
    assert "enrolment" in todo(small.sites["hospital-a"])
    admit(small.coordinator, [enrolment_of(s) for s in small.sites.values()], confirm=say_yes)
    assert "brainfed start" in todo(small.coordinator)


def test_the_coordinator_sees_whose_update_is_missing(small: Small) -> None:
    train(small.sites["hospital-a"])
    carry(small.sites["hospital-a"], small.coordinator, small.medium())
    found = status(small.coordinator)
    assert {seat.site: seat.has_sent for seat in found.seats} == {
        "hospital-a": True,
        "hospital-b": False,
    }
    assert "hospital-b" in " ".join(found.todo)
    assert "aggregate" not in " ".join(found.todo)


def test_with_all_updates_the_round_is_to_be_closed(small: Small) -> None:
    for site in small.sites.values():
        train(site)
        carry(site, small.coordinator, small.medium(site.name))
    assert status(small.coordinator).todo[0].endswith("brainfed aggregate")
    aggregate(small.coordinator, today=TODAY)
    found = status(small.coordinator)
    assert found.closed_round == 1
    assert not any(seat.has_sent for seat in found.seats)
    assert "export" in found.todo[0]


def test_with_a_quorum_the_coordinator_may_go_on(tmp_path: Path) -> None:
    plan = a_plan(participation={"quorum_sites": 1, "floor": 1})
    small = a_federation(tmp_path, plan=plan)
    train(small.sites["hospital-a"])
    carry(small.sites["hospital-a"], small.coordinator, small.medium())
    assert "go on without hospital-b: brainfed aggregate" in todo(small.coordinator)


def test_a_site_is_led_through_its_round(small: Small) -> None:
    site = small.sites["hospital-a"]
    assert "preprocess" in todo(site)
    write_dataset(site.data)
    split = site.data / "split.json"
    content = split.read_bytes()
    split.unlink()
    assert "brainfed split" in todo(site)
    split.write_bytes(content)
    assert "Train round 1" in todo(site)
    train(site)
    assert "export" in todo(site)
    export(site, small.medium())
    assert "Bring" in todo(site)
    assert "uni-lead" in todo(site)


def test_a_site_without_weights_is_told_to_import_them(small: Small) -> None:
    site = small.sites["hospital-a"]
    for path in site.round_folder(0).iterdir():
        path.unlink()
    assert "Import the global weights of round 0 from uni-lead" in todo(site)


def test_after_the_last_round_nobody_waits_for_another(small: Small) -> None:
    for _ in range(2):
        close_round(small)
    found = status(small.coordinator)
    assert (found.closed_round, found.rounds_planned) == (2, 2)
    assert "All 2 rounds" in found.todo[0]
    assert not any("wait" in todo for todo in found.todo)
    assert "recovery" in found.todo[-1]
    small.coordinator.recovery_path.unlink()  # somebody has moved it to the safe
    assert "brainfed finish" in status(small.coordinator).todo[1]
    assert len(status(small.coordinator).todo) == 2
    write_dataset(small.sites["hospital-a"].data)
    assert "All rounds of the plan are closed" in todo(small.sites["hospital-a"])


def test_at_the_end_scores_are_made_signed_and_brought_one_after_the_other(small: Small) -> None:
    for _ in range(2):
        close_round(small)
    site = with_a_split(small.sites["hospital-a"])
    (site.data / "cases.json").write_text("{}")  # status asks only whether it is there
    assert "Score the newest weights: brainfed evaluate" in todo(site)
    path = score(site, rows_of(range(9)), number=2)
    assert path is not None
    assert "evaluate" not in todo(site)
    assert f"Sign and copy the scores ({path.name})" in todo(site)
    export(site, small.medium())
    assert f"Bring {path.name} and its .sig to uni-lead." in todo(site)
    assert "Sign" not in todo(site)
    assert "brainfed report" in todo(site)
