"""Scans as NIfTI-1 files (`.nii`, `.nii.gz`): checked first (`formats.nifti`), then read.

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

from brainfed.core.labels import LabelProtocol, allowed_values
from brainfed.core.volume import Geometry, geometry_of, to_image
from brainfed.errors import ResourceError, ScanError
from brainfed.formats import atomic, nifti

ENDINGS = (".nii.gz", ".nii")


@dataclass(frozen=True, slots=True)
class Scan:
    """One scan in memory."""

    image: sitk.Image
    """Float32 for an image, uint8 for a label."""
    geometry: Geometry
    voxel_digest: str
    """SHA-256 over size, type and voxels, the same for `.nii` and `.nii.gz`."""
    is_blank: bool
    """Whether all voxels are zero; only a label may be blank."""


def read_image(path: Path) -> Scan:
    """Read the image of one modality.

    Raises:
        ScanError: Not a 3-D NIfTI-1 file, not of the exact length, too large, not finite, or of
            one single value.
    """
    digest = nifti.check(path)
    image = sitk.Cast(_load(path), sitk.sitkFloat32)
    values = sitk.GetArrayFromImage(image)
    if not np.isfinite(values).all():
        raise nifti.not_finite(path)  # too large for float32, or by the header's scaling
    if values.min() == values.max():
        raise ScanError(
            "The image is all zero" if not values.any() else "The image has one single value",
            found=f"{values.flat[0]:.6g} everywhere",
            where=path,
            hint="if the modality was not acquired, remove this file: "
            "an optional modality may be missing, an empty one is a mistake",
        )
    return Scan(image, geometry_of(image), digest, is_blank=False)


def read_label(path: Path, protocol: LabelProtocol) -> Scan:
    """Read a label.

    Raises:
        ScanError: As `read_image`, or a value is not one of the protocol's.
    """
    digest = nifti.check(path)
    loaded = _load(path)
    values = np.unique(sitk.GetArrayFromImage(loaded))
    allowed = sorted(allowed_values(protocol))
    strange = values[~np.isin(values, allowed)]  # halves and negatives are strange too
    if strange.size:
        raise ScanError(
            f"The label has values outside the protocol {protocol}",
            expected=", ".join(str(value) for value in allowed),
            found=", ".join(f"{value:g}" for value in strange[:8]),
            where=path,
            hint="name the protocol that these labels follow with --labels, or mend the label",
        )
    image = sitk.Cast(loaded, sitk.sitkUInt8)
    return Scan(image, geometry_of(image), digest, is_blank=not values.any())


def _load(path: Path) -> sitk.Image:
    """Let SimpleITK read a file that was checked."""
    sitk.ProcessObject.GlobalWarningDisplayOff()  # the library never prints
    reader = sitk.ImageFileReader()
    reader.SetImageIO("NiftiImageIO")
    reader.SetFileName(_as_text(path))
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise ScanError(
            "SimpleITK can't read the scan",
            found=_last_line(error),
            where=path,
            hint="its header may hold an orientation that is not a rotation; export it again",
        ) from error
    while image.GetDimension() > 3:
        image = image[..., 0]
    return image


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


def write_scan(
    path: Path, array: npt.NDArray[np.generic], geometry: Geometry, *, replace: bool = False
) -> None:
    """Write voxels `(z, y, x)` as NIfTI-1, packed where the name ends in `.gz`.

    Raises:
        ConflictError: The file exists and `replace` is false.
        ResourceError: The disk refuses.
        ScanError: The path is not valid text.
    """
    with atomic.new_path(path, replace=replace) as temporary:
        name = _as_text(temporary)
        try:
            sitk.WriteImage(to_image(array, geometry), name, path.name.endswith(".gz"))
            nifti.check(temporary)  # on a full disk SimpleITK leaves half a file and says nothing
        except (RuntimeError, ScanError) as error:
            raise ResourceError(
                "The scan can't be written",
                found=error.message if isinstance(error, ScanError) else _last_line(error),
                where=path,
                hint="is the disk full? make room and run the command again",
            ) from error
