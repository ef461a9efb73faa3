"""A results folder of a simulation, read once, its runs put into the arms that are compared."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from brainfed.core.contenders import TRAINED_AS, Contender, Run, Training
from brainfed.errors import ConflictError, NotReadyError
from brainfed.formats import simulation
from brainfed.formats.simulation import Outcome, RunResult, Settings
from brainfed.formats.simulation_findings import run_of
from brainfed.plan import Plan, parse
from brainfed.steps.simulation_arms import Arm, ArmRun, Protocol, validation_dice


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """All that a results folder says, read once."""

    folder: Path
    settings: Settings
    digest: str
    """Of `simulation.json`."""
    plan: Plan
    results: tuple[RunResult, ...]
    shared: tuple[Arm, ...]
    """All arms at the first rate."""
    best: tuple[Arm, ...]
    """Each at its best rate; empty where one rate was tried."""
    sites_of: Mapping[str, str]
    """The site of each patient that was scored."""

    @property
    def protocols(self) -> tuple[Protocol, ...]:
        """The protocols that there are figures for, the one that claims are judged on first."""
        has_test = any(outcome.test for result in self.results for outcome in result.outcomes)
        return (Protocol.CLEAN, Protocol.PAPER) if has_test else (Protocol.PAPER,)

    @property
    def n_sites(self) -> int:
        """Sites of the partition."""
        return self.results[0].n_sites

    @property
    def missing(self) -> tuple[str, ...]:
        """Runs that haven't ended: all at the first rate, and those at each arm's best."""
        trainings = sorted({TRAINED_AS[contender] for contender in self.settings.contenders})
        wanted = [
            Run(training, repeat, epochs, self.settings.rates[0]).name
            for training in trainings
            for repeat in range(self.settings.n_repeats)
            for epochs in (self.settings.epochs if training is Training.FL else (1,))
        ]
        wanted += [
            Run(TRAINED_AS[arm.contender], repeat, arm.epochs, arm.rate).name
            for arm in self.best
            for repeat in range(self.settings.n_repeats)
        ]
        ended = {run_of(result).name for result in self.results}
        return tuple(name for name in dict.fromkeys(wanted) if name not in ended)


def read(folder: Path) -> Simulation:
    """Read a results folder and put its runs into arms.

    Raises:
        NotReadyError: There is no simulation, or none of its runs has ended.
        ConflictError: A file is damaged, or of another simulation.
        PlanError: The plan can't be read.
    """
    settings = simulation.read_settings(folder)
    digest = hashlib.sha256(simulation.settings_bytes(settings)).hexdigest()
    results = simulation.read_results(folder)
    if not results:
        raise NotReadyError(
            "No run of this simulation has ended, so there is nothing to report",
            where=folder,
            hint="`brainfed simulate` goes on where it was",
        )
    for result in results:
        if result.settings != digest:
            name = run_of(result).name
            raise ConflictError(
                "A result is of another simulation",
                expected=f"settings {digest[:16]}",
                found=result.settings[:16],
                where=simulation.result_path(folder, name),
                hint="remove it and run `brainfed simulate` again",
            )
    arms = {(arm.contender, arm.epochs, arm.rate): arm for arm in _arms_of(settings, results)}
    shared = tuple(arm for arm in arms.values() if arm.rate == settings.rates[0])
    return Simulation(
        folder=folder,
        settings=settings,
        digest=digest,
        plan=parse(settings.plan.encode(), simulation.NAME),
        results=results,
        shared=shared,
        best=_best(settings, arms.values()) if len(settings.rates) > 1 else (),
        sites_of={
            score.patient: score.site
            for result in results
            for outcome in result.outcomes
            for score in (*outcome.points[0].validation, *outcome.test)
        },
    )


def _arms_of(settings: Settings, results: Sequence[RunResult]) -> Iterable[Arm]:
    """All arms with a run, in the order that contenders, epochs and rates were asked for."""
    for contender in settings.contenders:
        for epochs in settings.epochs if contender is Contender.FL else (1,):
            for rate in settings.rates:
                runs = [
                    ArmRun(result, outcomes)
                    for result in results
                    if (result.training, result.rate) == (TRAINED_AS[contender], rate)
                    and (contender is not Contender.FL or result.epochs == epochs)
                    and (outcomes := _outcomes_of(result, contender))
                ]
                if runs:
                    ordered = sorted(runs, key=lambda run: run.result.repeat)
                    yield Arm(contender, epochs, rate, tuple(ordered))


def _outcomes_of(result: RunResult, contender: Contender) -> tuple[Outcome, ...]:
    return tuple(o for o in result.outcomes if o.contender is contender)


def _best(settings: Settings, arms: Iterable[Arm]) -> tuple[Arm, ...]:
    """The arm of each contender at the rate that is best on the first repeat's validation."""
    by_kind: dict[tuple[Contender, int], list[Arm]] = defaultdict(list)
    for arm in arms:
        by_kind[arm.contender, arm.epochs].append(arm)
    order = {rate: -place for place, rate in enumerate(settings.rates)}

    def rank(arm: Arm) -> tuple[float, int]:
        first = next((run.result for run in arm.runs if run.result.repeat == 0), None)
        mean = None if first is None else validation_dice(first, arm.contender)
        return (-1.0 if mean is None else mean, order[arm.rate])

    return tuple(max(tried, key=rank) for tried in by_kind.values())
