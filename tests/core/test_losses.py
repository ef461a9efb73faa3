"""The losses are their formulas, over the whole batch and per region, and equal MONAI's."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.losses import DiceCELoss, DiceLoss
from torch import Tensor
from torch.nn import functional

from brainfed.core.losses import batch_loss
from brainfed.plan import Loss

SURE = 50.0
"""A logit whose sigmoid is 1 in float32."""
SPACES = {"2-D": (6, 8), "3-D": (4, 6, 8)}


def some_truth(seed: int, n_regions: int = 1, space: tuple[int, ...] = (6, 8)) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(3, n_regions, *space, generator=generator) < 0.3).float()


def some_logits(seed: int, n_regions: int = 1, space: tuple[int, ...] = (6, 8)) -> Tensor:
    return torch.randn(3, n_regions, *space, generator=torch.Generator().manual_seed(seed))


def value(loss: Loss, logits: Tensor, truth: Tensor) -> float:
    return batch_loss((logits,), truth, loss)[0].item()


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_log_dice_is_the_paper_s_formula_over_the_whole_batch(seed: int) -> None:
    logits, truth = some_logits(seed), some_truth(seed + 1)
    p, t = torch.sigmoid(logits).double(), truth.double()
    expected = math.log(p.sum() + t.sum() + 1) - math.log(2 * (p * t).sum() + 1)
    assert value(Loss.LOG_DICE, logits, truth) == pytest.approx(expected, abs=1e-5)


def test_log_dice_of_a_perfect_answer_is_0() -> None:
    truth = some_truth(1)
    found = value(Loss.LOG_DICE, (truth * 2 - 1) * SURE, truth)
    assert found == pytest.approx(0, abs=1e-6)


def test_log_dice_of_an_empty_batch_answered_empty_is_0() -> None:
    truth = torch.zeros(2, 1, 4, 4)
    assert value(Loss.LOG_DICE, truth - SURE, truth) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
@pytest.mark.parametrize("loss", Loss)
def test_a_loss_of_two_regions_is_the_mean_of_both(loss: Loss, space: tuple[int, ...]) -> None:
    logits, truth = some_logits(3, 2, space), some_truth(4, 2, space)
    each = [value(loss, logits[:, i : i + 1], truth[:, i : i + 1]) for i in (0, 1)]
    assert each[0] != pytest.approx(each[1], abs=1e-3)
    assert value(loss, logits, truth) == pytest.approx(sum(each) / 2, abs=1e-6)


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_dice_ce_of_one_region_is_monai_s_with_its_gradient(space: tuple[int, ...]) -> None:
    peer = DiceCELoss(sigmoid=True, batch=True, smooth_nr=1.0, smooth_dr=1.0)
    truth = some_truth(6, 1, space)
    ours, theirs = (some_logits(5, 1, space).requires_grad_() for _ in range(2))
    found, wanted = batch_loss((ours,), truth, Loss.DICE_CE)[0], peer(theirs, truth)
    assert found.item() == pytest.approx(wanted.item(), abs=1e-6)
    found.backward()
    wanted.backward()
    assert ours.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-6, rtol=0)


def test_dice_ce_of_three_regions_is_monai_s_dice_and_a_cross_entropy_for_each() -> None:
    # MONAI's DiceCELoss takes a softmax over channels, which regions within regions are not.
    peer = DiceLoss(sigmoid=True, batch=True, smooth_nr=1.0, smooth_dr=1.0)
    logits, truth = some_logits(7, 3), some_truth(8, 3)
    wanted = peer(logits, truth) + functional.binary_cross_entropy_with_logits(logits, truth)
    assert value(Loss.DICE_CE, logits, truth) == pytest.approx(wanted.item(), abs=1e-6)


@pytest.mark.parametrize("loss", Loss)
def test_the_told_dice_is_the_batch_s_soft_dice_without_gradient(loss: Loss) -> None:
    logits, truth = some_logits(5, 2).requires_grad_(), some_truth(6, 2)
    _, dice = batch_loss((logits,), truth, loss)
    p = torch.sigmoid(logits)
    over = (0, 2, 3)
    wanted = (2 * (p * truth).sum(over) + 1) / (p.sum(over) + truth.sum(over) + 1)
    assert dice.item() == pytest.approx(wanted.mean().item(), abs=1e-6)
    assert not dice.requires_grad


@pytest.mark.parametrize("space", [(8, 8), (4, 8, 8)])
@pytest.mark.parametrize("loss", Loss)
def test_deep_supervision_halves_the_weight_of_each_coarser_output(
    loss: Loss, space: tuple[int, ...]
) -> None:
    truth = some_truth(1, 2, space)
    coarse = [truth[(..., *(slice(None, None, every),) * len(space))] for every in (1, 2, 4)]
    outputs = [some_logits(2 + i, 2, tuple(one.shape[2:])) for i, one in enumerate(coarse)]
    each = [value(loss, *pair) for pair in zip(outputs, coarse, strict=True)]
    wanted = (4 * each[0] + 2 * each[1] + each[2]) / 7
    found, dice = batch_loss(outputs, truth, loss)
    assert found.item() == pytest.approx(wanted, abs=1e-6)
    assert dice.item() == batch_loss(outputs[:1], truth, loss)[1].item()


@pytest.mark.parametrize("loss", Loss)
def test_sums_of_parts_give_the_loss_and_the_gradient_of_the_whole(loss: Loss) -> None:
    truth, logits = some_truth(3, 2), some_logits(4, 2).requires_grad_()
    rows = (slice(0, 1), slice(1, 3))
    others: list[Tensor] = []

    def remember(sums: Tensor) -> Tensor:
        others.append(sums)
        return sums

    batch_loss((logits[rows[1]],), truth[rows[1]], loss, reduce=remember)
    shared = batch_loss(
        (logits[rows[0]],), truth[rows[0]], loss, reduce=lambda sums: sums + others[0]
    )
    whole = batch_loss((logits,), truth, loss)
    assert shared[0].item() == pytest.approx(whole[0].item(), abs=1e-6)
    (found,) = torch.autograd.grad(shared[0], logits)
    (wanted,) = torch.autograd.grad(whole[0], logits)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("loss", Loss)
def test_large_logits_give_finite_losses_and_gradients(loss: Loss) -> None:
    truth = some_truth(7)
    logits = torch.full_like(truth, 1e4).requires_grad_()
    found, _ = batch_loss((logits,), truth, loss)
    found.backward()
    assert torch.isfinite(found)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
