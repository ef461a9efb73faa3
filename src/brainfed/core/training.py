"""A site's training in one round: weights in, weights out, read from top to bottom.

Nothing here knows of files, rounds on disk or other sites. On one machine with one number of
threads the same arguments give the same bits; nobody promises more. The optimiser's state starts
anew each time, as in the paper's framework.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from brainfed.core.augmentation import augment
from brainfed.core.device import memory_errors
from brainfed.core.inference import network_with
from brainfed.core.losses import loss_function
from brainfed.core.slices import Slices, batch_numbers
from brainfed.core.unet import UNet
from brainfed.errors import PlanError, ScanError
from brainfed.plan import Optimiser, Plan, Schedule, Training

Weights = Mapping[str, NDArray[np.float32]]
"""float32 arrays by name, those of `core.architecture.tensor_table`."""


@dataclass(frozen=True, slots=True)
class Step:
    """One finished step: its number from 1, of how many, the batch's loss, the learning rate."""

    number: int
    n_steps: int
    loss: float
    rate: float


def ignore(step: Step) -> None:
    """Take no notice of a step."""


def derived_seed(plan_digest: str, round_number: int, site: str) -> int:
    """The seed of one site's training in one round, from SHA-256; from 0 to 2^63 - 1."""
    digest = hashlib.sha256(f"{plan_digest} {round_number} {site}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def n_steps_of(settings: Training, n_slices: int) -> int:
    """Optimiser steps of one round; an epoch is as many batches as hold all slices once."""
    if settings.steps_per_round:
        return settings.steps_per_round
    return settings.epochs_per_round * math.ceil(n_slices / settings.batch)


def rate_at(plan: Plan, progress: float) -> float:
    """The learning rate at this share, from 0 to 1, of all the plan's rounds."""
    if plan.training.schedule is Schedule.CONSTANT:
        return plan.training.rate
    return plan.training.rate * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def train(
    weights: Weights,
    plan: Plan,
    slices: Slices,
    *,
    round_number: int,
    seed: int,
    device: torch.device,
    on_step: Callable[[Step], None] = ignore,
) -> dict[str, NDArray[np.float32]]:
    """Train for one round of the plan.

    Args:
        weights: Where to start; not changed.
        plan: The plan.
        slices: The training set.
        round_number: From 1; places the round on the schedule of the rate.
        seed: Decides the order of the slices, their augmentation and the dropout.
        device: Where to compute.
        on_step: Told of each finished step.

    Returns:
        The weights after the last step, on the CPU, names and shapes as they came.

    Raises:
        ScanError: No slice, or no tumour in any of them.
        PlanError: The loss is no longer finite; or the schedule has no rate left for this round.
        ResourceError: The memory is too small.
    """
    _check(plan, slices, round_number)
    settings = plan.training
    n_steps = n_steps_of(settings, len(slices))
    loss_of = loss_function(settings.loss)
    generator = torch.Generator().manual_seed(seed)
    batches = batch_numbers(slices.foreground, settings, np.random.default_rng(seed))
    with memory_errors(plan), _reproducible(seed, device):
        model = network_with(weights, plan, device).train()
        optimiser = _optimiser(model, settings)
        for step in range(n_steps):
            rate = rate_at(plan, (round_number - 1 + step / n_steps) / plan.rounds)
            for group in optimiser.param_groups:
                group["lr"] = rate
            image, regions, present = (t.to(device) for t in slices.batch(next(batches)))
            image, regions = augment(image, regions, present, settings.augmentation, generator)
            if device.type == "cuda":
                image = image.contiguous(memory_format=torch.channels_last)
            with _mixed_precision(device):
                logits = model(image)
            loss = loss_of(logits.float(), regions)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            value = _finite(loss.item(), step + 1, rate)
            on_step(Step(step + 1, n_steps, value, rate))
    result = {
        name: tensor.cpu().contiguous().numpy() for name, tensor in model.state_dict().items()
    }
    if not all(np.isfinite(array).all() for array in result.values()):
        _finite(math.nan, n_steps, rate)  # the last step alone can spoil them after its loss
    return result


def _check(plan: Plan, slices: Slices, round_number: int) -> None:
    if not slices.foreground.any():
        raise ScanError(
            "No training slice shows a tumour, so there is nothing to learn from",
            expected="at least one slice with one of " + ", ".join(plan.scans.regions),
            found=f"{len(slices)} slices without",
            hint="check --labels of `brainfed preprocess`, and the split",
        )
    if plan.training.schedule is Schedule.COSINE and round_number > plan.rounds:
        raise PlanError(
            "The cosine schedule has come to its end, the learning rate is zero",
            expected=f"a round up to {plan.rounds}",
            found=f"round {round_number}",
            where="rounds",
            hint="the last global weights are the result; ask the coordinator",
        )


def _optimiser(model: UNet, settings: Training) -> torch.optim.Optimizer:
    if settings.optimiser is Optimiser.ADAM:
        return torch.optim.Adam(model.parameters(), lr=settings.rate)
    return torch.optim.AdamW(
        model.parameters(), lr=settings.rate, weight_decay=settings.weight_decay
    )


def _finite(loss: float, step: int, rate: float) -> float:
    if math.isfinite(loss):
        return loss
    raise PlanError(
        f"Training went astray: the loss or the weights of step {step} are not finite",
        expected="a finite number",
        found=f"{loss} at a learning rate of {rate:.3g}",
        where="training.rate",
        hint="tell the coordinator: the plan needs a smaller training.rate; nothing was written",
    )


@contextmanager
def _reproducible(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the dropout, take repeatable CUDA kernels, and leave torch's own state as it was."""
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), _repeatable_kernels(device):
        torch.manual_seed(seed)
        yield


def _repeatable_kernels(device: torch.device) -> AbstractContextManager[None]:
    if device.type != "cuda":
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)


def _mixed_precision(device: torch.device) -> AbstractContextManager[object]:
    """bfloat16 where a CUDA device computes in it; a CPU is faster and exact in float32."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()
