"""Rigid registration: where a point of one scan lies in another of the same head, and how surely.

Both scans are first brought to what registration needs (`prepare`): 2 mm isotropic, flattened,
clamped, with a mask of the head. Then a coarse search over turns and shifts, scored by normalised
mutual information (C. Studholme et al., Pattern Recognition 1999), finds where to start; SimpleITK
maximises the mutual information (D. Mattes et al., IEEE TMI 2003) from there; and the result is
checked, not trusted: `Registered.doubts` says why it should be refused.
"""

# SimpleITK's wrapper has no types.
# mypy: disable-error-code="no-untyped-call, no-any-return"

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name that all of its documentation uses

from brainfed.core import bias
from brainfed.core.prepared import SPACING_MM, Prepared, prepare
from brainfed.core.rigid import (
    Matrix,
    Square,
    Vector,
    compose,
    degrees,
    invert,
    motion,
    rows,
    square_of,
    transform,
)
from brainfed.core.similarity import Similarity, View, climb, search
from brainfed.core.volume import Geometry, Mask, to_image

__all__ = [
    "Prepared", "prepare", "Registered", "register", "Matrix", "compose", "invert", "transform"
]  # fmt: skip

RIM_VOXELS = 3
"""Around the head, so that its outline counts."""
MIN_EXTENT_MM = 16.0
"""Thinner fields of view are refused: filters need some voxels, and a slab that thin fits nowhere
surely."""

NEAR_DEGREES = (-18.0, 0.0, 18.0)
FAR_DEGREES = (-40.0, -20.0, 0.0, 20.0, 40.0)
FAR_MM = 35.0
"""Turns about each axis that the search begins from at first; turns and shifts of the second start,
which is made when the first result is in doubt or not quite sure."""

EXACT_STEPS = (1.0, 0.5, 0.25)
"""Of the climb from the top of the coarse search, in degrees and millimetres."""
SEED = 20261124
N_SAMPLES = 15_000
"""Points that the refinement takes the mutual information from."""

STEP_ASIDE = 3.0
MIN_FALL_OFF = 0.01
"""A true match gets worse by this share of its information at least when one scan is moved aside by
3 mm, or turned by 3 degrees, either way along each axis."""
SURE_FALL_OFF = 0.03
SAME_MM = 3.0
"""A match that falls off by less than this share is believed only if the second start ends within
so many millimetres of it: thin slabs have been seen to match at 0.01 where they are not."""
MIN_OVERLAP_FRACTION = 0.7
MAX_DEGREES = 60.0
"""No head lies in a scanner turned so far against another scan of it."""
MIN_GAIN = -1e-3
"""Less information than the headers' own position has means that something better was missed."""


@dataclass(frozen=True, slots=True)
class Registered:
    """How one scan lies in another."""

    matrix: Matrix
    """Maps a point of the fixed scan to the same point of the head in the moving scan."""
    rotation_degrees: float
    translation_mm: float
    """How far the middle of the fixed head mask moves."""
    information_gain: float
    """Normalised mutual information found, less that of the scans as their headers place them."""
    overlap_fraction: float
    """Share of the smaller head mask that lies in the other one."""
    n_starts: int
    doubts: tuple[str, ...]
    """Why the result is not to be trusted; empty where it is."""
    fall_off: float
    """Share of the information that is lost, at least, by a step aside of 3 mm or 3 degrees."""


def register(
    fixed: Prepared,
    moving: Prepared,
    *,
    fixed_mask: sitk.Image | None = None,
    moving_mask: sitk.Image | None = None,
) -> Registered:
    """Find the rigid motion that takes the fixed scan to the moving one.

    Args:
        fixed: The scan that stays.
        moving: The scan that is looked up.
        fixed_mask: 3-D, on any grid, not 0 where the fixed scan counts, such as its brain; None
            takes the head and a rim around it.
        moving_mask: The same of the moving scan; None takes all of it.

    Returns:
        The motion, measured and judged. The same input gives the same bits.
    """
    thin = min(*fixed.geometry.size, *moving.geometry.size) * SPACING_MM
    if thin < MIN_EXTENT_MM:
        return _refused(f"a field of view of {thin:.0f} mm is too thin to register")
    sides = _views(fixed, moving, fixed_mask, moving_mask)
    if not (sides[0].head.any() and sides[1].head.any()):
        return _refused("there is no head in the field of view, or none within the mask")
    with bias.one_thread():
        coarse = Similarity(*sides, blur_mm=4.0, n_points=4000)
        exact = Similarity(*sides, blur_mm=1.0, n_points=20_000)
        near = _started(coarse, exact, sides, n_starts=1)
        if not near.doubts and near.fall_off >= SURE_FALL_OFF:
            return near
        far = _started(coarse, exact, sides, n_starts=2)
    best = max(near, far, key=lambda found: (not found.doubts, found.information_gain))
    apart = _apart_mm(near.matrix, far.matrix, _middle(sides[0]))
    doubts = best.doubts
    if best.fall_off < SURE_FALL_OFF and apart > SAME_MM:
        doubts = (*doubts, f"two searches ended {apart:.0f} mm apart")
    return replace(best, n_starts=2, doubts=doubts)


def _started(
    coarse: Similarity, exact: Similarity, sides: tuple[View, View], *, n_starts: int
) -> Registered:
    """Search near the headers' positions, or with the second start far from them; then refine."""
    centre = _middle(sides[0])
    top = search(coarse, _starts(sides, centre, far=n_starts > 1), centre)
    _, near = climb(exact, top, centre, steps=EXACT_STEPS)
    square = _refined(sides, motion(near, centre), centre)
    return _judged(exact, square, centre, n_starts)


def _starts(sides: tuple[View, View], centre: Vector, *, far: bool) -> list[Vector]:
    """Motions to begin with: as the headers say, grid on grid, head on head; each turned."""
    grids = [
        view.to_millimetres() @ [*((np.array(view.geometry.size) - 1) / 2), 1] for view in sides
    ]
    shifts = [np.zeros(3), (grids[1] - grids[0])[:3], _middle(sides[1]) - centre]
    if far:
        ways = FAR_MM * np.vstack([np.zeros(3), np.eye(3), -np.eye(3)])
        shifts = [shift + way for shift in shifts for way in ways]
    angles = FAR_DEGREES if far else NEAR_DEGREES
    return [np.array([*turn, *shift]) for shift in shifts for turn in product(angles, repeat=3)]


def _refined(sides: tuple[View, View], square: Square, centre: Vector) -> Square:
    """Maximise Mattes' mutual information from a position that is nearly right, at 2 mm.

    Within the head alone: the noise around it moves the maximum.
    """
    fixed, moving = (to_image(view.values, view.geometry) for view in sides)
    rigid = sitk.Euler3DTransform()
    rigid.SetCenter(centre.tolist())
    rigid.SetMatrix(square[:3, :3].ravel().tolist(), 1e-6)
    rigid.SetTranslation((square[:3] @ [*centre, 1] - centre).tolist())
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricFixedMask(to_image(sides[0].head.astype(np.uint8), sides[0].geometry))
    if not sides[1].region.all():
        method.SetMetricMovingMask(to_image(sides[1].region.astype(np.uint8), sides[1].geometry))
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(min(1.0, N_SAMPLES / np.count_nonzero(sides[0].head)), SEED)
    method.SetInterpolator(sitk.sitkLinear)
    # Differences at the points themselves: quicker than a smoothed gradient of the whole scan, and
    # it ends nearer to the truth.
    method.MetricUseMovingImageGradientFilterOff()
    method.MetricUseFixedImageGradientFilterOff()
    # The step shrinks slowly: the maximum lies on a narrow ridge, where turns nearly make up for
    # shifts, and with the usual halving it stops on the way.
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=0.5, minStep=5e-3, numberOfIterations=150, relaxationFactor=0.94
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(rigid, inPlace=True)
    try:
        method.Execute(fixed, moving)
    except RuntimeError:  # too few points in common: what the search found is then judged as it is
        return square
    refined = np.eye(4)
    refined[:3, :3] = np.array(rigid.GetMatrix()).reshape(3, 3)
    refined[:3, 3] = rigid.TransformPoint((0.0, 0.0, 0.0))
    return refined


def _judged(exact: Similarity, square: Square, centre: Vector, n_starts: int) -> Registered:
    """Measure a result, and say what speaks against it."""
    found, overlap = exact.measure(square)
    before, _ = exact.measure(np.eye(4))
    around = [
        exact.measure(square @ motion(way, centre))[0]
        for way in STEP_ASIDE * np.vstack([np.eye(6), -np.eye(6)])
    ]
    fall_off = (found - max(around)) / max(found - 1, 1e-9)
    turn = degrees(square)
    shift = float(np.linalg.norm(square[:3] @ [*centre, 1] - centre))
    doubts = []
    if overlap < MIN_OVERLAP_FRACTION:
        doubts.append(f"only {overlap:.0%} of the smaller head lies in the other one")
    if turn > MAX_DEGREES:
        doubts.append(f"a turn of {turn:.0f} degrees is not plausible")
    if fall_off < MIN_FALL_OFF:
        doubts.append("the scans match as well when one is moved aside")
    if found - before < MIN_GAIN:
        doubts.append("the scans match better as their headers place them")
    return Registered(
        rows(square), turn, shift, found - before, float(overlap), n_starts, tuple(doubts), fall_off
    )


def _views(
    fixed: Prepared,
    moving: Prepared,
    fixed_mask: sitk.Image | None,
    moving_mask: sitk.Image | None,
) -> tuple[View, View]:
    """Where both scans count.

    Without masks the fixed head with a rim, which holds the outline, and all of the moving scan.
    With both, each scan is stripped by its mask, and the outline is that of the masks. With one,
    the other scan has tissue where this one has none, so only the inside of the mask counts. A scan
    that is stripped already is as one with its mask.
    """
    of_fixed, of_moving = _on_grid(fixed_mask, fixed), _on_grid(moving_mask, moving)
    everywhere = np.ones_like(moving.mask)
    if of_fixed is not None and of_moving is not None:
        one, other = _stripped(fixed, of_fixed), _stripped(moving, of_moving)
        return one, replace(other, region=everywhere)
    if of_fixed is None:
        region = _with_rim(fixed.mask, fixed.geometry)
        one = View(fixed.values, region, fixed.mask, fixed.geometry)
    else:
        one = View(fixed.values, of_fixed, of_fixed, fixed.geometry)
    if of_moving is None:
        return one, View(moving.values, everywhere, moving.mask, moving.geometry)
    return one, View(moving.values, of_moving, of_moving, moving.geometry)


def _stripped(scan: Prepared, mask: Mask) -> View:
    # No noise is left around the brain, so that the rim may count as head.
    rim = _with_rim(mask, scan.geometry)
    values = np.where(mask, scan.values, scan.values.min())
    return View(values, rim, rim, scan.geometry)


def _on_grid(mask: sitk.Image | None, scan: Prepared) -> Mask | None:
    """The mask on the scan's grid; its own where it is stripped, None where it is a whole head."""
    if mask is None:
        return scan.mask if scan.is_stripped() else None
    grid = to_image(scan.values, scan.geometry)
    there = sitk.Resample(mask != 0, grid, sitk.Transform(), sitk.sitkNearestNeighbor)
    return sitk.GetArrayFromImage(there).astype(np.bool_)


def _with_rim(mask: Mask, geometry: Geometry) -> Mask:
    image = to_image(mask.astype(np.uint8), geometry)
    return sitk.GetArrayFromImage(sitk.BinaryDilate(image, [RIM_VOXELS] * 3)).astype(np.bool_)


def _apart_mm(one: Matrix, other: Matrix, centre: Vector) -> float:
    """Mean distance between where two matrices put six points 70 mm around the centre."""
    around = centre + 70.0 * np.vstack([np.eye(3), -np.eye(3)])
    points = np.hstack([around, np.ones((6, 1))])
    apart = points @ (square_of(one) - square_of(other))[:3].T
    return float(np.linalg.norm(apart, axis=1).mean())


def _middle(view: View) -> Vector:
    """Centre of the head, LPS mm; of the grid where there is none."""
    where = np.argwhere(view.head if view.head.any() else view.region).mean(axis=0)[::-1]
    return (view.to_millimetres() @ [*where, 1])[:3]


def _refused(words: str) -> Registered:
    return Registered(rows(np.eye(4)), 0.0, 0.0, 0.0, 0.0, 0, (words,), 0.0)
