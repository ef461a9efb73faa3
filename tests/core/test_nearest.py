"""Distances are those of SciPy's exact transform, near and far."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from brainfed.core.nearest import distances_mm, rim

masks = arrays(np.bool_, (5, 6, 7))
spacings = st.tuples(*[st.floats(0.3, 6)] * 3)


def by_transform(
    here: np.ndarray, there: np.ndarray, spacing_mm: tuple[float, float, float]
) -> np.ndarray:
    return ndimage.distance_transform_edt(~there, sampling=spacing_mm)[here]


@given(masks, masks.filter(np.any), spacings)
def test_distances_are_those_of_the_exact_transform(
    here: np.ndarray, there: np.ndarray, spacing_mm: tuple[float, float, float]
) -> None:
    expected = by_transform(here, there, spacing_mm)
    assert distances_mm(here, there, spacing_mm) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("spacing_mm", [(1, 1, 1), (5, 0.9, 0.9), (0.4, 3, 1.7)])
def test_far_voxels_are_answered_as_exactly_as_near_ones(
    spacing_mm: tuple[float, float, float],
) -> None:
    random = np.random.default_rng(3)
    here, there = random.random((30, 40, 50)) < 0.02, np.zeros((30, 40, 50), bool)
    there[3:12, 4:9, 5:30] = True
    expected = by_transform(here, there, spacing_mm)
    assert np.count_nonzero(expected == 0) and expected.max() > 15
    assert distances_mm(here, there, spacing_mm) == pytest.approx(expected, abs=1e-9)


def test_noise_far_from_its_target_is_answered_by_the_transform_just_as_exactly() -> None:
    """More than a twentieth of all voxels, more than four steps away."""
    here = np.random.default_rng(4).random((40, 40, 40)) < 0.3
    there = np.zeros((40, 40, 40), bool)
    there[2, 30, 4] = there[35, 3, 9] = there[20, 20, 38] = True
    spacing_mm = (1.3, 0.7, 2.1)
    expected = by_transform(here, there, spacing_mm)
    assert np.count_nonzero(expected > 10) > 48**3 / 20
    assert distances_mm(here, there, spacing_mm) == pytest.approx(expected, abs=1e-9)


@given(masks)
def test_the_rim_is_what_erosion_takes_away(mask: np.ndarray) -> None:
    assert np.array_equal(rim(mask), mask & ~ndimage.binary_erosion(mask))
