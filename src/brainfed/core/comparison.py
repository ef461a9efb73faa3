"""How sure a mean over patients is, and whether two weight files differ on the same patients.

The patient is the unit, as in `core.scoring`. No figure here is corrected for how many were looked
at: of twenty comparisons without any difference one has p below 0.05.
"""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from brainfed.core.metrics import Measure
from brainfed.core.scoring import CaseScore, patient_scores
from brainfed.plan import Region

SEED = 2018
"""Of the bootstrap, so that the same scores have the same interval."""
N_RESAMPLES = 9999
CONFIDENCE = 0.95
LEAST_FOR_INTERVAL = 5
"""Patients below which resampling them says next to nothing."""
LEAST_FOR_TEST = 6
"""Patients that differ: with 5 the test can't reach p 0.05, whatever they say."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Where the mean over patients may lie: 95 %, from resampling the patients."""

    region: Region
    measure: Measure
    n: int
    """Patients."""
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """One region and measure: the first weights less the second, patient by patient."""

    region: Region
    measure: Measure
    n: int
    """Patients."""
    n_different: int
    """Patients whose two scores are not the same."""
    mean: float
    """Of the differences; above 0 where the first have the larger figure, be it better or worse."""
    low: float | None
    """95 % interval of the mean; None for few patients."""
    high: float | None
    p: float | None
    """Wilcoxon's signed-rank test, two-sided; None where few patients differ."""
    effect: float | None
    """Matched rank-biserial correlation, -1 to 1: the share of the ranks that speak for the first
    less the share that speak for the second; None where nobody differs."""


def intervals(scores: Iterable[CaseScore], regions: Sequence[Region]) -> tuple[Interval, ...]:
    """The interval of every mean over at least five patients, by measure and region."""
    scores = tuple(scores)
    found = []
    for measure, region in _kinds(scores, regions):
        values = list(patient_scores(scores, region, measure).values())
        bounds = mean_interval(values)
        if bounds is not None:
            found.append(Interval(region, measure, len(values), *bounds))
    return tuple(found)


def compare(
    first: Iterable[CaseScore], second: Iterable[CaseScore], regions: Sequence[Region]
) -> tuple[Difference, ...]:
    """Compare two weight files on the patients that both were scored on, by measure and region."""
    first, second = tuple(first), tuple(second)
    found = []
    for measure, region in _kinds(first, regions):
        one, other = (patient_scores(scores, region, measure) for scores in (first, second))
        both = sorted(one.keys() & other.keys())
        if both:
            differences = np.array([one[patient] - other[patient] for patient in both])
            found.append(_difference(differences, region, measure))
    return tuple(found)


def mean_interval(values: Sequence[float] | NDArray[np.float64]) -> tuple[float, float] | None:
    """95 % interval of the mean by bootstrap over the values; None for fewer than five.

    Bias-corrected and accelerated (Efron 1987, scipy's `BCa`); plain percentiles where that has no
    answer, as with values that are nearly all the same.
    """
    data = np.asarray(values, np.float64)
    if data.size < LEAST_FOR_INTERVAL:
        return None
    if np.all(data == data[0]):
        return float(data[0]), float(data[0])
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore", stats.DegenerateDataWarning)
            found = stats.bootstrap(
                (data,),
                np.mean,
                n_resamples=N_RESAMPLES,
                confidence_level=CONFIDENCE,
                method=method,
                rng=np.random.default_rng(SEED),
            ).confidence_interval
        if np.isfinite(found.low) and np.isfinite(found.high):
            break
    return float(found.low), float(found.high)


def _kinds(
    scores: Sequence[CaseScore], regions: Sequence[Region]
) -> Iterable[tuple[Measure, Region]]:
    """What was measured, in the order of measures and regions."""
    taken = {measure for score in scores for measure in score.values}
    return [(measure, region) for measure in Measure if measure in taken for region in regions]


def _difference(differences: NDArray[np.float64], region: Region, measure: Measure) -> Difference:
    low, high = mean_interval(differences) or (None, None)
    # Patients without a difference say nothing for either and are left out of the ranks, as
    # Wilcoxon did (scipy's zero_method "wilcox"); the mean counts them.
    different = differences[differences != 0]
    p = effect = None
    if different.size:
        ranks = stats.rankdata(np.abs(different))
        effect = float((ranks * np.sign(different)).sum() / ranks.sum())
    if different.size >= LEAST_FOR_TEST:
        p = float(stats.wilcoxon(different, zero_method="wilcox").pvalue)
    return Difference(
        region=region,
        measure=measure,
        n=int(differences.size),
        n_different=int(different.size),
        mean=float(differences.mean()),
        low=low,
        high=high,
        p=p,
        effect=effect,
    )
