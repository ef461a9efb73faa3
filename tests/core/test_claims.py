"""Claims on cases whose answer can be worked out by hand."""

import math
from collections import Counter

import numpy as np
import pytest

from brainfed.core.claims import (
    DETECTABLE,
    Claim,
    Verdict,
    about_drops,
    about_patients,
    about_spread,
    resampled_means,
)

ABOVE = Claim(name="a-above-b", says="A is above B", figure="A less B", border=0.0)
WIDER = Claim(name="a-wider", says="A spreads more", figure="sd of A over sd of B", border=1.0)


def patients(*values: float) -> dict[str, float]:
    return {f"p{number:03d}": value for number, value in enumerate(values)}


def one_site(scores: dict[str, float]) -> dict[str, str]:
    return dict.fromkeys(scores, "site-a")


def test_each_site_keeps_its_number_of_patients_in_every_resample() -> None:
    """The first site gives 0 or 1 twice, the second 10 twice: k / 4 + 5 with k of a fair coin."""
    means = resampled_means(np.array([0.0, 1.0, 10.0, 10.0]), ["a", "a", "b", "b"])
    found = Counter(means.tolist())
    assert set(found) == {5.0, 5.25, 5.5}
    assert found[5.25] / means.size == pytest.approx(0.5, abs=0.02)
    assert found[5.0] / means.size == pytest.approx(0.25, abs=0.02)


def test_what_sets_sites_apart_does_not_widen_the_interval() -> None:
    first = patients(*[0.2] * 5, *[0.9] * 5)
    second = patients(*[0.1] * 10)
    sites = {patient: "a" if value < 0.5 else "b" for patient, value in first.items()}
    apart = about_patients(ABOVE, first, second, sites)
    assert (apart.low, apart.high) == (pytest.approx(0.45), pytest.approx(0.45))
    together = about_patients(ABOVE, first, second, one_site(first))
    assert together.low is not None
    assert together.low < 0.3


def test_the_smallest_difference_is_that_many_standard_errors() -> None:
    values = np.random.default_rng(0).normal(0.1, 0.05, 60)
    scores = patients(*values)
    claim = about_patients(ABOVE, scores, patients(*[0.0] * 60), one_site(scores))
    # The bootstrap's standard error is that of the plain variance, not of the sample's.
    error = float(values.std(ddof=0)) / math.sqrt(60)
    assert claim.smallest == pytest.approx(DETECTABLE * error, rel=0.03)
    assert claim.low == pytest.approx(claim.estimate - 1.96 * error, abs=0.1 * error)
    assert claim.high == pytest.approx(claim.estimate + 1.96 * error, abs=0.1 * error)


@pytest.mark.parametrize(
    ("first", "verdict"),
    [
        ([0.81, 0.82, 0.80, 0.81, 0.82, 0.79], Verdict.SHOWN),
        ([0.71, 0.72, 0.70, 0.71, 0.72, 0.69], Verdict.OTHER_WAY),
        ([0.90, 0.70, 0.82, 0.76, 0.88, 0.70], Verdict.NOT_SHOWN),
    ],
)
def test_within_two_per_cent_is_above_that_share_of_the_other(
    first: list[float], verdict: Verdict
) -> None:
    scores, other = patients(*first), patients(*[0.81] * 6)
    claim = about_patients(ABOVE, scores, other, one_site(scores), share=0.98)
    assert claim.verdict is verdict
    assert claim.estimate == pytest.approx(np.mean(first) - 0.98 * 0.81)


def test_a_difference_of_exactly_nothing_is_not_shown() -> None:
    scores = patients(*[0.5] * 8)
    claim = about_patients(ABOVE, scores, scores, one_site(scores))
    assert claim.verdict is Verdict.NOT_SHOWN
    assert (claim.estimate, claim.low, claim.high, claim.smallest) == (0, 0, 0, 0)


def test_only_patients_with_both_scores_count() -> None:
    first, second = patients(*[0.6] * 8), patients(*[0.5] * 6)
    claim = about_patients(ABOVE, first, second, one_site(first))
    assert claim.n == 6
    few = about_patients(ABOVE, first, patients(*[0.5] * 4), one_site(first))
    assert (few.verdict, few.n, few.estimate) == (Verdict.NOT_JUDGED, 4, None)
    assert "fewer than 5 patients" in few.note


def test_the_order_of_the_patients_changes_nothing() -> None:
    first = patients(*np.random.default_rng(1).normal(0.7, 0.1, 20))
    second = patients(*np.random.default_rng(2).normal(0.6, 0.1, 20))
    sites = {patient: patient[-1] for patient in first}
    backwards = [dict(reversed(list(entry.items()))) for entry in (first, second, sites)]
    assert about_patients(ABOVE, first, second, sites) == about_patients(ABOVE, *backwards)


def test_a_ratio_of_spreads_has_the_interval_of_the_f_distribution() -> None:
    """With two degrees of freedom each, the quantile of F at p is p / (1 - p): 39 at 0.975."""
    claim = about_spread(WIDER, [1.0, 2.0, 3.0], [2.0, 2.1, 2.2])
    assert claim.estimate == pytest.approx(10)
    assert claim.low == pytest.approx(10 / math.sqrt(39))
    assert claim.high == pytest.approx(10 * math.sqrt(39))
    assert claim.smallest == pytest.approx(math.sqrt(39 / 0.25))
    assert (claim.verdict, claim.n) == (Verdict.SHOWN, 3)
    narrower = about_spread(WIDER, [2.0, 2.1, 2.2], [1.0, 2.0, 3.0])
    assert narrower.verdict is Verdict.OTHER_WAY
    assert about_spread(WIDER, [1.0, 2.0, 3.0], [1.0, 3.0, 5.0]).verdict is Verdict.NOT_SHOWN


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        ([0.1, 0.2], [0.1, 0.2, 0.3], "3 repeats"),
        ([0.1, 0.2, 0.3], [0.2, 0.2, 0.2], "no spread"),
    ],
)
def test_a_spread_that_nothing_can_be_said_of_is_not_judged(
    first: list[float], second: list[float], why: str
) -> None:
    claim = about_spread(WIDER, first, second)
    assert claim.verdict is Verdict.NOT_JUDGED
    assert why in claim.note
    assert claim.estimate is None


def test_drops_are_compared_by_their_means() -> None:
    claim = about_drops(ABOVE, [0.15] * 6, [0.01] * 9)
    assert (claim.estimate, claim.low, claim.high) == (pytest.approx(0.14),) * 3
    assert (claim.verdict, claim.n) == (Verdict.SHOWN, 6)
    assert about_drops(ABOVE, [0.15] * 4, [0.01] * 9).verdict is Verdict.NOT_JUDGED


def test_drops_of_two_methods_are_drawn_independently() -> None:
    """Were they drawn alike, equal lists would have a difference of 0 in every resample."""
    drops = list(np.random.default_rng(3).normal(0.1, 0.05, 30))
    claim = about_drops(ABOVE, drops, drops)
    error = float(np.std(drops)) / math.sqrt(30)
    assert claim.estimate == 0
    assert claim.smallest == pytest.approx(DETECTABLE * math.sqrt(2) * error, rel=0.05)
    assert claim.verdict is Verdict.NOT_SHOWN


def test_a_note_of_weakness_stays_where_a_claim_is_judged() -> None:
    weak = Claim(name="a", says="b", figure="c", border=1.0, note="weak")
    assert about_spread(weak, [1.0, 2.0, 3.0], [2.0, 2.1, 2.2]).note == "weak"
