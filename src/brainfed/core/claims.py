"""What a simulation shows and what it doesn't: claims judged on the same patients.

A difference is taken patient by patient; its 95 % interval comes from resampling the patients
within their sites (percentile bootstrap). So it speaks of other patients of these sites, and not of
other sites, nor of other trainings: those only show in the spread between repeats. A claim that
isn't shown may still be true; how large a difference would have been shown stands beside it. No
interval is corrected for how many claims are judged.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from brainfed.core.comparison import CONFIDENCE, LEAST_FOR_INTERVAL, N_RESAMPLES, SEED

POWER = 0.8
DETECTABLE = 2.8
"""Standard errors that a true difference must have to be shown with a power of 80 % by a two-sided
test at 5 %: 1.96 + 0.84."""
FEWEST_REPEATS = 3
"""Below which a spread between repeats is no spread."""
_TAILS = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)


class Verdict(StrEnum):
    """What the figures say of a claim."""

    SHOWN = "shown"
    """The whole interval is on the claim's side."""
    NOT_SHOWN = "not-shown"
    """The interval holds both sides."""
    OTHER_WAY = "shown-the-other-way"
    """The whole interval is on the other side."""
    NOT_JUDGED = "not-judged"
    """There are too few figures; `note` says which are missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A claim, the figure that it is judged by, and the verdict."""

    name: str
    """A short name, such as `fl-above-ciil`."""
    says: str
    """The claim as a sentence."""
    figure: str
    """What `estimate` is."""
    border: float
    """The claim is that the figure lies above it."""
    n: int = 0
    """Patients; of a spread repeats, of the saw-tooth hand-overs (both of the one with fewer)."""
    estimate: float | None = None
    low: float | None = None
    """95 % interval."""
    high: float | None = None
    smallest: float | None = None
    """The smallest true figure that this could have shown, with a power of 80 %."""
    verdict: Verdict = Verdict.NOT_JUDGED
    note: str = ""
    """Why it isn't judged, or what weakens it."""


def about_patients(
    claim: Claim,
    first: Mapping[str, float],
    second: Mapping[str, float],
    sites: Mapping[str, str],
    *,
    share: float = 1.0,
) -> Claim:
    """Judge whether the first is above `share` times the second, on the patients of both.

    Args:
        claim: What is claimed; its border must be 0.
        first: Score of each patient, 0 to 1.
        second: Likewise.
        sites: The site of each patient; resampling keeps the number of each site.
        share: What the second is multiplied by.

    Returns:
        The claim with its figure: the mean over patients of first - share * second.
    """
    both = sorted(first.keys() & second.keys())
    if len(both) < LEAST_FOR_INTERVAL:
        note = f"fewer than {LEAST_FOR_INTERVAL} patients have both scores"
        return _unjudged(claim, len(both), note)
    differences = np.array([first[patient] - share * second[patient] for patient in both])
    means = resampled_means(differences, [sites[patient] for patient in both])
    return _judged(claim, len(both), float(differences.mean()), means)


def about_spread(claim: Claim, first: Sequence[float], second: Sequence[float]) -> Claim:
    """Judge whether the first vary more from repeat to repeat, by an F interval.

    Args:
        claim: What is claimed; its border must be 1.
        first: The mean of each repeat.
        second: Likewise.

    Returns:
        The claim with its figure: the ratio of the two standard deviations. The interval supposes
        normal and independent values.
    """
    n = min(len(first), len(second))
    if n < FEWEST_REPEATS:
        return _unjudged(claim, n, f"it takes {FEWEST_REPEATS} repeats of both")
    above, below = statistics.stdev(first), statistics.stdev(second)
    if below == 0:
        return _unjudged(claim, n, "one of them has no spread at all")
    ratio, degrees = above / below, (len(first) - 1, len(second) - 1)
    bounds = [ratio / float(stats.f.ppf(tail, *degrees)) ** 0.5 for tail in reversed(_TAILS)]
    shown = stats.f.ppf(_TAILS[1], *degrees) / stats.f.ppf(1 - POWER, *degrees)
    return _with_verdict(claim, n, ratio, (bounds[0], bounds[1]), float(shown) ** 0.5)


def about_drops(claim: Claim, first: Sequence[float], second: Sequence[float]) -> Claim:
    """Judge whether the first drop by more on average, by resampling the drops of each.

    Args:
        claim: What is claimed; its border must be 0.
        first: Drops, one a hand-over, above 0 where the score fell.
        second: Likewise; need not be as many.

    Returns:
        The claim with its figure: the difference of the two means. The interval supposes that one
        drop says nothing of the next.
    """
    n = min(len(first), len(second))
    if n < LEAST_FOR_INTERVAL:
        return _unjudged(claim, n, f"it takes {LEAST_FOR_INTERVAL} hand-overs of both")
    means = [
        resampled_means(np.array(drops), [""] * len(drops), stream=stream)
        for stream, drops in enumerate((first, second))
    ]
    estimate = statistics.fmean(first) - statistics.fmean(second)
    return _judged(claim, n, estimate, means[0] - means[1])


def resampled_means(
    values: NDArray[np.float64], strata: Sequence[str], *, stream: int = 0
) -> NDArray[np.float64]:
    """The mean of 9,999 resamples; each stratum keeps its number of values.

    Args:
        values: One a patient.
        strata: The stratum of each value.
        stream: Another number draws others; the same numbers draw the same.
    """
    random = np.random.default_rng((SEED, stream))
    sums = np.zeros(N_RESAMPLES)
    names = np.array(strata)
    for name in sorted(set(strata)):
        group = values[names == name]
        sums += group[random.integers(group.size, size=(N_RESAMPLES, group.size))].sum(axis=1)
    means: NDArray[np.float64] = sums / values.size
    return means


def _judged(claim: Claim, n: int, estimate: float, means: NDArray[np.float64]) -> Claim:
    low, high = (float(bound) for bound in np.quantile(means, _TAILS))
    smallest = claim.border + DETECTABLE * float(means.std(ddof=1))
    return _with_verdict(claim, n, estimate, (low, high), smallest)


def _with_verdict(
    claim: Claim, n: int, estimate: float, interval: tuple[float, float], smallest: float
) -> Claim:
    low, high = interval
    verdict = Verdict.NOT_SHOWN
    if low > claim.border:
        verdict = Verdict.SHOWN
    elif high < claim.border:
        verdict = Verdict.OTHER_WAY
    return replace(
        claim, n=n, estimate=estimate, low=low, high=high, smallest=smallest, verdict=verdict
    )


def _unjudged(claim: Claim, n: int, note: str) -> Claim:
    return replace(claim, n=n, verdict=Verdict.NOT_JUDGED, note=note)
