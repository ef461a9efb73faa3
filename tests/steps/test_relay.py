"""A relay by the files of a federation: one site a round, in its turn, weights passed on as is."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainfed.errors import ConflictError, QuorumError, WrongRoundError
from brainfed.formats import document, rounds, signature, weights
from brainfed.formats.record import InputStatus, Reason, Record
from brainfed.formats.roster import Role
from brainfed.formats.workspace import Workspace
from brainfed.plan import Plan
from brainfed.steps.admit import admit, revoke
from brainfed.steps.aggregate import Aggregated, aggregate
from brainfed.steps.audit import Verdict, audit
from brainfed.steps.exchange import export
from brainfed.steps.status import status
from brainfed.steps.taking_part import Wishes
from tests.builders import a_plan, write_dataset
from tests.federation import (
    TODAY,
    Small,
    a_federation,
    a_workspace,
    carry,
    enrolment_of,
    say_yes,
    take,
    train,
)

SITES = ("hospital-a", "hospital-b", "hospital-c")
ORDER = ("hospital-c", "hospital-b", "hospital-a")
"""By the seed 2018."""


def a_relay(method: str, **changes: Any) -> Plan:
    training = {"patience": 2, "schedule": "constant"} if method == "iil" else {}
    return a_plan(method=method, seed=2018, rounds=9, training=training, **changes)


def close(small: Small, **wishes: Any) -> Aggregated:
    wishes.setdefault("without", {})
    return aggregate(small.coordinator, today=TODAY, wishes=Wishes(**wishes))


def bring_back(small: Small) -> None:
    number = rounds.newest_round(small.coordinator)
    for site in small.sites.values():
        assert not carry(small.coordinator, site, small.medium(f"back-{number}")).refused


def send(small: Small, name: str, **changes: Any) -> Path:
    """A site's update of the open round, brought to the coordinator."""
    path = train(small.sites[name], **changes)
    taken = carry(small.sites[name], small.coordinator, small.medium(f"{path.name[:30]}-{name}"))
    assert not taken.refused, taken.refused
    return path


def turn(small: Small, name: str) -> Aggregated:
    """One whole turn of a site."""
    send(small, name)
    done = close(small)
    bring_back(small)
    return done


def record_of(done: Aggregated) -> Record:
    assert done.record is not None
    return document.read(done.record, Record)


def values(path: Path | None, small: Small) -> bytes:
    assert path is not None
    tensors = weights.read_tensors(path, small.known.table)
    return b"".join(tensors[name].tobytes() for name in sorted(tensors))


def refused(small: Small, name: str) -> Any:
    """Why an update of a site doesn't pass; it is taken away again."""
    path = train(small.sites[name])
    stick = small.medium(f"refused-{path.name[:30]}-{name}")
    export(small.sites[name], stick)
    (file,) = take(small.coordinator, stick).refused
    return file.error


def todo(place: Workspace) -> str:
    return " | ".join(status(place).todo)


def rederived(small: Small) -> bool:
    done = audit([small.coordinator.root])
    assert done.verdict is Verdict.REDERIVED, done.findings
    return True


@pytest.mark.parametrize(("method", "n_turns"), [("ciil", 7), ("iil", 3)])
def test_the_weights_go_from_site_to_site_bit_for_bit(
    method: str, n_turns: int, tmp_path: Path
) -> None:
    small = a_federation(tmp_path, sites=SITES, plan=a_relay(method))
    for number in range(1, n_turns + 1):
        name = ORDER[(number - 1) % 3]
        sent = send(small, name)
        done = close(small)
        assert values(done.path, small) == values(sent, small)
        statuses = {entry.sender: entry.status for entry in record_of(done).inputs}
        assert statuses == dict.fromkeys(SITES, InputStatus.ABSENT) | {name: InputStatus.INCLUDED}
        is_last = method == "iil" and number == 3
        assert done.next_site == (None if is_last else ORDER[number % 3])
        bring_back(small)
    assert rederived(small)


def test_out_of_turn_is_refused_with_the_name_of_whose_turn_it_is(tmp_path: Path) -> None:
    small = a_federation(tmp_path, sites=SITES, plan=a_relay("ciil"))
    for name in ("hospital-a", "hospital-b"):
        error = refused(small, name)
        assert isinstance(error, QuorumError)
        assert error.exit_code == 7
        assert f"turn of hospital-c, not of {name}" in error.message
    send(small, "hospital-c")
    assert close(small).next_site == "hospital-b"
    bring_back(small)
    assert isinstance(refused(small, "hospital-c"), QuorumError)


def test_a_refused_site_does_not_stop_the_one_whose_turn_it_is(tmp_path: Path) -> None:
    small = a_federation(tmp_path, sites=SITES, plan=a_relay("ciil"))
    stick = small.medium("all")
    for site in small.sites.values():
        train(site)
        export(site, stick)
    taken = take(small.coordinator, stick)
    assert len(taken.refused) == 2
    assert len(rounds.update_paths(small.coordinator, 1)) == 1


def test_after_the_last_turn_of_iil_nobody_has_one(tmp_path: Path) -> None:
    small = a_federation(tmp_path, sites=SITES, plan=a_relay("iil"))
    for name in ORDER:
        turn(small, name)
    error = refused(small, "hospital-c")
    assert isinstance(error, QuorumError)
    assert "All sites have had their turn" in error.message
    with pytest.raises(QuorumError, match="All sites have had their turn"):
        close(small)
    assert "All sites have had their turn" in todo(small.coordinator)
    assert "brainfed finish" in todo(small.coordinator)
    site = small.sites["hospital-a"]
    write_dataset(site.data, small.known.first_plan)
    assert "All sites have had their turn" in todo(site)
    assert rederived(small)


def test_a_site_is_skipped_for_a_reason_and_the_weights_stay(tmp_path: Path) -> None:
    small = a_federation(tmp_path, sites=SITES, plan=a_relay("ciil"))
    turn(small, "hospital-c")
    before = rounds.global_path(small.coordinator, 1)
    done = close(small, without={"hospital-b": Reason.NOT_REACHABLE})
    assert values(done.path, small) == values(before, small)
    assert done.next_site == "hospital-a"
    assert all(entry.status is not InputStatus.INCLUDED for entry in record_of(done).inputs)
    bring_back(small)
    turn(small, "hospital-a")
    assert rederived(small)


def test_only_the_site_whose_turn_it_is_can_be_skipped(tmp_path: Path) -> None:
    small = a_federation(tmp_path, sites=SITES, plan=a_relay("ciil"))
    with pytest.raises(QuorumError, match="not the turn of hospital-a"):
        close(small, without={"hospital-a": Reason.LATE})
    with pytest.raises(QuorumError, match="Too few updates"):
        close(small)


def test_who_was_skipped_comes_late_and_counts_if_the_turn_is_closed_again(tmp_path: Path) -> None:
    small = a_federation(tmp_path, sites=SITES, plan=a_relay("ciil"))
    sent = train(small.sites["hospital-c"])
    export(small.sites["hospital-c"], small.medium("late"))
    close(small, without={"hospital-c": Reason.LATE})
    (file,) = (f for f in take(small.coordinator, small.medium("late")).files if "update" in f.what)
    assert "late" in file.what
    assert "brainfed aggregate --again" in file.what
    done = close(small, again=True, taken_in=("hospital-c",))
    assert values(done.path, small) == values(sent, small)
    assert record_of(done).edition == 2
    bring_back(small)
    turn(small, "hospital-b")
    assert rederived(small)


def test_where_the_next_site_leaves_the_one_after_it_has_the_turn(tmp_path: Path) -> None:
    small = a_federation(tmp_path, sites=SITES, plan=a_relay("ciil"))
    assert turn(small, "hospital-c").next_site == "hospital-b"
    revoke(small.coordinator, "hospital-b")
    small.sites.pop("hospital-b")
    bring_back(small)
    assert "Bring outbox/ to hospital-a" in todo(small.coordinator)
    assert turn(small, "hospital-a").next_site == "hospital-c"
    turn(small, "hospital-c")
    assert rederived(small)


def test_a_joiner_takes_its_place_in_the_order(tmp_path: Path) -> None:
    small = a_federation(tmp_path, sites=SITES[:2], plan=a_relay("ciil"))
    assert turn(small, "hospital-b").next_site == "hospital-a"
    new = a_workspace(small.root / "hospital-c", Role.SITE, "hospital-c")
    admit(small.coordinator, [enrolment_of(new)], confirm=say_yes)
    small.sites["hospital-c"] = new
    bring_back(small)
    assert turn(small, "hospital-a").next_site == "hospital-c"
    assert turn(small, "hospital-c").next_site == "hospital-b"
    assert rederived(small)


def test_status_says_whose_turn_it_is(tmp_path: Path) -> None:
    small = a_federation(tmp_path, sites=SITES, plan=a_relay("ciil"))
    for site in small.sites.values():
        write_dataset(site.data, small.known.first_plan)
    assert "It is the turn of hospital-c, in round 1" in todo(small.sites["hospital-a"])
    assert "train-round" not in todo(small.sites["hospital-a"])
    assert "Train round 1: brainfed train-round" in todo(small.sites["hospital-c"])
    assert [seat.site for seat in status(small.coordinator).seats] == ["hospital-c"]
    assert "wait for the update of hospital-c;" in todo(small.coordinator)
    send(small, "hospital-c")
    assert todo(small.coordinator).startswith(
        "Close round 1, hospital-c's turn: brainfed aggregate"
    )
    close(small)
    bring_back(small)
    assert "It is the turn of hospital-b, in round 2" in todo(small.sites["hospital-c"])


def test_without_the_record_a_site_is_told_to_import_it(tmp_path: Path) -> None:
    small = a_federation(tmp_path, sites=SITES, plan=a_relay("ciil"))
    turn(small, "hospital-c")
    site = small.sites["hospital-b"]
    write_dataset(site.data, small.known.first_plan)
    for path in rounds.records(site, 1):
        signature.signature_path(path).unlink()
    assert "The record of round 1 is missing" in todo(site)


# --- updates that are late, early, or twice, where all sites work at once -------------------------


def test_of_a_late_update_only_the_newest_closed_round_is_taken(tmp_path: Path) -> None:
    small = a_federation(tmp_path, sites=SITES, plan=a_plan(rounds=5))
    late = small.sites["hospital-c"]
    train(late)
    export(late, small.medium("late"))
    for number in (1, 2):
        for name in SITES[:2]:
            send(small, name)
        close(small)
        for name in SITES[:2]:
            carry(small.coordinator, small.sites[name], small.medium(f"b{number}"))
    (file,) = take(small.coordinator, small.medium("late")).refused
    assert isinstance(file.error, WrongRoundError)
    assert file.error.message == "The update is for a round that is closed"


def test_a_second_update_from_the_same_weights_is_refused_whatever_its_edition(
    tmp_path: Path,
) -> None:
    small = a_federation(tmp_path)
    send(small, "hospital-a")
    stick = small.medium("second")
    train(small.sites["hospital-a"], edition=2, n_cases=21)
    export(small.sites["hospital-a"], stick)
    errors = [file.error for file in take(small.coordinator, stick).refused]
    assert [type(error) for error in errors] == [ConflictError]
    assert len(rounds.update_paths(small.coordinator, 1)) == 1


def test_what_was_trained_from_superseded_weights_is_to_be_trained_again(tmp_path: Path) -> None:
    small = a_federation(tmp_path, sites=SITES, plan=a_plan(rounds=5))
    for site in small.sites.values():
        write_dataset(site.data, small.known.first_plan)
    for name in SITES:
        send(small, name)
    close(small)
    bring_back(small)
    first = send(small, "hospital-a")
    close(small, again=True, without={"hospital-b": Reason.ETHICS})
    seats = {seat.site: seat.has_sent for seat in status(small.coordinator).seats}
    assert seats == dict.fromkeys(SITES, False)
    for site in small.sites.values():
        assert not carry(small.coordinator, site, small.medium("second edition")).refused
    assert "Train round 2" in todo(small.sites["hospital-a"])
    second = send(small, "hospital-a", edition=2)
    assert second != first
    assert {seat.site for seat in status(small.coordinator).seats if seat.has_sent} == {
        "hospital-a"
    }
    assert len(rounds.update_paths(small.coordinator, 2)) == 2
    assert "Train" not in todo(small.sites["hospital-a"])


def test_weights_that_were_passed_on_are_those_of_the_site_though_it_counts_many(
    tmp_path: Path,
) -> None:
    """One product and one quotient by the same whole number give each value back."""
    small = a_federation(tmp_path, sites=SITES, plan=a_relay("ciil"))
    sent = send(small, "hospital-c", n_patients=2**29 // 3 - 7)
    done = close(small)
    assert np.frombuffer(values(done.path, small), np.float32).size > 100
    assert values(done.path, small) == values(sent, small)
