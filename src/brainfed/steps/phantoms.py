"""Write phantom scans as folders of NIfTI files, with names as the BraTS challenge has them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brainfed.core.phantom import Phantom, Scanner, Shape, Spacing, make_phantom
from brainfed.core.progress import Progress, silent
from brainfed.core.volume import Geometry
from brainfed.formats import atomic, scan


@dataclass(frozen=True, slots=True)
class PhantomSite:
    """A made-up hospital."""

    name: str
    n_patients: int
    scanner: Scanner


CONSORTIUM = (
    PhantomSite(
        "hospital-a",
        12,
        Scanner(gain=900, noise=0.02, bias=0.05, weighting=0.05, weighting_seed=1),
    ),
    PhantomSite(
        "hospital-b",
        8,
        Scanner(
            gain=300,
            gamma=0.7,
            noise=0.025,
            blur_mm=2.0,
            bias=0.1,
            weighting=0.08,
            weighting_seed=2,
            fluid_suppression=0.5,
        ),
    ),
    PhantomSite(
        "hospital-c",
        10,
        Scanner(
            gain=4000,
            gamma=1.7,
            noise=0.03,
            bias=0.2,
            weighting=0.08,
            weighting_seed=3,
            fluid_suppression=0.9,
        ),
    ),
    PhantomSite(
        "hospital-d",
        8,
        Scanner(
            gain=120,
            noise=0.04,
            blur_mm=1.0,
            bias=0.15,
            weighting=0.08,
            weighting_seed=7,
            fluid_suppression=0.0,
        ),
    ),
)
"""Four hospitals whose scanners differ in brightness, contrast, noise and resolution."""


def write_consortium(
    folder: Path,
    *,
    sites: Sequence[PhantomSite] = CONSORTIUM,
    seed: int = 2018,
    progress: Progress = silent,
) -> dict[str, Path]:
    """Write the scans of several hospitals; what is there already stays.

    Args:
        folder: Gets one folder of case folders per hospital.
        sites: The hospitals.
        seed: Root of all anatomy and noise.
        progress: Told of each patient.

    Returns:
        The folder of each hospital by its name.

    Raises:
        ResourceError: The disk refuses.
    """
    n_total, n_done = sum(site.n_patients for site in sites), 0
    folders = {}
    for number, site in enumerate(sites):
        folders[site.name] = folder / site.name
        for patient in range(site.n_patients):
            case = folder / site.name / f"phantom-{site.name[-1]}{patient + 1:02d}"
            random = np.random.default_rng([seed, number, patient])
            _write_unless_there(case, random, site.scanner)
            n_done += 1
            progress("scans", n_done, n_total, site.name)
    return folders


def write_cohort(
    folder: Path,
    n_patients: int,
    scanner: Scanner,
    *,
    seed: int,
    shape: Shape = (12, 64, 64),
    spacing_mm: Spacing = (10.0, 3.2, 3.2),
) -> tuple[Path, ...]:
    """Write the scans of one hospital, one visit a patient; gives the case folders.

    Args:
        folder: Gets one folder per case.
        n_patients: How many.
        scanner: How its images look.
        seed: Root of all anatomy and noise.
        shape: Voxels `(z, y, x)`.
        spacing_mm: Their distance `(z, y, x)`.

    Raises:
        ResourceError: The disk refuses.
    """
    cases = tuple(folder / f"phantom-{number:03d}" for number in range(1, n_patients + 1))
    for number, case in enumerate(cases):
        random = np.random.default_rng([seed, number])
        _write_unless_there(case, random, scanner, shape=shape, spacing_mm=spacing_mm)
    return cases


def _write_unless_there(
    folder: Path,
    random: np.random.Generator,
    scanner: Scanner,
    *,
    shape: Shape = (12, 64, 64),
    spacing_mm: Spacing = (10.0, 3.2, 3.2),
) -> None:
    # The label is written last: where it is, all the others are.
    if not _label_path(folder).exists():
        write_phantom(folder, make_phantom(random, scanner, shape=shape, spacing_mm=spacing_mm))


def write_phantom(folder: Path, phantom: Phantom) -> None:
    """Write a phantom as `<case>_t1.nii.gz`, ..., `<case>_seg.nii.gz`, in place of older files.

    Raises:
        ResourceError: The disk refuses.
    """
    atomic.make_folder(folder)
    geometry = _geometry_of(phantom)
    for modality, image in phantom.images.items():
        path = folder / f"{folder.name}_{modality}.nii.gz"
        scan.write_scan(path, image, geometry, replace=True)
    scan.write_scan(_label_path(folder), phantom.label, geometry, replace=True)


def _label_path(folder: Path) -> Path:
    return folder / f"{folder.name}_seg.nii.gz"


def _geometry_of(phantom: Phantom) -> Geometry:
    (n_z, n_y, n_x), (z, y, x) = phantom.label.shape, phantom.spacing_mm
    return Geometry(
        size=(n_x, n_y, n_z),
        spacing_mm=(x, y, z),
        origin_mm=(-x * (n_x - 1) / 2, -y * (n_y - 1) / 2, -z * (n_z - 1) / 2),
        direction=(1, 0, 0, 0, 1, 0, 0, 0, 1),
    )
