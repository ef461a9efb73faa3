"""How a gradient becomes a step: the plan's optimiser, its rate, its moments, what is added."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from brainfed.plan import Optimiser, Plan, Schedule, Training

POWER = 0.9
"""Of the polynomial schedule, as nnU-Net has it."""

Moments = Mapping[str, NDArray[np.float32]]
"""What the optimiser remembers: arrays by `<name of the weight>/<name of the moment>`."""


def optimiser_of(network: nn.Module, settings: Training) -> torch.optim.Optimizer:
    """The plan's optimiser over all weights of a network."""
    weights = list(network.parameters())
    # Fused, a step of fp16 is skipped on the GPU itself, which then needs no waiting for.
    fused = weights[0].device.type == "cuda" or None
    match settings.optimiser:
        case Optimiser.ADAM:
            return torch.optim.Adam(weights, lr=settings.rate, fused=fused)
        case Optimiser.ADAMW:
            return torch.optim.AdamW(
                weights, lr=settings.rate, weight_decay=settings.weight_decay, fused=fused
            )
        case Optimiser.SGD:
            return torch.optim.SGD(
                weights,
                lr=settings.rate,
                momentum=settings.momentum,
                nesterov=settings.momentum > 0,
                weight_decay=settings.weight_decay,
                fused=fused,
            )


def rate_at(plan: Plan, progress: float) -> float:
    """The learning rate at this share, from 0 to 1, of all the plan's rounds."""
    rate, progress = plan.training.rate, min(progress, 1.0)
    if progress < plan.training.warm_up:
        rate *= progress / plan.training.warm_up
    match plan.training.schedule:
        case Schedule.CONSTANT:
            return rate
        case Schedule.COSINE:
            return rate * 0.5 * (1 + math.cos(math.pi * progress))
        case Schedule.POLYNOMIAL:
            return float(rate * (1 - progress) ** POWER)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Use this learning rate from the next step on."""
    for group in optimiser.param_groups:
        group["lr"] = rate


@torch.no_grad()
def shape_gradient(
    weights: Sequence[nn.Parameter], origin: Sequence[Tensor], settings: Training
) -> None:
    """Add FedProx's term to the gradient, then shorten it to the plan's largest norm.

    The term is `mu (w - w of the round's beginning)`, the gradient of `mu / 2` times their squared
    distance. Source: Li et al., Federated optimization in heterogeneous networks, MLSys 2020.
    """
    if settings.proximal > 0:
        for weight, began in zip(weights, origin, strict=True):
            assert weight.grad is not None
            weight.grad.add_(weight - began, alpha=settings.proximal)
    if settings.clip_norm > 0:
        torch.nn.utils.clip_grad_norm_(weights, settings.clip_norm)


def moments_of(
    optimiser: torch.optim.Optimizer, names: Iterable[str]
) -> dict[str, NDArray[np.float32]]:
    """A copy of what the optimiser remembers, on the CPU.

    Args:
        optimiser: As `optimiser_of` makes it.
        names: Of the network's weights, in its order.
    """
    state = optimiser.state_dict()["state"]
    return {
        f"{name}/{key}": copied(value)
        for number, name in enumerate(names)
        for key, value in state.get(number, {}).items()
        if isinstance(value, Tensor)
    }


def fits(moments: Moments, weights: Mapping[str, NDArray[np.float32]], settings: Training) -> bool:
    """Whether these are moments of the plan's optimiser for such weights."""
    keys = {Optimiser.SGD: ("momentum_buffer",) if settings.momentum > 0 else ()}.get(
        settings.optimiser, ("step", "exp_avg", "exp_avg_sq")
    )
    expected = {
        f"{name}/{key}": () if key == "step" else array.shape
        for name, array in weights.items()
        for key in keys
    }
    return {name: array.shape for name, array in moments.items()} == expected


def remember(optimiser: torch.optim.Optimizer, names: Iterable[str], moments: Moments) -> None:
    """Put moments that `fits` found right into an optimiser."""
    by_name: dict[str, dict[str, Tensor]] = {}
    for path, array in moments.items():
        name, _, key = path.rpartition("/")
        by_name.setdefault(name, {})[key] = torch.tensor(array)
    content = optimiser.state_dict()
    content["state"] = {
        number: by_name[name] for number, name in enumerate(names) if name in by_name
    }
    optimiser.load_state_dict(content)


def copied(tensor: Tensor) -> NDArray[np.float32]:
    """A copy on the CPU."""
    found: NDArray[np.float32] = tensor.detach().to("cpu", copy=True).contiguous().numpy()
    return found
