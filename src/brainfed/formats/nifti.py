"""Checks of a NIfTI-1 file by itself, before any library may read it.

SimpleITK loads a truncated file silently, unpacks whatever a `.gz` holds, and turns NaN into 0; so
the header, the exact length and the voxels are looked at here first, as a stream.
"""

import gzip
import hashlib
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from brainfed.errors import ScanError

MAX_VOXELS = 2**27
"""512 x 512 x 512; a whole head at half a millimetre fits."""
MAX_EXTENSION_BYTES = 2**24
_HEADER_BYTES = 348
_FIRST_VOXEL = 352
_CHUNK_BYTES = 2**20
# Codes of nifti1.h; colours and complex numbers are no scans.
_TYPES = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
}
EXPORT_HINT = "copy or export the scan again"


@dataclass(frozen=True, slots=True)
class Header:
    """What of a NIfTI-1 header decides about the file's length."""

    size: tuple[int, int, int]
    """Voxels `(x, y, z)`."""
    voxel_type: np.dtype[np.generic]
    """Type and byte order of a voxel."""
    first_voxel: int
    """Offset of the voxels in the (unpacked) file, in bytes."""

    @property
    def n_bytes(self) -> int:
        """Length of the whole (unpacked) file."""
        return self.first_voxel + math.prod(self.size) * self.voxel_type.itemsize


def check(path: Path) -> str:
    """Hold a file against its own header, without loading it whole.

    A `.gz` is unpacked as a stream and never further than one byte beyond what the header claims.

    Returns:
        SHA-256 (hexadecimal) over size, type and voxels.

    Raises:
        ScanError: The header is not one of a 3-D NIfTI-1 image, the length is not exactly what it
            claims, or a voxel is not finite.
    """
    try:
        with _open(path) as stream:
            header = parse_header(stream.read(_HEADER_BYTES), path)
            return _digest_of_voxels(stream, header, path)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ScanError(
            "The packed file is truncated or damaged", found=error, where=path, hint=EXPORT_HINT
        ) from error
    except OSError as error:
        raise ScanError(
            "The file can't be read", found=error.strerror or error, where=path
        ) from error


def _open(path: Path) -> BinaryIO:
    if path.name.lower().endswith(".gz"):
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
            hint=EXPORT_HINT,
        )
    dimensions = struct.unpack_from(f"{order}8h", data, 40)
    datatype, n_bits = struct.unpack_from(f"{order}2h", data, 70)
    (offset,) = struct.unpack_from(f"{order}f", data, 108)
    size = _three_dimensions(dimensions, where)
    voxel_type = np.dtype(order + _TYPES.get(datatype, "V0"))
    if voxel_type.itemsize == 0 or n_bits != 8 * voxel_type.itemsize:
        raise ScanError(
            "The voxels are of a type that no scan has",
            expected="integers or floats",
            found=f"datatype {datatype} of {n_bits} bits",
            where=where,
            hint=EXPORT_HINT,
        )
    largest = _FIRST_VOXEL + MAX_EXTENSION_BYTES
    if not (_FIRST_VOXEL <= offset <= largest and offset == int(offset)):
        raise ScanError(
            "The header says that the voxels begin at an impossible place",
            expected=f"byte {_FIRST_VOXEL} to {largest}",
            found=f"{offset:g}",
            where=where,
            hint=EXPORT_HINT,
        )
    return Header(size, voxel_type, int(offset))


def _three_dimensions(dimensions: tuple[int, ...], where: Path) -> tuple[int, int, int]:
    n_dimensions, x, y, z, *further = dimensions
    used = dimensions[1 : n_dimensions + 1] if 0 < n_dimensions <= 7 else ()
    if not 3 <= n_dimensions <= 7 or any(n != 1 for n in further[: max(n_dimensions - 3, 0)]):
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
    digest = hashlib.sha256(f"{header.size} {header.voxel_type.str} ".encode())
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
                hint=EXPORT_HINT,
            )
        if position >= header.first_voxel:
            digest.update(chunk)
            _refuse_not_finite(chunk, header, path)
        position += len(chunk)
    if stream.read(1):
        raise ScanError(
            "The file is longer than its header says",
            expected=f"{header.n_bytes} bytes",
            found="more",
            where=path,
            hint=EXPORT_HINT,
        )
    return digest.hexdigest()


def _refuse_not_finite(chunk: bytes, header: Header, path: Path) -> None:
    """Look at the voxels as they are stored: the NIfTI library turns NaN into 0 in silence."""
    if header.voxel_type.kind != "f":
        return
    whole = len(chunk) - len(chunk) % header.voxel_type.itemsize
    if not np.isfinite(np.frombuffer(chunk[:whole], header.voxel_type)).all():
        raise not_finite(path)


def not_finite(path: Path) -> ScanError:
    """The error for an image with NaN or infinity in it."""
    return ScanError(
        "The image holds voxels that are not finite",
        expected="numbers",
        found="NaN or infinity",
        where=path,
        hint=EXPORT_HINT,
    )
