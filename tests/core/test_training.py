"""One round of training: it learns, it repeats bit for bit, and it says what stops it."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from brainfed.core.device import Precision, cpu_has_bf16, threads
from brainfed.core.inference import network_with, probabilities
from brainfed.core.labels import region_mask
from brainfed.core.metrics import dice
from brainfed.core.optimiser import rate_at
from brainfed.core.samples import Samples, Volume, samples_of
from brainfed.core.training import State, Step, Wish, _Told, derived_seed, train
from brainfed.core.unet import initial_weights
from brainfed.errors import PlanError, ScanError
from brainfed.plan import Loss, Norm, Optimiser, Plan, Schedule
from tests.builders import a_case, a_plan

CPU = torch.device("cpu")


def a_volume(plan: Plan, *, tumour_radius_mm: float = 12, seed: int = 0) -> Volume:
    case = a_case(plan, tumour_radius_mm=tumour_radius_mm, seed=seed)
    regions = [region_mask(case.label, case.protocol, region) for region in plan.scans.regions]
    return Volume(case.image, np.stack(regions), case.present)


def a_training_set(plan: Plan, n_cases: int = 3) -> Samples:
    volumes = [a_volume(plan, tumour_radius_mm=10 + i, seed=i) for i in range(n_cases)]
    return samples_of(volumes, plan, seed=5)


def trained(plan: Plan, samples: Samples, **changes: Any) -> dict[str, np.ndarray]:
    arguments: dict[str, Any] = {"round_number": 1, "seed": 5, "device": CPU} | changes
    with threads(1):  # so small a network is fastest on one
        return train(initial_weights(plan), plan, samples, **arguments).weights


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


def test_a_round_in_parts_gives_the_bits_of_the_whole() -> None:
    plan = a_plan(
        network={"dropout": 0.2, "dropout_levels": (1,)}, training={"epochs_per_round": 3}
    )
    slices = a_training_set(plan, 2)
    whole = trained(plan, slices)
    state: State | None = None
    with threads(1):
        for until in (3, 4, 9):
            state = train(
                initial_weights(plan),
                plan,
                slices,
                round_number=1,
                seed=5,
                device=CPU,
                goes_on=state,
                until=until,
            )
            assert len(state.steps) == until
            assert {step.n_steps for step in state.steps} == {9}
    assert state is not None
    assert same_bits(dict(state.weights), whole)


def test_the_incoming_weights_are_not_written_to() -> None:
    plan = a_plan()
    weights = initial_weights(plan)
    result = train(weights, plan, a_training_set(plan, 1), round_number=1, seed=1, device=CPU)
    assert same_bits(weights, initial_weights(plan))
    assert not same_bits(weights, result.weights)


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


def test_a_round_after_the_end_of_the_cosine_is_refused() -> None:
    plan = a_plan(rounds=2, training={"schedule": Schedule.COSINE})
    with pytest.raises(PlanError, match="come to its end"):
        trained(plan, a_training_set(plan, 1), round_number=3)


def test_a_constant_rate_trains_on_after_the_plan_s_rounds() -> None:
    plan = a_plan(rounds=2, training={"schedule": Schedule.CONSTANT})
    assert trained(plan, a_training_set(plan, 1), round_number=3)


def test_a_training_set_without_any_tumour_is_refused() -> None:
    plan = a_plan()
    samples = samples_of([a_volume(plan, tumour_radius_mm=0)], plan, seed=5)
    with pytest.raises(ScanError, match="nothing to learn") as caught:
        trained(plan, samples)
    assert caught.value.found == "6 slices without"


def test_no_training_case_at_all_is_refused() -> None:
    with pytest.raises(ScanError, match="nothing to learn"):
        trained(a_plan(), samples_of([], a_plan(), seed=5))


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


IN_3D = {
    "network": {
        "architecture": "unet-3d",
        "patch": (8, 16, 16),
        "channels": (4, 6, 8),
        "norm": "instance",
        "deep_supervision": True,
        "dropout": 0.2,
        "dropout_levels": (1, 2),
    },
    "training": {"batch": 2},
}
IN_2D = {"network": {"dropout": 0.2, "dropout_levels": (1,)}, "training": {}}
MUCH = {
    "epochs_per_round": 0,
    "steps_per_round": 6,
    "foreground_fraction": 0.5,
    "clip_norm": 1.0,
    "proximal": 0.1,
    "augmentation": {"flip": 0.5, "rotate_degrees": 10.0, "noise": 0.2, "gamma": 0.3},
}
BOTH = pytest.mark.parametrize("content", [IN_2D, IN_3D], ids=["2-D", "3-D"])


def a_plan_of_much(content: dict[str, Any], **training: Any) -> Plan:
    return a_plan(**content | {"training": content["training"] | MUCH | training})


def some_samples(plan: Plan) -> Samples:
    if not plan.network.patch:
        return a_training_set(plan, 2)
    random = np.random.default_rng(3)
    image = random.normal(size=(1, 12, 32, 32)).astype(np.float16)
    volumes = [Volume(image + i, image > 1, (True,), f"case-{i}") for i in range(2)]
    return samples_of(volumes, plan, seed=5)


class StopsAfter:
    """Keeps the state after a step, and stops there."""

    def __init__(self, number: int) -> None:
        self._number = number
        self.state: State | None = None

    def asked(self, step: Step) -> Wish:
        return Wish.STOP if step.number == self._number else Wish.GO_ON

    def keep(self, state: State) -> None:
        self.state = state


@BOTH
@pytest.mark.parametrize("optimiser", Optimiser)
def test_training_that_stops_anywhere_goes_on_to_the_same_bits(
    content: dict[str, Any], optimiser: Optimiser
) -> None:
    plan = a_plan_of_much(content, optimiser=optimiser)
    samples = some_samples(plan)
    told: list[Step] = []
    whole = trained(plan, samples, on_step=told.append)
    for number in (1, 4, 6):
        keeper = StopsAfter(number)
        with pytest.raises(KeyboardInterrupt):
            trained(plan, samples, keeper=keeper)
        assert keeper.state is not None
        assert len(keeper.state.steps) == number
        again: list[Step] = []
        resumed = trained(plan, samples, goes_on=keeper.state, on_step=again.append)
        assert same_bits(whole, resumed)
        assert [*keeper.state.steps, *again] == told


@BOTH
def test_the_same_arguments_give_the_same_bits_in_both_dimensions(content: dict[str, Any]) -> None:
    plan = a_plan_of_much(content)
    first = trained(plan, some_samples(plan))
    assert same_bits(first, trained(plan, some_samples(plan)))
    assert not same_bits(first, trained(plan, some_samples(plan), seed=6))


def test_what_was_kept_does_not_change_while_training_goes_on() -> None:
    class Keeps(StopsAfter):
        def asked(self, step: Step) -> Wish:
            return Wish.KEEP if step.number == 2 else Wish.GO_ON

    plan = a_plan_of_much(IN_2D)
    keeper, stopped = Keeps(2), StopsAfter(2)
    trained(plan, some_samples(plan), keeper=keeper)
    with pytest.raises(KeyboardInterrupt):
        trained(plan, some_samples(plan), keeper=stopped)
    assert keeper.state is not None
    assert stopped.state is not None
    assert same_bits(keeper.state.weights, stopped.state.weights)
    assert same_bits(keeper.state.moments, stopped.state.moments)


def test_moments_of_the_round_before_change_the_round_and_none_begin_it_anew() -> None:
    plan = a_plan_of_much(IN_2D, optimiser="sgd", schedule="constant")
    samples = some_samples(plan)
    arguments: dict[str, Any] = {"round_number": 2, "seed": 5, "device": CPU}
    with threads(1):
        first = train(initial_weights(plan), plan, samples, **arguments | {"round_number": 1})
        anew = train(first.weights, plan, samples, **arguments)
        kept = train(first.weights, plan, samples, **arguments, moments=first.moments)
    assert first.moments.keys() == {f"{name}/momentum_buffer" for name in first.weights}
    assert not same_bits(anew.weights, kept.weights)


def test_fedprox_keeps_the_weights_nearer_to_those_that_came() -> None:
    def way(proximal: float) -> float:
        plan = a_plan(
            training={
                **EAGER,
                "steps_per_round": 20,
                "rate": 0.05,
                "optimiser": "sgd",
                "momentum": 0.5,
                "proximal": proximal,
            }
        )
        start = initial_weights(plan)
        found = trained(plan, a_training_set(plan, 2))
        return sum(float(((found[name] - start[name]) ** 2).sum()) for name in start)

    assert way(1.0) < 0.5 * way(0.0)


def test_the_told_loss_is_without_fedprox_s_term() -> None:
    losses = []
    for proximal in (0.0, 100.0):
        plan = a_plan(training={**EAGER, "steps_per_round": 1, "proximal": proximal})
        told: list[Step] = []
        trained(plan, a_training_set(plan, 1), on_step=told.append)
        losses.append(told[0].loss)
    assert losses[0] == losses[1]


def test_each_step_tells_its_dice_and_its_samples() -> None:
    told: list[Step] = []
    plan = a_plan(training=EAGER, network={"norm": Norm.INSTANCE})
    trained(plan, a_training_set(plan), on_step=told.append)
    assert {step.n_samples for step in told} == {4}
    assert all(0 < step.dice < 1 for step in told)
    assert told[-1].dice > told[0].dice + 0.1


@pytest.mark.skipif(not cpu_has_bf16(), reason="this CPU has no units for bf16")
@BOTH
def test_bf16_goes_on_to_the_same_bits_and_stays_near_float32(content: dict[str, Any]) -> None:
    plan = a_plan_of_much(content)
    samples = some_samples(plan)
    coarse = trained(plan, samples, precision=Precision.BF16)
    keeper = StopsAfter(3)
    with pytest.raises(KeyboardInterrupt):
        trained(plan, samples, precision=Precision.BF16, keeper=keeper)
    again = trained(plan, samples, precision=Precision.BF16, goes_on=keeper.state)
    assert same_bits(coarse, again)
    fine = trained(plan, samples)
    assert not same_bits(coarse, fine)
    assert all(array.dtype == np.float32 for array in coarse.values())
    # Adam's steps are as large as the rate, whichever way a tiny gradient points.
    far = 2 * 6 * plan.training.rate
    assert all(np.abs(coarse[name] - fine[name]).max() < far for name in fine)


def test_a_polynomial_schedule_ends_with_the_plan_s_rounds_too() -> None:
    plan = a_plan(rounds=2, training={"schedule": Schedule.POLYNOMIAL})
    with pytest.raises(PlanError, match="polynomial schedule has come to its end"):
        trained(plan, a_training_set(plan, 1), round_number=3)


def test_a_cuda_device_is_told_of_steps_in_bunches_and_in_order() -> None:
    told: list[Step] = []
    some = _Told((), told.append)
    steps = [Step(number, 3, float("nan"), 0.1) for number in (1, 2, 3)]
    for step in steps:
        some.later(step, torch.tensor(float(step.number)), torch.tensor(0.5))
    assert told == []
    assert some.now().number == 3
    assert [(step.number, step.loss, step.dice) for step in told] == [
        (1, 1.0, 0.5),
        (2, 2.0, 0.5),
        (3, 3.0, 0.5),
    ]
