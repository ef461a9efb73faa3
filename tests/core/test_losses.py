"""The losses are their formulas, over the whole batch and per region."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from brainfed.core.losses import dice_cross_entropy, log_dice, loss_function
from brainfed.plan import Loss

SURE = 50.0
"""A logit whose sigmoid is 1 in float32."""


def some_truth(seed: int, n_regions: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(3, n_regions, 6, 5, generator=generator) < 0.3).float()


def some_logits(seed: int, n_regions: int = 1) -> torch.Tensor:
    return torch.randn(3, n_regions, 6, 5, generator=torch.Generator().manual_seed(seed))


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_log_dice_is_the_paper_s_formula_over_the_whole_batch(seed: int) -> None:
    logits, truth = some_logits(seed), some_truth(seed + 1)
    p, t = torch.sigmoid(logits).double(), truth.double()
    expected = math.log(p.sum() + t.sum() + 1) - math.log(2 * (p * t).sum() + 1)
    assert log_dice(logits, truth).item() == pytest.approx(expected, abs=1e-5)


def test_log_dice_of_a_perfect_answer_is_0() -> None:
    truth = some_truth(1)
    assert log_dice((truth * 2 - 1) * SURE, truth).item() == pytest.approx(0, abs=1e-6)


def test_log_dice_of_an_empty_batch_answered_empty_is_0() -> None:
    truth = torch.zeros(2, 1, 4, 4)
    assert log_dice(truth - SURE, truth).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("loss", [log_dice, dice_cross_entropy])
def test_a_loss_of_two_regions_is_the_mean_of_both(loss) -> None:  # type: ignore[no-untyped-def]
    logits, truth = some_logits(3, 2), some_truth(4, 2)
    each = [loss(logits[:, i : i + 1], truth[:, i : i + 1]).item() for i in (0, 1)]
    assert each[0] != pytest.approx(each[1], abs=1e-3)
    assert loss(logits, truth).item() == pytest.approx(sum(each) / 2, abs=1e-6)


def test_dice_cross_entropy_is_the_sum_of_its_two_parts() -> None:
    logits, truth = some_logits(5), some_truth(6)
    p = torch.sigmoid(logits)
    dice = (2 * (p * truth).sum() + 1) / (p.sum() + truth.sum() + 1)
    entropy = functional.binary_cross_entropy(p, truth)
    assert dice_cross_entropy(logits, truth).item() == pytest.approx(
        (1 - dice + entropy).item(), abs=1e-5
    )


def test_large_logits_give_finite_losses_and_gradients() -> None:
    truth = some_truth(7)
    for loss in Loss:
        logits = torch.full_like(truth, 1e4).requires_grad_()
        value = loss_function(loss)(logits, truth)
        value.backward()
        assert torch.isfinite(value)
        assert logits.grad is not None
        assert torch.isfinite(logits.grad).all()


def test_each_word_of_the_plan_has_its_function() -> None:
    assert loss_function(Loss.LOG_DICE) is log_dice
    assert loss_function(Loss.DICE_CE) is dice_cross_entropy
