"""Scans as NIfTI-1 files (`.nii`, `.nii.gz`): checked first, then read; and written.

SimpleITK loads a truncated file silently and unpacks whatever a `.gz` holds, so the header and the
exact length are checked here before it may read. NIfTI says RAS+, SimpleITK gives LPS+.

Messages of this module never hold the name of a patient except in `where`.
"""

# SimpleITK's wrapper has no types.
# mypy: disable-error-code="no-untyped-call, no-any-return"

import gzip
import hashlib
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813 - the name that all of its documentation uses

from brainfed.core.labels import LabelProtocol, allowed_values
from brainfed.core.volume import Geometry, geometry_of, to_image
from brainfed.errors import ResourceError, ScanError
from brainfed.formats import atomic

ENDINGS = (".nii.gz", ".nii")
MAX_VOXELS = 2**27
"""512 x 512 x 512; a whole head at half a millimetre fits."""
MAX_EXTENSION_BYTES = 2**24
_HEADER_BYTES = 348
_FIRST_VOXEL = 352
_CHUNK_BYTES = 2**20
# Codes of nifti1.h; colours and complex numbers are no scans.
_BYTES_PER_VOXEL = {2: 1, 4: 2, 8: 4, 16: 4, 64: 8, 256: 1, 512: 2, 768: 4, 1024: 8, 1280: 8}
_EXPORT_HINT = "copy or export the scan again"


@dataclass(frozen=True, slots=True)
class Header:
    """What of a NIfTI-1 header decides about the file's length."""

    size: tuple[int, int, int]
    """Voxels `(x, y, z)`."""
    bytes_per_voxel: int
    first_voxel: int
    """Offset of the voxels in the (unpacked) file, in bytes."""

    @property
    def n_bytes(self) -> int:
        """Length of the whole (unpacked) file."""
        return self.first_voxel + math.prod(self.size) * self.bytes_per_voxel


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
    digest = check(path)
    image = sitk.Cast(_load(path), sitk.sitkFloat32)
    values = sitk.GetArrayFromImage(image)
    if not np.isfinite(values).all():
        raise ScanError(
            "The image holds voxels that are not finite",
            expected="numbers",
            found=f"{int(np.count_nonzero(~np.isfinite(values)))} voxels NaN or infinite",
            where=path,
            hint=_EXPORT_HINT,
        )
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
    digest = check(path)
    loaded = _load(path)
    values = np.unique(sitk.GetArrayFromImage(loaded))
    allowed = sorted(allowed_values(protocol))
    strange = values[~np.isin(values, allowed)]  # NaN, halves and negatives are strange too
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


def check(path: Path) -> str:
    """Hold a file against its own header, without loading it.

    A `.gz` is unpacked as a stream and never further than one byte beyond what the header claims.

    Returns:
        SHA-256 (hexadecimal) over size, type and voxels.

    Raises:
        ScanError: The header is not one of a 3-D NIfTI-1 image, or the length is not exactly what
            it claims.
    """
    try:
        with _open(path) as stream:
            header = parse_header(stream.read(_HEADER_BYTES), path)
            return _digest_of_voxels(stream, header, path)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ScanError(
            "The packed file is truncated or damaged", found=error, where=path, hint=_EXPORT_HINT
        ) from error
    except OSError as error:
        raise ScanError(
            "The file can't be read", found=error.strerror or error, where=path
        ) from error


def _open(path: Path) -> BinaryIO:
    if path.name.endswith(".gz"):
        return cast("BinaryIO", gzip.open(path, "rb"))
    return path.open("rb")


def parse_header(data: bytes, where: Path) -> Header:
    """Read and check the first 348 bytes of a NIfTI-1 file.

    Raises:
        ScanError: Not NIfTI-1 in a single file, not 3-D, a type that no scan has, or too large.
    """
    order = {b"\x5c\x01\x00\x00": "<", b"\x00\x00\x01\x5c": ">"}.get(data[:4])
    if order is None or len(data) < _HEADER_BYTES or data[344:348] != b"n+1\0":
        raise ScanError(
            "Not a NIfTI-1 file",
            expected="a header of 348 bytes and image and header in one file",
            found="NIfTI-2" if 540 in struct.unpack("<I", data[:4].ljust(4, b"\0")) else None,
            where=where,
            hint=_EXPORT_HINT,
        )
    dimensions = struct.unpack_from(f"{order}8h", data, 40)
    datatype, n_bits = struct.unpack_from(f"{order}2h", data, 70)
    (offset,) = struct.unpack_from(f"{order}f", data, 108)
    size = _three_dimensions(dimensions, where)
    n_bytes = _BYTES_PER_VOXEL.get(datatype)
    if n_bytes is None or n_bits != 8 * n_bytes:
        raise ScanError(
            "The voxels are of a type that no scan has",
            expected="integers or floats",
            found=f"datatype {datatype} of {n_bits} bits",
            where=where,
            hint=_EXPORT_HINT,
        )
    largest = _FIRST_VOXEL + MAX_EXTENSION_BYTES
    if not (_FIRST_VOXEL <= offset <= largest and offset == int(offset)):
        raise ScanError(
            "The header says that the voxels begin at an impossible place",
            expected=f"byte {_FIRST_VOXEL} to {largest}",
            found=f"{offset:g}",
            where=where,
            hint=_EXPORT_HINT,
        )
    return Header(size, n_bytes, int(offset))


def _three_dimensions(dimensions: tuple[int, ...], where: Path) -> tuple[int, int, int]:
    n_dimensions, x, y, z, *further = dimensions
    used = dimensions[1 : n_dimensions + 1] if 0 < n_dimensions <= 7 else ()
    if n_dimensions < 3 or any(n != 1 for n in further[: max(n_dimensions - 3, 0)]):
        raise ScanError(
            "The image is not 3-D",
            expected="three dimensions",
            found=f"{len(used)}-D: {' x '.join(str(n) for n in used)}" if used else n_dimensions,
            where=where,
            hint="give one volume per file",
        )
    if min(x, y, z) < 2:
        raise ScanError(
            "The image is too thin",
            expected="at least 2 voxels along each axis",
            found=f"{x} x {y} x {z}",
            where=where,
        )
    if x * y * z > MAX_VOXELS:
        raise ScanError(
            "The image is too large",
            expected=f"at most {MAX_VOXELS} voxels",
            found=f"{x} x {y} x {z}",
            where=where,
        )
    return x, y, z


def _digest_of_voxels(stream: BinaryIO, header: Header, path: Path) -> str:
    """Read on from behind the header to one byte beyond the end that the header claims."""
    digest = hashlib.sha256(f"{header.size} {header.bytes_per_voxel} ".encode())
    position = _HEADER_BYTES
    while position < header.n_bytes:
        end = header.first_voxel if position < header.first_voxel else header.n_bytes
        chunk = stream.read(min(_CHUNK_BYTES, end - position))
        if not chunk:
            raise ScanError(
                "The file is truncated",
                expected=f"{header.n_bytes} bytes, by its header",
                found=f"{position} bytes",
                where=path,
                hint=_EXPORT_HINT,
            )
        if position >= header.first_voxel:
            digest.update(chunk)
        position += len(chunk)
    if stream.read(1):
        raise ScanError(
            "The file is longer than its header says",
            expected=f"{header.n_bytes} bytes",
            found="more",
            where=path,
            hint=_EXPORT_HINT,
        )
    return digest.hexdigest()


def _load(path: Path) -> sitk.Image:
    """Let SimpleITK read a file that was checked."""
    sitk.ProcessObject.GlobalWarningDisplayOff()  # the library never prints
    reader = sitk.ImageFileReader()
    reader.SetImageIO("NiftiImageIO")
    try:
        reader.SetFileName(str(path))
        image = reader.Execute()
    except UnicodeEncodeError:
        raise ScanError(
            "The name is not valid text", where=ascii(str(path)), hint="rename the folder"
        ) from None
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


def _last_line(error: Exception) -> str:
    """The part of an ITK message that says what is wrong; before it stand paths and addresses."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def write_scan(path: Path, array: npt.NDArray[np.generic], geometry: Geometry) -> None:
    """Write voxels `(z, y, x)` as NIfTI-1, packed where the name ends in `.gz`.

    Raises:
        ConflictError: The file exists.
        ResourceError: The disk refuses.
    """
    with atomic.new_path(path) as temporary:
        try:
            sitk.WriteImage(to_image(array, geometry), str(temporary), path.name.endswith(".gz"))
        except RuntimeError as error:
            raise ResourceError(
                "The scan can't be written", found=_last_line(error), where=path
            ) from error
