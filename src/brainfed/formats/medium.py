"""What lies on a medium: found and sniffed, opened without harm (`docs/formats/media.md`).

Nothing here trusts a medium. Regular files alone are opened, never through a link, never so that a
pipe could keep us waiting; what a file is, its first bytes say; a file's name is for messages and
for finding the signature of its name, and never becomes a path of ours.
"""

import contextlib
import errno
import os
import stat
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

from brainfed.core import sshsig
from brainfed.errors import (
    BrainfedError,
    FileRefusedError,
    MalformedError,
    SignatureError,
    UsageError,
)
from brainfed.formats import courier, pour, zipped

MAX_DEPTH = 3
"""Folders below the given one that are looked into."""
MAX_FILES = 100_000
"""Files and members of zips that are looked at in one import."""
SIGNATURE_SUFFIX = ".sig"
_SNIFFED_BYTES = 40
_CLOSED = {errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENOENT, errno.ENXIO}


class Sniffed(StrEnum):
    """What the first bytes of a file look like."""

    SIGNATURE = "signature"
    JSON = "json"
    WEIGHTS = "weights"
    ENCRYPTED = "encrypted"
    ZIP = "zip"
    FOREIGN = "foreign"


@dataclass(frozen=True)
class Item:
    """One file on a medium, or one member of a zip there."""

    path: Path
    """The file, or the zip that holds it."""
    sniffed: Sniffed
    n_bytes: int
    """Its size by the file system; of a member, what the zip claims."""
    signature: sshsig.Signature | None = None
    """Parsed, where it is one."""
    member: zipfile.ZipInfo | None = None

    @property
    def name(self) -> str:
        """For people: bytes that are not UTF-8, which a stick may carry, as question marks."""
        own = self.path.name.encode("utf-8", "replace").decode()
        return own if self.member is None else f"{own}: {self.member.filename}"

    @property
    def label(self) -> str:
        """For messages: its whole path, and where it is in a zip."""
        return str(self.path) if self.member is None else f"{self.path}: {self.member.filename}"

    @property
    def signed_by(self) -> tuple[Path, str]:
        """Where the signature of this file's name would lie: the folder or zip, and the name.

        The signature is over the plain file, so an encrypted one has that of its plain name.
        """
        name = self._plain_name
        if self.sniffed is Sniffed.ENCRYPTED:
            name = name.removesuffix(courier.SUFFIX)
        return self._folder, name + SIGNATURE_SUFFIX

    @property
    def lies_at(self) -> tuple[Path, str]:
        """The folder or zip, and the name in it."""
        return self._folder, self._plain_name

    @contextlib.contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """Its bytes.

        Raises:
            ResourceError: The medium can't be read.
            MalformedError: It isn't a regular file any more, or the zip is damaged.
        """
        with open_regular(self.path) as stream:
            if self.member is None:
                yield stream
            else:
                with zipped.member(stream, self.member, self.path) as content:
                    yield content

    @property
    def _folder(self) -> Path:
        return self.path.parent if self.member is None else self.path

    @property
    def _plain_name(self) -> str:
        return self.path.name if self.member is None else self.member.filename


@dataclass(frozen=True)
class Medium:
    """What was found."""

    items: tuple[Item, ...]
    """All that may be ours or a signature: by folder, by name."""
    n_foreign: int
    unreadable: tuple[tuple[Item, BrainfedError], ...]
    """Zips that can't be looked into."""


def look(sources: Sequence[Path]) -> Medium:
    """Find what lies under files and folders.

    Raises:
        UsageError: Nothing lies under a path, or too much.
        ResourceError: The medium can't be read.
    """
    found: list[Item] = []
    unreadable: list[tuple[Item, BrainfedError]] = []
    n_files = n_seen = 0
    for path in dict.fromkeys(path for source in sources for path in _files_of(source)):
        item = _sniff(path)
        n_files, n_seen = n_files + 1, n_seen + 1
        if item.sniffed is Sniffed.ZIP:
            try:
                n_members, members = _look_into(item)
            except FileRefusedError as error:
                unreadable.append((item, error))
                continue
            n_seen += n_members
            n_files -= bool(members)
            found += members
        else:
            found.append(item)
        if n_seen > MAX_FILES:
            raise UsageError(
                "There are too many files to look through",
                expected=f"at most {MAX_FILES}",
                where=path,
                hint="give the folder that holds the sender's files",
            )
    ours = _ours(found)
    n_foreign = n_files - len(unreadable) - sum(item.member is None for item in ours)
    return Medium(tuple(ours), n_foreign, tuple(unreadable))


def read_signature(item: Item) -> sshsig.Signature:
    """Parse what should be a signature.

    Raises:
        SignatureError: It is damaged, or none at all.
        ResourceError: The medium can't be read.
    """
    with item.opened() as stream:
        return sshsig.parse_signature(
            _read_start(stream, sshsig.MAX_SIGNATURE_BYTES + 1, item.path)
        )


@contextlib.contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file for reading, unbuffered; never a link, and never wait for a pipe.

    Raises:
        MalformedError: It is no regular file, or closed to us.
        ResourceError: It can't be read.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(path, flags | getattr(os, "O_BINARY", 0))
    except OSError as error:
        if error.errno in _CLOSED:
            raise MalformedError(
                "The file can't be opened", found=error.strerror, where=path
            ) from None
        raise pour.unreadable(path, error) from None
    with os.fdopen(descriptor, "rb", buffering=0) as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise MalformedError("This is not a regular file any more", where=path)
        yield stream


def _files_of(source: Path) -> Iterator[Path]:
    """The regular files under a path that a person gave; beside a single one, its signature."""
    try:
        source = source.resolve(strict=True)  # a link that a person names is followed
        mode = source.stat().st_mode
    except OSError:
        raise UsageError(
            "There is nothing under this path",
            where=source,
            hint="see that the medium is mounted, then `brainfed import FOLDER`",
        ) from None
    if stat.S_ISDIR(mode):
        yield from _walk(source, MAX_DEPTH)
    elif stat.S_ISREG(mode):
        yield source
        plain = source.name.removesuffix(courier.SUFFIX)
        for name in dict.fromkeys((source.name, plain)):
            beside = source.with_name(name + SIGNATURE_SUFFIX)
            if _is_regular(beside):
                yield beside
    else:
        raise UsageError(
            "This is neither a file nor a folder", where=source, hint="give the medium's folder"
        )


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:  # not there; so is a name that is too long for the file system
        return False


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    """Regular files below a folder, by name; links, special and hidden files are left alone."""
    try:
        with os.scandir(folder) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
    except PermissionError:
        return  # such as lost+found
    except OSError as error:
        raise pour.unreadable(folder, error) from None
    for entry in listed:
        if entry.name.startswith("."):
            continue
        if entry.is_file(follow_symlinks=False):
            yield folder / entry.name
        elif depth > 0 and entry.is_dir(follow_symlinks=False):
            yield from _walk(folder / entry.name, depth - 1)


def _sniff(path: Path) -> Item:
    try:
        with open_regular(path) as stream:
            n_bytes = os.fstat(stream.fileno()).st_size
            return _item(stream, path, n_bytes)
    except MalformedError:  # closed to us, or swapped while we looked
        return Item(path, Sniffed.FOREIGN, 0)


def _look_into(item: Item) -> tuple[int, list[Item]]:
    """How many members a zip has, and these where it holds something of ours."""
    with open_regular(item.path) as stream:
        infos = zipped.members(stream, item.path)
        found = []
        for info in infos:
            with zipped.member(stream, info, item.path) as content:
                found.append(_item(content, item.path, info.file_size, info))
    ours = {Sniffed.SIGNATURE, Sniffed.WEIGHTS, Sniffed.ENCRYPTED}
    return len(infos), found if any(member.sniffed in ours for member in found) else []


def _item(
    stream: BinaryIO, path: Path, n_bytes: int, member: zipfile.ZipInfo | None = None
) -> Item:
    start = _read_start(stream, _SNIFFED_BYTES, path)
    sniffed = _kind_of(start)
    if sniffed is Sniffed.ZIP and member is not None:
        sniffed = Sniffed.FOREIGN  # no zip in a zip
    parsed = None
    if sniffed is Sniffed.SIGNATURE:
        rest = _read_start(stream, sshsig.MAX_SIGNATURE_BYTES + 1 - len(start), path)
        with contextlib.suppress(SignatureError):
            parsed = sshsig.parse_signature(start + rest)
    return Item(path, sniffed, n_bytes, parsed, member)


def _kind_of(start: bytes) -> Sniffed:
    if start.startswith(b"-----BEGIN SSH SIGNATURE-----"):
        return Sniffed.SIGNATURE
    if start.startswith(b'{"'):
        return Sniffed.JSON
    if start.startswith(courier.MAGIC):
        return Sniffed.ENCRYPTED
    if start.startswith(b"PK\3\4"):
        return Sniffed.ZIP
    return Sniffed.WEIGHTS if start[8:10] == b'{"' else Sniffed.FOREIGN


def _read_start(stream: BinaryIO, n_bytes: int, where: Path) -> bytes:
    try:
        return stream.read(n_bytes)
    except OSError as error:
        raise pour.unreadable(where, error) from None


def _ours(found: Sequence[Item]) -> list[Item]:
    """Leave out what is foreign: neither ours nor with a signature beside it, nor in its place.

    A file with a signature beside it was meant for us, whatever its bytes have become.
    """
    signatures = {item.lies_at for item in found if item.sniffed is Sniffed.SIGNATURE}
    kinds = {Sniffed.FOREIGN, Sniffed.SIGNATURE}
    wanted = {item.signed_by for item in found if item.sniffed not in kinds}
    return [
        item
        for item in found
        if item.sniffed is not Sniffed.FOREIGN
        or item.signed_by in signatures
        or item.lies_at in wanted
    ]
