"""Every kind of bad scan by name: what writes it, and the flaw for which it is refused.

The files are made byte by byte, by the standard (nifti1.h) and not by a library, since libraries
refuse to write most of them. `good` is the scan that each of them spoils.
"""

import gzip
import os
import socket
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brainfed.core.flaws import Flaw

SHAPE = (12, 64, 64)
SPACING_MM = (3.2, 3.2, 10.0)
Array = npt.NDArray[Any]
Write = Callable[[Path], Path]
_CODES = {"u1": 2, "i2": 4, "i4": 8, "f4": 16, "f8": 64, "i1": 256, "u2": 512}
_FIRST = 352


def voxels(seed: int = 0) -> Array:
    """A bright ball with noise before a dark background, int16 `(z, y, x)`: none is negative."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    inside = z**2 + y**2 + x**2 < 0.7
    noise = np.random.default_rng(seed).normal(0, 20, SHAPE)
    return np.abs(400 * inside + noise).astype(np.int16)


def label() -> Array:
    """A small tumour in brats2017's values."""
    values = np.zeros(SHAPE, np.uint8)
    values[4:8, 24:40, 24:40] = 2
    values[5:7, 28:36, 28:36] = 4
    values[5:7, 30:33, 30:33] = 1
    return values


def nifti(
    array: Array,
    *,
    order: str = "<",
    changes: Mapping[tuple[int, str], tuple[float, ...]] | None = None,
    sform: Array | None = None,
    qform: bool = True,
) -> bytes:
    """The bytes of a NIfTI-1 file, axes along RAS.

    Args:
        array: `(z, y, x)`, or `(volume, z, y, x)`.
        order: Byte order, `<` or `>`.
        changes: Fields of the header, by offset and `struct` code, written last.
        sform: The three rows; by default the same as the qform.
        qform: Whether its code is set.
    """
    header = bytearray(_FIRST)
    kind = array.dtype.str[1:]
    size = array.shape[::-1]
    if sform is None:
        sform = np.column_stack([np.diag(SPACING_MM), [-100, -100, -60]])
    fields: dict[tuple[int, str], tuple[float, ...]] = {
        (0, "i"): (348,),
        (40, "8h"): (array.ndim, *size, *(1 for _ in range(7 - array.ndim))),
        (70, "2h"): (_CODES[kind], 8 * array.dtype.itemsize),
        (76, "8f"): (1, *SPACING_MM, 1, 1, 1, 1),
        (108, "3f"): (_FIRST, 1, 0),
        (123, "b"): (2,),
        (252, "2h"): (int(qform), 1),
        (256, "6f"): (0, 0, 0, -100, -100, -60),
        (280, "12f"): tuple(sform.ravel()),
        **(changes or {}),
    }
    for (offset, code), values in fields.items():
        struct.pack_into(f"{order}{code}", header, offset, *values)
    header[344:348] = b"n+1\0"
    return bytes(header) + array.astype(array.dtype.newbyteorder(order)).tobytes()


def sheared(amount: float) -> Array:
    """An sform whose x axis leans by this much towards y."""
    sform = np.column_stack([np.diag(SPACING_MM), [-100.0, -100, -60]])
    sform[1, 0] = amount * SPACING_MM[0]
    return sform


@dataclass(frozen=True)
class Bad:
    """One bad scan."""

    flaw: Flaw
    write: Write
    """Writes it at or beside the given path, which has no ending; gives its path."""


def _put(content: bytes, ending: str = ".nii.gz") -> Write:
    def write(path: Path) -> Path:
        to = path.with_name(path.name + ending)
        to.write_bytes(gzip.compress(content, 1) if ending.endswith(".gz") else content)
        return to

    return write


def _raw(content: bytes, ending: str = ".nii.gz") -> Write:
    """As it is, whatever the ending says."""

    def write(path: Path) -> Path:
        to = path.with_name(path.name + ending)
        to.write_bytes(content)
        return to

    return write


def _with(*, array: Array | None = None, **arguments: Any) -> Write:
    return _put(nifti(voxels() if array is None else array, **arguments))


def _header(offset: int, code: str, *values: float) -> Write:
    return _with(changes={(offset, code): values})


def _spoilt(value: float, dtype: str = "f4") -> Write:
    array = voxels().astype(dtype)
    array[6, 30, 30] = value
    return _with(array=array)


def _bomb(path: Path) -> Path:
    packer = zlib.compressobj(9, wbits=31)
    content = packer.compress(nifti(voxels()))
    content += b"".join(packer.compress(bytes(2**20)) for _ in range(60)) + packer.flush()
    return _raw(content)(path)


def _members(path: Path) -> Path:
    content = nifti(voxels())
    return _raw(gzip.compress(content) + gzip.compress(b"") * 20_000)(path)


def _damaged(path: Path) -> Path:
    content = bytearray(gzip.compress(nifti(voxels()), 1))
    content[-8] ^= 1  # the checksum
    return _raw(bytes(content))(path)


def _fifo(path: Path) -> Path:
    to = path.with_name(path.name + ".nii.gz")
    os.mkfifo(to)
    return to


def _folder(path: Path) -> Path:
    to = path.with_name(path.name + ".nii.gz")
    to.mkdir()
    return to


def _socket(path: Path) -> Path:
    to = path.with_name(path.name + ".nii")
    here = Path.cwd()
    os.chdir(to.parent)  # a socket's whole path must be short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(to.name)
    finally:
        os.chdir(here)
    return to


def _device(path: Path) -> Path:
    to = path.with_name(path.name + ".nii")
    to.symlink_to("/dev/zero")
    return to


def _loop(path: Path) -> Path:
    to = path.with_name(path.name + ".nii")
    to.symlink_to(to.name)
    return to


def _closed(path: Path) -> Path:
    to = _put(nifti(voxels()))(path)
    to.chmod(0)
    return to


def _metaimage(path: Path) -> Path:
    """A text that makes ITK read another file of this machine."""
    secret = path.with_name("secret.raw")
    secret.write_bytes(voxels().tobytes())
    text = (
        "ObjectType = Image\nNDims = 3\nDimSize = 64 64 12\nElementType = MET_SHORT\n"
        f"ElementDataFile = {secret}\n"
    )
    to = path.with_name(path.name + ".mhd")
    to.write_text(text.ljust(400))
    return to


def _renamed(ending: str, to_ending: str = ".nii") -> Write:
    def write(path: Path) -> Path:
        made = _PAIRS[ending](path)
        return made.rename(path.with_name(path.name + to_ending))

    return write


def _nrrd(path: Path) -> Path:
    text = "NRRD0004\ntype: short\ndimension: 3\nsizes: 64 64 12\ndata file: secret.raw\n\n"
    return _raw(text.ljust(400).encode(), ".nhdr")(path)


def _pair(path: Path) -> Path:
    content = bytearray(nifti(voxels()))
    content[344:348] = b"ni1\0"
    _raw(bytes(content[_FIRST:]), ".img")(path)
    return _raw(bytes(content[:348]), ".hdr")(path)


_PAIRS: Mapping[str, Write] = {".mhd": _metaimage, ".nhdr": _nrrd, ".hdr": _pair}
_QUARTER = np.sqrt(0.5)

IMAGES: Mapping[str, Bad] = {
    "an empty file": Bad(Flaw.OTHER_FORMAT, _raw(b"", ".nii")),
    "a truncated file": Bad(Flaw.TRUNCATED, _put(nifti(voxels())[:-1], ".nii")),
    "a truncated packed file": Bad(Flaw.TRUNCATED, _put(nifti(voxels())[:-1])),
    "a packed file cut off": Bad(Flaw.DAMAGED, _raw(gzip.compress(nifti(voxels()))[:-100])),
    "a packed file with a wrong checksum": Bad(Flaw.DAMAGED, _damaged),
    "a packed file that isn't packed": Bad(Flaw.DAMAGED, _raw(nifti(voxels()))),
    "a packed file named as a plain one": Bad(
        Flaw.OTHER_FORMAT, _raw(gzip.compress(nifti(voxels())), ".nii")
    ),
    "a file that is too long": Bad(Flaw.TOO_LONG, _put(nifti(voxels()) + b"\0")),
    "a bomb": Bad(Flaw.TOO_LONG, _bomb),
    "thousands of empty members": Bad(Flaw.TOO_LONG, _members),
    "10^12 voxels": Bad(Flaw.TOO_LARGE, _header(40, "8h", 3, 10_000, 10_000, 10_000, 1, 1, 1, 1)),
    "10^4 volumes": Bad(Flaw.TOO_LARGE, _header(40, "8h", 4, 64, 64, 12, 10_000, 1, 1, 1)),
    "a pipe": Bad(Flaw.NOT_A_FILE, _fifo),
    "a folder": Bad(Flaw.NOT_A_FILE, _folder),
    "a socket": Bad(Flaw.NOT_A_FILE, _socket),
    "a device": Bad(Flaw.NOT_A_FILE, _device),
    "a loop of links": Bad(Flaw.UNREADABLE, _loop),
    "an .mhd": Bad(Flaw.OTHER_FORMAT, _metaimage),
    "an .mhd named .nii": Bad(Flaw.OTHER_FORMAT, _renamed(".mhd")),
    "an .nhdr": Bad(Flaw.OTHER_FORMAT, _nrrd),
    "an .nhdr named .nii": Bad(Flaw.OTHER_FORMAT, _renamed(".nhdr")),
    "a .hdr beside an .img": Bad(Flaw.OTHER_FORMAT, _pair),
    "a .hdr named .nii": Bad(Flaw.OTHER_FORMAT, _renamed(".hdr")),
    "NIfTI-2": Bad(Flaw.OTHER_FORMAT, _header(0, "i", 540)),
    "DICOM": Bad(Flaw.OTHER_FORMAT, _raw(bytes(128) + b"DICM" + bytes(400), ".nii")),
    "complex voxels": Bad(Flaw.BAD_HEADER, _header(70, "2h", 32, 64)),
    "voxels of the wrong length": Bad(Flaw.BAD_HEADER, _header(70, "2h", 4, 32)),
    "voxels within the header": Bad(Flaw.BAD_HEADER, _header(108, "f", 100)),
    "scaling by infinity": Bad(Flaw.BAD_HEADER, _header(108, "3f", _FIRST, 1, np.inf)),
    "2-D": Bad(Flaw.NOT_3D, _header(40, "8h", 2, 64, 64 * 12, 1, 1, 1, 1, 1)),
    "4-D": Bad(Flaw.NOT_3D, _with(array=np.stack([voxels(), voxels(1)]))),
    "5-D": Bad(Flaw.NOT_3D, _header(40, "8h", 5, 64, 64, 4, 1, 3, 1, 1)),
    "a single slice": Bad(Flaw.TOO_THIN, _header(40, "8h", 3, 64, 64 * 12, 1, 1, 1, 1, 1)),
    "metres": Bad(Flaw.UNITS, _header(123, "b", 1)),
    "micrometres": Bad(Flaw.UNITS, _header(123, "b", 3)),
    "an unknown unit": Bad(Flaw.UNITS, _header(123, "b", 6)),
    "no orientation": Bad(Flaw.NO_ORIENTATION, _header(252, "2h", 0, 0)),
    "a shear": Bad(Flaw.NOT_ORTHONORMAL, _with(sform=sheared(0.01))),
    "a shear without qform": Bad(Flaw.NOT_ORTHONORMAL, _with(sform=sheared(0.01), qform=False)),
    "an axis of no length": Bad(Flaw.NOT_ORTHONORMAL, _with(sform=np.zeros((3, 4)))),
    "an axis that is no number": Bad(Flaw.NOT_ORTHONORMAL, _header(280, "f", np.nan)),
    "a quaternion of length 2": Bad(
        Flaw.NOT_ORTHONORMAL, _with(changes={(252, "2h"): (1, 0), (256, "3f"): (2, 0, 0)})
    ),
    "a qform that mirrors": Bad(Flaw.MIRRORED, _header(76, "f", -1)),
    "spacing of 0": Bad(Flaw.SPACING, _header(76, "4f", 1, 3.2, 0, 10)),
    "spacing of 0.1 mm": Bad(
        Flaw.SPACING, _with(changes={(252, "2h"): (1, 0), (76, "4f"): (1, 0.1, 0.1, 1)})
    ),
    "spacing of 11 mm": Bad(
        Flaw.SPACING, _with(changes={(252, "2h"): (1, 0), (76, "4f"): (1, 3.2, 3.2, 11)})
    ),
    "a kilometre away": Bad(
        Flaw.POSITION,
        _with(changes={(252, "2h"): (1, 0), (256, "6f"): (0, 0, 0, 1e6, 0, 0)}),
    ),
    "not a number": Bad(Flaw.NOT_FINITE, _spoilt(np.nan)),
    "infinity": Bad(Flaw.NOT_FINITE, _spoilt(-np.inf)),
    "too large for float32": Bad(Flaw.NOT_FINITE, _spoilt(1e300, "f8")),
    "too large by its scaling": Bad(Flaw.NOT_FINITE, _header(108, "3f", _FIRST, 1e38, 0)),
    "all zero": Bad(Flaw.CONSTANT, _with(array=np.zeros(SHAPE, np.int16))),
    "one value": Bad(Flaw.CONSTANT, _with(array=np.full(SHAPE, 7, np.int16))),
    "a phase image": Bad(Flaw.NEGATIVE, _with(array=(voxels() * 7 % 8192 - 4096).astype("i2"))),
    "a CT": Bad(Flaw.NEGATIVE, _with(array=voxels() - np.int16(1000))),
}
"""Each is refused as an image of a modality."""

LABELS: Mapping[str, Bad] = {
    "a value of another protocol": Bad(Flaw.LABEL_VALUES, _with(array=label() + (label() == 2))),
    "halves": Bad(Flaw.LABEL_VALUES, _with(array=(label() / 2).astype("f4"))),
    "a negative value": Bad(Flaw.LABEL_VALUES, _with(array=-label().astype("i2"))),
    "a label scaled to halves": Bad(
        Flaw.LABEL_VALUES, _with(array=label(), changes={(112, "f"): (0.5,)})
    ),
    "a label that is an image": Bad(Flaw.LABEL_VALUES, _with()),
    "a label that is not finite": Bad(
        Flaw.NOT_FINITE, _with(array=np.where(label() > 0, np.nan, 0).astype("f4"))
    ),
}
"""Each is refused as a label of brats2017."""

MASKS: Mapping[str, Bad] = {
    "an empty mask": Bad(Flaw.MASK_VALUES, _with(array=np.zeros(SHAPE, np.uint8))),
    "a mask of everything": Bad(Flaw.MASK_VALUES, _with(array=np.ones(SHAPE, np.uint8))),
    "a mask of shares": Bad(Flaw.MASK_VALUES, _with(array=(label() / 4).astype("f4"))),
    "a mask without a zero": Bad(Flaw.MASK_VALUES, _with(array=1 + (label() > 0).astype("u1"))),
}
"""Each is refused as a brain mask."""

CLOSED = Bad(Flaw.UNREADABLE, _closed)
"""A file that nobody may read; root may all the same."""


def good(path: Path, *, ending: str = ".nii.gz", seed: int = 0) -> Path:
    """A scan without any flaw; gives its path."""
    return _put(nifti(voxels(seed)), ending)(path)


def good_label(path: Path) -> Path:
    """A label without any flaw; gives its path."""
    return _put(nifti(label()))(path)
