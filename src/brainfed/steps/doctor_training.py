"""What the doctor tries in training: a tiny step, and how long an epoch of the plan would take."""

import math

import torch

from brainfed.core.memory import training_bytes
from brainfed.core.training import n_steps_of
from brainfed.formats import dataset
from brainfed.formats.dataset import Subset
from brainfed.formats.roster import Role
from brainfed.formats.workspace import Workspace
from brainfed.plan import Grid, Network, Plan, Training
from brainfed.steps.doctor_check import Checked, Health, duration
from brainfed.steps.doctor_machine import SLICES
from brainfed.steps.step_time import seconds_per_step
from brainfed.steps.training_set import free_bytes

PATIENTS = 100
"""To tell the time of an epoch where nobody knows yet how many there are."""
BUDGET_SECONDS = 15.0
"""A step that would take longer is told from smaller ones."""
SMALL = 4
"""The batch of the second of them."""
LONG_SECONDS = 24 * 3600.0
TINY = Plan(
    name="doctor",
    grid=Grid(size=(32, 32)),
    network=Network(channels=(4, 8)),
    training=Training(batch=2),
)


def tiny_step(device: torch.device) -> Checked:
    """A training step that fits everywhere.

    Raises:
        ResourceError: The device or the memory.
    """
    seconds = seconds_per_step(TINY, device=str(device), n=2)
    return Checked(
        "a training step", Health.OK, f"{1000 * seconds:.0f} ms, a tiny one, on {device}"
    )


def epoch(plan: Plan, place: Workspace | None, device: torch.device) -> Checked:
    """How long an epoch of the plan, and a round, would take here, measured on random data.

    Raises:
        NotReadyError: The split is out of date.
        ScanError: Index or split is damaged.
        ResourceError: The memory is too small.
    """
    what = "an epoch"
    if not plan.network.n_dimensions:
        return Checked(what, Health.OK, "your own program trains: brainfed can't tell")
    if training_bytes(plan) > free_bytes(device):
        todo = "see the line about memory"
        return Checked(what, Health.BAD, "not tried: the memory is too small", todo)
    n_slices, whose = _slices(place)
    seconds = _step(plan, device)
    n_samples = n_slices
    if plan.network.patch:
        n_samples = math.ceil(n_slices * math.prod(plan.grid.size) / math.prod(plan.network.patch))
    settings = plan.training
    one = settings.model_copy(update={"epochs_per_round": 1, "steps_per_round": 0})
    of_epoch = seconds * n_steps_of(one, n_samples)
    of_round = seconds * n_steps_of(settings, n_samples)
    most = "at most " if settings.patience else ""
    found = (
        f"about {duration(of_epoch)} on {device} ({duration(seconds)} a step, {whose}); "
        f"a round {most}{duration(of_round)}, scoring not counted"
    )
    if of_round > LONG_SECONDS:
        todo = "use a GPU, or tell the coordinator how long a round takes here"
        return Checked(what, Health.LOOK, found, todo)
    return Checked(what, Health.OK, found)


def _slices(place: Workspace | None) -> tuple[int, str]:
    """Slices to train on: the site's own, or those of a cohort to compare with."""
    if (
        place is not None
        and place.role is Role.SITE
        and dataset.index_path(place.data).exists()
        and dataset.split_path(place.data).exists()
    ):
        n = sum(entry.n_slices for entry in dataset.cases_of(place.data, Subset.TRAIN))
        return n, f"{n} slices of this site"
    return PATIENTS * SLICES, f"{PATIENTS} patients of {SLICES} slices"


def _step(plan: Plan, device: torch.device) -> float:
    """Seconds of a step; where the whole batch would take too long, told from two small ones.

    A step has a share that doesn't grow with the batch, so the two are put on a straight line.
    """
    whole, of_one = plan.training.batch, _step_of(plan, 1, device)
    if of_one * whole <= BUDGET_SECONDS:
        return of_one if whole == 1 else _step_of(plan, whole, device)
    if of_one > BUDGET_SECONDS / 2 or whole <= SMALL:
        return of_one * whole
    of_small = _step_of(plan, SMALL, device)
    # On a busy machine the small one may even take less: then at least a share of it grows.
    of_another = max((of_small - of_one) / (SMALL - 1), of_small / SMALL**2)
    return of_small + of_another * (whole - SMALL)


def _step_of(plan: Plan, batch: int, device: torch.device) -> float:
    part = plan.training.model_copy(update={"batch": batch})
    changed = plan.model_copy(update={"training": part})
    return seconds_per_step(changed, device=str(device), n=2, budget_seconds=BUDGET_SECONDS / 5)
