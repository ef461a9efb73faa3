"""Scans as NIfTI-1 files (`.nii`, `.nii.gz`): read once, inspected, given as SimpleITK images.

NIfTI says RAS+, SimpleITK gives LPS+.

Messages of this module never hold the name of a patient except in `where`.
"""

# SimpleITK's wrapper has no types.
# mypy: disable-error-code="no-untyped-call, no-any-return"

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813 - the name that all of its documentation uses

from brainfed.core.flaws import Finding, Flaw, finding
from brainfed.core.inspection import inspect_grid, inspect_image, inspect_label, inspect_mask
from brainfed.core.labels import LabelProtocol
from brainfed.core.volume import Geometry, to_image
from brainfed.errors import ResourceError, ScanError
from brainfed.formats import atomic, nifti
from brainfed.formats.found_case import ScanFile
from brainfed.formats.nifti import Volume
from brainfed.formats.nifti_space import geometry_in
from brainfed.plan import Modality

ENDINGS = nifti.ENDINGS


@dataclass(frozen=True, slots=True)
class Scan:
    """One scan in memory."""

    image: sitk.Image
    """Float32 for an image, uint8 for a label or a mask."""
    geometry: Geometry
    voxel_digest: str
    """SHA-256 over size, type and voxels as stored, whatever the packing (`formats.nifti`)."""
    is_blank: bool
    """Whether all voxels are zero; only a label may be blank."""
    findings: tuple[Finding, ...] = ()
    """What is odd about it, though it is not refused."""
    stored: Geometry | None = None
    """The grid as the file has it, where the axes of `image` were turned since."""


def read_image(file: ScanFile, modality: Modality) -> Scan:
    """Read the image of one modality.

    Raises:
        FlawedScanError: A flaw for which the scan is refused.
    """
    with nifti.located(file):
        volume = nifti.read(file.path, file.volume)
        geometry, findings = _geometry_of(volume, modality)
        values = _float32(volume)
        findings += inspect_image(values, modality)
        image = to_image(values, geometry)
    return Scan(image, geometry, volume.digest, is_blank=False, findings=tuple(findings))


def read_label(file: ScanFile, protocol: LabelProtocol) -> Scan:
    """Read a label.

    Raises:
        FlawedScanError: A flaw for which the scan is refused; a value outside the protocol is one.
    """
    with nifti.located(file):
        volume = nifti.read(file.path, file.volume)
        geometry, findings = _geometry_of(volume)
        values = _float32(volume) if volume.header.is_scaled else volume.stored
        if volume.header.is_scaled:
            words = (
                "The label's header scales its values: they mean "
                f"{volume.header.slope:g} times what is stored, plus {volume.header.inter:g}."
            )
            findings.append(finding(Flaw.LABEL_SCALED, words))
        findings += inspect_label(values, protocol)
    label = values.astype(np.uint8)
    return Scan(
        image=to_image(label, geometry),
        geometry=geometry,
        voxel_digest=volume.digest,
        is_blank=not label.any(),
        findings=tuple(findings),
    )


def read_mask(file: ScanFile) -> Scan:
    """Read a mask of the brain that a site made itself: 0 outside, one other value within.

    Returns:
        1 within the brain, whatever the file has.

    Raises:
        FlawedScanError: A flaw for which the scan is refused.
    """
    with nifti.located(file):
        volume = nifti.read(file.path, file.volume)
        geometry, findings = _geometry_of(volume)
        values = _float32(volume)
        inspect_mask(values)
    return Scan(
        image=to_image((values != 0).astype(np.uint8), geometry),
        geometry=geometry,
        voxel_digest=volume.digest,
        is_blank=False,
        findings=tuple(findings),
    )


def _geometry_of(
    volume: Volume, modality: Modality | None = None
) -> tuple[Geometry, list[Finding]]:
    geometry, findings = geometry_in(volume.header, modality)
    return geometry, findings + inspect_grid(geometry, modality)


def _float32(volume: Volume) -> npt.NDArray[np.float32]:
    """What the stored voxels mean, `(z, y, x)`; too large for float32 becomes infinite."""
    with np.errstate(over="ignore"):
        if not volume.header.is_scaled:
            return volume.stored.astype(np.float32)
        values = np.empty(volume.stored.shape, np.float32)
        for z, plane in enumerate(volume.stored):  # in double, as the standard's own library does
            values[z] = plane.astype(np.float64) * volume.header.slope + volume.header.inter
    return values


def _as_text(path: Path) -> str:
    """The path as SimpleITK takes it: at one that is not valid UTF-8 it ends the whole process."""
    try:
        return str(path).encode("utf-8").decode("utf-8")
    except UnicodeEncodeError:
        raise ScanError(
            "The name is not valid text", where=ascii(str(path)), hint="rename the file and folder"
        ) from None


def _last_line(error: Exception) -> str:
    """The part of an ITK message that says what is wrong; before it stand paths and addresses."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def description_of(path: Path) -> str:
    """The header's field `descrip`; empty where the file is no NIfTI any more."""
    reader = sitk.ImageFileReader()
    try:
        reader.SetFileName(_as_text(path))
        reader.ReadImageInformation()
        return reader.GetMetaData("descrip")
    except (RuntimeError, ScanError):
        return ""


def write_scan(
    path: Path,
    array: npt.NDArray[np.generic],
    geometry: Geometry,
    *,
    replace: bool = False,
    description: str = "",
) -> None:
    """Write voxels `(z, y, x)` as NIfTI-1, packed where the name ends in `.gz`.

    Args:
        path: Where.
        array: The voxels.
        geometry: Where they lie.
        replace: Whether a file may be there already.
        description: For the header's field `descrip`, ASCII, at most 79 bytes.

    Raises:
        ConflictError: The file exists and `replace` is false.
        ResourceError: The disk refuses.
        ScanError: The path is not valid text.
    """
    with atomic.new_path(path, replace=replace) as temporary:
        name = _as_text(temporary)
        image = to_image(array, geometry)
        image.SetMetaData("ITK_FileNotes", description)
        try:
            sitk.WriteImage(image, name, path.name.endswith(".gz"))
            nifti.check(temporary)  # on a full disk SimpleITK leaves half a file and says nothing
        except (RuntimeError, ScanError) as error:
            raise ResourceError(
                "The scan can't be written",
                found=error.message if isinstance(error, ScanError) else _last_line(error),
                where=path,
                hint="is the disk full? make room and run the command again",
            ) from error
