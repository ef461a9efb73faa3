"""What each way to learn means as a plan of its own."""

import pytest

from brainfed.core.contenders import Run, Training, passes_of, plan_of
from brainfed.core.unet import initial_weights
from brainfed.errors import PlanError
from brainfed.plan import Method, OptimiserState, Plan, Rule, Schedule
from tests.builders import a_plan


def a_simulated_plan(**training: object) -> Plan:
    """Twelve passes, by a schedule and a rule that not every method can have."""
    return a_plan(
        rounds=6,
        training={"epochs_per_round": 2, "schedule": "cosine", "warm_up": 0.1} | training,
        aggregation={"rule": "fedavgm"},
        participation={"quorum_sites": 2, "quorum_patients": 50, "floor": 5},
    )


def of(training: Training, epochs: int = 1, n_sites: int = 4) -> Plan:
    return plan_of(Run(training, 1, epochs, 0.02), a_simulated_plan(), n_sites)


@pytest.mark.parametrize(("epochs", "rounds"), [(1, 12), (2, 6), (4, 3), (12, 1)])
def test_fl_has_as_many_passes_whatever_the_epochs_of_a_round(epochs: int, rounds: int) -> None:
    plan = of(Training.FL, epochs)
    assert (plan.rounds, plan.training.epochs_per_round) == (rounds, epochs)
    assert plan.method is Method.FL
    assert plan.aggregation.rule is Rule.FEDAVGM
    assert plan.participation.quorum_sites == 4


def test_ciil_visits_every_site_for_an_epoch_in_as_many_cycles_as_passes() -> None:
    plan = of(Training.CIIL)
    assert (plan.method, plan.rounds, plan.training.epochs_per_round) == (Method.CIIL, 48, 1)
    assert plan.aggregation.rule is Rule.FEDAVG


def test_iil_goes_round_once_with_the_papers_patience_and_a_constant_rate() -> None:
    plan = of(Training.IIL)
    assert (plan.method, plan.rounds, plan.training.epochs_per_round) == (Method.IIL, 4, 12)
    assert plan.training.patience == 8
    assert (plan.training.schedule, plan.training.warm_up) == (Schedule.CONSTANT, 0.0)


def test_pooled_is_one_training_scored_after_every_epoch() -> None:
    plan = of(Training.POOLED)
    assert (plan.rounds, plan.training.epochs_per_round) == (12, 1)
    assert plan.training.optimiser_state is OptimiserState.KEEP
    assert plan.participation.quorum_sites == 1


def test_once_trains_each_site_alone_for_all_passes() -> None:
    plan = of(Training.ONCE)
    assert (plan.rounds, plan.training.epochs_per_round) == (1, 12)
    assert plan.training.optimiser_state is OptimiserState.RESET
    assert plan.aggregation.rule is Rule.FEDAVG


def test_all_ways_begin_with_the_same_weights_and_repeats_with_others() -> None:
    begun = {
        training: b"".join(array.tobytes() for array in initial_weights(of(training)).values())
        for training in Training
    }
    assert len(set(begun.values())) == 1
    other = plan_of(Run(Training.FL, 2, 1, 0.02), a_simulated_plan(), 4)
    assert other.seed == of(Training.FL).seed + 1


def test_the_rate_is_the_runs_and_floors_and_quorums_of_patients_are_gone() -> None:
    plan = of(Training.FL)
    assert plan.training.rate == 0.02
    assert (plan.participation.quorum_patients, plan.participation.floor) == (0, 1)


def test_passes_that_rounds_do_not_divide_are_refused() -> None:
    with pytest.raises(PlanError, match="don't divide") as caught:
        of(Training.FL, 5)
    assert "12" in str(caught.value.expected)


def test_a_plan_that_counts_steps_has_no_passes() -> None:
    plan = a_plan(training={"epochs_per_round": 0, "steps_per_round": 3})
    with pytest.raises(PlanError, match="passes over the patients"):
        passes_of(plan)


def test_runs_have_names_of_their_own() -> None:
    runs = [
        Run(training, repeat, epochs, rate)
        for training in Training
        for repeat in (0, 1)
        for epochs in ((1, 2) if training is Training.FL else (1,))
        for rate in (0.001, 0.0005)
    ]
    assert len({run.name for run in runs}) == len(runs)
