"""A site's training in one round: weights in, weights out, read from top to bottom.

Nothing here knows of files, rounds on disk or other sites. Every random choice is a function of the
seed and of the number of the step, so that training goes on from any step as if it had never been
stopped. On one machine with one number of threads the same arguments give the same bits; nobody
promises more.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from brainfed.core.augmentation import augment
from brainfed.core.device import (
    Precision,
    autocast,
    keep_freed_memory,
    layout_of,
    memory_errors,
    repeatable,
)
from brainfed.core.draws import dropout_seed
from brainfed.core.inference import network_with
from brainfed.core.losses import Reduce, batch_loss
from brainfed.core.optimiser import (
    Moments,
    copied,
    moments_of,
    optimiser_of,
    rate_at,
    remember,
    set_rate,
    shape_gradient,
)
from brainfed.core.samples import Batch, Samples
from brainfed.core.team import Alone, Team
from brainfed.core.training_limits import check_samples, check_team, finite
from brainfed.core.unet import UNet
from brainfed.plan import Plan, Training

BUNCH = 20
"""On CUDA so many steps are computed before their losses are fetched: to look is to wait."""

Weights = Mapping[str, NDArray[np.float32]]
"""float32 arrays by name, those of `core.architecture.network_table`."""


@dataclass(frozen=True, slots=True)
class Step:
    """One finished step: its number from 1, of how many, and how the batch went."""

    number: int
    n_steps: int
    loss: float
    rate: float
    """The learning rate."""
    dice: float = 0.0
    """Soft Dice of the batch, from 0 to 1, the mean over the regions."""
    n_samples: int = 0
    """Slices or patches of the batch."""


@dataclass(frozen=True, slots=True)
class State:
    """All that training needs to go on from a step; no random state is among it."""

    weights: dict[str, NDArray[np.float32]]
    moments: dict[str, NDArray[np.float32]]
    """Of the optimiser (`core.optimiser.Moments`)."""
    scaler: dict[str, float]
    """Of fp16's loss scale; empty for other precisions."""
    steps: tuple[Step, ...]
    """The finished ones, from the first."""


class Wish(IntEnum):
    """What is to become of training after a step."""

    GO_ON = 0
    KEEP = 1
    """Keep the state, then go on."""
    STOP = 2
    """Keep the state, then stop."""


class Keeper(Protocol):
    """Decides when the state is kept, and keeps it."""

    def asked(self, step: Step) -> Wish:
        """What is to be done after this step."""

    def keep(self, state: State) -> None:
        """Keep a state; the next one takes its place."""


def ignore(step: Step) -> None:
    """Take no notice of a step."""


def derived_seed(plan_digest: str, round_number: int, site: str) -> int:
    """The seed of one site's training in one round, from SHA-256; from 0 to 2^63 - 1."""
    digest = hashlib.sha256(f"{plan_digest} {round_number} {site}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def n_steps_of(settings: Training, n_samples: int) -> int:
    """Optimiser steps of one round; an epoch is as many batches as hold all samples once."""
    if settings.steps_per_round:
        return settings.steps_per_round
    return settings.epochs_per_round * math.ceil(n_samples / settings.batch)


class Objective(nn.Module):
    """The network and its loss as one module, which is what several processes share."""

    def __init__(self, network: UNet, plan: Plan, precision: Precision, reduce: Reduce) -> None:
        super().__init__()
        self.network, self.loss = network, plan.training.loss
        self.precision, self.reduce = precision, reduce

    def forward(self, image: Tensor, regions: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and soft Dice of a batch; the loss in float32, whatever the precision."""
        with autocast(self.precision, image.device):
            outputs = self.network.outputs(image)
        logits = [output.float() for output in outputs]
        return batch_loss(logits, regions, self.loss, reduce=self.reduce)


def train(
    weights: Weights,
    plan: Plan,
    samples: Samples,
    *,
    round_number: int,
    seed: int,
    device: torch.device,
    precision: Precision = Precision.FLOAT32,
    moments: Moments | None = None,
    goes_on: State | None = None,
    until: int | None = None,
    on_step: Callable[[Step], None] = ignore,
    keeper: Keeper | None = None,
    team: Team | None = None,
) -> State:
    """Train for one round of the plan, or for a part of it.

    Args:
        weights: Where the round starts; not changed.
        plan: The plan.
        samples: The training set.
        round_number: From 1; places the round on the schedule of the rate.
        seed: Decides the dropout.
        device: Where to compute.
        precision: How precisely.
        moments: What the optimiser remembers from the round before; it starts anew if None.
        goes_on: A state of this very round to go on from.
        until: The number of the step to stop after; that of the round's last if None.
        on_step: Told of each step in order, on CUDA of some at a time.
        keeper: Keeps the state now and then.
        team: The processes that share each batch.

    Returns:
        The state after the last step, on the CPU, names and shapes of the weights as they came.

    Raises:
        ScanError: No slice, or no tumour in any of them.
        PlanError: The loss is no longer finite; or the schedule has no rate left for this round.
        ResourceError: The memory is too small; or the processes don't see the same checkpoint.
        UsageError: More processes than samples in a batch.
        KeyboardInterrupt: The keeper wished to stop; the state is kept.
    """
    team = team or Alone()
    begun = goes_on or State(dict(weights), dict(moments or {}), {}, ())
    check_samples(plan, samples, round_number)
    check_team(plan, team, len(begun.steps))
    n_steps = n_steps_of(plan.training, samples.n_samples)
    last = n_steps if until is None else min(until, n_steps)
    keep_freed_memory()
    with memory_errors(plan), repeatable(device):
        work = _Work(weights, begun, plan, precision=precision, device=device, team=team)
        told = _Told(begun.steps, on_step)
        for step in range(len(begun.steps), last):
            rate = rate_at(plan, (round_number - 1 + step / n_steps) / plan.rounds)
            torch.manual_seed(dropout_seed(seed, step, team.rank))
            batch = samples.batch(step, rank=team.rank, n_ranks=team.n_ranks)
            loss, dice = work.step(batch, rate)
            n_samples = min(plan.training.batch, len(batch.seeds) * team.n_ranks)
            told.later(Step(step + 1, n_steps, math.nan, rate, math.nan, n_samples), loss, dice)
            if device.type != "cuda" or (step + 1) % BUNCH == 0 or step + 1 == last:
                _keep(told.now(), lambda: work.state(told.steps), keeper, team)
        result = work.state(told.steps)
    if not all(np.isfinite(array).all() for array in result.weights.values()):
        finite(math.nan, n_steps, rate_at(plan, round_number / plan.rounds))
    return result


class _Work:
    """The network, its optimiser, and whatever else a step changes."""

    def __init__(
        self,
        weights: Weights,
        begun: State,
        plan: Plan,
        *,
        precision: Precision,
        device: torch.device,
        team: Team,
    ) -> None:
        self._settings = plan.training
        self._network = network_with(begun.weights, plan, device).train()
        self._names, self._parameters = zip(*self._network.named_parameters(), strict=True)
        self._origin = []
        if plan.training.proximal > 0:
            self._origin = [torch.tensor(weights[name]).to(device) for name in self._names]
        self._objective = team.shared(Objective(self._network, plan, precision, team.reduce))
        self._optimiser = optimiser_of(self._network, plan.training)
        remember(self._optimiser, self._names, begun.moments)
        self._scaler = torch.amp.GradScaler(device.type, enabled=precision is Precision.FP16)
        if begun.scaler:
            self._scaler.load_state_dict(begun.scaler)

    def step(self, batch: Batch, rate: float) -> tuple[Tensor, Tensor]:
        """One step of the optimiser; gives the batch's loss and soft Dice, on the device."""
        image, regions = augment(
            batch.image,
            batch.regions,
            batch.present,
            self._settings.augmentation,
            seeds=batch.seeds,
        )
        layout = layout_of(image.device, image.ndim - 2)
        loss, dice = self._objective(image.contiguous(memory_format=layout), regions)
        set_rate(self._optimiser, rate)
        self._optimiser.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        self._scaler.unscale_(self._optimiser)
        shape_gradient(self._parameters, self._origin, self._settings)
        self._scaler.step(self._optimiser)
        self._scaler.update()
        return loss.detach(), dice

    def state(self, steps: Sequence[Step]) -> State:
        """A copy of the present state, on the CPU."""
        return State(
            weights={name: copied(tensor) for name, tensor in self._network.state_dict().items()},
            moments=moments_of(self._optimiser, self._names),
            scaler=self._scaler.state_dict(),
            steps=tuple(steps),
        )


class _Told:
    """Tells of steps: their losses are fetched from the device some at a time."""

    def __init__(self, steps: tuple[Step, ...], on_step: Callable[[Step], None]) -> None:
        self.steps = list(steps)
        self._on_step = on_step
        self._waiting: list[tuple[Step, Tensor]] = []

    def later(self, step: Step, loss: Tensor, dice: Tensor) -> None:
        """Take a step whose loss and Dice lie on the device."""
        self._waiting.append((step, torch.stack((loss, dice))))

    def now(self) -> Step:
        """Tell of all steps that wait; gives the last."""
        values = torch.stack([pair for _, pair in self._waiting]).tolist()
        for (step, _), (loss, dice) in zip(self._waiting, values, strict=True):
            loss_there = finite(loss, step.number, step.rate)
            self.steps.append(replace(step, loss=loss_there, dice=dice))
            self._on_step(self.steps[-1])
        self._waiting = []
        return self.steps[-1]


def _keep(step: Step, state: Callable[[], State], keeper: Keeper | None, team: Team) -> None:
    """Do what the keeper wishes; all processes do the same after the same step."""
    if keeper is None:
        return
    wish = Wish(team.greatest(keeper.asked(step)))
    if wish is Wish.GO_ON:
        return
    keeper.keep(state())
    team.greatest(0)  # nobody leaves before it is written
    if wish is Wish.STOP:
        raise KeyboardInterrupt
