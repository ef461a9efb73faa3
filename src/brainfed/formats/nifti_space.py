"""Where a NIfTI-1 header says that the voxels are, and whether it says it once.

The standard has two ways (nifti1.h, "3D IMAGE ORIENTATION AND LOCATION"): the qform, a rotation as
quaternion beside the voxel sizes, and the sform, three rows of a matrix that may hold anything. A
file may have both. Millimetres, RAS+; the `Geometry` that comes out is LPS+.
"""

import math
import struct

import numpy as np
import numpy.typing as npt

from brainfed.core.flaws import Finding, Flaw, FlawedScanError, finding
from brainfed.core.volume import Geometry
from brainfed.formats.nifti_header import Header
from brainfed.plan import Modality

APART_MM = 0.1
"""How far two statements about the place of a corner voxel may be from each other."""
ORTHONORMAL_TOLERANCE = 5e-4
"""Largest product of two axes' cosines that is still rounding: 0.05 mm over 100 mm. Writers round
to between 1e-8 and 1e-4; ITK itself gives up between 1e-5 and 5e-5."""
_UNITS = {1: "metres", 3: "micrometres"}
_TO_LPS = np.array([-1.0, -1.0, 1.0])

Matrix = npt.NDArray[np.float64]


def geometry_in(header: Header, modality: Modality | None = None) -> tuple[Geometry, list[Finding]]:
    """The geometry that a header states.

    Where both ways are used and agree within 0.1 mm, directions and origin are the sform's, which
    is the more exact in single precision, and the spacing is as the header's voxel sizes have it.
    Where they disagree, the sform is taken as a whole, as programs that align images write it.

    Args:
        header: The header.
        modality: Whose, for the findings.

    Raises:
        FlawedScanError: Not millimetres, no orientation, axes not at right angles, or one of the
            two statements a mirror image of the other.
    """
    data, order, size = header.data, header.order, header.size
    _refuse_units(data[123] & 7)
    qfac, *sizes = struct.unpack_from(f"{order}4f", data, 76)
    q_code, s_code = struct.unpack_from(f"{order}2h", data, 252)
    if not all(math.isfinite(mm) and mm > 0 for mm in sizes):
        raise FlawedScanError(
            Flaw.SPACING,
            "The header's voxel sizes are no sizes",
            expected="three lengths in mm",
            found=", ".join(f"{mm:g}" for mm in sizes),
            hint="export the scan again",
        )
    if q_code <= 0 and s_code <= 0:
        raise FlawedScanError(
            Flaw.NO_ORIENTATION,
            "The header doesn't say how the head lies: nobody can tell left from right",
            expected="a qform or an sform",
            hint="convert the scan again from DICOM; a program lost its orientation",
        )
    spacing = np.array(sizes)
    qform = _qform(data, order, qfac) if q_code > 0 else None
    if s_code <= 0:
        assert qform is not None
        return _geometry(size, spacing, qform[:, :3], qform[:, 3]), []
    sform = np.array(struct.unpack_from(f"{order}12f", data, 280), np.float64).reshape(3, 4)
    axes, own_spacing = _axes_of(sform)
    other = axes if qform is None else qform[:, :3]
    if np.linalg.det(axes) * np.linalg.det(other) < 0:
        raise FlawedScanError(
            Flaw.MIRRORED,
            "The header says two things: its qform is a mirror image of its sform",
            hint="convert the scan again from DICOM: one of the two swaps left and right",
        )
    origin = sform[:, 3]
    other_origin = origin if qform is None else qform[:, 3]
    apart = _apart(size, sform, np.column_stack([other * spacing, other_origin]))
    if apart <= APART_MM:
        return _geometry(size, spacing, axes, origin), []
    rival = "voxel sizes" if qform is None else "qform"
    words = (
        f"The header says two things: by its {rival} a corner lies {apart:.3g} mm away from where "
        "it lies by its sform, which was taken."
    )
    return _geometry(size, own_spacing, axes, origin), [finding(Flaw.TWO_PLACES, words, modality)]


def _refuse_units(code: int) -> None:
    # 2 is mm; 0, unknown, is what many programs write, and a wrong guess shows in the spacing.
    if code not in (0, 2):
        raise FlawedScanError(
            Flaw.UNITS,
            "The scan's lengths are not in millimetres",
            expected="millimetres",
            found=_UNITS.get(code, f"unit {code}"),
            hint="export the scan again in millimetres",
        )


def _qform(data: bytes, order: str, qfac: float) -> Matrix:
    """Axes and origin `(3, 4)` of the quaternion, as nifti1.h has it."""
    b, c, d, *origin = struct.unpack_from(f"{order}6f", data, 256)
    square = b * b + c * c + d * d
    if not (square <= 1 + ORTHONORMAL_TOLERANCE and np.isfinite(origin).all()):  # NaN fails too
        raise _not_orthonormal("a quaternion longer than 1, or no number")
    rest = 1 - square
    if rest < 1e-7:  # single precision can't tell this from 0: half a turn
        a, b, c, d = 0.0, *(part / math.sqrt(square) for part in (b, c, d))
    else:
        a = math.sqrt(rest)
    axes = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b],
        ]
    )
    if qfac < 0:
        axes[:, 2] *= -1
    return np.column_stack([axes, origin])


def _axes_of(sform: Matrix) -> tuple[Matrix, Matrix]:
    """The axes, made exactly orthonormal, and the spacing of an sform."""
    if not np.isfinite(sform).all():
        raise _not_orthonormal("a number that is not finite")
    spacing = np.linalg.norm(sform[:, :3], axis=0)
    if not spacing.all():
        raise _not_orthonormal("an axis of length 0")
    cosines = sform[:, :3] / spacing
    off = float(np.abs(cosines.T @ cosines - np.eye(3)).max())
    if off > ORTHONORMAL_TOLERANCE:
        raise _not_orthonormal(f"cosines of up to {off:.2g} between them")
    left, _, right = np.linalg.svd(cosines)
    return left @ right, spacing  # the nearest orthonormal axes; a mirror image stays one


def _not_orthonormal(found: str) -> FlawedScanError:
    return FlawedScanError(
        Flaw.NOT_ORTHONORMAL,
        "The axes of the scan are not orthonormal: its header shears or deforms it",
        expected="three axes at right angles",
        found=found,
        hint="export the scan again without an affine registration in its header",
    )


def _apart(size: tuple[int, int, int], one: Matrix, other: Matrix) -> float:
    """Largest distance in mm between two statements `(3, 4)` about a corner voxel."""
    corners = np.array(
        [(x, y, z, 1) for x in (0, size[0] - 1) for y in (0, size[1] - 1) for z in (0, size[2] - 1)]
    )
    return float(np.linalg.norm(corners @ (one - other).T, axis=1).max())


def _geometry(
    size: tuple[int, int, int], spacing: Matrix, axes: Matrix, origin: Matrix
) -> Geometry:
    x, y, z = (float(mm) for mm in spacing)
    at_x, at_y, at_z = (float(mm) for mm in origin * _TO_LPS + 0.0)  # never -0
    direction = (axes * _TO_LPS[:, None] + 0.0).ravel()
    return Geometry(
        size=size,
        spacing_mm=(x, y, z),
        origin_mm=(at_x, at_y, at_z),
        direction=tuple(float(cosine) for cosine in direction),
    )
