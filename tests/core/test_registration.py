from dataclasses import astuple, replace
from functools import cache

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given
from hypothesis import strategies as st

from brainfed.core.registration import (
    Matrix,
    Prepared,
    Registered,
    compose,
    invert,
    prepare,
    register,
    transform,
)
from brainfed.core.volume import Geometry, geometry_of, to_image
from brainfed.plan import Modality
from tests import simulator
from tests.builders import a_geometry
from tests.simulator import REFERENCE, Native, error_mm

POINTS = np.array([[0.0, 0.0, 0.0], [50.0, -20.0, 10.0], [-30.0, 60.0, -40.0]])


@cache
def head() -> simulator.Head:
    return simulator.a_phantom_head(4, spacing_mm=2.5)


@cache
def native(hard: bool) -> Native:
    """T1ce and T2 of one head; in the hard one T2 shows a part of it."""
    return simulator.scan(
        head(),
        np.random.default_rng(3 if hard else 2),
        hard=hard,
        cut=hard,
        modalities=(REFERENCE, Modality.T2),
        spacings=((2.0, 2.0, 2.0), (1.0, 1.0, 5.0)),
    )


@cache
def prepared(hard: bool, modality: Modality) -> Prepared:
    return prepare(native(hard).images[modality], n4=True)


@cache
def found(hard: bool) -> Registered:
    return register(prepared(hard, REFERENCE), prepared(hard, Modality.T2))


@st.composite
def motions(draw: st.DrawFn) -> Matrix:
    seed = draw(st.integers(0, 10_000))
    return simulator.a_motion(np.random.default_rng(seed), 180, 100)


@pytest.mark.parametrize("hard", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_moved_head_is_found_within_half_a_millimetre(hard: bool) -> None:
    truth, points = native(hard).truth[Modality.T2], native(hard).brain_points
    assert error_mm(native(hard).truth[REFERENCE], truth, points) > 4  # the headers are off
    assert found(hard).doubts == ()
    assert error_mm(found(hard).matrix, truth, points) < 0.5


def test_what_is_found_is_measured() -> None:
    result, truth = found(hard=True), np.array(native(hard=True).truth[Modality.T2]).reshape(3, 4)
    angle = np.rad2deg(np.arccos((np.trace(truth[:, :3]) - 1) / 2))
    assert result.rotation_degrees == pytest.approx(angle, abs=0.5)
    assert result.information_gain > 0.02
    assert 0.8 < result.overlap_fraction <= 1.05
    assert result.fall_off > 0.02


def test_the_same_scans_give_the_same_bits() -> None:
    again = prepare(native(hard=True).images[Modality.T2], n4=True)
    assert np.array_equal(again.values, prepared(True, Modality.T2).values)
    assert register(prepared(True, REFERENCE), again) == found(hard=True)


def test_a_stripped_scan_needs_no_mask() -> None:
    case = native(hard=False)
    stripped = [
        prepare(sitk.Mask(case.images[m], brain_on(m)), n4=False) for m in (REFERENCE, Modality.T2)
    ]
    assert all(scan.is_stripped() for scan in stripped)
    assert not prepared(False, REFERENCE).is_stripped()
    result = register(*stripped)
    assert result.doubts == ()
    assert error_mm(result.matrix, case.truth[Modality.T2], case.brain_points) < 1


def brain_on(modality: Modality) -> sitk.Image:
    """The true brain on a modality's grid."""
    case = native(hard=False)
    way = transform(invert(case.truth[modality]))
    return sitk.Resample(case.brain, case.images[modality], way, sitk.sitkNearestNeighbor)


def thinned(scan: Prepared) -> Prepared:
    """Every second voxel along each axis: what is refused is tried twice, so it is kept small."""
    _, spacing, origin, direction = astuple(scan.geometry)
    values = np.ascontiguousarray(scan.values[::2, ::2, ::2])
    mm = tuple(2 * step for step in spacing)
    return Prepared(
        values, scan.mask[::2, ::2, ::2], Geometry(values.shape[::-1], mm, origin, direction)
    )


@pytest.mark.slow
def test_noise_is_no_head_that_could_be_found() -> None:
    fixed = thinned(prepared(hard=False, modality=REFERENCE))
    noise = np.random.default_rng(1).random(fixed.values.shape).astype(np.float32)
    result = register(fixed, Prepared(noise, fixed.mask, fixed.geometry))
    assert result.doubts
    assert result.n_starts == 2


def test_a_head_that_is_mostly_outside_is_refused() -> None:
    fixed = thinned(prepared(hard=False, modality=REFERENCE))
    far = replace(fixed.geometry, size=(8, *fixed.geometry.size[1:]), origin_mm=(0.0, 0.0, 0.0))
    edge = np.ascontiguousarray(fixed.values[:, :, -8:])
    assert register(fixed, Prepared(edge, np.ones_like(edge, np.bool_), far)).doubts


@pytest.mark.parametrize("shape", [(5, 90, 90), (40, 4, 40)])
def test_a_slab_of_a_centimetre_is_refused(shape: tuple[int, int, int]) -> None:
    slab = Prepared(
        np.ones(shape, np.float32), np.ones(shape, np.bool_), a_geometry(shape, (2, 2, 2))
    )
    assert "too thin" in register(slab, slab).doubts[0]


def test_an_empty_mask_is_refused_not_registered() -> None:
    scan = prepared(hard=False, modality=REFERENCE)
    empty = to_image(np.zeros(scan.values.shape, np.uint8), scan.geometry)
    assert "no head" in register(scan, scan, fixed_mask=empty).doubts[0]


def test_preparing_keeps_the_field_of_view() -> None:
    image = native(hard=True).images[Modality.T2]
    scan = prepared(hard=True, modality=Modality.T2)
    assert scan.geometry.spacing_mm == (2, 2, 2)
    assert scan.geometry.direction == image.GetDirection()
    assert np.allclose(
        scan.geometry.size, np.array(image.GetSize()) * image.GetSpacing() / 2, atol=1
    )
    middles = [
        sitk_image.TransformContinuousIndexToPhysicalPoint(
            [(n - 1) / 2 for n in sitk_image.GetSize()]
        )
        for sitk_image in (image, to_image(scan.values, scan.geometry))
    ]
    assert np.allclose(middles[0], middles[1], atol=1.0)


def test_a_prepared_scan_is_stored_and_taken_back_to_the_bit() -> None:
    scan = prepared(hard=True, modality=Modality.T2)
    back = Prepared.from_arrays(scan.to_arrays())
    assert back.geometry == scan.geometry
    assert np.array_equal(back.values, scan.values)
    assert np.array_equal(back.mask, scan.mask)


@given(motions(), motions())
def test_a_composed_matrix_does_one_after_the_other(first: Matrix, then: Matrix) -> None:
    expected = simulator.mapped(then, simulator.mapped(first, POINTS))
    assert np.allclose(simulator.mapped(compose(first, then), POINTS), expected)


@given(motions())
def test_an_inverted_matrix_leads_back(matrix: Matrix) -> None:
    assert np.allclose(simulator.mapped(compose(matrix, invert(matrix)), POINTS), POINTS)


@given(motions())
def test_a_transform_maps_as_its_matrix_does(matrix: Matrix) -> None:
    mapped = [transform(matrix).TransformPoint(point.tolist()) for point in POINTS]
    assert np.allclose(mapped, simulator.mapped(matrix, POINTS))


def test_resampling_by_the_matrix_lays_the_scan_on_the_reference() -> None:
    case = native(hard=False)
    onto = sitk.Resample(
        case.images[Modality.T2], case.images[REFERENCE], transform(found(hard=False).matrix)
    )
    assert geometry_of(onto) == geometry_of(case.images[REFERENCE])
    brain = sitk.GetArrayFromImage(case.brain) > 0
    values = sitk.GetArrayFromImage(onto)
    assert values[brain].mean() > 3 * values[~brain].mean()
