"""The membership test's numbers, against other ways to compute them."""

import numpy as np
import pytest
import torch
from scipy import stats

from brainfed.core.losses import batch_loss
from brainfed.core.membership import can_resolve, case_loss, separate
from brainfed.plan import Loss


def losses(n: int, shift: float, seed: int) -> list[float]:
    return list(np.random.default_rng(seed).normal(shift, 1, n))


@pytest.mark.parametrize(("n", "m", "shift"), [(10, 10, 0.0), (40, 25, -0.5), (200, 150, -2.0)])
def test_the_area_is_that_of_mann_and_whitney(n: int, m: int, shift: float) -> None:
    ours, others = losses(n, shift, 1), losses(m, 0.0, 2)
    found = separate(ours, others, seed=3)
    assert found is not None
    u = stats.mannwhitneyu(others, ours).statistic  # pairs in which the held-out loss is larger
    assert found.auc == pytest.approx(u / (n * m))
    assert found.low <= found.auc <= found.high


def test_ties_count_half_and_perfect_separation_is_one() -> None:
    same = separate([1.0] * 10, [1.0] * 10, seed=0)
    apart = separate([0.0] * 12, [1.0] * 10, seed=0)
    assert same is not None and apart is not None
    assert (same.auc, same.low, same.high) == (0.5, 0.5, 0.5)
    assert (apart.auc, apart.low, apart.high, apart.true_positives) == (1.0, 1.0, 1.0, 1.0)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    hits = 0
    for seed in range(40):
        found = separate(losses(40, 0.0, seed), losses(40, 0.0, 1000 + seed), seed=seed)
        assert found is not None
        hits += found.low <= 0.5 <= found.high
    assert 33 <= hits <= 40


def test_true_positives_are_counted_at_one_in_a_hundred_where_that_can_be_seen() -> None:
    others = [float(n) for n in range(200)]
    found = separate([1.5] * 30 + [50.0] * 70, others, seed=0)
    assert found is not None
    assert (found.false_positives, found.true_positives) == (0.01, 0.3)
    assert can_resolve(100)
    assert not can_resolve(99)


def test_with_few_patients_one_false_positive_is_the_least() -> None:
    found = separate([0.5] * 5 + [9.0] * 5, [float(n) for n in range(20)], seed=0)
    assert found is not None
    assert (found.false_positives, found.true_positives) == (0.05, 0.5)


def test_below_ten_patients_nothing_is_said() -> None:
    assert separate([0.0] * 9, [1.0] * 50, seed=0) is None
    assert separate([0.0] * 50, [1.0] * 9, seed=0) is None


def test_the_loss_of_a_case_is_the_plans_dice_and_cross_entropy() -> None:
    random = np.random.default_rng(5)
    logits = torch.tensor(random.normal(0, 2, (1, 2, 3, 8, 8)), dtype=torch.float32)
    truth = torch.tensor(random.random((1, 2, 3, 8, 8)) < 0.3)
    right, _ = batch_loss([logits], truth.float(), Loss.DICE_CE)
    found = case_loss(torch.sigmoid(logits)[0].numpy(), truth[0].numpy())
    assert found == pytest.approx(float(right), rel=1e-5)


def test_a_certain_error_costs_a_finite_loss() -> None:
    found = case_loss(np.zeros((1, 1, 2, 2), np.float32), np.ones((1, 1, 2, 2), np.bool_))
    assert np.isfinite(found)
    assert found > 10
