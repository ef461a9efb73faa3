"""The plan's optimisers are torch's; FedProx and the largest norm are their formulas."""

import numpy as np
import pytest
import torch
from torch import nn

from brainfed.core.optimiser import (
    fits,
    moments_of,
    optimiser_of,
    rate_at,
    remember,
    shape_gradient,
)
from brainfed.plan import Optimiser, Schedule
from tests.builders import a_plan


def a_weight(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values))


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = a_weight(1.0, -2.0), a_weight(3.0)


def one_step(network: nn.Module, optimiser: torch.optim.Optimizer, gradient: float = 0.5) -> None:
    for number, weight in enumerate(network.parameters()):
        weight.grad = torch.full_like(weight, gradient + number)
    optimiser.step()


def weights_of(network: nn.Module) -> dict[str, np.ndarray]:
    return {name: p.detach().numpy().copy() for name, p in network.named_parameters()}


def test_the_cosine_and_the_polynomial_fall_from_the_rate_to_zero() -> None:
    cosine = a_plan(training={"rate": 1.0, "schedule": Schedule.COSINE})
    assert [rate_at(cosine, p) for p in (0, 0.5, 1, 1.5)] == pytest.approx([1, 0.5, 0, 0])
    polynomial = a_plan(training={"rate": 1.0, "schedule": Schedule.POLYNOMIAL})
    assert [rate_at(polynomial, p) for p in (0, 0.5, 1)] == pytest.approx([1, 0.5**0.9, 0])


def test_a_constant_rate_stays_as_it_is() -> None:
    plan = a_plan(training={"rate": 0.25, "schedule": Schedule.CONSTANT})
    assert rate_at(plan, 0) == rate_at(plan, 0.9) == 0.25


def test_sgd_has_nesterov_momentum_and_the_weight_decay_in_its_gradient() -> None:
    settings = a_plan(
        training={"optimiser": "sgd", "momentum": 0.9, "rate": 0.1, "weight_decay": 0.01}
    ).training
    network = Small()
    optimiser = optimiser_of(network, settings)
    one_step(network, optimiser)
    gradient = 0.5 + 0.01 * 1.0
    assert network.a[0].item() == pytest.approx(1.0 - 0.1 * (gradient + 0.9 * gradient))


def test_adam_decays_no_weight_and_adamw_does_so_beside_the_gradient() -> None:
    found = {}
    for kind in (Optimiser.ADAM, Optimiser.ADAMW):
        settings = a_plan(training={"optimiser": kind, "rate": 0.1, "weight_decay": 0.5}).training
        network = Small()
        one_step(network, optimiser_of(network, settings))
        found[kind] = network.a[0].item()
    assert found[Optimiser.ADAM] == pytest.approx(1 - 0.1, abs=1e-6)
    assert found[Optimiser.ADAMW] == pytest.approx(1 - 0.1 * 0.5 - 0.1, abs=1e-6)


def test_fedprox_adds_mu_times_the_way_gone() -> None:
    weight, origin = a_weight(3.0, 1.0), torch.tensor([1.0, 1.0])
    weight.grad = torch.tensor([0.5, 0.5])
    shape_gradient([weight], [origin], a_plan(training={"proximal": 0.1}).training)
    assert weight.grad.tolist() == pytest.approx([0.5 + 0.1 * 2.0, 0.5])


def test_fedprox_s_term_is_the_gradient_of_half_mu_times_the_squared_distance() -> None:
    weight, origin = a_weight(3.0, -1.0), torch.tensor([1.0, 2.0])
    (wanted,) = torch.autograd.grad(0.3 / 2 * (weight - origin).square().sum(), weight)
    weight.grad = torch.zeros(2)
    shape_gradient([weight], [origin], a_plan(training={"proximal": 0.3}).training)
    torch.testing.assert_close(weight.grad, wanted)


def test_the_norm_of_all_gradients_together_is_shortened_to_the_plan_s() -> None:
    weights = [a_weight(0.0, 0.0), a_weight(0.0)]
    weights[0].grad, weights[1].grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])
    shape_gradient(weights, [], a_plan(training={"clip_norm": 1.0}).training)
    assert weights[0].grad.tolist() + weights[1].grad.tolist() == pytest.approx([0.6, 0, 0.8])
    shape_gradient(weights, [], a_plan(training={"clip_norm": 5.0}).training)
    assert weights[1].grad.tolist() == pytest.approx([0.8])


def test_without_either_the_gradient_stays_bit_for_bit() -> None:
    weight = a_weight(3.0)
    weight.grad = torch.tensor([1e5])
    shape_gradient([weight], [], a_plan().training)
    assert weight.grad.item() == 1e5


@pytest.mark.parametrize("kind", Optimiser)
def test_moments_put_into_a_new_optimiser_go_on_bit_for_bit(kind: Optimiser) -> None:
    settings = a_plan(training={"optimiser": kind}).training
    network = Small()
    optimiser, names = optimiser_of(network, settings), ("a", "b")
    one_step(network, optimiser)
    moments, weights = moments_of(optimiser, names), weights_of(network)
    assert fits(moments, weights, settings)
    other = Small()
    other.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
    taken_up = optimiser_of(other, settings)
    remember(taken_up, names, moments)
    one_step(network, optimiser, -2.0)
    one_step(other, taken_up, -2.0)
    for name, array in weights_of(network).items():
        assert weights_of(other)[name].tobytes() == array.tobytes()
    forgotten = Small()
    forgotten.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
    one_step(forgotten, optimiser_of(forgotten, settings), -2.0)
    assert not np.array_equal(weights_of(forgotten)["a"], weights_of(network)["a"])


def test_moments_of_another_optimiser_or_network_do_not_fit() -> None:
    adam = a_plan(training={"optimiser": "adam"}).training
    sgd = a_plan(training={"optimiser": "sgd"}).training
    network = Small()
    optimiser = optimiser_of(network, adam)
    one_step(network, optimiser)
    moments, weights = moments_of(optimiser, ("a", "b")), weights_of(network)
    assert fits(moments, weights, adam)
    assert not fits(moments, weights, sgd)
    assert not fits(moments, {"a": weights["a"]}, adam)
    assert not fits(moments, {"a": weights["b"], "b": weights["b"]}, adam)
