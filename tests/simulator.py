"""Cases as a scanner gives them, with the truth known: each modality on its own grid, head moved.

A `Head` is a patient without noise on one fine grid, from the phantom or from colin27 (a real head;
contrasts other than T1 are made up from its brightness). `scan` takes it into the scanner: every
modality at another position of the head, on an oblique grid of its own, slices averaged over their
thickness, shaded, with Rician noise, some with a field of view that cuts the head. The label is
drawn on the grid of one modality. The truth is a matrix per modality, as `Registered.matrix`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813

from brainfed.core.phantom import Scanner, make_phantom
from brainfed.core.rigid import Matrix, compose, invert, motion, rows, transform
from brainfed.core.volume import Geometry, geometry_of, to_image
from brainfed.formats.scan import write_scan
from brainfed.plan import Modality
from tests.builders import SHARED_DATA

COLIN = SHARED_DATA / "colin27"
REFERENCE = Modality.T1CE

Spacing = tuple[float, float, float]
THREE_D: tuple[Spacing, ...] = ((1.0, 1.0, 1.0), (0.94, 0.94, 1.2))
SLICES: tuple[Spacing, ...] = ((0.9, 0.9, 5.0), (0.9, 0.9, 3.0), (0.7, 0.7, 6.0))
"""Spacings `(x, y, z)` in millimetres of three-dimensional scans, and of thick slices."""

# Brightness of air, skull, fluid, grey and white matter, scalp in the phantom's contrasts. In T1
# they rise in this order, so a T1 can be translated.
_TABLES = {
    Modality.T1: (0.0, 0.12, 0.18, 0.50, 0.72, 0.95),
    Modality.T1CE: (0.0, 0.12, 0.19, 0.53, 0.75, 0.95),
    Modality.T2: (0.0, 0.10, 1.00, 0.62, 0.44, 0.70),
    Modality.FLAIR: (0.0, 0.08, 0.15, 0.54, 0.43, 0.92),
}
# Necrosis, oedema, enhancing rim, by their values in protocol brats2017.
_TUMOUR = {
    Modality.T1: {1: 0.32, 2: 0.46, 4: 0.47},
    Modality.T1CE: {1: 0.33, 2: 0.48, 4: 0.95},
    Modality.T2: {1: 0.88, 2: 0.80, 4: 0.70},
    Modality.FLAIR: {1: 0.64, 2: 0.86, 4: 0.76},
}


@dataclass(frozen=True)
class Head:
    """A patient without noise, all on one grid whose middle is about 0."""

    contrasts: Mapping[Modality, sitk.Image]
    """Float32, 0 to about 1."""
    label: sitk.Image
    brain: sitk.Image
    """uint8, 1 in the brain."""


@dataclass(frozen=True)
class Native:
    """What comes from the scanner, and the truth."""

    images: Mapping[Modality, sitk.Image]
    label: sitk.Image
    label_on: Modality
    """The modality on whose grid the label is."""
    truth: Mapping[Modality, Matrix]
    """Maps a point of the reference (T1ce) to the point of each modality."""
    brain: sitk.Image
    """The true brain on the grid of the reference, uint8."""
    brain_points: npt.NDArray[np.float64]
    """`(n, 3)`: places in the brain, in the space of the reference, LPS mm."""
    to_head: Matrix
    """Maps a point of the reference to the point of the head as it was made."""


def a_phantom_head(seed: int, *, spacing_mm: float = 1.5) -> Head:
    """A phantom with a tumour."""
    n = [round(mm / spacing_mm) for mm in (195, 220, 180)]
    phantom = make_phantom(
        np.random.default_rng(seed),
        Scanner(noise=0.0, bias=0.0),
        shape=(n[0], n[1], n[2]),
        spacing_mm=(spacing_mm,) * 3,
    )
    geometry = _centred((n[2], n[1], n[0]), (spacing_mm,) * 3, np.eye(3), np.zeros(3))
    clean = {m: (array / 1000).astype(np.float32) for m, array in phantom.images.items()}
    # Skull, air and vessels are dark in both; taking off 3 mm cuts what joins brain and scalp.
    both = to_image(clean[Modality.T2] + clean[Modality.FLAIR], geometry)
    around = [round(3 / spacing_mm)] * 3
    parts = sitk.RelabelComponent(sitk.ConnectedComponent(sitk.BinaryErode(both > 0.6, around)))
    brain = sitk.BinaryDilate(parts == 1, around)
    return Head(
        {m: to_image(array, geometry) for m, array in clean.items()},
        to_image(phantom.label, geometry),
        sitk.BinaryFillhole(brain),
    )


def a_colin_head(seed: int) -> Head:
    """The real head of colin27, its other contrasts and a tumour made up; needs the shared data."""
    whole = sitk.ReadImage(str(COLIN / "ch2.nii.gz"), sitk.sitkFloat32)
    stripped = sitk.GetArrayFromImage(sitk.ReadImage(str(COLIN / "ch2bet.nii.gz")))
    geometry = _centred(whole.GetSize(), whole.GetSpacing(), np.eye(3), np.zeros(3))
    array, brain = sitk.GetArrayFromImage(sitk.DICOMOrient(whole, "LPS")), stripped > 0
    brain = sitk.GetArrayFromImage(
        sitk.DICOMOrient(_like(brain.astype(np.uint8), whole), "LPS")
    ).astype(bool)
    array = np.clip(0.75 * array / np.quantile(array[brain], 0.95), 0, 1)
    label = _a_tumour(brain, np.random.default_rng(seed))
    clean = {}
    for modality, table in _TABLES.items():
        own = np.array(table)
        bone = np.interp(array, np.delete(_TABLES[Modality.T1], 2), np.delete(own, 2))
        made = np.where(brain, np.interp(array, _TABLES[Modality.T1], own), bone)
        for value, brightness in _TUMOUR[modality].items():
            made[label == value] = 0.8 * brightness + 0.2 * made[label == value]
        clean[modality] = to_image(made.astype(np.float32), geometry)
    return Head(clean, to_image(label, geometry), to_image(brain.astype(np.uint8), geometry))


def scan(
    head: Head,
    random: np.random.Generator,
    *,
    hard: bool = False,
    cut: bool | None = None,
    modalities: tuple[Modality, ...] = tuple(Modality),
    spacings: tuple[Spacing, ...] = (*THREE_D, *SLICES),
) -> Native:
    """Scan a head in all modalities, the head lying elsewhere in each.

    Args:
        head: The patient.
        random: Of everything that differs; the same state gives the same case.
        hard: Offsets to T1ce of up to 20 degrees and 30 mm, else 10 degrees and 15 mm.
        cut: Whether one modality besides the reference shows a part of the head only: 60 to 80 %
            of its height, 40 to 80 % where it is hard. None draws it: one case in five, one in two.
        modalities: Which to scan; the reference is always among them.
        spacings: What each draws its spacing from.
    """
    placed = a_motion(random, 8, 15)
    moving = [m for m in modalities if m is not REFERENCE]
    if cut is None:
        cut = bool(random.random() < (0.5 if hard else 0.2))
    cut_one = random.choice([m.value for m in moving]) if cut and moving else None
    placement, truth = {REFERENCE: placed}, {REFERENCE: compose(placed, invert(placed))}
    for modality in moving:
        relative = a_motion(random, *((20, 30) if hard else (10, 15)))
        placement[modality] = compose(relative, placed)
        truth[modality] = compose(invert(placed), placement[modality])
    label_on = Modality(random.choice([m.value for m in placement]))
    images, label = {}, head.label
    for modality, to_scanner in placement.items():
        share = 1.0
        if modality.value == cut_one:
            share = random.uniform(0.4 if hard else 0.6, 0.8)
        spacing = spacings[int(random.integers(len(spacings)))]
        grid = _a_grid(head, to_scanner, random, spacing, share)
        images[modality] = _acquire(head.contrasts[modality], grid, to_scanner, random)
        if modality is label_on:
            label = _resampled(head.label, grid, to_scanner, nearest=True)
    inside = np.argwhere(sitk.GetArrayViewFromImage(head.brain) > 0)[:, ::-1]
    some = random.choice(inside, size=min(2000, len(inside)), replace=False)
    points = np.array(head.brain.GetOrigin()) + some * head.brain.GetSpacing()
    grid = geometry_of(images[REFERENCE])
    return Native(
        images=images,
        label=label,
        label_on=label_on,
        truth=truth,
        brain=_resampled(head.brain, grid, placed, nearest=True),
        brain_points=mapped(placed, points),
        to_head=invert(placed),
    )


def mapped(matrix: Matrix, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Points `(n, 3)` after a matrix."""
    square = np.array(matrix).reshape(3, 4)
    return points @ square[:, :3].T + square[:, 3]


def error_mm(found: Matrix, truth: Matrix, points: npt.NDArray[np.float64]) -> float:
    """Mean distance between where two matrices put these points."""
    apart = mapped(found, points) - mapped(truth, points)
    return float(np.linalg.norm(apart, axis=1).mean())


def write(native: Native, folder: Path, case: str) -> None:
    """Write as BraTS names it: `CASE/CASE_t1.nii.gz` ... and `CASE_seg.nii.gz`."""
    (folder / case).mkdir(parents=True)
    for name, image in [*native.images.items(), ("seg", native.label)]:
        values = sitk.GetArrayFromImage(image)
        write_scan(folder / case / f"{case}_{name}.nii.gz", values, geometry_of(image))


def a_motion(random: np.random.Generator, degrees: float, millimetres: float) -> Matrix:
    """A turn about the middle of the head and a shift, both up to a limit, any way."""
    axis, way = random.standard_normal((2, 3))
    turn = axis / np.linalg.norm(axis) * random.uniform(0, degrees)
    shift = way / np.linalg.norm(way) * random.uniform(0, millimetres)
    return rows(motion(np.array([*turn, *shift]), np.zeros(3)))


def _a_grid(
    head: Head, to_scanner: Matrix, random: np.random.Generator, spacing: Spacing, share: float
) -> Geometry:
    """An oblique grid around the head; `share` of its height, from the top or from the bottom."""
    extent = np.array(head.label.GetSize()) * head.label.GetSpacing()
    tilt = np.array(a_motion(random, 12, 0)).reshape(3, 4)[:, :3]
    middle = mapped(to_scanner, np.zeros((1, 3)))[0] + random.uniform(-4, 4, 3)
    middle += tilt[:, 2] * random.choice((-1, 1)) * (1 - share) / 2 * extent[2]
    size = np.ceil((extent * (1, 1, share) + (16, 16, 0)) / spacing).astype(int)
    return _centred(tuple(size.tolist()), spacing, tilt, middle)


def _acquire(
    clean: sitk.Image, grid: Geometry, to_scanner: Matrix, random: np.random.Generator
) -> sitk.Image:
    """What the scanner makes of it: slices averaged over their thickness, shading, noise."""
    n_thin = max(1, round(grid.spacing_mm[2] / 1.2))
    x, y, z = grid.spacing_mm
    half = np.array(grid.direction).reshape(3, 3)[:, 2] * (z - z / n_thin) / 2
    thin = Geometry(
        size=(grid.size[0], grid.size[1], grid.size[2] * n_thin),
        spacing_mm=(x, y, z / n_thin),
        origin_mm=tuple((np.array(grid.origin_mm) - half).tolist()),
        direction=grid.direction,
    )
    image = sitk.BinShrink(_resampled(clean, thin, to_scanner), [1, 1, n_thin])
    values = sitk.GetArrayFromImage(image)
    # A second-order polynomial over the field of view.
    u = np.meshgrid(*[np.linspace(-1, 1, n) for n in values.shape], indexing="ij", sparse=True)
    terms = [*u, u[0] ** 2, u[1] ** 2, u[2] ** 2, u[0] * u[1], u[1] * u[2], u[0] * u[2]]
    shading = sum(
        w * t for w, t in zip(random.uniform(-0.15, 0.15, len(terms)), terms, strict=True)
    )
    values *= random.uniform(300, 2000) * np.exp(shading)
    noise = random.uniform(0.01, 0.04) * values.max() * random.standard_normal((2, *values.shape))
    return _like(np.hypot(values + noise[0], noise[1]).astype(np.float32), image)


def _resampled(
    image: sitk.Image, grid: Geometry, to_scanner: Matrix, *, nearest: bool = False
) -> sitk.Image:
    return sitk.Resample(
        image,
        grid.size,
        transform(invert(to_scanner)),
        sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear,
        grid.origin_mm,
        grid.spacing_mm,
        grid.direction,
    )


def _centred(
    size: tuple[int, ...],
    spacing: tuple[float, ...],
    axes: npt.NDArray[np.float64],
    middle: npt.NDArray[np.float64],
) -> Geometry:
    origin = middle - axes @ ((np.array(size) - 1) * spacing / 2)
    return Geometry(
        tuple(size), tuple(spacing), tuple(origin.tolist()), tuple(axes.ravel().tolist())
    )


def _like(array: npt.NDArray[np.generic], image: sitk.Image) -> sitk.Image:
    return to_image(array, geometry_of(image))


def _a_tumour(brain: npt.NDArray[np.bool_], random: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Oedema around an enhancing rim around necrosis, lumpy, within the brain."""
    inside = np.argwhere(brain)
    middle = inside.mean(axis=0) + random.uniform(-0.4, 0.4, 3) * np.ptp(inside, axis=0) / 2
    z, y, x = np.meshgrid(
        *[np.arange(n) - c for n, c in zip(brain.shape, middle, strict=True)], indexing="ij"
    )
    lumps = sitk.SmoothingRecursiveGaussian(
        sitk.GetImageFromArray(random.standard_normal(brain.shape).astype(np.float32)), 6.0
    )
    bumps = sitk.GetArrayFromImage(lumps)
    depth = random.uniform(18, 28) * (1 + 0.25 * bumps / bumps.std()) - np.sqrt(z**2 + y**2 + x**2)
    label = np.zeros(brain.shape, np.uint8)
    for value, deeper in ((2, 0), (4, 8), (1, 13)):
        label[(depth > deeper) & brain] = value
    return label


def two_scans(spacing_mm: float) -> Native:
    """A phantom in T1ce and FLAIR on two oblique grids, the head lying elsewhere in each.

    Args:
        spacing_mm: Voxels of the head that is scanned.
    """
    return scan(
        a_phantom_head(5, spacing_mm=spacing_mm),
        np.random.default_rng(8),
        cut=False,
        modalities=(Modality.T1CE, Modality.FLAIR),
        spacings=((1.4, 1.4, 3.0), (1.8, 1.8, 1.8)),
    )
