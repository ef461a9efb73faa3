"""Zip files on a medium, as portals make them: their directory under a cap, members streamed.

The directory is read once, into memory, after its size was checked against the end record; zipfile
parses that copy alone, and only once, so a medium that changes underneath can't make it larger.
Members are only ever streamed: under whose cap is the caller's matter. Nothing is unpacked under a
name of the zip.
"""

import contextlib
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from brainfed.errors import MalformedError
from brainfed.formats import pour

MAX_MEMBERS = 4096
MAX_DIRECTORY_BYTES = 2**20
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_END = struct.Struct("<4s4H2LH")
"""The end record: mark, two disks, members here and in all, directory's size and start, comment."""
_NO_MEMBERS = bytes(20) + _END.pack(b"PK\5\6", *[0] * 7)
"""The end of an empty zip; no zip64 locator stands before it."""
_MAX_COMMENT_BYTES = 2**16 - 1
_BY_HAND = "unpack it by hand, and import the folder"


def members(stream: BinaryIO, where: Path) -> list[zipfile.ZipInfo]:
    """The members of a zip that are files.

    Raises:
        MalformedError: Too many members, zip64, a password, another method, or damaged.
        ResourceError: The medium can't be read.
    """
    with _as_ours(where), _archive(_frozen(stream, where)) as archive:
        found = [info for info in archive.infolist() if not info.is_dir()]
    for info in found:
        if info.flag_bits & 1 or info.compress_type not in METHODS:
            raise MalformedError(
                "The zip file is of a kind that is not looked into",
                expected="members stored or deflated, without a password",
                found="a password" if info.flag_bits & 1 else f"method {info.compress_type}",
                where=where,
                hint=_BY_HAND,
            )
    return found


@contextlib.contextmanager
def member(stream: BinaryIO, info: zipfile.ZipInfo, where: Path) -> Iterator[BinaryIO]:
    """Open a member for reading from its start to its end, without the directory.

    Raises:
        MalformedError: The zip is damaged, or becomes so while it is read.
        ResourceError: The medium can't be read.
    """
    try:
        n_bytes = stream.seek(0, os.SEEK_END)
    except OSError as error:
        raise pour.unreadable(where, error) from None
    empty = _Frozen(stream, n_bytes, _NO_MEMBERS)  # to parse it all for each would be quadratic
    with _as_ours(where), _archive(empty) as archive, archive.open(info) as content:
        yield content  # type: ignore[misc]


def _archive(frozen: "_Frozen") -> zipfile.ZipFile:
    return zipfile.ZipFile(cast("BinaryIO", frozen))


def _frozen(stream: BinaryIO, where: Path) -> "_Frozen":
    """The zip with its directory in memory, after checking the size that its end record claims."""
    try:
        n_bytes = stream.seek(0, os.SEEK_END)
        start_of_tail = max(0, n_bytes - _END.size - _MAX_COMMENT_BYTES)
        tail = _read_from(stream, start_of_tail, n_bytes)
        at = tail.rfind(b"PK\5\6")
        if at < 0 or len(tail) < at + _END.size:
            raise MalformedError(
                "The zip file is cut off or damaged", where=where, hint="copy it again"
            )
        _, disk, _, _, n_members, size, start, n_comment = _END.unpack_from(tail, at)
        if (
            n_members > MAX_MEMBERS
            or size > MAX_DIRECTORY_BYTES
            or disk
            or start + size != start_of_tail + at  # something was put before or between
            or tail[max(0, at - 20) : at].startswith(b"PK\6\7")  # zip64
            or at + _END.size + n_comment != len(tail)
        ):
            raise MalformedError(
                "The zip file is of a kind that is not looked into",
                expected=f"one plain zip file (not zip64), at most {MAX_MEMBERS} members, "
                f"a directory of at most {MAX_DIRECTORY_BYTES} B",
                found=f"{n_members} members, a directory of {size} B",
                where=where,
                hint=_BY_HAND,
            )
        start = min(start, start_of_tail)
        return _Frozen(stream, start, _read_from(stream, start, start_of_tail) + tail)
    except OSError as error:
        raise pour.unreadable(where, error) from None


def _read_from(stream: BinaryIO, start: int, stop: int) -> bytes:
    stream.seek(start)
    parts = []
    while start < stop and (part := stream.read(stop - start)):
        parts.append(part)
        start += len(part)
    return b"".join(parts)


class _Frozen:
    """A file whose end was read before, and comes from memory from then on."""

    def __init__(self, stream: BinaryIO, start: int, end: bytes) -> None:
        self._stream, self._start, self._end, self._at = stream, start, end, 0

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = (0, self._at, self._start + len(self._end))[whence]
        if base + offset < 0:
            raise zipfile.BadZipFile("an offset before the start")
        self._at = base + offset
        return self._at

    def read(self, n_bytes: int = -1) -> bytes:
        left = self._start + len(self._end) - self._at if n_bytes < 0 else n_bytes
        parts = []
        while left > 0 and (piece := self._piece(left)):
            parts.append(piece)
            self._at += len(piece)
            left -= len(piece)
        return b"".join(parts)

    def _piece(self, n_bytes: int) -> bytes:
        """The next bytes, from one side of where the memory begins."""
        if self._at >= self._start:
            begin = self._at - self._start
            return self._end[begin : begin + n_bytes]
        self._stream.seek(self._at)
        return self._stream.read(min(n_bytes, self._start - self._at))


@contextlib.contextmanager
def _as_ours(where: Path) -> Iterator[None]:
    try:
        yield
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        UnicodeDecodeError,
        struct.error,
    ) as error:
        raise MalformedError(
            "The zip file is cut off or damaged", found=error, where=where, hint="copy it again"
        ) from None
