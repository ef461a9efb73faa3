"""A NIfTI-1 file, read once: its header, its exact length, its voxels and their digest.

SimpleITK loads a truncated file silently, unpacks whatever a `.gz` holds, turns NaN into 0, follows
an `.mhd` to other files and waits at a pipe for ever. So it never sees a scan's file: what is
checked here is what is used, digest and voxels are of the same bytes.
"""

import contextlib
import errno
import gzip
import hashlib
import os
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt

from brainfed.core.flaws import Flaw, FlawedScanError
from brainfed.core.inspection import not_finite
from brainfed.formats.nifti_header import (
    CONVERT_HINT,
    EXPORT_HINT,
    HEADER_BYTES,
    Header,
    by,
    not_3d,
    parse_header,
)

ENDINGS = (".nii.gz", ".nii")
_CHUNK_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Volume:
    """One 3-D volume as it is stored."""

    header: Header
    stored: npt.NDArray[np.generic]
    """`(z, y, x)`, little-endian, finite, without the header's scaling."""
    digest: str
    """SHA-256 (hexadecimal) over size, type and stored voxels: the same for `.nii` and `.nii.gz`,
    for either byte order, and for a 3-D file and the same volume of a 4-D one."""


@contextlib.contextmanager
def located(where: object) -> Iterator[None]:
    """Say of each error within which scan it is about, and make the system's errors ours."""
    try:
        yield
    except FlawedScanError as error:
        error.where = error.where or str(where)
        raise
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        damaged = FlawedScanError(
            Flaw.DAMAGED,
            "The packed file is truncated or damaged",
            found=error,
            hint=EXPORT_HINT,
        )
        damaged.where = str(where)
        raise damaged from error
    except OSError as error:
        unreadable = FlawedScanError(
            Flaw.UNREADABLE,
            "The file can't be read",
            found=error.strerror or error,
            hint="is it there, and may you read it?",
        )
        unreadable.where = str(where)
        raise unreadable from error


def check(path: Path) -> str:
    """Hold a file against its own header; gives the digest of its voxels.

    Raises:
        FlawedScanError: As `read`.
    """
    return read(path).digest


def digest_of_file(path: Path) -> str:
    """SHA-256 (hexadecimal) over the bytes of a regular file, whatever its format.

    Raises:
        FlawedScanError: It can't be read, or is no regular file.
    """
    with located(path), _open_regular(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read(path: Path, number: int | None = None) -> Volume:
    """Read one volume, and the rest of the file past it, since its length must be as claimed.

    A `.gz` is unpacked as a stream and never further than one byte beyond what the header claims.

    Args:
        path: A `.nii` or `.nii.gz`.
        number: Which volume of a 4-D file, from 0; None for a 3-D one.

    Raises:
        FlawedScanError: Not a regular file of that name and format, not 3-D without a number, too
            large, not of the exact length, not finite, or changed while it was read.
    """
    with located(path):
        _refuse_ending(path)
        with _open_regular(path) as raw:
            before = os.fstat(raw.fileno())
            packed = path.name.lower().endswith(".gz")
            stream = cast("BinaryIO", gzip.GzipFile(fileobj=raw) if packed else raw)
            header = parse_header(stream.read(HEADER_BYTES))
            _refuse_packing(before.st_size, header, packed=packed)
            volume = _read_volume(stream, header, _number_of(header, number))
            after = os.fstat(raw.fileno())
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise FlawedScanError(
                Flaw.CHANGED,
                "The file changed while it was read",
                hint="wait until whatever writes it has finished, and run the command again",
            )
        return volume


def _refuse_ending(path: Path) -> None:
    """The name comes first: other formats make a library follow one file to another."""
    if not path.name.lower().endswith(ENDINGS):
        raise FlawedScanError(
            Flaw.OTHER_FORMAT,
            "Only NIfTI-1 in a single file is read: other formats point at other files",
            expected=" or ".join(ENDINGS),
            found=path.suffix or "a name without an ending",
            hint=CONVERT_HINT,
        )


def _open_regular(path: Path) -> BufferedReader:
    """Open a file for reading, and never wait for a pipe."""
    _refuse_odd_name(path)
    not_a_file = FlawedScanError(
        Flaw.NOT_A_FILE,
        "This is not a file",
        expected="a regular file",
        found="a folder, a pipe, a socket or a device",
        hint="put the scan itself in its place",
    )
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket
            raise not_a_file from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise not_a_file
    return os.fdopen(descriptor, "rb")


def _refuse_odd_name(path: Path) -> None:
    """Refuse what can't be printed, written to a table or given to a library."""
    name = str(path)
    if "\0" in name or name != name.encode("utf-8", "replace").decode("utf-8"):
        error = FlawedScanError(
            Flaw.BAD_NAME, "The name is not valid text", hint="rename the file and folder"
        )
        error.where = ascii(name)
        raise error


def _number_of(header: Header, number: int | None) -> int:
    """Which volume to read."""
    if header.n_volumes > 1 and number is None:
        raise not_3d(f"4-D: {by(*header.size, header.n_volumes)}")
    if not 0 <= (number or 0) < header.n_volumes:
        raise FlawedScanError(
            Flaw.NOT_3D,
            "There is no such volume in the file",
            expected=f"0 to {header.n_volumes - 1}",
            found=number,
            hint="count the volumes from 0",
        )
    return number or 0


def _refuse_packing(n_bytes: int, header: Header, *, packed: bool) -> None:
    """Refuse by its size alone a plain file that isn't as claimed, and a packed one that grew."""
    if not packed and n_bytes != header.n_bytes:
        raise _wrong_length(header, f"{n_bytes} bytes", shorter=n_bytes < header.n_bytes)
    # Packing adds a little to what can't be packed; a file that grew by more is padded with
    # thousands of empty members.
    if packed and n_bytes > header.n_bytes * 1.01 + 2**16:
        raise _wrong_length(header, f"{n_bytes} packed ones", shorter=False)


def _wrong_length(header: Header, found: str, *, shorter: bool) -> FlawedScanError:
    return FlawedScanError(
        Flaw.TRUNCATED if shorter else Flaw.TOO_LONG,
        "The file is truncated" if shorter else "The file is longer than its header says",
        expected=f"{header.n_bytes} bytes, by its header",
        found=found,
        hint=EXPORT_HINT,
    )


def _read_volume(stream: BinaryIO, header: Header, number: int) -> Volume:
    """Read on from behind the header to one byte beyond the end that the header claims."""
    begin = header.first_voxel + number * header.volume_bytes
    end = begin + header.volume_bytes
    _skip(stream, header, HEADER_BYTES, begin)
    content = np.empty(header.volume_bytes, np.uint8)
    for position in range(begin, end, _CHUNK_BYTES):
        chunk = _read_exactly(stream, header, position, min(_CHUNK_BYTES, end - position))
        content[position - begin : position - begin + len(chunk)] = np.frombuffer(chunk, np.uint8)
    _skip(stream, header, end, header.n_bytes)
    if stream.read(1):
        raise _wrong_length(header, "more", shorter=False)
    x, y, z = header.size
    little = header.voxel_type.newbyteorder("<")
    stored = content.view(header.voxel_type).astype(little, copy=False).reshape(z, y, x)
    # Looked at as stored: what overflows is found later, by who scales it.
    if stored.dtype.kind == "f" and not all(np.isfinite(plane).all() for plane in stored):
        raise not_finite()
    digest = hashlib.sha256(f"{header.size} {little.str} ".encode())
    digest.update(stored.data)
    return Volume(header, stored, digest.hexdigest())


def _skip(stream: BinaryIO, header: Header, begin: int, end: int) -> None:
    for position in range(begin, end, _CHUNK_BYTES):
        _read_exactly(stream, header, position, min(_CHUNK_BYTES, end - position))


def _read_exactly(stream: BinaryIO, header: Header, position: int, n_bytes: int) -> bytes:
    chunk = stream.read(n_bytes)
    if len(chunk) < n_bytes:
        raise _wrong_length(header, f"{position + len(chunk)} bytes", shorter=True)
    return chunk
