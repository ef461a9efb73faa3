"""Costs are those that the paper counts."""

import pytest

from brainfed.core.budget import Budget, budget_of, courier_days, for_plan, hand_overs_of
from brainfed.core.contenders import TRAINED_AS, Contender, Run, Training
from brainfed.plan import Plan
from tests.builders import a_plan

STEPS = {"a": 10, "b": 20, "c": 30}
FILE = 31_400_000


def the_papers_plan(**changes: object) -> Plan:
    return a_plan(rounds=20, training={"epochs_per_round": 1}, **changes)


def cost(contender: Contender, epochs: int = 1) -> Budget:
    run = Run(TRAINED_AS[contender], 0, epochs, 0.001)
    return budget_of(run, the_papers_plan(), contender, steps_per_epoch=STEPS, weight_bytes=FILE)


def test_ten_sites_and_twenty_rounds_are_four_hundred_hand_overs() -> None:
    found = for_plan(the_papers_plan(participation={"quorum_sites": 10}), 10, FILE)
    assert found.hand_overs == 400
    assert found.bytes_carried == 400 * FILE
    assert (found.rounds, found.passes) == (20, 20)


def test_fl_is_one_down_and_one_up_a_round_at_every_site() -> None:
    assert cost(Contender.FL).hand_overs == 2 * 3 * 20
    assert cost(Contender.FL, epochs=4).hand_overs == 2 * 3 * 5
    assert cost(Contender.FL, epochs=4).passes == cost(Contender.FL).passes == 20


def test_ciil_is_the_same_a_cycle_and_one_more_down_to_be_scored() -> None:
    found = cost(Contender.CIIL)
    assert (found.rounds, found.hand_overs) == (60, cost(Contender.FL).hand_overs)
    assert found.scoring_hand_overs == 3 * 20


def test_iil_is_one_up_and_two_down_in_all() -> None:
    assert cost(Contender.IIL).hand_overs == 3 * 3


def test_what_is_done_once_is_handed_over_once_each_way() -> None:
    assert cost(Contender.AVERAGE_ONCE).hand_overs == cost(Contender.ENSEMBLE).hand_overs == 6
    assert cost(Contender.AVERAGE_ONCE).bytes_carried == 6 * FILE
    assert cost(Contender.ENSEMBLE).bytes_carried == (3 + 9) * FILE


def test_alone_nothing_is_carried_and_pooled_carries_scans_not_weights() -> None:
    assert (cost(Contender.LOCAL).hand_overs, cost(Contender.LOCAL).bytes_carried) == (0, 0)
    assert (cost(Contender.POOLED).hand_overs, cost(Contender.POOLED).bytes_carried) == (3, 0)


@pytest.mark.parametrize(
    ("contender", "steps"),
    [
        (Contender.FL, 30 * 20),
        (Contender.LOCAL, 30 * 20),
        (Contender.CIIL, 60 * 20),
        (Contender.IIL, 60 * 20),
        (Contender.POOLED, 60 * 20),
    ],
)
def test_steps_at_the_same_time_count_once(contender: Contender, steps: int) -> None:
    assert cost(contender).sequential_steps == steps


def test_hand_overs_grow_with_the_rounds_that_have_closed() -> None:
    assert [hand_overs_of(Training.FL, 4, n) for n in (0, 1, 2)] == [0, 8, 16]
    assert [hand_overs_of(Training.CIIL, 4, n) for n in (0, 4, 8)] == [0, 8, 16]
    assert [hand_overs_of(Training.IIL, 4, n) for n in (0, 4)] == [0, 12]


def test_couriers_of_a_round_travel_at_once_and_of_a_relay_one_after_the_other() -> None:
    assert courier_days(the_papers_plan(), 2.0) == 82.0
    relay = the_papers_plan(method="ciil").model_copy(update={"rounds": 60})
    assert courier_days(relay, 2.0) == 242.0
