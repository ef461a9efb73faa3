"""Slices as one volume: what is even, what is missing, what is crooked."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainfed.core.slice_stack import Slice, distance_mm, stack
from brainfed.core.volume import Geometry
from brainfed.errors import ScanError


def turned(angles: tuple[float, float, float]) -> np.ndarray:
    """A rotation about x, y and z, in radians."""
    axes = np.eye(3)
    for axis, angle in enumerate(angles):
        turn, (first, second) = np.eye(3), ((axis + 1) % 3, (axis + 2) % 3)
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[second, first], turn[first, second] = np.sin(angle), -np.sin(angle)
        axes = turn @ axes
    return axes


def slices(
    axes: np.ndarray, along_mm: list[float], *, origin: tuple[float, ...] = (0, 0, 0)
) -> list[Slice]:
    """Slices at these places along their normal."""
    row, column, normal = axes.T
    return [
        Slice(
            tuple(float(v) for v in np.array(origin) + normal * place),
            (*row, *column),
            (0.9, 1.1),
        )
        for place in along_mm
    ]


def volume(found: list[Slice]) -> Geometry:
    return stack(found, rows=20, columns=24, where="series")


angles = st.tuples(*[st.floats(-3, 3)] * 3)
origins = st.tuples(*[st.floats(-200, 200)] * 3)


@given(angles, origins, st.integers(2, 30), st.floats(0.5, 8), st.randoms())
def test_even_slices_in_any_order_and_direction_are_one_volume(
    angles: tuple[float, float, float],
    origin: tuple[float, float, float],
    n: int,
    gap: float,
    random: object,
) -> None:
    axes = turned(angles)
    found = slices(axes, [z * gap for z in range(n)], origin=origin)
    random.shuffle(found)  # type: ignore[attr-defined]
    geometry = volume(found)
    assert geometry.size == (24, 20, n)
    assert np.allclose(geometry.spacing_mm, (1.1, 0.9, gap))
    assert np.allclose(geometry.origin_mm, origin)
    assert np.allclose(np.array(geometry.direction).reshape(3, 3), axes)
    affine = np.column_stack([axes * geometry.spacing_mm, origin])
    assert distance_mm(geometry, affine) < 1e-6


@given(angles, st.floats(0.5, 5), st.floats(0.2, 20))
def test_an_affine_that_is_moved_is_that_far_away(
    angles: tuple[float, float, float], gap: float, moved: float
) -> None:
    axes = turned(angles)
    geometry = volume(slices(axes, [z * gap for z in range(9)]))
    affine = np.column_stack([axes * geometry.spacing_mm, axes[:, 2] * moved])
    # A corner may come to lie near another one, so never more than the way that it went.
    assert 0.1 < distance_mm(geometry, affine) <= moved + 1e-6


def test_rows_that_run_the_other_way_are_the_same_volume() -> None:
    geometry = volume(slices(np.eye(3), [0, 2, 4]))
    flipped = np.array([[1.1, 0, 0, 0], [0, -0.9, 0, 0.9 * 19], [0, 0, 2, 0]], float)
    assert distance_mm(geometry, flipped) < 1e-9


@pytest.mark.parametrize(
    ("places", "words"),
    [
        ([0, 5, 10, 20, 25], "1 slice is missing"),
        ([0, 5, 10, 30, 35, 40], "3 slices are missing"),
        ([0, 5, 10, 16, 21, 26], "gaps between the slices are uneven"),
        ([0, 5, 10, 14.5, 20], "gaps between the slices are uneven"),
        ([0, 0, 5, 5, 10, 10], "in one place"),
        ([0, 5, 5, 10, 15], "in one place"),
        ([0], "no volume"),
    ],
)
def test_uneven_slices_are_refused(places: list[float], words: str) -> None:
    with pytest.raises(ScanError, match=words):
        volume(slices(turned((0.1, 0.2, 0.3)), places))


def test_rounded_positions_are_still_even() -> None:
    geometry = volume(slices(np.eye(3), [round(z * 1.2000001, 2) for z in range(100)]))
    assert geometry.spacing_mm[2] == pytest.approx(1.2, abs=1e-4)


def test_slices_in_two_directions_are_refused() -> None:
    found = [*slices(np.eye(3), [0, 1, 2]), *slices(turned((np.pi / 2, 0, 0)), [0, 1, 2])]
    with pytest.raises(ScanError, match="several directions"):
        volume(found)


def test_slices_with_two_pixel_sizes_are_refused() -> None:
    found = slices(np.eye(3), [0, 1, 2])
    found[1] = Slice(found[1].position_mm, found[1].orientation, (0.9, 1.2))
    with pytest.raises(ScanError, match="several pixel sizes"):
        volume(found)


def test_slices_that_lean_are_refused() -> None:
    found = [Slice((z * 0.5, 0.0, z * 2.0), (1, 0, 0, 0, 1, 0), (1.0, 1.0)) for z in range(10)]
    with pytest.raises(ScanError, match="one behind the other"):
        volume(found)


def test_directions_that_are_not_at_right_angles_are_refused() -> None:
    found = [Slice((0, 0, z), (1, 0, 0, 0.1, 1, 0), (1.0, 1.0)) for z in range(5)]
    with pytest.raises(ScanError, match="right angles"):
        volume(found)
