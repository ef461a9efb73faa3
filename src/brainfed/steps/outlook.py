"""What a simulation will take, told before its first run."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from brainfed.core.architecture import n_parameters, tensor_table
from brainfed.core.budget import Budget, budget_of
from brainfed.core.contenders import TRAINED_AS, Contender, Run, Training, passes_of, plan_of
from brainfed.core.training import n_steps_of
from brainfed.formats.simulation import SiteCounts
from brainfed.plan import Plan
from brainfed.steps.simulated_party import THREADS
from brainfed.steps.simulation_setting import Setting
from brainfed.steps.step_time import seconds_per_step

FORWARD_SHARE = 1 / 3
"""Of the time of a training step that a look at as many slices takes: no way back, no update."""
LOOKS = 3
"""At each validation patient a round: weights that came, the site's own, the next global ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOutlook:
    """One contender, in each of its runs."""

    contender: Contender
    epochs_per_round: int
    """Of `iil` the most that a site trains."""
    n_runs: int
    """Runs that it is read off; others may share them."""
    budget: Budget


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """A simulation before its first run."""

    n_runs: int
    """At the least: more where several rates are tried and another than the first is best."""
    passes: int
    """Over every training patient, in each run."""
    sites: tuple[SiteCounts, ...]
    """Of the first repeat."""
    contenders: tuple[RunOutlook, ...]
    seconds_per_step: float
    """Measured here, on random data."""
    seconds: float
    """Of one process for all runs: an estimate from the steps."""
    jobs: int

    @property
    def wall_seconds(self) -> float:
        """By the clock, if that many processes don't slow each other down."""
        return self.seconds / self.jobs


def outlook(setting: Setting, *, jobs: int) -> Outlook:
    """Count what all runs will do, and measure what a step takes here.

    Args:
        setting: The simulation.
        jobs: Processes at a time.

    Raises:
        PlanError: The plan can't be simulated.
        ResourceError: The memory is too small for a step.
    """
    request, settings = setting.request, setting.settings
    plan, machine = request.plan, setting.request.machine
    runs = setting.first_runs()
    step_seconds = seconds_per_step(
        plan, device=machine.device, precision=machine.precision, threads=THREADS
    )
    return Outlook(
        n_runs=len(runs),
        passes=passes_of(plan),
        sites=settings.sites[0],
        contenders=tuple(
            _of(contender, epochs, runs, setting)
            for contender in settings.contenders
            for epochs in (settings.epochs if contender is Contender.FL else (1,))
        ),
        seconds_per_step=step_seconds,
        seconds=step_seconds
        * sum(_steps_worth(run, plan, settings.sites[run.repeat]) for run in runs),
        jobs=jobs,
    )


def _of(contender: Contender, epochs: int, runs: Sequence[Run], setting: Setting) -> RunOutlook:
    mine = [run for run in runs if run.training is TRAINED_AS[contender] and run.epochs == epochs]
    sites = setting.settings.sites[0]
    plan = plan_of(mine[0], setting.request.plan, len(sites))
    table = tensor_table(plan)
    budget = budget_of(
        mine[0],
        setting.request.plan,
        contender,
        steps_per_epoch=_steps(plan, sites),
        weight_bytes=4 * n_parameters(table),
    )
    return RunOutlook(
        contender=contender,
        epochs_per_round=plan.training.epochs_per_round,
        n_runs=len(mine),
        budget=budget,
    )


def _steps(plan: Plan, sites: Sequence[SiteCounts]) -> dict[str, int]:
    epoch = plan.training.model_copy(update={"epochs_per_round": 1})
    return {site.site: n_steps_of(epoch, site.n_slices) for site in sites}


def _steps_worth(run: Run, plan: Plan, sites: Sequence[SiteCounts]) -> float:
    """Steps of all sites together, and what scoring takes in the same coin."""
    own = plan_of(run, plan, len(sites))
    if run.training is Training.POOLED:
        n_slices = sum(site.n_slices for site in sites)
        per_pass = math.ceil(n_slices / plan.training.batch)
    else:
        per_pass = sum(_steps(own, sites).values())
    n_points = own.rounds if run.training is not Training.CIIL else passes_of(plan)
    held_out = sum(site.n_slices * site.n_validation / max(site.n_train, 1) for site in sites)
    looked_at = n_points * LOOKS * held_out / plan.training.batch
    return per_pass * passes_of(plan) + FORWARD_SHARE * looked_at
