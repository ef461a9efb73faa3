"""All measures come together, and none is ever left out."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from brainfed.core import measuring
from brainfed.core.metrics import Measure
from brainfed.core.surface import farthest_mm, surface_scores
from brainfed.plan import LesionPreset
from tests.core.peers import hd95, nsd
from tests.core.plain_lesions import plain_lesions

SHAPE = (5, 6, 7)
SPACING_MM = (3.0, 1.0, 2.0)
masks = arrays(np.bool_, SHAPE)
DISTANCES = {Measure.HD95_SURFACE, Measure.HD95_POOLED, Measure.LESION_HD95}
SHARES = {measure for measure in Measure if not measure.unit} - {Measure.SOFT_SLICE_DICE}


def measure_all(
    prediction: np.ndarray,
    truth: np.ndarray,
    spacing_mm: tuple[float, float, float] | None = SPACING_MM,
    lesions: LesionPreset = LesionPreset.MET,
) -> dict[Measure, float]:
    return measuring.measure_all(
        prediction, truth, spacing_mm=spacing_mm, tolerance_mm=1.5, lesions=lesions
    )


def two_tumours() -> tuple[np.ndarray, np.ndarray]:
    """A prediction that is one voxel off and misses one of two lesions, far from the edges."""
    truth, prediction = np.zeros((20, 40, 40), bool), np.zeros((20, 40, 40), bool)
    truth[5:11, 8:18, 8:18] = truth[5:11, 30:36, 30:36] = True
    prediction[6:12, 8:18, 9:19] = True
    return prediction, truth


@given(masks, masks, st.sampled_from(LesionPreset))
def test_every_measure_has_a_number_whatever_the_outlines(
    prediction: np.ndarray, truth: np.ndarray, lesions: LesionPreset
) -> None:
    found = measure_all(prediction, truth, lesions=lesions)
    assert set(found) == set(Measure) - {Measure.SOFT_SLICE_DICE}
    assert all(math.isfinite(value) for value in found.values())
    assert all(0 <= found[measure] <= 1 for measure in SHARES)
    assert all(0 <= found[m] <= farthest_mm(SHAPE, SPACING_MM) for m in DISTANCES)
    assert all(type(value) is float for value in found.values())


def test_the_numbers_are_those_of_the_peers_on_the_whole_grid() -> None:
    prediction, truth = two_tumours()
    found = measure_all(prediction, truth)
    plain = plain_lesions(
        prediction,
        truth,
        "met",
        spacing_mm=SPACING_MM,
        farthest_mm=farthest_mm(truth.shape, SPACING_MM),
    )
    assert found[Measure.HD95_SURFACE] == pytest.approx(hd95(prediction, truth, SPACING_MM))
    assert found[Measure.NSD] == pytest.approx(nsd(prediction, truth, SPACING_MM, 1.5))
    assert found[Measure.LESION_DICE] == pytest.approx(plain.dice)
    assert found[Measure.LESION_HD95] == pytest.approx(plain.hd95_mm)
    assert found[Measure.DICE] == pytest.approx(2 * 450 / (600 + 816))
    assert found[Measure.SENSITIVITY] == pytest.approx(450 / 816)
    assert found[Measure.SPECIFICITY] == pytest.approx(1 - 150 / (32000 - 816))
    assert found[Measure.VOLUME_DIFFERENCE] == pytest.approx((600 - 816) * 6 / 1000)


def test_without_a_spacing_only_what_needs_none_is_measured_and_is_the_same() -> None:
    nominal, true = measure_all(*two_tumours(), spacing_mm=None), measure_all(*two_tumours())
    assert set(nominal) == SHARES - {Measure.NSD}
    assert nominal == {measure: true[measure] for measure in nominal}


def test_a_miss_is_dice_0_and_the_largest_distance_of_the_whole_grid() -> None:
    prediction, truth = two_tumours()
    empty = np.zeros_like(truth)
    largest = farthest_mm(truth.shape, SPACING_MM)
    for pair in ((empty, truth), (prediction, empty)):
        found = measure_all(*pair)
        assert {found[measure] for measure in DISTANCES} == {largest}
        assert found[Measure.DICE] == found[Measure.NSD] == found[Measure.LESION_DICE] == 0


def test_a_miss_on_the_grid_of_brats_is_374_mm() -> None:
    truth = np.zeros((155, 240, 240), bool)
    truth[70:75, 100:110, 100:110] = True
    found = measure_all(np.zeros_like(truth), truth, spacing_mm=(1, 1, 1))
    assert {found[measure] for measure in DISTANCES} == {374}
    assert found[Measure.VOLUME_DIFFERENCE] == -0.5


def test_two_empty_outlines_are_perfect() -> None:
    empty = np.zeros(SHAPE, bool)
    found = measure_all(empty, empty)
    assert {found[measure] for measure in SHARES} == {1}
    assert {found[measure] for measure in Measure if measure.unit} == {0}


@given(masks, masks)
def test_cropping_changes_no_surface_score(prediction: np.ndarray, truth: np.ndarray) -> None:
    whole = surface_scores(
        prediction,
        truth,
        spacing_mm=SPACING_MM,
        tolerance_mm=1.5,
        farthest_mm=farthest_mm(SHAPE, SPACING_MM),
    )
    found = measure_all(prediction, truth)
    assert found[Measure.HD95_SURFACE] == whole.hd95_surface_mm
    assert found[Measure.HD95_POOLED] == whole.hd95_pooled_mm
    assert found[Measure.NSD] == whole.nsd
