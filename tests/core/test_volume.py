from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given
from hypothesis import strategies as st

from brainfed.core.volume import (
    Geometry,
    cropped,
    geometry_of,
    in_plane,
    isotropic,
    outside_fraction,
    resample,
    to_image,
    turned,
    z_score,
)
from brainfed.errors import ScanError
from brainfed.plan import Grid, ZScore
from tests.builders import a_geometry

EDGES = st.integers(8, 40)


def a_ramp(shape: tuple[int, int, int] = (3, 20, 24)) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def planned(image: sitk.Image, grid: Grid, *, nearest: bool = False) -> sitk.Image:
    image = turned(image)
    return resample(image, in_plane(geometry_of(image), grid), nearest=nearest)


def test_an_image_of_another_orientation_is_turned_to_lps() -> None:
    ramp = a_ramp()
    lps = to_image(ramp, a_geometry(ramp.shape))
    ras = sitk.DICOMOrient(lps, "RAS")
    assert not np.array_equal(sitk.GetArrayFromImage(ras), ramp)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(turned(ras)), ramp)
    assert geometry_of(turned(ras)).difference(geometry_of(lps)) is None


def test_zero_spacing_keeps_the_grid_and_every_value() -> None:
    image = to_image(
        np.random.default_rng(0).normal(size=(3, 20, 24)).astype(np.float32),
        a_geometry((3, 20, 24)),
    )
    result = planned(image, Grid(in_plane_mm=0))
    assert geometry_of(result) == geometry_of(image)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(result), sitk.GetArrayFromImage(image))


def test_resampling_changes_the_plane_only_and_keeps_the_middle() -> None:
    shape = (5, 40, 30)
    image = to_image(np.ones(shape, np.float32), a_geometry(shape, (4, 1, 1)))
    result = planned(image, Grid(in_plane_mm=2))
    assert result.GetSize() == (15, 20, 5)
    assert result.GetSpacing() == (2, 2, 4)
    assert_same_middle(image, result)


def assert_same_middle(*images: sitk.Image) -> None:
    places = [
        image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()])
        for image in images
    ]
    for place in places[1:]:
        np.testing.assert_allclose(place, places[0])


def test_a_grid_of_cubes_has_the_same_middle_and_field_of_view() -> None:
    shape = (24, 256, 240)
    image = to_image(np.zeros(shape, np.uint8), a_geometry(shape, (5, 0.9, 0.9)))
    cubes = isotropic(geometry_of(image))
    assert cubes.size == (216, 230, 120)
    assert cubes.spacing_mm == (1, 1, 1)
    assert_same_middle(image, resample(image, cubes, nearest=True))


def test_linear_resampling_keeps_a_slope() -> None:
    shape = (2, 40, 40)
    slope = np.broadcast_to(np.arange(40, dtype=np.float32), shape).copy()
    image = to_image(slope, a_geometry(shape, (3, 1, 1)))
    result = sitk.GetArrayFromImage(planned(image, Grid(in_plane_mm=2)))
    np.testing.assert_allclose(result[0, 0], np.arange(20) * 2 + 0.5)


def test_nearest_resampling_makes_no_new_label_values() -> None:
    label = np.random.default_rng(1).choice([0, 1, 4], (4, 30, 30)).astype(np.uint8)
    image = to_image(label, a_geometry(label.shape, (3, 1.7, 1.7)))
    result = planned(image, Grid(in_plane_mm=1), nearest=True)
    assert result.GetPixelID() == sitk.sitkUInt8
    assert set(np.unique(sitk.GetArrayFromImage(result))) == {0, 1, 4}


@given(old=st.tuples(EDGES, EDGES), new=st.tuples(EDGES, EDGES))
def test_cropping_what_was_padded_gives_it_back(old: tuple[int, int], new: tuple[int, int]) -> None:
    geometry = a_geometry((2, *old))
    wide = (max(old[0], new[0]), max(old[1], new[1]))
    back = cropped(cropped(geometry, wide), old)
    assert back.difference(geometry) is None
    array = np.random.default_rng(0).normal(size=(2, *old)).astype(np.float32)
    padded = resample(to_image(array, geometry), cropped(geometry, wide))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(resample(padded, back)), array)


@given(old=st.tuples(EDGES, EDGES), new=st.tuples(EDGES, EDGES))
def test_a_crop_keeps_each_voxel_at_its_place_in_the_room(
    old: tuple[int, int], new: tuple[int, int]
) -> None:
    shape = (3, *old)
    geometry = a_geometry(shape)
    array = np.zeros(shape, np.float32)
    array[1, old[0] // 2, old[1] // 2] = 1
    image = resample(to_image(array, geometry), cropped(geometry, new))
    z, y, x = (int(n) for n in np.argwhere(sitk.GetArrayFromImage(image))[0])
    before = to_image(array, geometry).TransformIndexToPhysicalPoint((old[1] // 2, old[0] // 2, 1))
    np.testing.assert_allclose(image.TransformIndexToPhysicalPoint((x, y, z)), before)


def test_a_transform_maps_the_new_grid_to_the_image() -> None:
    shape = (5, 20, 20)
    array = np.zeros(shape, np.float32)
    array[2, 10, 10] = 1
    moved = sitk.TranslationTransform(3, (4.0, 0.0, -3.0))  # two voxels of 2 mm, one of 3 mm
    result = resample(to_image(array, a_geometry(shape)), a_geometry(shape), moved)
    assert np.argwhere(sitk.GetArrayFromImage(result)).tolist() == [[3, 10, 8]]


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


def test_the_share_of_a_mask_outside_a_grid() -> None:
    geometry = a_geometry((1, 10, 10))
    mask = np.zeros((1, 10, 10), np.uint8)
    mask[0, 0:4, 5] = 1
    image = to_image(mask, geometry)
    assert outside_fraction(image, geometry) == 0
    assert outside_fraction(image, cropped(geometry, (8, 8))) == 0.25  # a row is cut off
    assert outside_fraction(to_image(np.zeros_like(mask), geometry), geometry) == 0


@given(degrees=st.floats(-180, 180), shift=st.floats(-30, 30))
def test_a_mask_that_was_moved_is_as_much_outside_as_one_that_was_not(
    degrees: float, shift: float
) -> None:
    geometry = a_geometry((6, 20, 20))
    image = to_image(np.ones((6, 20, 20), np.uint8), geometry)
    there = sitk.Euler3DTransform((0, 0, 0), 0, 0, np.deg2rad(degrees), (shift, 2.0, -1.0))
    turned_axes = np.array(there.GetMatrix()).reshape(3, 3) @ np.array(geometry.direction).reshape(
        3, 3
    )
    moved = to_image(
        np.ones((6, 20, 20), np.uint8),
        replace(
            geometry,
            origin_mm=there.TransformPoint(geometry.origin_mm),
            direction=tuple(turned_axes.ravel()),
        ),
    )
    smaller = cropped(geometry, (13, 17))
    assert outside_fraction(moved, smaller, there) == pytest.approx(
        outside_fraction(image, smaller), abs=1e-6
    )


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
