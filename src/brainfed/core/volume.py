"""Images in memory: their geometry, and the way from a scan's grid to the plan's.

Arrays are `(z, y, x)` in the patient's LPS orientation: x to the left, y to the back, z upwards.
Geometries, as in SimpleITK, are `(x, y, z)` in millimetres.
"""

# SimpleITK's wrapper has no types.
# mypy: disable-error-code="no-untyped-call, no-any-return"

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813 - the name that all of its documentation uses

from brainfed.errors import ScanError
from brainfed.plan import Grid, ZScore

ORIGIN_TOLERANCE_VOXELS = 0.05
"""Largest distance between two origins, in voxels, that still counts as one grid."""
DIRECTION_TOLERANCE = 1e-3
"""Largest difference of a direction cosine, and of a spacing relative to itself."""

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Voxel = TypeVar("Voxel", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where the voxels of an image are: all in `(x, y, z)` order, LPS, millimetres."""

    size: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    direction: tuple[float, ...]
    """Nine cosines, row by row; a column is the direction of one axis."""

    def difference(self, other: "Geometry") -> str | None:
        """The first part in which two grids differ, in words; None where they are one grid.

        Headers are written with different roundings, so a small difference counts as none: 0.05
        voxels of the origin, a thousandth of the spacing and of the direction.
        """
        if self.size != other.size:
            return f"size {_words(self.size)} against {_words(other.size)}"
        if not np.allclose(self.spacing_mm, other.spacing_mm, rtol=DIRECTION_TOLERANCE, atol=0):
            return f"spacing {_words(self.spacing_mm)} against {_words(other.spacing_mm)} mm"
        if not np.allclose(self.direction, other.direction, rtol=0, atol=DIRECTION_TOLERANCE):
            return f"direction {_words(self.direction)} against {_words(other.direction)}"
        apart = np.abs(np.subtract(self.origin_mm, other.origin_mm))
        if np.any(apart > ORIGIN_TOLERANCE_VOXELS * min(self.spacing_mm)):
            return f"origin {_words(self.origin_mm)} against {_words(other.origin_mm)} mm"
        return None


def geometry_of(image: sitk.Image) -> Geometry:
    """The geometry of a 3-D image."""
    return Geometry(
        size=tuple(image.GetSize()),
        spacing_mm=tuple(image.GetSpacing()),
        origin_mm=tuple(image.GetOrigin()),
        direction=tuple(image.GetDirection()),
    )


def to_image(array: npt.NDArray[np.generic], geometry: Geometry) -> sitk.Image:
    """An image with the given voxels `(z, y, x)` and geometry."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(geometry.spacing_mm)
    image.SetOrigin(geometry.origin_mm)
    image.SetDirection(geometry.direction)
    return image


def to_plan_grid(image: sitk.Image, grid: Grid, *, nearest: bool = False) -> sitk.Image:
    """Turn an image to LPS and resample it in its plane; slices stay as they are.

    Args:
        image: A 3-D image of any orientation.
        grid: The plan's grid; only `in_plane_mm` counts here, 0 keeps the scan's own pixels.
        nearest: Nearest neighbour (labels, masks) in place of linear interpolation.

    Returns:
        The image; the middle of the field of view stays where it was.
    """
    turned = sitk.DICOMOrient(image, "LPS")
    if grid.in_plane_mm == 0:
        return turned
    old_size, old_mm = np.array(turned.GetSize()), np.array(turned.GetSpacing())
    new_mm = np.array([grid.in_plane_mm, grid.in_plane_mm, old_mm[2]])
    if np.allclose(new_mm, old_mm, rtol=1e-6, atol=0):
        return turned
    new_size = np.maximum(1, np.rint(old_size * old_mm / new_mm)).astype(int)
    # Half of the difference between the two extents, from voxel centre to voxel centre.
    shift = ((old_size - 1) * old_mm - (new_size - 1) * new_mm) / 2
    axes = np.array(turned.GetDirection()).reshape(3, 3)
    return sitk.Resample(
        turned,
        [int(n) for n in new_size],
        sitk.Transform(),
        sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear,
        [float(v) for v in np.array(turned.GetOrigin()) + axes @ shift],
        [float(v) for v in new_mm],
        turned.GetDirection(),
        0.0,
        turned.GetPixelID() if nearest else sitk.sitkFloat32,
    )


def crop_offset(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    """First row and column `(y, x)` of the target in the image; negative where it is padded."""
    # Towards zero both ways, so that cropping what was padded gives the image back.
    y, x = (int((n_old - n_new) / 2) for n_old, n_new in zip(size, target, strict=True))
    return y, x


def crop_or_pad(array: npt.NDArray[Voxel], target: tuple[int, int]) -> npt.NDArray[Voxel]:
    """Cut the middle out of each slice, or set it into zeros, to the plan's rows and columns.

    Args:
        array: `(z, y, x)`.
        target: Rows and columns `(y, x)`.

    Returns:
        `(z, *target)`, a copy.
    """
    result = np.zeros((array.shape[0], *target), array.dtype)
    from_, to = [slice(None)], [slice(None)]
    for offset, n_old, n_new in zip(
        crop_offset((array.shape[1], array.shape[2]), target), array.shape[1:], target, strict=True
    ):
        first = max(offset, 0)
        n_common = min(n_old, n_new)
        from_.append(slice(first, first + n_common))
        to.append(slice(max(-offset, 0), max(-offset, 0) + n_common))
    result[tuple(to)] = array[tuple(from_)]
    return result


def cropped_geometry(geometry: Geometry, target: tuple[int, int]) -> Geometry:
    """The geometry of what `crop_or_pad` gives of an image with this geometry."""
    y, x = crop_offset((geometry.size[1], geometry.size[0]), target)
    axes = np.array(geometry.direction).reshape(3, 3)
    shift = axes @ (np.array([x, y, 0]) * geometry.spacing_mm)
    origin = np.array(geometry.origin_mm) + shift
    return Geometry(
        size=(target[1], target[0], geometry.size[2]),
        spacing_mm=geometry.spacing_mm,
        origin_mm=(float(origin[0]), float(origin[1]), float(origin[2])),
        direction=geometry.direction,
    )


def z_score(array: Floats, brain_mask: Mask, over: ZScore) -> Floats:
    """Bring a volume to mean 0 and standard deviation 1.

    Args:
        array: `(z, y, x)`, cropped to the plan's grid.
        brain_mask: The same shape; used by `brain` alone.
        over: `volume` takes all voxels, background and padding included (the paper's code);
            `brain` takes those in the mask and sets all others to 0, the brain's mean.

    Raises:
        ScanError: There is nothing to measure: no brain in the crop, or all values are one.
    """
    values = (array[brain_mask] if over is ZScore.BRAIN else array).astype(np.float64)
    if values.size == 0:
        raise ScanError(
            "No brain is left on the plan's grid",
            expected="a brain in the middle of the image",
            hint="look at the image; the plan crops or pads around the middle",
        )
    deviation = float(values.std())
    if deviation == 0:
        raise ScanError(
            "The image has one single value on the plan's grid",
            found=float(values.flat[0]),
            hint="look at the image; the plan crops or pads around the middle",
        )
    scored = ((array - values.mean()) / deviation).astype(np.float32)
    return np.where(brain_mask, scored, np.float32(0)) if over is ZScore.BRAIN else scored


def lost_fraction(before: Mask, after: Mask) -> float:
    """Share of the voxels of `before` that the crop left out of `after`; 0 for an empty mask."""
    n_before = int(np.count_nonzero(before))
    return 0.0 if n_before == 0 else 1 - int(np.count_nonzero(after)) / n_before


def _words(numbers: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{number:.6g}" for number in numbers) + ")"
