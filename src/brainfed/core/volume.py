"""Images in memory: their geometry, the plan's grid, and the one resampling onto it.

Arrays are `(z, y, x)` in the patient's LPS orientation: x to the left, y to the back, z upwards.
Geometries, as in SimpleITK, are `(x, y, z)` in millimetres.
"""

# SimpleITK's wrapper has no types.
# mypy: disable-error-code="no-untyped-call, no-any-return"

from dataclasses import dataclass

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


def turned(image: sitk.Image) -> sitk.Image:
    """The image with its axes in the order and direction of LPS; no voxel changes its place."""
    return sitk.DICOMOrient(image, "LPS")


def isotropic(geometry: Geometry, edge_mm: float = 1.0) -> Geometry:
    """A grid of cubes over the same field of view, its middle where it was.

    Args:
        geometry: Any grid.
        edge_mm: Distance of the voxels, in mm.
    """
    return _respaced(geometry, np.full(3, edge_mm))


def in_plane(geometry: Geometry, grid: Grid) -> Geometry:
    """The grid with the plan's pixel edge, slices as they are, its middle where it was.

    Args:
        geometry: A grid along LPS.
        grid: The plan's; only `in_plane_mm` counts here, 0 keeps the pixels.
    """
    if grid.in_plane_mm == 0:
        return geometry
    edge = grid.in_plane_mm
    return _respaced(geometry, np.array([edge, edge, geometry.spacing_mm[2]]))


def _respaced(geometry: Geometry, new_mm: npt.NDArray[np.float64]) -> Geometry:
    old_size, old_mm = np.array(geometry.size), np.array(geometry.spacing_mm)
    if np.allclose(new_mm, old_mm, rtol=1e-6, atol=0):
        return geometry
    new_size = np.maximum(1, np.rint(old_size * old_mm / new_mm)).astype(int)
    # Half of the difference between the two extents, from voxel centre to voxel centre.
    shift = ((old_size - 1) * old_mm - (new_size - 1) * new_mm) / 2
    return Geometry(
        size=(int(new_size[0]), int(new_size[1]), int(new_size[2])),
        spacing_mm=(float(new_mm[0]), float(new_mm[1]), float(new_mm[2])),
        origin_mm=_moved(geometry, shift),
        direction=geometry.direction,
    )


def _moved(geometry: Geometry, shift_mm: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """The origin moved along the grid's own axes."""
    axes = np.array(geometry.direction).reshape(3, 3)
    x, y, z = (float(v) for v in np.array(geometry.origin_mm) + axes @ shift_mm)
    return x, y, z


def cropped(geometry: Geometry, target: tuple[int, int]) -> Geometry:
    """The middle of each slice, cut or padded to the plan's rows and columns.

    Args:
        geometry: A grid along LPS.
        target: Rows and columns `(y, x)`.
    """
    # Towards zero both ways, so that cropping what was padded gives the grid back.
    y, x = (
        int((n_old - n_new) / 2)
        for n_old, n_new in zip((geometry.size[1], geometry.size[0]), target, strict=True)
    )
    shift = np.array([x, y, 0]) * np.array(geometry.spacing_mm)
    return Geometry(
        size=(target[1], target[0], geometry.size[2]),
        spacing_mm=geometry.spacing_mm,
        origin_mm=_moved(geometry, shift),
        direction=geometry.direction,
    )


def resample(
    image: sitk.Image,
    geometry: Geometry,
    transform: sitk.Transform | None = None,
    *,
    nearest: bool = False,
) -> sitk.Image:
    """The image on another grid, zero where it has no voxels.

    Args:
        image: A 3-D image of any orientation.
        geometry: The grid to come onto.
        transform: Maps a point of that grid to the image's point, LPS, mm; none where the two
            share their space.
        nearest: Nearest neighbour (labels, masks) in place of linear interpolation.
    """
    return sitk.Resample(
        image,
        list(geometry.size),
        transform or sitk.Transform(),
        sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear,
        list(geometry.origin_mm),
        list(geometry.spacing_mm),
        list(geometry.direction),
        0.0,
        image.GetPixelID() if nearest else sitk.sitkFloat32,
    )


def outside_fraction(
    mask: sitk.Image, geometry: Geometry, transform: sitk.Transform | None = None
) -> float:
    """Share of a mask's voxels whose centres lie outside a grid; 0 for an empty mask.

    Args:
        mask: A 3-D image, not 0 inside.
        geometry: The grid.
        transform: As of `resample`; rigid or affine, so that it has an inverse.
    """
    index = np.argwhere(sitk.GetArrayFromImage(mask))[:, ::-1]
    if not len(index):
        return 0.0
    axes = np.array(mask.GetDirection()).reshape(3, 3) * mask.GetSpacing()
    points = index @ axes.T + mask.GetOrigin()
    if transform is not None:
        points = _inverse_points(transform, points)
    axes = np.array(geometry.direction).reshape(3, 3) * geometry.spacing_mm
    place = np.linalg.solve(axes, (points - geometry.origin_mm).T).T
    inside = np.all((place >= -0.5) & (place < np.array(geometry.size) - 0.5), axis=1)
    return 1 - float(np.count_nonzero(inside)) / len(inside)


def _inverse_points(
    transform: sitk.Transform, points: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    back = transform.GetInverse()
    zero = np.array(back.TransformPoint((0.0, 0.0, 0.0)))
    columns = [np.array(back.TransformPoint(tuple(row))) - zero for row in np.eye(3)]
    moved: npt.NDArray[np.float64] = points @ np.array(columns) + zero
    return moved


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


def _words(numbers: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{number:.6g}" for number in numbers) + ")"
