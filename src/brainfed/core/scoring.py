"""Scores of a network: of one case, of patients, of a group of patients; without torch.

The patient is the unit everywhere: where a patient has several cases, their mean is the patient's
score, so a patient with many visits counts once.
"""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from brainfed.core.metrics import Measure
from brainfed.plan import Plan, Region


@dataclass(frozen=True, slots=True)
class CaseScore:
    """The scores of one region of one case."""

    case: str
    patient: str
    region: Region
    n_voxels: int
    """Of the true region."""
    n_voxels_predicted: int
    dice: float
    """3-D, on the plan's grid, at threshold 0.5."""
    soft_slice_dice: float
    """The paper's: of probabilities, per slice, then the mean over the case's slices."""

    def value(self, measure: Measure) -> float:
        """The score of this name."""
        return self.dice if measure is Measure.DICE else self.soft_slice_dice


@dataclass(frozen=True, slots=True)
class Summary:
    """One region and measure over a group of patients."""

    region: Region
    measure: Measure
    n: int
    """Patients."""
    mean: float | None
    """None without a patient."""
    sd: float | None
    """Sample standard deviation; None below two patients."""
    median: float | None
    worst: tuple[tuple[str, float], ...]
    """Up to five patients and their scores, the lowest first."""


def patient_scores(
    scores: Iterable[CaseScore], region: Region, measure: Measure
) -> dict[str, float]:
    """Each patient's mean over its cases, by patient."""
    values: dict[str, list[float]] = {}
    for score in scores:
        if score.region is region:
            values.setdefault(score.patient, []).append(score.value(measure))
    return {patient: statistics.fmean(cases) for patient, cases in sorted(values.items())}


def summarise(scores: Iterable[CaseScore], plan: Plan) -> tuple[Summary, ...]:
    """All regions of the plan under both measures, over the patients of these cases."""
    scores = tuple(scores)
    return tuple(
        _summary(patient_scores(scores, region, measure), region, measure)
        for measure in Measure
        for region in plan.scans.regions
    )


def _summary(by_patient: dict[str, float], region: Region, measure: Measure) -> Summary:
    values = list(by_patient.values())
    return Summary(
        region=region,
        measure=measure,
        n=len(values),
        mean=statistics.fmean(values) if values else None,
        sd=statistics.stdev(values) if len(values) > 1 else None,
        median=statistics.median(values) if values else None,
        worst=tuple(sorted(by_patient.items(), key=lambda item: (item[1], item[0]))[:5]),
    )
