"""One round of training: it learns, it repeats bit for bit, and it says what stops it."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from brainfed.core.device import threads
from brainfed.core.inference import network_with, probabilities
from brainfed.core.labels import region_mask
from brainfed.core.metrics import dice
from brainfed.core.slices import Slices, Volume
from brainfed.core.training import (
    Step,
    derived_seed,
    rate_at,
    train,
)
from brainfed.core.unet import initial_weights
from brainfed.errors import PlanError, ScanError
from brainfed.plan import Loss, Norm, Optimiser, Plan, Schedule
from tests.builders import a_case, a_plan

CPU = torch.device("cpu")


def a_volume(plan: Plan, *, tumour_radius_mm: float = 12, seed: int = 0) -> Volume:
    case = a_case(plan, tumour_radius_mm=tumour_radius_mm, seed=seed)
    regions = [region_mask(case.label, case.protocol, region) for region in plan.scans.regions]
    return Volume(case.image, np.stack(regions), case.present)


def a_training_set(plan: Plan, n_cases: int = 3) -> Slices:
    return Slices([a_volume(plan, tumour_radius_mm=10 + i, seed=i) for i in range(n_cases)])


def trained(plan: Plan, slices: Slices, **changes: Any) -> dict[str, np.ndarray]:
    arguments: dict[str, Any] = {"round_number": 1, "seed": 5, "device": CPU} | changes
    with threads(1):  # so small a network is fastest on one
        return train(initial_weights(plan), plan, slices, **arguments)


def same_bits(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(a[name].tobytes() == b[name].tobytes() for name in a)


EAGER = {
    "rate": 5e-3,
    "schedule": Schedule.CONSTANT,
    "epochs_per_round": 0,
    "steps_per_round": 60,
    "foreground_fraction": 0.5,
}


@pytest.mark.parametrize("loss", Loss)
def test_it_learns_to_outline_tumours_of_a_case_it_has_not_seen(loss: Loss) -> None:
    plan = a_plan(training={**EAGER, "loss": loss}, network={"norm": Norm.INSTANCE})
    unseen = a_volume(plan, tumour_radius_mm=14, seed=99)

    def score(weights: dict[str, np.ndarray]) -> float:
        found = probabilities(network_with(weights, plan, CPU), unseen.image, CPU) > 0.5
        return dice(found, unseen.regions)

    weights = trained(plan, a_training_set(plan))
    assert score(initial_weights(plan)) < 0.5
    assert score(weights) > 0.8


@pytest.mark.parametrize("optimiser", Optimiser)
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(optimiser: Optimiser) -> None:
    plan = a_plan(
        network={"dropout": 0.2, "dropout_levels": (1,)},
        training={
            "optimiser": optimiser,
            "foreground_fraction": 0.5,
            "augmentation": {"flip": 0.5, "rotate_degrees": 10.0, "intensity_shift": 0.1},
        },
    )
    slices = a_training_set(plan)
    first = trained(plan, slices)
    assert same_bits(first, trained(plan, slices))
    assert not same_bits(first, trained(plan, slices, seed=6))


def test_torch_s_own_random_state_neither_decides_nor_changes() -> None:
    plan = a_plan(network={"dropout": 0.2, "dropout_levels": (1,)})
    slices = a_training_set(plan, 1)
    torch.manual_seed(1)
    first = trained(plan, slices)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert same_bits(first, trained(plan, slices))
    assert torch.equal(before, torch.get_rng_state())


def test_the_incoming_weights_are_not_written_to() -> None:
    plan = a_plan()
    weights = initial_weights(plan)
    result = train(weights, plan, a_training_set(plan, 1), round_number=1, seed=1, device=CPU)
    assert same_bits(weights, initial_weights(plan))
    assert not same_bits(weights, result)


def test_each_step_is_told_with_its_loss_and_rate() -> None:
    plan = a_plan(training={"epochs_per_round": 2, "rate": 0.01, "schedule": Schedule.COSINE})
    told: list[Step] = []
    trained(plan, a_training_set(plan, 2), on_step=told.append)
    assert [step.number for step in told] == [1, 2, 3, 4, 5, 6]
    assert {step.n_steps for step in told} == {6}
    assert told[0].rate == 0.01
    assert all(a.rate > b.rate for a, b in itertools.pairwise(told))
    assert all(step.loss > 0 for step in told)


def test_the_cosine_goes_on_where_the_round_before_left_it_and_ends_at_zero() -> None:
    plan = a_plan(rounds=2, training={"rate": 1.0, "schedule": Schedule.COSINE})
    assert rate_at(plan, 0) == 1
    assert rate_at(plan, 0.5) == pytest.approx(0.5)
    assert rate_at(plan, 1) == pytest.approx(0)
    told: list[Step] = []
    trained(plan, a_training_set(plan, 1), round_number=2, on_step=told.append)
    assert told[0].rate == pytest.approx(0.5)


def test_a_constant_rate_stays_as_it_is() -> None:
    plan = a_plan(training={"rate": 0.25, "schedule": Schedule.CONSTANT})
    assert rate_at(plan, 0) == rate_at(plan, 0.9) == 0.25


def test_a_round_after_the_end_of_the_cosine_is_refused() -> None:
    plan = a_plan(rounds=2, training={"schedule": Schedule.COSINE})
    with pytest.raises(PlanError, match="come to its end"):
        trained(plan, a_training_set(plan, 1), round_number=3)


def test_a_constant_rate_trains_on_after_the_plan_s_rounds() -> None:
    plan = a_plan(rounds=2, training={"schedule": Schedule.CONSTANT})
    assert trained(plan, a_training_set(plan, 1), round_number=3)


def test_a_training_set_without_any_tumour_is_refused() -> None:
    plan = a_plan()
    slices = Slices([a_volume(plan, tumour_radius_mm=0)])
    with pytest.raises(ScanError, match="nothing to learn") as caught:
        trained(plan, slices)
    assert caught.value.found == "6 slices without"


def test_no_training_case_at_all_is_refused() -> None:
    with pytest.raises(ScanError, match="nothing to learn"):
        trained(a_plan(), Slices([]))


def test_a_loss_that_is_not_finite_stops_training_and_names_the_rate() -> None:
    plan = a_plan(training={"rate": 10.0, "epochs_per_round": 20, "schedule": Schedule.CONSTANT})
    weights = {name: array * np.float32(1e30) for name, array in initial_weights(plan).items()}
    with pytest.raises(PlanError, match="went astray") as caught:
        train(weights, plan, a_training_set(plan, 1), round_number=1, seed=1, device=CPU)
    assert caught.value.where == "training.rate"


def test_an_interrupt_passes_through() -> None:
    def stop(step: Step) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(a_plan(), a_training_set(a_plan(), 1), on_step=stop)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_fewer_slices_than_a_batch_are_one_smaller_batch(share: float) -> None:
    plan = a_plan(training={"batch": 64, "foreground_fraction": share})
    told: list[Step] = []
    trained(plan, a_training_set(plan, 1), on_step=told.append)
    assert [step.number for step in told] == [1]


def test_steps_per_round_are_taken_as_they_are() -> None:
    plan = a_plan(training={"epochs_per_round": 0, "steps_per_round": 7})
    told: list[Step] = []
    trained(plan, a_training_set(plan, 1), on_step=told.append)
    assert len(told) == 7


def test_the_seed_differs_between_plans_rounds_and_sites() -> None:
    base = derived_seed("a" * 64, 1, "hospital-a")
    assert base == derived_seed("a" * 64, 1, "hospital-a")
    others = {
        derived_seed("b" * 64, 1, "hospital-a"),
        derived_seed("a" * 64, 2, "hospital-a"),
        derived_seed("a" * 64, 1, "hospital-b"),
    }
    assert len({base, *others}) == 4
    assert all(0 <= seed < 2**63 for seed in {base, *others})
