"""What a site's withdrawal means: which weights carry it, what helps, and what it costs."""

from pathlib import Path

import pytest

from brainfed.core.schedule import next_site
from brainfed.errors import NotReadyError, UsageError, WrongRoleError
from brainfed.formats import rounds, weights
from brainfed.formats.record import Reason
from brainfed.steps.admit import revoke
from brainfed.steps.aggregate import aggregate
from brainfed.steps.finish import finish
from brainfed.steps.taking_part import Wishes
from brainfed.steps.withdraw import Withdrawal, withdraw
from tests.builders import a_plan
from tests.federation import TODAY, Small, a_federation, carry, snapshot, train

A, B, C = SITES = ("hospital-a", "hospital-b", "hospital-c")


def a_history(root: Path, *taking_part: str, quorum: int = 2, **plan: object) -> Small:
    """A federation whose rounds were closed with these sites, as "ab", "abc", ..."""
    small = a_federation(
        root, SITES, plan=a_plan(rounds=9, participation={"quorum_sites": quorum}, **plan)
    )
    for number, letters in enumerate(taking_part, start=1):
        send(small, number, letters)
        aggregate(small.coordinator, today=TODAY)
        for name in SITES:
            carry(small.coordinator, small.sites[name], small.medium(f"r{number}-back"))
    return small


def send(small: Small, number: int, letters: str) -> None:
    for letter in letters:
        site = small.sites[f"hospital-{letter}"]
        train(site)
        carry(site, small.coordinator, small.medium(f"r{number}-{letter}"))


def names(done: Withdrawal) -> list[str]:
    """Of the files, without the federation."""
    return [path.name.partition(".")[2] for path in done.files]


def test_the_last_free_weights_are_those_before_its_first_round(tmp_path: Path) -> None:
    small = a_history(tmp_path, "ab", "abc", "ab", "ab")
    done = withdraw(small.coordinator, C, 2)
    assert (done.first, done.included, done.carrying) == (2, (2,), (2, 3, 4))
    assert done.last_free == 1
    assert not done.begins_with_given
    # Rounds 3 and 4 hold no update of it, and carry it all the same.
    assert done.train_again == (2, 3, 4)
    assert not done.average_again


def test_from_a_later_round_on_is_too_late_and_nothing_is_called_free(tmp_path: Path) -> None:
    small = a_history(tmp_path, "ab", "abc", "abc")
    done = withdraw(small.coordinator, C, 3)
    assert (done.first, done.last_free) == (2, 1)
    assert done.average_again  # its update leaves round 3, and round 2 stays in it
    assert not done.is_free_then
    assert done.carrying == (2, 3)


def test_a_round_before_its_first_one_needs_no_training_again(tmp_path: Path) -> None:
    small = a_history(tmp_path, "ab", "ab", "abc", "abc")
    done = withdraw(small.coordinator, C, 1)
    assert (done.redo_from, done.train_again, done.last_free) == (3, (3, 4), 2)


def test_a_site_that_never_took_part_is_in_nothing(tmp_path: Path) -> None:
    small = a_history(tmp_path, "ab", "ab")
    done = withdraw(small.coordinator, C, 1)
    assert (done.included, done.carrying, done.first) == ((), (), None)
    assert (done.last_free, done.redo_from) == (2, None)
    assert (done.train_again, done.files, done.passings) == ((), (), ())


def test_the_newest_round_averaged_again_is_free_where_it_was_its_first(tmp_path: Path) -> None:
    small = a_history(tmp_path, "ab", "abc")
    before = withdraw(small.coordinator, C, 2)
    assert before.average_again
    assert before.is_free_then
    wishes = Wishes(without={C: Reason.WITHDREW}, again=True)
    aggregate(small.coordinator, today=TODAY, wishes=wishes)
    after = withdraw(small.coordinator, C, 2)
    assert (after.included, after.carrying, after.last_free) == ((), (), 2)
    # The superseded edition still lies here, and carries it.
    assert names(after) == [f"r0002.{C}.update.safetensors", "r0002.uni-lead.global.safetensors"]


def test_averaged_again_it_is_not_called_free_where_the_round_before_carries_it(
    tmp_path: Path,
) -> None:
    small = a_history(tmp_path, "abc", "abc")
    assert not withdraw(small.coordinator, C, 2).is_free_then
    wishes = Wishes(without={C: Reason.WITHDREW}, again=True)
    aggregate(small.coordinator, today=TODAY, wishes=wishes)
    after = withdraw(small.coordinator, C, 1)
    assert (after.included, after.carrying, after.last_free) == ((1,), (1, 2), 0)
    assert after.train_again == (1, 2)


def test_all_files_that_carry_it_are_named(tmp_path: Path) -> None:
    small = a_history(tmp_path, "ab", "abc", "ab")
    send(small, 4, "a")
    assert names(withdraw(small.coordinator, C, 1)) == [
        f"r0002.{C}.update.safetensors",
        "r0002.uni-lead.global.safetensors",
        f"r0003.{A}.update.safetensors",
        f"r0003.{B}.update.safetensors",
        "r0003.uni-lead.global.safetensors",
        f"r0004.{A}.update.safetensors",
    ]


def test_the_state_of_a_rule_goes_with_its_global_weights(tmp_path: Path) -> None:
    small = a_history(tmp_path, "ab", "abc", aggregation={"rule": "fedavgm"})
    named = names(withdraw(small.coordinator, C, 1))
    assert "r0002.uni-lead.state.safetensors" in named
    assert "r0001.uni-lead.state.safetensors" not in named


def test_an_update_of_the_open_round_is_named_and_rests_on_the_newest_weights(
    tmp_path: Path,
) -> None:
    small = a_history(tmp_path, "ab", "abc")
    send(small, 3, "ac")
    done = withdraw(small.coordinator, C, 2)
    assert done.open_updates == (A, C)
    brought = [(p.sender, p.receivers, p.n_times) for p in done.passings]
    assert brought == [("uni-lead", (A, B), 1), (A, ("uni-lead",), 1)]
    assert sum(p.n for p in done.passings) == 3


def test_training_again_costs_hand_overs_each_round(tmp_path: Path) -> None:
    small = a_history(tmp_path, "abc", "abc", "abc")
    done = withdraw(small.coordinator, C, 1)
    assert done.train_again == (1, 2, 3)
    # Two enrolments and two starts; three rounds of two updates and two global weights.
    assert sum(p.n for p in done.passings) == 2 + 2 + 3 * (2 + 2)
    assert all(C not in (p.sender, *p.receivers) for p in done.passings)


def test_too_few_updates_left_can_not_be_averaged_again(tmp_path: Path) -> None:
    small = a_history(tmp_path, "ab", "ac")
    done = withdraw(small.coordinator, C, 1)
    assert not done.average_again
    assert done.train_again == (2,)
    assert not done.is_below_quorum
    small = a_history(tmp_path / "three", "abc", quorum=3)
    assert withdraw(small.coordinator, C, 1).is_below_quorum


def test_after_the_final_no_round_is_averaged_again(tmp_path: Path) -> None:
    small = a_history(tmp_path, "ab", "abc")
    finish(small.coordinator, round_number=2, today=TODAY)
    done = withdraw(small.coordinator, C, 2)
    assert not done.average_again
    assert (done.final_round, done.train_again) == (2, (2,))


def test_it_only_reads(tmp_path: Path) -> None:
    small = a_history(tmp_path, "abc")
    before = snapshot(small.coordinator)
    lines = small.coordinator.ledger_path.read_bytes()
    withdraw(small.coordinator, C, 1)
    assert snapshot(small.coordinator) == before
    assert small.coordinator.ledger_path.read_bytes() == lines


def test_a_site_that_was_revoked_can_still_be_asked_for(tmp_path: Path) -> None:
    small = a_history(tmp_path, "abc")
    revoke(small.coordinator, C)
    done = withdraw(small.coordinator, C, 1)
    assert not done.is_active
    assert done.included == (1,)


def test_weights_that_cannot_be_traced_count_as_carrying_it(tmp_path: Path) -> None:
    small = a_history(tmp_path, "ab", "ab")
    first = rounds.global_path(small.coordinator, 0)
    assert first is not None
    first.unlink()
    assert withdraw(small.coordinator, C, 1).carrying == (1, 2)


def test_without_a_record_nothing_is_said(tmp_path: Path) -> None:
    small = a_history(tmp_path, "ab", "ab")
    for path in small.coordinator.round_folder(1).glob("*.record.json*"):
        path.unlink()
    with pytest.raises(NotReadyError, match="record of round 1"):
        withdraw(small.coordinator, C, 1)


@pytest.mark.parametrize(("site", "number"), [("hospital-x", 1), ("uni-lead", 1), (C, 0), (C, 4)])
def test_a_site_or_round_that_is_not_there_is_a_usage_error(
    tmp_path: Path, site: str, number: int
) -> None:
    small = a_history(tmp_path, "ab", "ab")
    with pytest.raises(UsageError):
        withdraw(small.coordinator, site, number)


def test_only_the_coordinator_can_say_it(tmp_path: Path) -> None:
    small = a_history(tmp_path, "ab")
    with pytest.raises(WrongRoleError):
        withdraw(small.sites[A], C, 1)
    assert weights.read_manifest(rounds.update_paths(small.coordinator, 1)[0]).sender == A


def test_in_a_relay_one_site_a_round_brings_an_update(tmp_path: Path) -> None:
    plan = a_plan(method="ciil", rounds=9, participation={"quorum_sites": 1})
    small = a_federation(tmp_path, SITES, plan=plan)
    first = next_site(plan, SITES, None)
    second = next_site(plan, SITES, first)
    assert first is not None
    assert second is not None
    for number, turn in enumerate((first, second), start=1):
        send(small, number, turn[-1])
        aggregate(small.coordinator, today=TODAY)
        for site in small.sites.values():
            carry(small.coordinator, site, small.medium(f"r{number}-back"))
    done = withdraw(small.coordinator, first, 1)
    assert (done.included, done.carrying, done.train_again) == ((1,), (1, 2), (1, 2))
    updates = [p for p in done.passings if p.what.startswith("its update")]
    assert [p.n_times for p in updates] == [1, 1]
    assert first not in {p.sender for p in updates}
