"""The arms that a simulation compares, and what each reached.

An arm is a contender with its epochs a round and its rate, over all repeats. The patient is the
unit: a patient's value is the mean over regions, and over the arm's site weights where it has
several (`local`); a run's value is the mean over patients.
"""

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from brainfed.core.contenders import Contender
from brainfed.formats.simulation import Outcome, PatientScore, Point, RunResult


class Protocol(StrEnum):
    """On which patients weights are reported."""

    CLEAN = "clean"
    """Chosen on validation patients, reported on test patients."""
    PAPER = "paper"
    """Chosen and reported on validation patients, as the paper has it."""


Measured = Callable[[PatientScore], float]
"""Takes one measure out of a score."""


def dice(score: PatientScore) -> float:
    """3-D Dice."""
    return score.dice


def soft_slice_dice(score: PatientScore) -> float:
    """The measure of the paper's code."""
    return score.soft_slice_dice


@dataclass(frozen=True, slots=True)
class ArmRun:
    """One run of an arm."""

    result: RunResult
    outcomes: tuple[Outcome, ...]
    """One; of `local` one a site."""

    def by_patient(self, protocol: Protocol, measured: Measured = dice) -> dict[str, float]:
        """The value of each patient under the chosen weights."""
        found = [
            patient_values(
                o.test if protocol is Protocol.CLEAN else _as_published(o).validation, measured
            )
            for o in self.outcomes
        ]
        return _mean_by_key(found)

    def mean(self, protocol: Protocol, measured: Measured = dice) -> float | None:
        """The mean over patients; None where there is none."""
        values = self.by_patient(protocol, measured)
        return statistics.fmean(values.values()) if values else None

    def trained_points(self) -> tuple[Point, ...]:
        """The points from the first round on; none where an arm has several weights."""
        if len(self.outcomes) > 1:
            return ()
        return tuple(point for point in self.outcomes[0].points if point.round > 0)

    @property
    def chosen_point(self) -> Point:
        """The point whose weights are reported; of `local` the first site's."""
        return _chosen(self.outcomes[0])

    @property
    def last_point(self) -> Point:
        """The point at which the run ended."""
        return self.outcomes[0].points[-1]


@dataclass(frozen=True, slots=True)
class Arm:
    """One row of a comparison."""

    contender: Contender
    epochs: int
    """Per round, of `fl`."""
    rate: float
    runs: tuple[ArmRun, ...]
    """By repeat."""

    @property
    def name(self) -> str:
        """For people: the contender, with its epochs where it is `fl`."""
        if self.contender is not Contender.FL:
            return str(self.contender)
        return f"fl, {self.epochs} epoch{'s' * (self.epochs > 1)}"

    def by_patient(self, protocol: Protocol, repeats: Iterable[int]) -> dict[str, float]:
        """Dice of each patient, the mean over the repeats that it was scored in."""
        wanted = set(repeats)
        return _mean_by_key(
            [run.by_patient(protocol) for run in self.runs if run.result.repeat in wanted]
        )

    def run_means(self, protocol: Protocol, measured: Measured = dice) -> tuple[float, ...]:
        """The mean over patients of each repeat."""
        means = (run.mean(protocol, measured) for run in self.runs)
        return tuple(mean for mean in means if mean is not None)

    def point_means(self, measured: Measured = dice) -> tuple[tuple[float, ...], ...]:
        """Of each run the mean validation figure at each point from the first round on."""
        return tuple(
            tuple(point_mean(point, measured) for point in run.trained_points())
            for run in self.runs
        )

    @property
    def repeats(self) -> frozenset[int]:
        """The repeats that have ended."""
        return frozenset(run.result.repeat for run in self.runs)


@dataclass(frozen=True, slots=True)
class Place:
    """One point of an arm over its repeats."""

    round: int
    passes: float
    """Mean over repeats, as are the hand-overs."""
    hand_overs: float
    values: tuple[float, ...]
    """Validation Dice of each repeat, the mean over patients."""

    @property
    def mean(self) -> float:
        """Mean over repeats."""
        return statistics.fmean(self.values)


def curve(arm: Arm) -> tuple[Place, ...]:
    """The points of an arm from the first round on; of `local` the end alone, mean over sites."""
    if any(len(run.outcomes) > 1 for run in arm.runs):
        end = arm.runs[0].last_point
        return (Place(end.round, end.passes, 0, arm.run_means(Protocol.PAPER)),)
    runs = [run.trained_points() for run in arm.runs]
    places = []
    for number in range(max(map(len, runs))):
        points = [run[number] for run in runs if number < len(run)]
        passes = statistics.fmean(point.passes for point in points)
        hand_overs = statistics.fmean(point.hand_overs for point in points)
        values = tuple(point_mean(point) for point in points)
        places.append(Place(points[0].round, passes, hand_overs, values))
    return tuple(places)


def patient_values(scores: Iterable[PatientScore], measured: Measured = dice) -> dict[str, float]:
    """Each patient's mean over regions, by patient."""
    values: dict[str, list[float]] = defaultdict(list)
    for score in scores:
        values[score.patient].append(measured(score))
    return {patient: statistics.fmean(found) for patient, found in sorted(values.items())}


def point_mean(point: Point, measured: Measured = dice) -> float:
    """The mean over the validation patients of all sites."""
    return statistics.fmean(patient_values(point.validation, measured).values())


def validation_dice(result: RunResult, contender: Contender) -> float | None:
    """What a rate is chosen by: the mean over the validation patients of the chosen weights.

    Of `local` the mean over all sites' weights; None where the run isn't one of the contender.
    """
    means = [
        point_mean(_chosen(outcome))
        for outcome in result.outcomes
        if outcome.contender is contender
    ]
    return statistics.fmean(means) if means else None


def _chosen(outcome: Outcome) -> Point:
    return outcome.points[outcome.chosen]


def _as_published(outcome: Outcome) -> Point:
    """What the paper reports: of `iil` what the last site hands on, else the best point."""
    return outcome.points[-1] if outcome.contender is Contender.IIL else _chosen(outcome)


def _mean_by_key(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    keys = sorted({key for values in found for key in values})
    return {key: statistics.fmean(v[key] for v in found if key in v) for key in keys}
