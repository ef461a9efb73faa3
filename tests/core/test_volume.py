import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given
from hypothesis import strategies as st

from brainfed.core.volume import (
    Geometry,
    crop_or_pad,
    cropped_geometry,
    geometry_of,
    lost_fraction,
    to_image,
    to_plan_grid,
    z_score,
)
from brainfed.errors import ScanError
from brainfed.plan import Grid, ZScore
from tests.builders import a_geometry

EDGES = st.integers(8, 40)


def a_ramp(shape: tuple[int, int, int] = (3, 20, 24)) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def test_an_image_of_another_orientation_is_turned_to_lps() -> None:
    ramp = a_ramp()
    lps = to_image(ramp, a_geometry(ramp.shape))
    ras = sitk.DICOMOrient(lps, "RAS")
    assert not np.array_equal(sitk.GetArrayFromImage(ras), ramp)
    turned = to_plan_grid(ras, Grid())
    np.testing.assert_array_equal(sitk.GetArrayFromImage(turned), ramp)
    assert geometry_of(turned).difference(geometry_of(lps)) is None


def test_zero_spacing_keeps_the_scans_own_pixels() -> None:
    image = to_image(a_ramp(), a_geometry((3, 20, 24)))
    assert geometry_of(to_plan_grid(image, Grid(in_plane_mm=0))) == geometry_of(image)


def test_resampling_changes_the_plane_only_and_keeps_the_middle() -> None:
    shape = (5, 40, 30)
    image = to_image(np.ones(shape, np.float32), a_geometry(shape, (4, 1, 1)))
    result = to_plan_grid(image, Grid(in_plane_mm=2))
    assert result.GetSize() == (15, 20, 5)
    assert result.GetSpacing() == (2, 2, 4)
    for picture in (image, result):
        middle = [(n - 1) / 2 for n in picture.GetSize()]
        place = picture.TransformContinuousIndexToPhysicalPoint(middle)
        np.testing.assert_allclose(place, (-10 + 14.5, 5 + 19.5, 2 + 8))


def test_linear_resampling_keeps_a_slope() -> None:
    shape = (2, 40, 40)
    slope = np.broadcast_to(np.arange(40, dtype=np.float32), shape).copy()
    image = to_image(slope, a_geometry(shape, (3, 1, 1)))
    result = sitk.GetArrayFromImage(to_plan_grid(image, Grid(in_plane_mm=2)))
    np.testing.assert_allclose(result[0, 0], np.arange(20) * 2 + 0.5)


def test_nearest_resampling_makes_no_new_label_values() -> None:
    label = np.random.default_rng(1).choice([0, 1, 4], (4, 30, 30)).astype(np.uint8)
    image = to_image(label, a_geometry(label.shape, (3, 1.7, 1.7)))
    result = to_plan_grid(image, Grid(in_plane_mm=1), nearest=True)
    assert result.GetPixelID() == sitk.sitkUInt8
    assert set(np.unique(sitk.GetArrayFromImage(result))) == {0, 1, 4}


@given(old=st.tuples(EDGES, EDGES), new=st.tuples(EDGES, EDGES))
def test_cropping_what_was_padded_gives_it_back(old: tuple[int, int], new: tuple[int, int]) -> None:
    array = np.random.default_rng(0).normal(size=(2, *old))
    wide = (max(old[0], new[0]), max(old[1], new[1]))
    np.testing.assert_array_equal(crop_or_pad(crop_or_pad(array, wide), old), array)


@given(old=st.tuples(EDGES, EDGES), new=st.tuples(EDGES, EDGES))
def test_a_crop_keeps_each_voxel_at_its_place_in_the_room(
    old: tuple[int, int], new: tuple[int, int]
) -> None:
    shape = (3, *old)
    geometry = a_geometry(shape)
    array = np.zeros(shape, np.float32)
    array[1, old[0] // 2, old[1] // 2] = 1
    image = to_image(crop_or_pad(array, new), cropped_geometry(geometry, new))
    z, y, x = (int(n) for n in np.argwhere(sitk.GetArrayFromImage(image))[0])
    before = to_image(array, geometry).TransformIndexToPhysicalPoint((old[1] // 2, old[0] // 2, 1))
    np.testing.assert_allclose(image.TransformIndexToPhysicalPoint((x, y, z)), before)


def test_a_z_score_over_the_volume_counts_the_background() -> None:
    array = np.zeros((2, 10, 10), np.float32)
    array[:, 3:7, 3:7] = 100
    scored = z_score(array, array > 0, ZScore.VOLUME)
    assert scored.mean() == pytest.approx(0, abs=1e-5)
    assert scored.std() == pytest.approx(1, abs=1e-5)
    assert scored[0, 0, 0] < 0


def test_a_z_score_over_the_brain_leaves_zero_outside() -> None:
    random = np.random.default_rng(0)
    brain = np.zeros((2, 20, 20), bool)
    brain[:, 5:15, 5:15] = True
    array = np.where(brain, random.normal(300, 20, brain.shape), 7).astype(np.float32)
    scored = z_score(array, brain, ZScore.BRAIN)
    assert scored[brain].mean() == pytest.approx(0, abs=1e-4)
    assert scored[brain].std() == pytest.approx(1, abs=1e-4)
    assert not scored[~brain].any()


@given(gain=st.floats(0.01, 1000), offset=st.floats(-100, 100))
def test_a_z_score_does_not_see_brightness_and_offset(gain: float, offset: float) -> None:
    array = np.random.default_rng(0).normal(10, 3, (2, 12, 12)).astype(np.float32)
    everywhere = np.ones(array.shape, bool)
    changed = (array * gain + offset).astype(np.float32)
    plain, other = (z_score(a, everywhere, ZScore.VOLUME) for a in (array, changed))
    np.testing.assert_allclose(plain, other, atol=0.02)


@pytest.mark.parametrize("over", ZScore)
def test_nothing_to_measure_is_refused(over: ZScore) -> None:
    array = np.full((2, 8, 8), 5, np.float32)
    with pytest.raises(ScanError, match="single value"):
        z_score(array, np.ones(array.shape, bool), over)
    with pytest.raises(ScanError, match="No brain"):
        z_score(array, np.zeros(array.shape, bool), ZScore.BRAIN)


def test_the_lost_share_of_a_tumour() -> None:
    before = np.zeros((1, 10, 10), bool)
    before[0, 0:4, 5] = True
    assert lost_fraction(before, before[:, 1:]) == 0.25
    assert lost_fraction(np.zeros_like(before), before) == 0


def changed(**parts: object) -> Geometry:
    base = a_geometry()
    values = {name: getattr(base, name) for name in Geometry.__slots__}
    return Geometry(**{**values, **parts})


@pytest.mark.parametrize(
    ("parts", "word"),
    [
        ({"size": (40, 40, 7)}, "size"),
        ({"spacing_mm": (2, 2, 3.1)}, "spacing"),
        ({"origin_mm": (-10, 5.2, 2)}, "origin"),
        ({"direction": (-1, 0, 0, 0, -1, 0, 0, 0, 1)}, "direction"),
    ],
)
def test_a_difference_of_grids_is_named(parts: dict[str, object], word: str) -> None:
    assert word in (changed(**parts).difference(a_geometry()) or "")


def test_rounding_in_headers_is_no_difference() -> None:
    rounded = changed(spacing_mm=(2.0001, 2, 3), origin_mm=(-10.001, 5, 2.002))
    assert rounded.difference(a_geometry()) is None
