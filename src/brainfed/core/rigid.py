"""Rigid motions as matrices.

A `Matrix` is the upper three rows of a homogeneous 4 x 4 matrix, row by row; it maps points in LPS
millimetres. That is what is kept; `Square` is the same for reckoning.
"""

# SimpleITK's wrapper has no types.
# mypy: disable-error-code="no-untyped-call, no-any-return"

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813 - the name that all of its documentation uses

Matrix = tuple[float, ...]
"""Twelve numbers: three rows of four."""
Square = npt.NDArray[np.float64]
"""A homogeneous 4 x 4 matrix."""
Vector = npt.NDArray[np.float64]
"""A motion: three degrees (a rotation vector, its length the angle), then three millimetres."""


def compose(first: Matrix, then: Matrix) -> Matrix:
    """The matrix that maps a point by `first` and the result by `then`."""
    return rows(square_of(then) @ square_of(first))


def invert(matrix: Matrix) -> Matrix:
    """The matrix of the way back."""
    return rows(np.linalg.inv(square_of(matrix)).astype(np.float64))


def transform(matrix: Matrix) -> sitk.AffineTransform:
    """A matrix as SimpleITK's resampling takes it."""
    square = square_of(matrix)
    result = sitk.AffineTransform(3)
    result.SetMatrix(square[:3, :3].ravel().tolist())
    result.SetTranslation(square[:3, 3].tolist())
    return result


def square_of(matrix: Matrix) -> Square:
    """A matrix with its fourth row."""
    return np.vstack([np.array(matrix).reshape(3, 4), [0, 0, 0, 1]])


def rows(square: Square) -> Matrix:
    """A matrix without its fourth row."""
    return tuple(float(value) for value in square[:3].ravel())


def motion(vector: Vector, centre: npt.NDArray[np.float64]) -> Square:
    """The matrix of a turn about a centre and then a shift."""
    angle = np.deg2rad(np.linalg.norm(vector[:3]))
    axis = vector[:3] / (np.linalg.norm(vector[:3]) or 1.0)
    cross = np.cross(np.eye(3), -axis)
    turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    result = np.eye(4)
    result[:3, :3] = turn
    result[:3, 3] = centre - turn @ centre + vector[3:]
    return result


def degrees(square: Square) -> float:
    """How far a rigid matrix turns, 0 to 180."""
    return float(np.rad2deg(np.arccos(np.clip((np.trace(square[:3, :3]) - 1) / 2, -1, 1))))
