"""HD95 and surface Dice agree with the packages that define them, and obey their laws."""

import math

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from brainfed.core.labels import LabelProtocol, region_mask
from brainfed.core.phantom import Scanner, make_phantom
from brainfed.core.surface import (
    SurfaceScores,
    areas_mm2,
    crop,
    farthest_mm,
    hd95_pooled,
    surface_scores,
    surfaces,
)
from brainfed.plan import Region
from tests.builders import SHARED_DATA
from tests.core.peers import hd95, nsd, peer

SHAPE = (4, 5, 6)
FARTHEST_MM = 99.0
Spacing = tuple[float, float, float]
masks = arrays(np.bool_, SHAPE)
tumours = masks.filter(np.any)
spacings = st.tuples(*[st.floats(0.3, 6)] * 3)
tolerances = st.floats(0.1, 5)


def scores(
    prediction: np.ndarray,
    truth: np.ndarray,
    spacing_mm: Spacing = (1, 1, 1),
    tolerance_mm: float = 1,
    farthest_mm: float = FARTHEST_MM,
) -> SurfaceScores:
    return surface_scores(
        prediction,
        truth,
        spacing_mm=spacing_mm,
        tolerance_mm=tolerance_mm,
        farthest_mm=farthest_mm,
    )


def assert_as_deepmind(
    prediction: np.ndarray, truth: np.ndarray, spacing_mm: Spacing, tolerance_mm: float
) -> None:
    ours = scores(prediction, truth, spacing_mm, tolerance_mm)
    assert ours.hd95_surface_mm == pytest.approx(hd95(prediction, truth, spacing_mm), abs=1e-6)
    theirs = nsd(prediction, truth, spacing_mm, tolerance_mm)
    assert ours.nsd == pytest.approx(theirs, abs=1e-6)


def smooth_masks(seed: int) -> tuple[np.ndarray, np.ndarray, Spacing]:
    """Two outlines of the same few lumps, and a spacing; lumps may touch the grid's edge."""
    random = np.random.default_rng(seed)
    shape = tuple(int(n) for n in random.integers(6, 24, 3))
    field = ndimage.gaussian_filter(random.standard_normal(shape), 2)
    other = field + random.uniform(0, 0.1) * ndimage.gaussian_filter(
        random.standard_normal(shape), 1
    )
    share = random.uniform(0.5, 0.98)
    spacing_mm = tuple(float(step) for step in random.uniform(0.4, 6, 3))
    return field >= np.quantile(field, share), other >= np.quantile(other, share), spacing_mm


@pytest.mark.parametrize("spacing_mm", [(1, 1, 1), (1.1, 0.7, 2.3), (5, 0.9, 0.4)])
def test_the_area_in_each_of_the_256_cubes_is_deepmind_s(spacing_mm: Spacing) -> None:
    tables = peer("surface_distance.lookup_tables")
    theirs = tables.create_table_neighbour_code_to_surface_area(spacing_mm)
    ours = areas_mm2(spacing_mm)
    for code in range(256):
        cube = np.array([code >> bit & 1 for bit in range(8)]).reshape(2, 2, 2)  # (x, y, z)
        their_code = int((cube.T * tables.ENCODE_NEIGHBOURHOOD_3D_KERNEL).sum())
        assert ours[code] == pytest.approx(theirs[their_code], abs=1e-12), code


@given(tumours, tumours, spacings, tolerances)
def test_noise_scores_as_with_deepmind(
    a: np.ndarray, b: np.ndarray, spacing_mm: Spacing, tolerance_mm: float
) -> None:
    assert_as_deepmind(a, b, spacing_mm, tolerance_mm)


@pytest.mark.parametrize("seed", range(60))
def test_lumps_score_as_with_deepmind(seed: int) -> None:
    prediction, truth, spacing_mm = smooth_masks(seed)
    assert_as_deepmind(prediction, truth, spacing_mm, tolerance_mm=1 + seed % 4)
    cropped = crop(prediction, truth)
    assert_as_deepmind(*cropped, spacing_mm, tolerance_mm=1 + seed % 4)


@pytest.mark.parametrize("n", [20, 40, 60, 80])
def test_exactly_five_percent_far_away_are_judged_as_by_deepmind(n: int) -> None:
    """The 95th percentile falls between two surface elements; rounding decides, the same way."""
    truth = np.zeros((4, 4, 4 * n), bool)
    truth[1:3, 1:3, 1::4] = True
    prediction = truth.copy()
    prediction[:, :, -4 * n // 20 :] = False
    assert_as_deepmind(prediction, truth, (1, 1, 1), tolerance_mm=1)


@pytest.mark.parametrize("region", list(Region))
@pytest.mark.parametrize("seed", range(3))
def test_phantoms_score_as_with_deepmind(region: Region, seed: int) -> None:
    phantom = make_phantom(np.random.default_rng(seed), Scanner())
    truth = region_mask(phantom.label, LabelProtocol.BRATS2017, region)
    assert truth.any()
    shifted = np.roll(truth, (1, 2, -1), (0, 1, 2))
    assert_as_deepmind(shifted, truth, phantom.spacing_mm, tolerance_mm=3.2)
    assert_as_deepmind(ndimage.binary_dilation(truth), truth, phantom.spacing_mm, tolerance_mm=1)


@pytest.mark.real
@pytest.mark.parametrize("region", list(Region))
def test_a_real_tumour_scores_as_with_deepmind(region: Region) -> None:
    path = SHARED_DATA / "deepmedic-brats2013/test/brats_2013_pat0002_1/OTMultiClass.nii.gz"
    if not path.exists():
        pytest.skip("no ../shared/data/deepmedic-brats2013")
    label = sitk.GetArrayFromImage(sitk.ReadImage(path))
    truth = region_mask(label, LabelProtocol.BRATS2012, region)
    assert_as_deepmind(np.roll(truth, (1, 2, -1), (0, 1, 2)), truth, (1, 1, 1), tolerance_mm=1)


@given(tumours, tumours, spacings)
def test_the_pooled_variant_is_medpy_s(a: np.ndarray, b: np.ndarray, spacing_mm: Spacing) -> None:
    """Restated: rim voxels by erosion, distances by SciPy's transform, one percentile of all."""
    rims = [mask ^ ndimage.binary_erosion(mask) for mask in (a, b)]
    away = [ndimage.distance_transform_edt(~other, sampling=spacing_mm) for other in rims[::-1]]
    both = np.hstack([distance[edge] for distance, edge in zip(away, rims, strict=True)])
    assert hd95_pooled(a, b, spacing_mm) == pytest.approx(np.percentile(both, 95), abs=1e-9)


def test_the_two_variants_of_hd95_are_not_each_other() -> None:
    """A missed piece of 8% of the true surface is 4% of both together."""
    truth = np.zeros((10, 60, 40), bool)
    truth[4:7, 5:35, 5:35] = True
    prediction = truth.copy()
    truth[4:7, 45:51, 5:13] = True
    found = scores(prediction, truth)
    assert found.hd95_surface_mm > 10
    assert found.hd95_pooled_mm == 0


@given(masks, masks, spacings, tolerances)
def test_scores_are_symmetric(
    a: np.ndarray, b: np.ndarray, spacing_mm: Spacing, tolerance_mm: float
) -> None:
    assert scores(a, b, spacing_mm, tolerance_mm) == scores(b, a, spacing_mm, tolerance_mm)


@given(masks, masks, spacings, tolerances)
def test_no_distance_exceeds_the_grid_s_diagonal_and_nsd_is_a_share(
    a: np.ndarray, b: np.ndarray, spacing_mm: Spacing, tolerance_mm: float
) -> None:
    farthest = farthest_mm(SHAPE, spacing_mm)
    found = scores(a, b, spacing_mm, tolerance_mm, farthest)
    assert 0 <= found.hd95_surface_mm <= farthest
    assert 0 <= found.hd95_pooled_mm <= farthest
    assert 0 <= found.nsd <= 1


@given(masks, spacings)
def test_an_outline_agrees_with_itself(a: np.ndarray, spacing_mm: Spacing) -> None:
    assert scores(a, a, spacing_mm) == SurfaceScores(0, 0, 1)


@given(masks, masks, spacings, st.tuples(*[st.integers(0, 3)] * 3))
def test_moving_both_outlines_changes_nothing(
    a: np.ndarray, b: np.ndarray, spacing_mm: Spacing, shift: tuple[int, int, int]
) -> None:
    moved = [np.pad(mask, [(n, 5 - n) for n in shift]) for mask in (a, b)]
    assert scores(*moved, spacing_mm) == scores(a, b, spacing_mm)
    assert scores(*crop(*moved), spacing_mm) == scores(a, b, spacing_mm)


@given(masks, masks, spacings)
def test_twice_the_spacing_is_twice_the_distance(
    a: np.ndarray, b: np.ndarray, spacing_mm: Spacing
) -> None:
    twice = tuple(2 * step for step in spacing_mm)
    small, large = scores(a, b, spacing_mm, 1), scores(a, b, twice, 2, 2 * FARTHEST_MM)
    assert large.hd95_surface_mm == pytest.approx(2 * small.hd95_surface_mm)
    assert large.nsd == pytest.approx(small.nsd)


@given(tumours)
def test_a_miss_and_a_false_alarm_get_the_largest_distance(a: np.ndarray) -> None:
    empty = np.zeros(SHAPE, bool)
    for found in (scores(a, empty), scores(empty, a)):
        assert found == SurfaceScores(FARTHEST_MM, FARTHEST_MM, 0)


def test_two_empty_outlines_agree() -> None:
    empty = np.zeros(SHAPE, bool)
    assert scores(empty, empty) == SurfaceScores(0, 0, 1)
    assert [mask.size for mask in crop(empty, empty)] == [1, 1]


def test_a_voxel_six_millimetres_away_is_six_millimetres_away() -> None:
    a, b = np.zeros((9, 5, 5), bool), np.zeros((9, 5, 5), bool)
    a[2, 2, 2] = b[5, 2, 2] = True
    assert scores(a, b, (2, 1, 1), tolerance_mm=1) == SurfaceScores(6, 6, 0)
    assert scores(a, b, (2, 1, 1), tolerance_mm=6).nsd == 1


def test_the_surface_of_a_block_is_its_faces_with_the_edges_and_corners_cut_off() -> None:
    spacing_mm = (3.0, 1.0, 2.0)
    block, empty_slice = np.ones((4, 5, 6), bool), np.zeros((4, 5, 6), bool)
    empty_slice[0] = True
    z, y, x = (n * step for n, step in zip((3, 4, 5), spacing_mm, strict=True))
    dz, dy, dx = spacing_mm
    faces = 2 * (z * y + y * x + z * x)
    edges = 2 * (z * math.hypot(dy, dx) + y * math.hypot(dz, dx) + x * math.hypot(dz, dy))
    corners = 8 * math.hypot(dz * dy, dz * dx, dy * dx) / 8
    area = surfaces(block, empty_slice, spacing_mm)[0].areas_mm2.sum()
    assert area == pytest.approx(faces + edges + corners)


def test_the_largest_distance_is_374_mm_on_the_grid_of_brats_and_the_diagonal_elsewhere() -> None:
    assert farthest_mm((155, 240, 240), (1, 1, 1)) == 374
    assert farthest_mm((155, 240, 240), (1.000001, 1, 1)) == 374
    assert farthest_mm((155, 240, 240), (2, 1, 1)) == pytest.approx(math.hypot(310, 240, 240))
    assert farthest_mm((30, 40, 20), (1, 1, 6)) == pytest.approx(130)


def test_outlines_on_different_grids_are_refused() -> None:
    with pytest.raises(AssertionError):
        crop(np.ones((2, 2, 2), bool), np.ones((1, 2, 2), bool))
