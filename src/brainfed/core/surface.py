"""How far two outlines are apart: HD95 in two variants that differ, and surface Dice.

The surface runs between voxels: each cube of eight neighbouring voxels that are not all on one side
holds a surface element, whose area is that of marching cubes (W. E. Lorensen and H. E. Cline 1987)
through the middles of the cube's edges. Its distance to the other outline is that between centres
of cubes. So define it S. Nikolov et al., Deep learning to achieve clinically applicable
segmentation of head and neck anatomy for radiotherapy, arXiv 1809.04430, and their package
surface-distance, which BraTS 2023 uses and whose numbers these are. The other variant of HD95 has
no areas: it takes voxels on the rim and one percentile of both directions together, as medpy and
many papers do, and is smaller as a rule.

Masks are `(z, y, x)`, both of one grid. Nothing here crops; `crop` does, and changes no number.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from brainfed.core.nearest import Lengths, Mask, Spacing, distances_mm, rim

BRATS_SHAPE = (155, 240, 240)
BRATS_FARTHEST_MM = 374.0
_ALL_IN = 255
_SHARE = 0.95


@dataclass(frozen=True, slots=True)
class SurfaceScores:
    """How two outlines agree along their surfaces."""

    hd95_surface_mm: float
    """95th percentile over the surface's area, the larger of the two directions."""
    hd95_pooled_mm: float
    """95th percentile over the rim voxels of both outlines together."""
    nsd: float
    """Share of both surfaces within the tolerance of the other, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Surface:
    """The elements of one outline's surface, those nearest to the other outline first."""

    distances_mm: Lengths
    areas_mm2: Lengths

    def percentile_mm(self, share: float) -> float:
        """The distance within which this share of the area lies."""
        reached = np.cumsum(self.areas_mm2) / self.areas_mm2.sum()
        place = min(int(np.searchsorted(reached, share)), len(reached) - 1)
        return float(self.distances_mm[place])

    def area_within(self, tolerance_mm: float) -> float:
        """Area in mm2 at most this far from the other outline."""
        return float(self.areas_mm2[self.distances_mm <= tolerance_mm].sum())


def farthest_mm(shape: tuple[int, ...], spacing_mm: Spacing) -> float:
    """What HD95 a miss or a false alarm gets: no two outlines of the grid are farther apart.

    374 mm on the grid of BraTS (155 x 240 x 240 at 1 mm), as its script has it; the grid's diagonal
    elsewhere.

    Args:
        shape: Voxels `(z, y, x)` of the whole grid.
        spacing_mm: `(z, y, x)`.
    """
    if shape == BRATS_SHAPE and all(math.isclose(step, 1, rel_tol=1e-4) for step in spacing_mm):
        return BRATS_FARTHEST_MM
    return math.hypot(*(n * step for n, step in zip(shape, spacing_mm, strict=True)))


def crop(prediction: Mask, truth: Mask) -> tuple[Mask, Mask]:
    """Both outlines within the smallest box that holds both, as views.

    One voxel of nothing where both are empty.

    Raises:
        AssertionError: They are of different shapes; who reads them says so before.
    """
    assert prediction.shape == truth.shape
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        there = np.flatnonzero(prediction.any(axis=others) | truth.any(axis=others))
        span = slice(there[0], there[-1] + 1) if len(there) else slice(0, 1)
        box = (slice(None),) * axis + (span,)
        prediction, truth = prediction[box], truth[box]
    return prediction, truth


def surface_scores(
    prediction: Mask, truth: Mask, *, spacing_mm: Spacing, tolerance_mm: float, farthest_mm: float
) -> SurfaceScores:
    """All three in one go.

    Args:
        prediction: `(z, y, x)`.
        truth: Of the same grid.
        spacing_mm: `(z, y, x)`.
        tolerance_mm: How far apart surfaces still agree, for NSD.
        farthest_mm: HD95 where one outline alone is empty.

    Returns:
        Where both are empty: distances 0 and NSD 1. Where one alone is (a miss, or a false alarm):
        `farthest_mm` and NSD 0.
    """
    found, there = bool(prediction.any()), bool(truth.any())
    if not (found and there):
        away_mm, agreement = (farthest_mm, 0.0) if found or there else (0.0, 1.0)
        return SurfaceScores(away_mm, away_mm, agreement)
    both = surfaces(prediction, truth, spacing_mm)
    return SurfaceScores(
        hd95_surface_mm=hd95_surface(both),
        hd95_pooled_mm=hd95_pooled(prediction, truth, spacing_mm),
        nsd=nsd(both, tolerance_mm),
    )


def surfaces(prediction: Mask, truth: Mask, spacing_mm: Spacing) -> tuple[Surface, Surface]:
    """The surface of each outline, with the distances to the other's; neither may be empty."""
    areas = areas_mm2(spacing_mm)
    codes = [_codes(mask) for mask in (prediction, truth)]
    # Adding 1 takes the code of eight voxels inside round to 0.
    borders = [(code + np.uint8(1)) > 1 for code in codes]
    result = []
    for code, here, there in zip(codes, borders, borders[::-1], strict=True):
        distances, sizes = distances_mm(here, there, spacing_mm), areas[code[here]]
        order = np.lexsort((sizes, distances))
        result.append(Surface(distances[order], sizes[order]))
    return result[0], result[1]


def hd95_surface(both: tuple[Surface, Surface]) -> float:
    """The larger of both surfaces' 95th percentiles of distance, weighted by area, in mm."""
    return max(surface.percentile_mm(_SHARE) for surface in both)


def nsd(both: tuple[Surface, Surface], tolerance_mm: float) -> float:
    """Surface Dice: area of both within the tolerance of the other, over all area; 0 to 1."""
    within = sum(surface.area_within(tolerance_mm) for surface in both)
    return within / sum(float(surface.areas_mm2.sum()) for surface in both)


def hd95_pooled(prediction: Mask, truth: Mask, spacing_mm: Spacing) -> float:
    """95th percentile in mm of the distances of both outlines' rim voxels to the other's rim.

    Linear between the two nearest ranks. Neither outline may be empty. Source: `hd95` of medpy
    0.5, with faces as neighbours.
    """
    rims = [rim(mask) for mask in (prediction, truth)]
    directed = [
        distances_mm(here, there, spacing_mm) for here, there in zip(rims, rims[::-1], strict=True)
    ]
    return float(np.percentile(np.concatenate(directed), 100 * _SHARE))


def areas_mm2(spacing_mm: Spacing) -> Lengths:
    """Area of the surface in each of the 256 kinds of cubes, by neighbour code.

    A code has one bit for each of the eight voxels, 1 inside: bit z + 2 y + 4 x.
    """
    z, y, x = spacing_mm
    faces = np.array([y * x, z * x, z * y])
    edges = np.sqrt((faces**2).sum() - faces**2)
    corner = math.sqrt((faces**2).sum())
    sizes = np.concatenate([[corner / 8], edges / 4, faces / 2])
    return np.asarray((_parts() * sizes).sum(axis=1))


@cache
def _parts() -> NDArray[np.int64]:
    """(code, kind): of which triangles the surface in each cube consists.

    A kind is where a triangle's normal points when voxels are cubes: along the diagonal of the
    cube (in units of the triangle that cuts off a corner), along the diagonal of a face (by the
    axis that it is parallel to), or along an axis. The fewer voxels, inside or outside, say where
    the surface runs: each of their pieces, joined by faces, is cut off by itself.
    """
    parts = np.zeros((_ALL_IN + 1, 7), np.int64)
    for code, row in enumerate(parts):
        inside = {corner for corner in range(8) if code >> corner & 1}
        fewer = inside if len(inside) <= 4 else set(range(8)) - inside
        for piece in _pieces(fewer):
            _cut_off(piece, row[:1], row[1:4], row[4:])
    return parts


def _pieces(corners: set[int]) -> Iterator[set[int]]:
    while corners:
        start = min(corners)
        piece = found = {start}
        while found:
            piece = piece | found
            found = {corner ^ 1 << axis for corner in found for axis in range(3)} & corners - piece
        corners = corners - piece
        yield piece


def _cut_off(
    piece: set[int],
    corner: NDArray[np.int64],
    edge: NDArray[np.int64],
    face: NDArray[np.int64],
) -> None:
    """Add the triangles between one piece of one to four corners and the rest of the cube."""
    axes = [[axis for axis in range(3) if at ^ 1 << axis in piece] for at in piece]
    most = max(len(each) for each in axes)
    if len(piece) == 1:
        corner += 1
    elif len(piece) == 2:
        edge[axes[0]] += 2
    elif most == 3:  # a corner with all its neighbours
        corner += 6
    elif len(piece) == 3 or all(len(each) == 2 for each in axes):  # in one face
        bend = next(each for each in axes if len(each) == 2)
        face[3 - sum(bend)] += len(piece) - 2
        corner += 3 if len(piece) == 3 else 0
    else:  # a chain of four that turns twice
        corner += 4
        edge[[each[0] for each in axes if len(each) == 1]] += 1


def _codes(mask: Mask) -> NDArray[np.uint8]:
    """The neighbour code of each cube of eight voxels, those half outside the grid included."""
    code = np.pad(mask, 1).view(np.uint8)
    code = code[:-1] | code[1:] << np.uint8(1)
    code = code[:, :-1] | code[:, 1:] << np.uint8(2)
    return code[:, :, :-1] | code[:, :, 1:] << np.uint8(4)
