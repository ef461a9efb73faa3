"""The atlas whose space the cases lie in: a skull-stripped T1, by digest.

A plan names a file and its SHA-256. Each site gives it once (`--atlas`); a copy stays in
`data/atlas/`. brainfed ships none. The MNI152 template comes with nilearn, which isn't imported for
it.
"""

# SimpleITK's wrapper has no types.
# mypy: disable-error-code="no-untyped-call, no-any-return"

import hashlib
import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name that all of its documentation uses

from brainfed.core.volume import turned
from brainfed.errors import NotReadyError, ScanError
from brainfed.formats import atomic, scan
from brainfed.formats.found_case import ScanFile
from brainfed.plan import Modality, Preparation, Space

MNI152_NAME = "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
MNI152_SHA256 = "421a10e872fd6cadae7f61d358dffbcc1795a497d61ee76c5dda2503e1a1e9e6"
"""The template of nilearn 0.8.1 and later: ICBM 2009a nonlinear symmetric, 1 mm, the brain alone
(Fonov et al. 2011)."""
MAX_ATLAS_BYTES = 2**28


@dataclass(frozen=True, slots=True)
class Atlas:
    """An atlas in memory."""

    image: sitk.Image
    """Float32, axes along LPS."""
    brain_mask: sitk.Image
    """uint8, on the same grid: where the image is above its background."""
    digest: str
    """SHA-256 of the file."""


def path_of(data_folder: Path, preparation: Preparation) -> Path:
    """Where the plan's own atlas lies at a site."""
    return data_folder / "atlas" / preparation.atlas


def lay_down(data_folder: Path, source: Path, preparation: Preparation) -> None:
    """Keep a copy of the plan's atlas.

    Raises:
        ScanError: The plan has no atlas file, or this is another file.
        ResourceError: The disk refuses.
    """
    check_given(source, preparation)
    path = path_of(data_folder, preparation)
    if path.exists():
        return
    atomic.make_folder(path.parent)
    atomic.copy(source, path, cap_bytes=MAX_ATLAS_BYTES)


def find(data_folder: Path, preparation: Preparation) -> Path | None:
    """The file of the plan's atlas, its digest checked; None where the plan's space is no atlas.

    Raises:
        NotReadyError: It is not there yet.
        ScanError: It is another file than the plan says.
    """
    if preparation.space is Space.ATLAS:
        path, digest = path_of(data_folder, preparation), preparation.atlas_sha256
        if not path.exists():
            raise NotReadyError(
                "The plan's atlas is not here yet",
                expected=f"{preparation.atlas}, SHA-256 {digest[:16]}...",
                where=path,
                hint="give it once, with --atlas FILE",
            )
    elif preparation.space is Space.MNI152:
        path, digest = _mni152_path(), MNI152_SHA256
    else:
        return None
    _refuse_other(_digest(path), digest, path)
    return path


def check_given(source: Path, preparation: Preparation) -> Path:
    """A file that was named, if it is the plan's atlas; no copy is made.

    Raises:
        ScanError: The plan has no atlas file, or this is another file.
    """
    if preparation.space is not Space.ATLAS:
        raise ScanError(
            "The plan takes no atlas file",
            found=f'space = "{preparation.space}"',
            hint="run the command without --atlas",
        )
    _refuse_other(_digest(source), preparation.atlas_sha256, source)
    return source


def read(path: Path) -> Atlas:
    """Read an atlas; its background is what has the value of the first voxel.

    Raises:
        ScanError: It is not a good scan, or not skull-stripped.
    """
    image = turned(scan.read_image(ScanFile(path), Modality.T1).image)
    values = sitk.GetArrayFromImage(image)
    mask = (values > values.flat[0]).astype(np.uint8)
    if not 0.05 < mask.mean() < 0.6:
        raise ScanError(
            "The atlas is not skull-stripped",
            expected="a brain before a background of one value, like SRI24's spgr",
            found=f"{100 * mask.mean():.0f} % of its voxels above the first one",
            where=path,
        )
    brain_mask = sitk.GetImageFromArray(mask)
    brain_mask.CopyInformation(image)
    return Atlas(image, brain_mask, _digest(path))


def _mni152_path() -> Path:
    try:
        files = importlib.metadata.files("nilearn") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == MNI152_NAME:
            return Path(str(file.locate()))
    raise NotReadyError(
        "The MNI152 template is not installed",
        expected=f"nilearn with {MNI152_NAME}",
        hint="pip install 'brainfed[atlas]', from a wheel on a medium where there is no network",
    )


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ScanError(
            "The atlas can't be read",
            found=error.strerror,
            where=path,
            hint="name it as it lies: --atlas FILE",
        ) from error


def _refuse_other(found: str, expected: str, path: Path) -> None:
    if found != expected:
        raise ScanError(
            "This is not the plan's atlas",
            expected=f"SHA-256 {expected[:16]}...",
            found=f"{found[:16]}...",
            where=path,
            hint="ask the coordinator for the file that the plan means",
        )
