"""The volume that DICOM slices make up, from their positions: LPS, millimetres."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from brainfed.core.flaws import Flaw, FlawedScanError
from brainfed.core.volume import Geometry
from brainfed.errors import ScanError

GAP_TOLERANCE_MM = 0.1
"""Largest difference of a gap between two slices from the usual one; of a slice from the line."""
_DIRECTION_TOLERANCE = 1e-3
ANOTHER = "choose another series in cases.csv"
"""What to do about a series that can't be used."""

Triple = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Slice:
    """Where one slice lies."""

    position_mm: Triple
    """ImagePositionPatient: the centre of its first pixel."""
    orientation: tuple[float, float, float, float, float, float]
    """ImageOrientationPatient: the direction along a row, then that along a column."""
    spacing_mm: tuple[float, float]
    """PixelSpacing: from row to row, then from column to column."""


def stack(slices: Sequence[Slice], *, rows: int, columns: int, where: Path | str) -> Geometry:
    """The geometry of the volume that slices make up, in the order of their normal.

    Args:
        slices: In any order.
        rows: Of each slice.
        columns: Of each slice.
        where: For messages.

    Raises:
        ScanError: Slices in several directions or of several sizes, twice in one place, not one
            behind the other, or with gaps that aren't even.
    """
    if len(slices) < 2:
        raise ScanError(
            "The series is no volume",
            expected="2 slices or more",
            found=len(slices),
            where=where,
            hint=ANOTHER,
        )
    first = slices[0]
    turned = np.array([s.orientation for s in slices]) - first.orientation
    if np.abs(turned).max() > _DIRECTION_TOLERANCE:
        raise ScanError(
            "The slices lie in several directions",
            expected="one direction",
            where=where,
            hint="this is a localizer, or several series in one: choose another series",
        )
    scaled = np.array([s.spacing_mm for s in slices]) / first.spacing_mm - 1
    if np.abs(scaled).max() > _DIRECTION_TOLERANCE:
        raise ScanError("The slices have several pixel sizes", where=where, hint=ANOTHER)
    row, column = np.array(first.orientation, np.float64).reshape(2, 3)
    lengths = np.array([row @ row - 1, column @ column - 1, row @ column])
    if np.abs(lengths).max() > _DIRECTION_TOLERANCE:
        raise ScanError(
            "The directions of a slice's rows and columns are not at right angles",
            found=" ".join(f"{v:g}" for v in first.orientation),
            where=where,
            hint=ANOTHER,
        )
    normal = np.cross(row, column)
    normal /= np.linalg.norm(normal)
    positions = np.array([s.position_mm for s in slices])
    positions = positions[np.argsort(positions @ normal, kind="stable")]
    gap_mm = _even_gap(positions, normal, where)
    direction = np.column_stack([row, column, normal])
    origin = positions[0]
    return Geometry(
        size=(columns, rows, len(slices)),
        spacing_mm=(first.spacing_mm[1], first.spacing_mm[0], gap_mm),
        origin_mm=(float(origin[0]), float(origin[1]), float(origin[2])),
        direction=tuple(float(v) for v in direction.ravel()),
    )


def distance_mm(geometry: Geometry, affine: npt.NDArray[np.float64]) -> float:
    """How far the corners of a volume lie from where an affine puts them, whichever way axes run.

    Args:
        geometry: Size and place of the volume.
        affine: `(3, 4)`: of a voxel `(x, y, z, 1)` of the same size, to LPS in mm.
    """
    ends = np.array(np.meshgrid(*[(0, n - 1) for n in geometry.size], indexing="ij")).reshape(3, 8)
    axes = np.array(geometry.direction).reshape(3, 3) * geometry.spacing_mm
    mine = (axes @ ends).T + geometry.origin_mm
    theirs = (affine[:, :3] @ ends).T + affine[:, 3]
    apart = np.linalg.norm(mine[:, None] - theirs[None], axis=2)
    return float(max(apart.min(axis=0).max(), apart.min(axis=1).max()))


def _even_gap(
    positions: npt.NDArray[np.float64], normal: npt.NDArray[np.float64], where: Path | str
) -> float:
    """The distance of neighbouring slices, which must be one and the same."""
    gaps = np.diff(positions @ normal)
    usual = float(np.median(gaps))
    if gaps.min() < GAP_TOLERANCE_MM:
        raise ScanError(
            "Several slices lie in one place",
            expected="one volume",
            where=where,
            hint="this is a series of several volumes, or its files are there twice",
        )
    odd = np.abs(gaps - usual)
    if odd.max() > GAP_TOLERANCE_MM:
        wide = float(gaps[odd.argmax()])
        missing = round(wide / usual) - 1
        uneven = FlawedScanError(
            Flaw.UNEVEN_GAPS,
            f"{missing} slice{'s are' if missing > 1 else ' is'} missing"
            if missing > 0 and abs(wide - (missing + 1) * usual) <= GAP_TOLERANCE_MM
            else "The gaps between the slices are uneven",
            expected=f"{usual:.3f} mm from slice to slice",
            found=f"{wide:.3f} mm",
            hint="export the series again, with all of its slices",
        )
        uneven.where = str(where)
        raise uneven
    line = np.linspace(0, 1, len(positions))[:, None] * (positions[-1] - positions[0])
    across = positions - positions[0] - line
    sheared = (positions[-1] - positions[0]) - normal * ((positions[-1] - positions[0]) @ normal)
    if np.abs(across).max() > GAP_TOLERANCE_MM or np.linalg.norm(sheared) > GAP_TOLERANCE_MM:
        raise ScanError(
            "The slices don't lie one behind the other",
            expected="positions along the normal of the slices",
            found=f"{float(np.linalg.norm(sheared)):.3f} mm to the side",
            where=where,
            hint="choose another series, or export it without correction of the tilt",
        )
    return float((positions[-1] - positions[0]) @ normal) / (len(positions) - 1)
