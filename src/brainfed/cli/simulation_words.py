"""What `brainfed simulate` tells of a simulation, before and after."""

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from brainfed.cli.console import COMMAND, Table, Words, counted

if TYPE_CHECKING:
    from brainfed.formats.simulation import PatientScore
    from brainfed.steps.outlook import Outlook
    from brainfed.steps.simulate import Simulated


@dataclass(frozen=True)
class PartitionFacts:
    """The table of a partition."""

    path: Path
    sites: dict[str, dict[str, int]]
    """Of each site the patients of each subset."""


@dataclass(frozen=True)
class MethodFacts:
    """A method at the shared rate: the mean over repeats of the mean over patients."""

    method: str
    validation: float | None
    """Dice; null where nothing was scored."""
    test: float | None


@dataclass(frozen=True, kw_only=True)
class SimulationFacts:
    """A finished simulation in short; report.html, scores.csv and claims.json have the rest."""

    folder: Path
    page: Path
    csv: Path
    n_runs: int
    n_held: int
    """Cases that the checks held back."""
    methods: tuple[MethodFacts, ...]


def partition_words(facts: PartitionFacts) -> Words:
    """The sites of a partition, and where its table lies."""
    yield Table(
        ("site", "train", "validation", "test"),
        [(site, *counts.values()) for site, counts in facts.sites.items()],
    )
    yield f"The table: {facts.path}"


def outlook_words(told: "Outlook") -> Words:
    """What a simulation will take."""
    yield "The sites, in the first repeat"
    yield Table(
        ("site", "train", "validation", "test", "slices"),
        [(s.site, s.n_train, s.n_validation, s.n_test, s.n_slices) for s in told.sites],
    )
    yield (
        f"\n{counted(told.n_runs, 'run')}, each of {counted(told.passes, 'pass', 'passes')} over "
        "every training patient. Of each run:"
    )
    yield Table(
        ("method", "runs", "rounds", "epochs a round", "hand-overs", "MB carried", "steps"),
        [
            (
                row.contender.value,
                row.n_runs,
                row.budget.rounds,
                row.epochs_per_round,
                row.budget.hand_overs,
                round(row.budget.bytes_carried / 1e6),
                row.budget.sequential_steps,
            )
            for row in told.contenders
        ],
    )
    yield "Steps: those that come one after the other; what sites do at the same time counts once."
    yield (
        f"\nA training step takes {1000 * told.seconds_per_step:.0f} ms here. About "
        f"{_long(told.seconds)} of one process in all, {_long(told.wall_seconds)} with --jobs "
        f"{told.jobs} if they don't slow each other down. Signing and carrying files comes on top."
    )
    yield "Nothing was trained yet; the same line without --dry-run begins."


def _long(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def summary(done: "Simulated") -> tuple[MethodFacts, ...]:
    """Of each method at the shared rate: the mean over repeats of the mean over patients."""
    rows = []
    for contender in done.settings.contenders:
        for epochs in done.settings.epochs if contender == "fl" else (1,):
            found = [
                [outcome for outcome in result.outcomes if outcome.contender is contender]
                for result in done.results
                if (result.rate, result.epochs) == (done.settings.rates[0], epochs)
            ]
            chosen = [[o.points[o.chosen].validation for o in outcomes] for outcomes in found]
            tested = [[o.test for o in outcomes if o.test] for outcomes in found]
            name = f"fl, {counted(epochs, 'epoch')} a round" if contender == "fl" else contender
            rows.append(MethodFacts(str(name), _dice(chosen), _dice(tested)))
    return tuple(rows)


def _dice(runs: "list[list[tuple[PatientScore, ...]]]") -> float | None:
    """The mean over runs of the mean over each run's weights and their patients."""
    means = [
        statistics.fmean(statistics.fmean(score.dice for score in scores) for scores in weights)
        for weights in runs
        if weights
    ]
    return statistics.fmean(means) if means else None


def simulation_words(facts: SimulationFacts) -> Words:
    """What a simulation found, in short, and where the rest stands."""
    yield f"{counted(facts.n_runs, 'run')}, each audited. Mean Dice over patients and repeats:"
    yield Table(
        ("method", "validation", "test"),
        [(row.method, row.validation, row.test) for row in facts.methods],
    )
    if facts.n_held:
        yield f"{counted(facts.n_held, 'case')} held back by the checks took no part."
    yield f"\nThe report, with spreads, claims and costs: {facts.page}"
    yield f"Every score: {facts.csv}"
    yield "Every run can be audited, such as:"
    yield f"{COMMAND}brainfed audit {facts.folder}/runs/RUN/lead"
