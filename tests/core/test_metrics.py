"""Scores of overlap obey their laws, agree with the peers, and are not each other."""

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from brainfed.core.metrics import (
    dice,
    sensitivity,
    soft_slice_dice,
    specificity,
    volume_difference_ml,
)
from tests.core.peers import peer

SHAPE = (3, 4, 5)
masks = arrays(np.bool_, SHAPE)
tumours = masks.filter(np.any)
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


@given(tumours, tumours)
def test_overlap_is_that_of_simpleitk_s_filter(a: np.ndarray, b: np.ndarray) -> None:
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    images = [sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in (a, b)]
    overlap.Execute(*images)
    assert dice(a, b) == pytest.approx(overlap.GetDiceCoefficient())
    assert sensitivity(a, b) == pytest.approx(1 - overlap.GetFalseNegativeError())


@pytest.mark.filterwarnings("ignore")
def test_dice_is_monai_s_where_nothing_is_empty() -> None:
    compute, torch = peer("monai.metrics").compute_dice, peer("torch")
    random = np.random.default_rng(5)
    for share in np.linspace(0.01, 1, 30):
        a, b = random.random((2, *SHAPE)) < share
        a[0, 0, 0] = b[1, 1, 1] = True
        theirs = compute(
            *(torch.from_numpy(mask[None, None].astype(np.float32)) for mask in (a, b))
        )
        assert dice(a, b) == pytest.approx(float(theirs), abs=1e-6)


@given(masks, masks)
def test_sensitivity_and_specificity_are_those_of_brats_s_script(
    a: np.ndarray, b: np.ndarray
) -> None:
    """Restated: the smallest float below the line, so that nothing over nothing is 0."""
    tiny = np.finfo(float).tiny
    found, missed = np.sum(a & b), np.sum(~a & b)
    left, false = np.sum(~a & ~b), np.sum(a & ~b)
    both_empty = not a.any() and not b.any()
    assert sensitivity(a, b) == (1 if both_empty else found / (found + missed + tiny))
    assert specificity(a, b) == left / (left + false + tiny)


@given(masks)
def test_a_perfect_answer_has_sensitivity_and_specificity_1(a: np.ndarray) -> None:
    assert sensitivity(a, a) == 1
    assert specificity(a, a) == (0 if a.all() else 1)


def test_nothing_found_has_sensitivity_0_and_a_false_alarm_as_well() -> None:
    empty, tumour = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    tumour[1, 1, 1:3] = True
    assert sensitivity(empty, tumour) == 0
    assert sensitivity(tumour, empty) == 0
    assert specificity(empty, tumour) == 1
    assert specificity(tumour, empty) == pytest.approx(1 - 2 / 60)


@given(masks, masks)
def test_the_volume_difference_changes_its_sign_with_the_sides(
    a: np.ndarray, b: np.ndarray
) -> None:
    assert volume_difference_ml(a, b, (1, 2, 3)) == -volume_difference_ml(b, a, (1, 2, 3))


def test_five_voxels_of_two_hundred_cubic_millimetres_too_many_are_one_millilitre() -> None:
    large, small = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    large[0, :2, :4] = True
    small[2, 0, :3] = True
    assert volume_difference_ml(large, small, (8, 5, 5)) == pytest.approx(1)
