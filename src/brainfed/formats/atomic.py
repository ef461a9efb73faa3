"""The only place that writes: a file appears whole under its name, or not at all.

A file is written beside its target under a name that begins with `.tmp-`, flushed to the disk, and
put in place by one rename. After a kill, what is left over is such a temporary file, which the next
command in the workspace removes.
"""

import contextlib
import errno
import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from brainfed.errors import ConflictError, ResourceError
from brainfed.formats import pour

TEMPORARY_PREFIX = ".tmp-"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextlib.contextmanager
def new_path(path: Path, *, mode: int = 0o644, replace: bool = False) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to; on success it becomes `path`.

    For writers that open files themselves (SimpleITK). The temporary name keeps the suffixes.

    Args:
        path: The file to make.
        mode: Permissions of the new file.
        replace: Whether a file that is there already may be replaced.

    Raises:
        ConflictError: The file exists and `replace` is false.
        ResourceError: The disk is full, read-only or broken.
    """
    if not replace:
        refuse_existing(path)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(4)}-{path.name}")
    try:
        with _as_ours(path):
            yield temporary
            _set_mode(temporary, mode)
            with temporary.open("rb+") as stream:
                os.fsync(stream.fileno())
            temporary.replace(path)
            _sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def new_file(path: Path, *, mode: int = 0o644, replace: bool = False) -> Iterator[BinaryIO]:
    """Open a new file for writing bytes; it appears under its name when the block ends well.

    Arguments and errors are those of `new_path`. The file never exists with wider permissions than
    `mode`, not even while it is written.
    """
    with new_path(path, mode=mode, replace=replace) as temporary:
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR | _BINARY, mode)
        with os.fdopen(descriptor, "w+b") as stream:
            yield stream


def write_bytes(path: Path, data: bytes, *, mode: int = 0o644, replace: bool = False) -> None:
    """Write a whole file; arguments and errors are those of `new_path`."""
    with new_file(path, mode=mode, replace=replace) as stream:
        stream.write(data)


def place(temporary: Path, path: Path) -> None:
    """Flush a finished file of the same file system and put it in place by one rename.

    Raises:
        ConflictError: There is a file already.
        ResourceError: The disk refuses.
    """
    refuse_existing(path)
    with _as_ours(path):
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)


def copy(source: Path, path: Path, *, cap_bytes: int, replace: bool = False) -> bytes:
    """Copy a file and give the SHA-256 digest (32 bytes) of what was read.

    Raises:
        TooLargeError: The source has more bytes than the cap.
        ConflictError: The file exists and `replace` is false.
        ResourceError: The source can't be read or the disk refuses.
    """
    digest = hashlib.sha256()
    with new_file(path, replace=replace) as target:
        try:
            stream = source.open("rb")
        except OSError as error:
            raise pour.unreadable(source, error) from error
        with stream:
            pour.pour(stream, target, (digest,), cap_bytes=cap_bytes, where=source)
    return digest.digest()


def stage(
    stream: BinaryIO,
    path: Path,
    *,
    cap_bytes: int,
    where: Path,
    hashes: Sequence[str] = ("sha256",),
) -> dict[str, bytes]:
    """Write what a stream gives to a private scratch file, and digest it on the way.

    The file is not flushed to the disk: it is nothing yet. `place` flushes it and makes it count.

    Args:
        stream: What is copied, from where it stands.
        path: The scratch file; its name begins with `TEMPORARY_PREFIX`.
        cap_bytes: The most that is taken.
        where: What the stream reads, for messages.
        hashes: The algorithms to digest by.

    Returns:
        The digests by algorithm.

    Raises:
        TooLargeError: The stream gives more bytes than the cap; no file is left.
        ResourceError: The source can't be read or the disk refuses; likewise.
    """
    digests = {name: hashlib.new(name) for name in hashes}
    with scratch(path) as target:
        pour.pour(stream, target, tuple(digests.values()), cap_bytes=cap_bytes, where=where)
    return {name: digest.digest() for name, digest in digests.items()}


@contextlib.contextmanager
def scratch(path: Path) -> Iterator[BinaryIO]:
    """Open a private scratch file for writing; it is taken away where the block fails.

    As with `stage` it is not flushed, and counts for nothing until `place` puts it in place.

    Raises:
        ResourceError: The disk refuses.
    """
    try:
        with _as_ours(path):
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | _BINARY, 0o600)
            with os.fdopen(descriptor, "w+b") as target:
                yield target
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path`, for the owner alone, that is gone afterwards with all in it.

    For programs that write files of their own; a killed one is left to `remove_leftovers`.

    Raises:
        ResourceError: The disk refuses.
    """
    folder = path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(4)}")
    make_folder(folder)
    try:
        yield folder
    finally:
        remove_tree(folder)


def place_folder(temporary: Path, path: Path) -> None:
    """Put a finished folder in place of an older one; a kill between the two leaves none.

    Raises:
        ResourceError: The disk refuses.
    """
    remove_tree(path)
    with _as_ours(path):
        temporary.replace(path)
        _sync_folder(path.parent)


def point_to(source: Path, path: Path) -> None:
    """Make `path` a link to a file, or a copy where links can't be made.

    Raises:
        ResourceError: The disk refuses.
    """
    try:
        path.symlink_to(source.absolute())
    except OSError:  # Windows, and FAT
        link_or_copy(source, path)


def link_or_copy(source: Path, path: Path) -> None:
    """Give a finished file a second name, or a copy where the file system has no hard links.

    Raises:
        ResourceError: The disk refuses.
    """
    try:
        path.hardlink_to(source)
    except OSError:
        copy(source, path, cap_bytes=source.stat().st_size, replace=True)


def refuse_existing(path: Path) -> None:
    """Refuse to go on where a file is there already.

    Raises:
        ConflictError: There is one.
    """
    if path.exists():
        raise ConflictError(
            "The file is there already and is never overwritten",
            where=path,
            hint="move it away if it should be made again",
        )


def append_lines(path: Path, lines: Iterable[bytes]) -> None:
    """Append lines in one piece and flush them to the disk.

    Raises:
        ResourceError: The disk refuses; a part of them may stand at the end of the file.
    """
    with _as_ours(path):
        descriptor = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY | _BINARY, 0o600)
        with os.fdopen(descriptor, "ab") as stream:
            stream.write(b"".join(line + b"\n" for line in lines))
            stream.flush()
            os.fsync(stream.fileno())


def cut_off(path: Path, n_bytes: int) -> None:
    """Keep the first bytes of a file, and take the rest away.

    Raises:
        ResourceError: The disk refuses.
    """
    with _as_ours(path), path.open("rb+") as stream:
        stream.truncate(n_bytes)
        os.fsync(stream.fileno())


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, for the owner alone.

    Raises:
        ResourceError: The disk refuses.
    """
    with _as_ours(path):
        for folder in reversed([path, *path.parents]):
            if not folder.is_dir():
                folder.mkdir(mode=0o700, exist_ok=True)


def remove(path: Path) -> None:
    """Remove a file if it is there.

    Raises:
        ResourceError: The disk refuses.
    """
    with _as_ours(path):
        path.unlink(missing_ok=True)


def remove_tree(folder: Path) -> None:
    """Remove a folder, if it is there, and all that is in it; what a link leads to stays.

    Raises:
        ResourceError: The disk refuses.
    """
    with _as_ours(folder):
        for root, folders, files in os.walk(folder, topdown=False):
            here = Path(root)
            for name in files:
                (here / name).unlink()
            for name in folders:
                _remove_empty(here / name)
        if folder.is_dir():
            _remove_empty(folder)
            _sync_folder(folder.parent)


def _remove_empty(folder: Path) -> None:
    if folder.is_symlink():
        folder.unlink()
    else:
        folder.rmdir()


def remove_leftovers(root: Path) -> int:
    """Remove what a killed command left under `root`, files and folders; gives their number."""
    leftovers = list(root.rglob(f"{TEMPORARY_PREFIX}*"))
    for path in leftovers:
        if path.is_dir() and not path.is_symlink():
            remove_tree(path)
        else:
            remove(path)
    return len(leftovers)


def _set_mode(path: Path, mode: int) -> None:
    """Set permissions; FAT and some network folders have none, and only a private file insists."""
    try:
        path.chmod(mode)
    except PermissionError:
        if not mode & 0o077:
            raise


_BINARY = getattr(os, "O_BINARY", 0)  # Windows alone translates line ends


@contextlib.contextmanager
def _as_ours(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise ResourceError(
                "The disk is full",
                found=error.strerror,
                where=path,
                hint="make room and run the command again; nothing was lost",
            ) from error
        raise ResourceError(
            "The disk refuses to write",
            found=error.strerror or str(error),
            where=path,
            hint="check the folder and its permissions, then run the command again",
        ) from error


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where the system lets a folder be flushed."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            # Some network file systems can't flush a folder; the rename stands all the same.
            with contextlib.suppress(OSError):
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
