"""Intervals of means over patients, and two weight files on the same patients."""

import numpy as np
import pytest
from scipy import stats

from brainfed.core.comparison import compare, intervals, mean_interval
from brainfed.core.metrics import Measure
from brainfed.core.scoring import CaseScore
from brainfed.plan import Region


def scores(*values: float, measure: Measure = Measure.DICE) -> list[CaseScore]:
    """A case of its own patient for each value."""
    return [
        CaseScore(f"case {n}", f"patient {n}", Region.WT, 1, 1, {measure: value})
        for n, value in enumerate(values)
    ]


def test_the_interval_is_that_of_scipy_s_bootstrap_over_patients() -> None:
    values = np.random.default_rng(3).beta(5, 2, 30)
    low, high = mean_interval(values) or (0, 0)
    other = stats.bootstrap(
        (values,), np.mean, method="BCa", n_resamples=20000, rng=np.random.default_rng(9)
    ).confidence_interval
    assert (low, high) == pytest.approx((other.low, other.high), abs=0.004)
    assert low < values.mean() < high


def test_the_same_scores_have_the_same_interval() -> None:
    values = list(np.random.default_rng(4).random(12))
    assert mean_interval(values) == mean_interval(values)


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(5)
    trials = [mean_interval(random.beta(8, 2, 25)) or (1, 0) for _ in range(150)]
    n_covered = sum(low <= 0.8 <= high for low, high in trials)
    assert 0.87 < n_covered / 150 <= 1


def test_few_patients_have_no_interval() -> None:
    assert mean_interval([0.1, 0.2, 0.3, 0.4]) is None
    assert mean_interval([0.1, 0.2, 0.3, 0.4, 0.5]) is not None
    assert intervals(scores(0.1, 0.2, 0.3, 0.4), [Region.WT]) == ()


@pytest.mark.parametrize("values", [[0.0] * 6, [1.0] * 9])
def test_patients_that_are_all_the_same_have_an_interval_of_no_width(values: list[float]) -> None:
    assert mean_interval(values) == (values[0], values[0])


def test_one_patient_that_differs_still_gives_an_interval() -> None:
    low, high = mean_interval([1.0] * 19 + [0.0]) or (0, 0)
    assert 0 < low < 0.95 < high <= 1


def test_a_patient_with_several_cases_counts_once() -> None:
    rows = scores(0.2, 0.4, 0.6, 0.8, 1.0)
    again = [CaseScore("another", "patient 0", Region.WT, 1, 1, {Measure.DICE: 0.2})]
    assert intervals([*rows, *again], [Region.WT]) == intervals(rows, [Region.WT])


def test_each_region_and_measure_has_its_own_interval() -> None:
    rows = [
        *scores(0.2, 0.4, 0.6, 0.8, 1.0),
        *scores(3, 4, 5, 6, 7, measure=Measure.HD95_SURFACE),
    ]
    found = intervals(rows, [Region.WT, Region.ET])
    assert [(i.measure, i.region, i.n) for i in found] == [
        (Measure.DICE, Region.WT, 5),
        (Measure.HD95_SURFACE, Region.WT, 5),
    ]
    assert found[1].low > 3


def test_two_weight_files_are_compared_patient_by_patient() -> None:
    first = scores(0.9, 0.8, 0.7, 0.95, 0.6, 0.85, 0.5)
    second = scores(0.8, 0.85, 0.5, 0.9, 0.3, 0.7, 0.5)
    (found,) = compare(first, second, [Region.WT])
    differences = np.array([a.dice - b.dice for a, b in zip(first, second, strict=True)])
    assert (found.n, found.n_different) == (7, 6)
    assert found.mean == pytest.approx(differences.mean())
    assert (found.low, found.high) == mean_interval(differences)
    assert found.p == stats.wilcoxon(differences[:6]).pvalue
    # By size 0.05 and 0.05 share ranks 1 and 2, so 1.5 of 21 speaks for the second.
    assert found.effect == pytest.approx((21 - 2 * 1.5) / 21)


def test_the_effect_turns_its_sign_with_the_files() -> None:
    first, second = scores(*np.linspace(0.1, 0.9, 8)), scores(*np.linspace(0.3, 0.8, 8))
    (one,) = compare(first, second, [Region.WT])
    (other,) = compare(second, first, [Region.WT])
    assert one.effect == pytest.approx(-(other.effect or 0))
    assert one.p == other.p
    assert one.mean == pytest.approx(-other.mean)


def test_patients_without_a_difference_count_in_the_mean_and_not_in_the_test() -> None:
    first = scores(0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 1.0, 1.0)
    second = scores(0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 1.0, 1.0)
    (found,) = compare(first, second, [Region.WT])
    assert found.mean == pytest.approx(2.1 / 8)
    assert found.p == stats.wilcoxon([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]).pvalue
    assert found.effect == 1


def test_too_few_patients_that_differ_have_no_p() -> None:
    (found,) = compare(
        scores(0.9, 0.8, 0.7, 0.6, 0.5, 0.4), scores(0.8, 0.7, 0.6, 0.5, 0.4, 0.4), [Region.WT]
    )
    assert (found.n, found.n_different, found.p, found.effect) == (6, 5, None, 1)


def test_the_same_scores_twice_differ_nowhere() -> None:
    rows = scores(0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
    (found,) = compare(rows, rows, [Region.WT])
    assert (found.mean, found.p, found.effect) == (0, None, None)


def test_only_patients_with_both_scores_are_compared() -> None:
    (found,) = compare(scores(0.9, 0.8, 0.7), scores(0.9, 0.7), [Region.WT])
    assert found.n == 2
