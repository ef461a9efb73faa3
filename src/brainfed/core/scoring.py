"""Scores of a network: of one case, of patients, of a group of patients; without torch.

The patient is the unit everywhere: where a patient has several cases, their mean is the patient's
score, so a patient with many visits counts once.
"""

import statistics
from collections.abc import Iterable, Mapping
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
    values: Mapping[Measure, float]
    """What was measured; no mm and no ml where the spacing is nominal."""
    is_complete: bool = True
    """Whether the case has every modality of the plan."""

    @property
    def dice(self) -> float:
        """3-D, at threshold 0.5."""
        return self.values[Measure.DICE]


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
    """Each patient's mean over its cases that have the measure, by patient."""
    values: dict[str, list[float]] = {}
    for score in scores:
        if score.region is region and measure in score.values:
            values.setdefault(score.patient, []).append(score.values[measure])
    return {patient: statistics.fmean(cases) for patient, cases in sorted(values.items())}


def summarise(scores: Iterable[CaseScore], plan: Plan) -> tuple[Summary, ...]:
    """All regions of the plan under every measure that was taken, over the patients of these cases.

    Without any case the two Dice scores stand there with nobody behind them.
    """
    return summaries_of(scores, plan.scans.regions)


def summaries_of(scores: Iterable[CaseScore], regions: Iterable[Region]) -> tuple[Summary, ...]:
    """As `summarise`, of these regions."""
    scores, regions = tuple(scores), tuple(regions)
    taken = {measure for score in scores for measure in score.values}
    if not scores:
        taken = {Measure.DICE, Measure.SOFT_SLICE_DICE}
    return tuple(
        _summary(patient_scores(scores, region, measure), region, measure)
        for measure in Measure
        if measure in taken
        for region in regions
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
