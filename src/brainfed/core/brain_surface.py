"""A brain mask without a network: a surface that grows within the head until it meets the skull.

After BET (Smith 2002, doi:10.1002/hbm.10062), which needs no training and no atlas and so makes few
assumptions about modality, tumour or scanner. What differs: shading is divided out (N4); the scan
is eroded in grey, which widens the dark skull, so that the surface can't slip through where it is
thin; the surface is grown coarse, twice (the second time from the middle of the first), then fine;
and the scan is continued for a little way beyond its frame, so that a brain cut off there isn't
rounded off.
"""

# SimpleITK's wrapper has no types.
# mypy: disable-error-code="no-untyped-call, no-any-return"

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813 - the name that all of its documentation uses

from brainfed.core import bias
from brainfed.core.brainmask import filled, foreground
from brainfed.errors import ScanError

WORK_MM = 2.0
"""Voxels on which the surface grows."""
OUTSET_MM = 2.0
"""How far the found surface is moved out again: the erosion moved the brain's edge in by a voxel.
Less agrees better with BET by a hundredth of Dice, but loses cortex, and a tumour with it."""
HEAD_MM = 150.0
"""What lies deeper below the top of the head than this is neck and face, not brain."""
BEYOND_MM = 16.0
"""How far the scan is continued beyond its frame."""
AIR_QUANTILE = 0.02
"""Brightness below which only so much of the scan lies: BET's level of the background."""
BRIGHT_SHARE = 0.65
"""Where between background and brain the edge is: BET's fractional threshold, on eroded grey."""
DEEP_MM, NEAR_MM = 14.0, 8.0
"""How far inwards the darkest and the brightest voxel below the surface are looked for."""
SHARP_MM, FLAT_MM = 5.0, 20.0
"""Radii of curvature between which smoothing sets in; BET's are 3.33 and 10, for a brain in T1."""
COARSE, FINE = 3, 4
N_COARSE, N_FINE = 200, 120
"""Subdivisions of the icosahedron (642 and 2562 corners), and steps of growth on each."""

Points = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Mesh:
    """The corners of a sphere and how they hang together; the same for every brain."""

    sphere: Points
    """`(corner, 3)`, at distance 1 from 0."""
    faces: Numbers
    """`(face, 3)`: corners, anticlockwise seen from outside."""
    neighbours: Numbers
    """`(corner, 6)`: the corners around each; at twelve corners there are five and one is twice."""
    weights: Points
    """`(corner, 6)`: the share of each neighbour, 0 for the repeated one."""


@dataclass(frozen=True, slots=True)
class _Head:
    """The scan on the working grid, and its levels of grey. Points are in mm, `(z, y, x)`."""

    grey: npt.NDArray[np.float32]
    """Padded by `n_padding` voxels on each side."""
    n_padding: int
    dark: float
    edge: float
    brain: float
    """Levels: of the background, a tenth of the way to bright, of the middle of the brain."""
    centre: Points
    radius: float


def classical(image: sitk.Image) -> sitk.Image:
    """The brain mask by a growing surface.

    Where fluid is dark, as in T1, the mask ends at the brain; in T2 it holds the fluid around it.
    Deterministic. It can fail without noticing: ask `brainmask.doubts`.

    Args:
        image: A 3-D scan with skull: T1, T1ce, T2 or FLAIR, in any orientation. Its spacing must
            be true to a quarter or so, since the surface grows in millimetres.

    Returns:
        uint8 image on the same grid: 1 in the brain.

    Raises:
        ScanError: No head is seen in the scan.
    """
    work = _flattened(_working_image(image))
    head = _head(work)
    coarse, fine = _mesh(COARSE), _mesh(FINE)
    surface = head.centre + head.radius / 2 * coarse.sphere
    surface = _grown(surface, coarse, head, N_COARSE)
    surface = surface.mean(axis=0) + head.radius / 2 * coarse.sphere
    surface = _grown(surface, coarse, head, N_COARSE)
    surface = np.concatenate([surface, surface[_edges(coarse.faces)].mean(axis=1)])
    surface = _grown(surface, fine, head, N_FINE)
    surface += OUTSET_MM * _normals(surface, fine)
    inside = _interior(surface[fine.faces], work)
    return sitk.Cast(sitk.Resample(inside, image, sitk.Transform(), sitk.sitkLinear) > 0.5, 1)


def _working_image(image: sitk.Image) -> sitk.Image:
    """The scan in LPS order on cubes of `WORK_MM`; finer voxels are averaged."""
    turned = sitk.DICOMOrient(sitk.Cast(image, sitk.sitkFloat32), "LPS")
    mm, size = np.array(turned.GetSpacing()), np.array(turned.GetSize())
    sigma = np.where(mm < WORK_MM, 0.4 * WORK_MM, 0.0)
    turned = sitk.DiscreteGaussian(turned, [float(s**2) for s in sigma])
    n_voxels = np.maximum(1, np.rint(size * mm / WORK_MM)).astype(int)
    shift = ((size - 1) * mm - (n_voxels - 1) * WORK_MM) / 2
    axes = np.array(turned.GetDirection()).reshape(3, 3)
    return sitk.Resample(
        turned,
        [int(n) for n in n_voxels],
        sitk.Transform(),
        sitk.sitkLinear,
        [float(v) for v in np.array(turned.GetOrigin()) + axes @ shift],
        [WORK_MM] * 3,
        turned.GetDirection(),
        0.0,
        sitk.sitkFloat32,
        useNearestNeighborExtrapolator=True,
    )


def _flattened(work: sitk.Image) -> sitk.Image:
    """The scan without shading, which would be taken for the end of the brain; its zero is air."""
    array = sitk.GetArrayViewFromImage(work)
    inside = sitk.GetImageFromArray(foreground([array]).astype(np.uint8))
    inside.CopyInformation(work)
    above_air = sitk.Maximum(work - float(np.quantile(array, AIR_QUANTILE)), 0.0)
    return bias.flatten(above_air, inside)


def _head(work: sitk.Image) -> _Head:
    """Levels and place of the head.

    Raises:
        ScanError: There is none.
    """
    upper = foreground([sitk.GetArrayFromImage(work)])
    slices = np.flatnonzero(upper.any(axis=(1, 2)))
    if slices.size:
        upper[: max(0, int(slices[-1] + 1 - HEAD_MM / WORK_MM))] = False
    grey = sitk.GetArrayFromImage(sitk.GrayscaleErode(work, [1, 1, 1], sitk.sitkBall))
    places, values = np.argwhere(upper) * WORK_MM, grey[upper]
    dark = float(np.quantile(grey, AIR_QUANTILE))
    bright = float(np.quantile(values, 0.98)) if values.size else dark
    edge = dark + 0.1 * (bright - dark)
    weights = np.clip(values, dark, bright) - dark
    if not weights.any():
        raise _no_head()
    centre = np.average(places, axis=0, weights=weights)
    radius = float((3 * values.size * WORK_MM**3 / (4 * np.pi)) ** (1 / 3))
    near = values[np.linalg.norm(places - centre, axis=1) < 0.7 * radius]
    near = near[(near > edge) & (near < bright)]
    if not near.size:
        raise _no_head()
    n_beyond = int(BEYOND_MM / WORK_MM)
    # Beyond the continued part: background, at which all growth ends.
    padded = np.pad(np.pad(grey, n_beyond, mode="edge"), 1, constant_values=dark)
    return _Head(padded, n_beyond + 1, dark, edge, float(np.median(near)), centre, radius)


def _no_head() -> ScanError:
    return ScanError(
        "No head is seen in the scan",
        expected="a head, brighter than what is around it",
        hint="look at the scan",
    )


def _grown(surface: Points, mesh: _Mesh, head: _Head, n_steps: int) -> Points:
    """The surface after that many of BET's steps (its equations 1 to 13)."""
    depths = np.arange(0, DEEP_MM + WORK_MM / 2, WORK_MM)
    n_near = int(NEAR_MM / WORK_MM) + 1
    middle = (1 / SHARP_MM + 1 / FLAT_MM) / 2
    slope = 6 / (1 / SHARP_MM - 1 / FLAT_MM)
    for _ in range(n_steps):
        normals = _normals(surface, mesh)
        around = surface[mesh.neighbours]
        towards = np.einsum("vk,vkx->vx", mesh.weights, around) - surface
        lengths = np.linalg.norm(around - surface[:, None], axis=2)
        length = float((lengths * mesh.weights).sum(axis=1).mean())
        # Along the surface: corners spread evenly. Across it: sharp bends are flattened.
        across = np.einsum("vx,vx->v", towards, normals)
        along = towards - across[:, None] * normals
        curvature = 2 * np.abs(across) / length**2
        flatten = (1 + np.tanh(slope * (curvature - middle))) / 2
        # Outwards while the darkest voxel below is bright enough beside the brightest.
        below = _values(head, surface[:, None] - depths[None, :, None] * normals[:, None])
        darkest = np.clip(below.min(axis=1), head.dark, head.brain)
        brightest = np.clip(below[:, :n_near].max(axis=1), head.edge, head.brain)
        span = brightest - head.dark
        push = 0.1 * length * (darkest - head.dark - BRIGHT_SHARE * span) / span
        surface = surface + along / 2 + (flatten * across + push)[:, None] * normals
    return surface


def _values(head: _Head, points: Points) -> npt.NDArray[np.float32]:
    """The grey value of the voxel nearest to each point."""
    places = np.rint(points / WORK_MM).astype(np.int64) + head.n_padding
    z, y, x = np.moveaxis(np.clip(places, 0, np.array(head.grey.shape) - 1), -1, 0)
    return head.grey[z, y, x]


def _normals(surface: Points, mesh: _Mesh) -> Points:
    """The direction outwards at each corner, of length 1."""
    a, b, c = np.moveaxis(surface[mesh.faces], 1, 0)
    of_faces = np.cross(b - a, c - a)
    sums = np.stack(
        [
            np.bincount(mesh.faces.ravel(), np.repeat(of_faces[:, axis], 3), minlength=len(surface))
            for axis in range(3)
        ],
        axis=1,
    )
    return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)


def _interior(triangles: Points, work: sitk.Image) -> sitk.Image:
    """1 within the closed surface, on cubes of half the working size."""
    step = WORK_MM / 2
    # So many points on each triangle that no gap is left between the voxels they fall into.
    longest = np.linalg.norm(triangles - np.roll(triangles, 1, axis=1), axis=2).max()
    n = int(np.ceil(2.2 * longest / step))
    parts = np.array([(i, j, n - i - j) for i in range(n + 1) for j in range(n + 1 - i)]) / n
    lowest = np.floor(triangles.min(axis=(0, 1)) / step).astype(int) - 2
    highest = np.ceil(triangles.max(axis=(0, 1)) / step).astype(int) + 3
    shell = np.zeros(highest - lowest, np.bool_)
    for part in parts:
        z, y, x = np.rint(part @ triangles / step).astype(int).T - lowest[:, None]
        shell[z, y, x] = True
    image = sitk.GetImageFromArray(filled(shell).astype(np.float32))
    image.SetSpacing([step] * 3)
    image.SetDirection(work.GetDirection())
    axes = np.array(work.GetDirection()).reshape(3, 3)
    corner = np.array(work.GetOrigin()) + axes @ (lowest[::-1] * step)
    image.SetOrigin([float(v) for v in corner])
    return image


def _edges(faces: Numbers) -> Numbers:
    """Each edge once, `(edge, 2)`, sorted."""
    pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    return np.unique(np.sort(pairs, axis=1), axis=0)


@cache
def _mesh(n_subdivisions: int) -> _Mesh:
    """An icosahedron whose faces are cut in four, so many times."""
    if n_subdivisions == 0:
        sphere, faces = _icosahedron()
    else:
        parent = _mesh(n_subdivisions - 1)
        edges = _edges(parent.faces)
        sphere = np.concatenate([parent.sphere, parent.sphere[edges].mean(axis=1)])
        a, b, c = parent.faces.T
        n_old = len(parent.sphere)
        keys = edges[:, 0] * n_old + edges[:, 1]
        ab, bc, ca = (
            n_old + np.searchsorted(keys, np.minimum(p, q) * n_old + np.maximum(p, q))
            for p, q in ((a, b), (b, c), (c, a))
        )
        corners = [(a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca)]
        faces = np.concatenate([np.stack(three, axis=1) for three in corners])
    sphere = sphere / np.linalg.norm(sphere, axis=1, keepdims=True)
    # Going round each face, every corner has every neighbour once as its next.
    pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    counts = np.bincount(pairs[:, 0])
    slots = np.arange(6)
    first = np.cumsum(counts) - counts
    which = first[:, None] + np.minimum(slots, counts[:, None] - 1)
    weights = (slots < counts[:, None]) / counts[:, None]
    return _Mesh(sphere, faces, pairs[which, 1], weights)


def _icosahedron() -> tuple[Points, Numbers]:
    """Corners and faces: five faces around each pole and ten between them."""
    turns = np.arange(5) * 2 * np.pi / 5
    height, ring = 1 / np.sqrt(5), 2 / np.sqrt(5)
    upper = np.stack([np.full(5, height), ring * np.cos(turns), ring * np.sin(turns)], axis=1)
    turns = turns + np.pi / 5
    lower = np.stack([np.full(5, -height), ring * np.cos(turns), ring * np.sin(turns)], axis=1)
    sphere = np.concatenate([[[1.0, 0, 0]], upper, lower, [[-1.0, 0, 0]]])
    faces = []
    for i in range(5):
        k = (i + 1) % 5
        faces += [(0, 1 + i, 1 + k), (1 + i, 6 + i, 1 + k), (1 + k, 6 + i, 6 + k)]
        faces += [(11, 6 + k, 6 + i)]
    return sphere, np.array(faces, np.int64)
