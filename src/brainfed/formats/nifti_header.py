"""The header of a NIfTI-1 file: 348 bytes that say how long the file must be and what it holds.

Where its voxels lie is for `formats.nifti_space`.
"""

import math
import struct
from dataclasses import dataclass

import numpy as np

from brainfed.core.flaws import Flaw, FlawedScanError

MAX_VOXELS = 2**27
"""512 x 512 x 512; a whole head at half a millimetre fits."""
MAX_VOLUMES = 64
MAX_EXTENSION_BYTES = 2**24
HEADER_BYTES = 348
_FIRST_VOXEL = 352
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
CONVERT_HINT = "convert the scan to NIfTI-1 in a single file, with dcm2niix where you have DICOM"


@dataclass(frozen=True, slots=True)
class Header:
    """What of a NIfTI-1 header decides how the file is read."""

    data: bytes
    """The 348 bytes themselves."""
    order: str
    """Byte order, `<` or `>`."""
    size: tuple[int, int, int]
    """Voxels of a volume `(x, y, z)`."""
    n_volumes: int
    voxel_type: np.dtype[np.generic]
    """Type and byte order of a voxel."""
    first_voxel: int
    """Offset of the voxels in the (unpacked) file, in bytes."""
    slope: float
    inter: float
    """What a voxel means is `slope` times what is stored, plus `inter`."""

    @property
    def volume_bytes(self) -> int:
        """Length of one volume."""
        return math.prod(self.size) * self.voxel_type.itemsize

    @property
    def n_bytes(self) -> int:
        """Length of the whole (unpacked) file."""
        return self.first_voxel + self.n_volumes * self.volume_bytes

    @property
    def is_scaled(self) -> bool:
        """Whether voxels mean something else than what is stored."""
        return (self.slope, self.inter) != (1, 0)


def parse_header(data: bytes) -> Header:
    """Read and check the first 348 bytes of a NIfTI-1 file.

    Raises:
        FlawedScanError: Not NIfTI-1 in a single file, not 3-D or 4-D, a type that no scan has, too
            large, or numbers that make no sense.
    """
    order = {b"\x5c\x01\x00\x00": "<", b"\x00\x00\x01\x5c": ">"}.get(data[:4])
    if order is None or len(data) < HEADER_BYTES or data[344:348] != b"n+1\0":
        raise FlawedScanError(
            Flaw.OTHER_FORMAT,
            "Not a NIfTI-1 file",
            expected="a header of 348 bytes, and header and voxels in one file",
            found=_format_of(data),
            hint=CONVERT_HINT,
        )
    dimensions = struct.unpack_from(f"{order}8h", data, 40)
    datatype, n_bits = struct.unpack_from(f"{order}2h", data, 70)
    offset, slope, inter = struct.unpack_from(f"{order}3f", data, 108)
    size, n_volumes = _size(dimensions)
    voxel_type = np.dtype(order + _TYPES.get(datatype, "V0"))
    if voxel_type.itemsize == 0 or n_bits != 8 * voxel_type.itemsize:
        raise _bad_header(
            "The voxels are of a type that no scan has",
            expected="integers or floats",
            found=f"datatype {datatype} of {n_bits} bits",
        )
    largest = _FIRST_VOXEL + MAX_EXTENSION_BYTES
    if not (_FIRST_VOXEL <= offset <= largest and offset == int(offset)):
        raise _bad_header(
            "The header says that the voxels begin at an impossible place",
            expected=f"byte {_FIRST_VOXEL} to {largest}",
            found=f"{offset:g}",
        )
    if slope == 0 or not math.isfinite(slope):  # by the standard: then there is no scaling
        slope, inter = 1.0, 0.0
    if not math.isfinite(inter):
        raise _bad_header("The header's scaling is no number", found=f"{slope:g}, {inter:g}")
    return Header(data, order, size, n_volumes, voxel_type, int(offset), slope, inter)


def _bad_header(message: str, *, found: str, expected: str | None = None) -> FlawedScanError:
    return FlawedScanError(
        Flaw.BAD_HEADER, message, expected=expected, found=found, hint=EXPORT_HINT
    )


def _format_of(data: bytes) -> str:
    """What a file that isn't NIfTI-1 seems to be."""
    if not data:
        return "an empty file"
    if 540 in struct.unpack("<I", data[:4].ljust(4, b"\0")) + struct.unpack(
        ">I", data[:4].ljust(4, b"\0")
    ):
        return "NIfTI-2"
    if data[128:132] == b"DICM":
        return "DICOM"
    if data[344:348] in (b"ni1\0", b"\0\0\0\0") and len(data) >= HEADER_BYTES:
        return "a header whose voxels are in another file (.hdr and .img)"
    starts = {b"ObjectType": "MetaImage", b"NRRD": "NRRD", b"\x1f\x8b": "a packed file"}
    return next((kind for start, kind in starts.items() if data.startswith(start)), "other bytes")


def _size(dimensions: tuple[int, ...]) -> tuple[tuple[int, int, int], int]:
    """Size `(x, y, z)` and number of volumes."""
    n_dimensions, x, y, z, volumes, *further = dimensions
    used = dimensions[1 : n_dimensions + 1] if 0 < n_dimensions <= 7 else ()
    n_volumes = volumes if n_dimensions > 3 else 1
    if not 3 <= n_dimensions <= 7 or any(n != 1 for n in further[: max(n_dimensions - 4, 0)]):
        found = f"{len(used)}-D: {by(*used)}" if used else str(n_dimensions)
        raise not_3d(found)
    if min(x, y, z) < 2:
        raise FlawedScanError(
            Flaw.TOO_THIN,
            "The image is too thin",
            expected="at least 2 voxels along each axis",
            found=by(x, y, z),
            hint=EXPORT_HINT,
        )
    if x * y * z > MAX_VOXELS or not 1 <= n_volumes <= MAX_VOLUMES:
        raise FlawedScanError(
            Flaw.TOO_LARGE,
            "The image is too large",
            expected=f"at most {MAX_VOXELS} voxels in each of at most {MAX_VOLUMES} volumes",
            found=by(*used),
            hint=EXPORT_HINT,
        )
    return (x, y, z), n_volumes


def not_3d(found: str) -> FlawedScanError:
    """The error for a file of other dimensions."""
    return FlawedScanError(
        Flaw.NOT_3D,
        "The image is not 3-D",
        expected="three dimensions",
        found=found,
        hint="give one volume per file, or in cases.csv the volume's number: `file.nii.gz#0`",
    )


def by(*numbers: int) -> str:
    """A size in words."""
    return " x ".join(str(number) for number in numbers)
