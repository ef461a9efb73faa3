"""From one stream into another: under a cap, digested on the way, in memory that stays the same."""

import contextlib
import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Protocol

from brainfed.errors import ResourceError, TooLargeError

_PIECE_BYTES = 2**20
_N_BUFFERS = 4
_WRITEBACK_BYTES = 8 * _PIECE_BYTES


class Hash(Protocol):
    """What hashlib gives."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Take in more bytes."""

    def digest(self) -> bytes:
        """The digest of all bytes so far."""


def pour(
    stream: BinaryIO,
    target: BinaryIO,
    digests: Sequence[Hash],
    *,
    cap_bytes: int,
    where: Path,
) -> None:
    """Copy a stream into another, digesting in a thread beside: each lets the other run.

    Args:
        stream: Read to its end.
        target: Written to.
        digests: Updated with all that was read.
        cap_bytes: The most that is taken.
        where: What the stream reads, for messages.

    Raises:
        TooLargeError: The stream gives more than the cap.
        ResourceError: It can't be read.
    """
    free: deque[tuple[bytearray, Future[None] | None]] = deque()
    free.extend((bytearray(_PIECE_BYTES), None) for _ in range(_N_BUFFERS))
    n_bytes = 0
    with ThreadPoolExecutor(1) as beside:
        while True:
            buffer, reader = free.popleft()
            if reader is not None:
                reader.result()
            piece = memoryview(buffer)[: _read_into(buffer, stream, where)]
            if not piece:
                return
            n_bytes += len(piece)
            if n_bytes > cap_bytes:
                raise too_large(cap_bytes, where)
            if n_bytes == len(piece) < _PIECE_BYTES:  # a small file is not worth a thread
                _update(digests, piece)
                reader = None
            else:
                reader = beside.submit(_update, digests, piece)
            target.write(piece)
            _begin_writeback(target, n_bytes)
            free.append((buffer, reader))


def too_large(cap_bytes: int, where: Path, found_bytes: int | None = None) -> TooLargeError:
    """The error for a file over its cap."""
    return TooLargeError(
        "The file is larger than any that is exchanged",
        expected=f"at most {cap_bytes} B",
        found=None if found_bytes is None else f"{found_bytes} B",
        where=where,
    )


def _update(digests: Sequence[Hash], piece: memoryview) -> None:
    for digest in digests:
        digest.update(piece)


def _read_into(buffer: bytearray, stream: BinaryIO, where: Path) -> int:
    try:
        return stream.readinto(buffer)  # type: ignore[attr-defined, no-any-return]
    except OSError as error:
        raise unreadable(where, error) from error


def _begin_writeback(target: BinaryIO, n_bytes: int) -> None:
    """Let the disk begin while we go on; the flush at the end then has little left to wait for."""
    if hasattr(os, "posix_fadvise") and n_bytes % _WRITEBACK_BYTES == 0:
        target.flush()
        start = n_bytes - _WRITEBACK_BYTES
        # The advice that written pages won't be needed makes Linux write those that are not yet.
        with contextlib.suppress(OSError):  # not every file system takes advice
            os.posix_fadvise(target.fileno(), start, _WRITEBACK_BYTES, os.POSIX_FADV_DONTNEED)


def unreadable(where: Path, error: OSError) -> ResourceError:
    """The error for a source that fails while it is read."""
    return ResourceError(
        "The file can't be read",
        found=error.strerror or str(error),
        where=where,
        hint="is the medium still there? then run the command again",
    )
