"""Both scores obey their laws, and are not each other."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from brainfed.core.metrics import dice, soft_slice_dice

SHAPE = (3, 4, 5)
masks = arrays(np.bool_, SHAPE)
chances = arrays(np.float32, SHAPE, elements=st.floats(0, 1, width=32))


@given(masks, masks)
def test_dice_is_symmetric_and_between_0_and_1(a: np.ndarray, b: np.ndarray) -> None:
    assert dice(a, b) == dice(b, a)
    assert 0 <= dice(a, b) <= 1


@given(masks)
def test_dice_of_a_mask_with_itself_is_1(a: np.ndarray) -> None:
    assert dice(a, a) == 1


@given(masks, masks)
def test_dice_is_1_for_equal_masks_only(a: np.ndarray, b: np.ndarray) -> None:
    assert (dice(a, b) == 1) == np.array_equal(a, b)


def test_dice_of_two_empty_masks_is_1_and_of_a_miss_or_a_false_alarm_0() -> None:
    empty, full = np.zeros(SHAPE, bool), np.ones(SHAPE, bool)
    assert dice(empty, empty) == 1
    assert dice(empty, full) == 0
    assert dice(full, empty) == 0


def test_dice_of_half_an_outline_is_two_thirds() -> None:
    truth = np.zeros(SHAPE, bool)
    truth[0, 0, :4] = True
    half = truth.copy()
    half[0, 0, :2] = False
    assert dice(half, truth) == pytest.approx(2 / 3)


@given(masks, masks)
def test_soft_slice_dice_of_masks_is_symmetric(a: np.ndarray, b: np.ndarray) -> None:
    assert soft_slice_dice(a.astype(np.float32), b) == soft_slice_dice(b.astype(np.float32), a)


@given(chances, masks)
def test_soft_slice_dice_is_between_0_and_1(p: np.ndarray, t: np.ndarray) -> None:
    assert 0 <= soft_slice_dice(p, t) <= 1


@given(masks)
def test_soft_slice_dice_of_a_perfect_answer_is_1(t: np.ndarray) -> None:
    assert soft_slice_dice(t.astype(np.float32), t) == 1


@given(chances, masks)
def test_soft_slice_dice_is_the_mean_over_slices_of_the_paper_s_formula(
    p: np.ndarray, t: np.ndarray
) -> None:
    each = [
        (2 * float((a * b).sum(dtype=np.float64)) + 1)
        / (float(a.sum(dtype=np.float64)) + float(b.sum()) + 1)
        for a, b in zip(p, t, strict=True)
    ]
    assert soft_slice_dice(p, t) == pytest.approx(sum(each) / len(each))


def test_the_paper_s_score_flatters_a_missed_tumour() -> None:
    truth = np.zeros((10, 8, 8), bool)
    truth[4] = True
    nothing = np.zeros(truth.shape, np.float32)
    assert dice(nothing > 0.5, truth) == 0
    assert soft_slice_dice(nothing, truth) == pytest.approx((9 + 1 / 65) / 10)


def test_the_paper_s_score_punishes_faint_probabilities_on_empty_slices() -> None:
    truth = np.zeros((10, 8, 8), bool)
    truth[4] = True
    faint = np.where(truth, 0.9, 0.4).astype(np.float32)
    assert dice(faint > 0.5, truth) == 1
    assert soft_slice_dice(faint, truth) < 0.15
