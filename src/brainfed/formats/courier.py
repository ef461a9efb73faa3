"""Weight files encrypted for the courier, in the age format (`docs/formats/encryption.md`).

The extra `brainfed[encrypt]` brings pyrage, which does the work; Debian's `age` reads and writes
the same files. Every party has one X25519 identity, beside its signing key. Encryption hides the
content from whoever carries the medium. It says nothing about who wrote it: that is the
signature's part, which stays over the plain file.
"""

import hashlib
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

from brainfed.errors import (
    ConflictError,
    FileRefusedError,
    MalformedError,
    NotForUsError,
    ResourceError,
    WorkspaceError,
)
from brainfed.formats import atomic, pour

SUFFIX = ".age"
MAGIC = b"age-encryption.org/v1\n"
MAX_HEADER_BYTES = 2**16
"""Of an encrypted file: room for about six hundred readers."""
_CHUNK_BYTES, _TAG_BYTES, _NONCE_BYTES = 2**16, 16, 16
_SECRET = "AGE-SECRET-KEY-1"  # noqa: S105 how every identity begins, and no identity
INSTALL = 'pip install "brainfed[encrypt]"'


def is_available() -> bool:
    """Whether the extra is installed."""
    return importlib.util.find_spec("pyrage") is not None


def largest_encrypted(n_bytes: int) -> int:
    """The cap for the encrypted form of a file of at most `n_bytes`."""
    chunks = n_bytes // _CHUNK_BYTES + 1
    return MAX_HEADER_BYTES + _NONCE_BYTES + n_bytes + chunks * _TAG_BYTES


def make_identity(path: Path) -> str:
    """Make an identity, mode 0600, as `age-keygen` writes it; gives its recipient.

    Raises:
        ConflictError: There is one already.
        ResourceError: The extra isn't installed, or the disk refuses.
    """
    identity = _pyrage().x25519.Identity.generate()
    if path.exists():
        raise ConflictError("There is an age identity already", where=path)
    recipient = str(identity.to_public())
    atomic.write_bytes(path, f"# public key: {recipient}\n{identity}\n".encode(), mode=0o600)
    return recipient


def recipient_of(path: Path) -> str:
    """The recipient, `age1...`, that belongs to an identity.

    Raises:
        WorkspaceError: The identity is missing, damaged, or readable by others.
        ResourceError: The extra isn't installed.
    """
    return str(_identity(path).to_public())


def check_recipient(text: str, whose: str) -> None:
    """Refuse a recipient for which nothing can be encrypted; every export would stop at it.

    Without the extra only its form is known to be right.

    Raises:
        MalformedError: So it is.
    """
    if not is_available():
        return
    pyrage = _pyrage()
    try:
        pyrage.encrypt(b"probe", [pyrage.x25519.Recipient.from_str(text)])
    except BaseException as error:  # a point of low order ends as a panic, which is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise MalformedError(
            "The age recipient is none",
            expected="what `brainfed key show` prints at its owner",
            found=text,
            where=whose,
            hint=f"ask {whose} for a fresh enrolment",
        ) from None


def encrypt(source: Path, target: Path, recipients: Sequence[str]) -> None:
    """Encrypt a file for its readers, file to file; the new one has mode 0600.

    Args:
        source: The plain file.
        target: The encrypted one; replaced where it is there already.
        recipients: Of each reader, `age1...`.

    Raises:
        WorkspaceError: One of the recipients is none.
        ResourceError: The extra isn't installed, the file can't be read or the disk refuses.
    """
    pyrage = _pyrage()
    try:
        readers = [pyrage.x25519.Recipient.from_str(text) for text in recipients]
    except pyrage.RecipientError as error:
        raise WorkspaceError(
            "The roster holds an age recipient that is none",
            expected="age1 and 58 letters and digits",
            found=error,
            hint="the coordinator takes in a new enrolment of that party",
        ) from None
    with atomic.new_file(target, mode=0o600, replace=True) as stream:
        sink = _Sink(stream, (), cap_bytes=largest_encrypted(source.stat().st_size), where=target)
        try:
            with source.open("rb") as plain:
                pyrage.encrypt_io(plain, sink, readers)
        except (pyrage.EncryptError, OSError) as error:
            raise sink.failure or ResourceError(
                "The file can't be encrypted", found=error, where=source
            ) from None


def decrypt(
    stream: BinaryIO,
    target: Path,
    identity_path: Path,
    *,
    cap_bytes: int,
    where: Path,
    hashes: Sequence[str] = ("sha256",),
) -> dict[str, bytes]:
    """Decrypt a stream to a private scratch file; arguments and result are those of `atomic.stage`.

    What an encrypted file says is checked piece by piece (ChaCha20-Poly1305), yet anybody can
    encrypt for anybody: only the signature says whose it is.

    Raises:
        NotForUsError: Encrypted for others only.
        FileRefusedError: There is no identity here to try.
        MalformedError: Damaged, or no age file.
        TooLargeError: The plain file is over the cap; no file is left, as after every error.
        WorkspaceError: The identity is damaged, or readable by others.
        ResourceError: The extra isn't installed, the source can't be read or the disk refuses.
    """
    pyrage = _pyrage()
    if not identity_path.exists():
        raise FileRefusedError(
            "The file is encrypted, and there is no age identity in this workspace",
            expected=identity_path.name,
            where=where,
            hint="put the identity back from a backup; or make a new one with "
            "`brainfed key rotate`, and ask the sender again once the roster names it",
        )
    identity = _identity(identity_path)
    source = _Source(stream)
    with atomic.scratch(target) as plain:
        digests = {name: hashlib.new(name) for name in hashes}
        sink = _Sink(plain, tuple(digests.values()), cap_bytes=cap_bytes, where=where)
        try:
            pyrage.decrypt_io(source, sink, [identity])
        except (pyrage.DecryptError, OSError, ValueError) as error:
            raise sink.failure or source.failure_at(where) or _refusal(error, where) from None
    return {name: digest.digest() for name, digest in digests.items()}


def _refusal(error: Exception, where: Path) -> FileRefusedError:
    if "No matching keys" in str(error):
        return NotForUsError(
            "The file is encrypted, but not for this workspace",
            found=error,
            where=where,
            hint="ask the sender to import the newest roster and to export again",
        )
    return MalformedError(
        "The encrypted file is damaged",
        found=str(error).splitlines()[0] if str(error) else type(error).__name__,
        where=where,
        hint="copy it again from the sender",
    )


def _identity(path: Path) -> Any:
    pyrage = _pyrage()
    try:
        if os.name == "posix" and path.stat().st_mode & 0o077:
            raise WorkspaceError(
                "The age identity can be read by others",
                expected="mode 0600",
                found=f"mode {path.stat().st_mode & 0o777:04o}",
                where=path,
                hint=f"chmod 600 {path}",
            )
        lines = path.read_text("ascii").splitlines()
        secrets = [line.strip() for line in lines if line.startswith(_SECRET)]
        if len(secrets) != 1:
            raise WorkspaceError(
                "The age identity is damaged",
                expected=f"one line that begins with {_SECRET}",
                where=path,
                hint="put it back from a backup",
            )
        return pyrage.x25519.Identity.from_str(secrets[0])
    except OSError as error:
        raise WorkspaceError(
            "The age identity can't be read", found=error.strerror, where=path
        ) from None
    except (UnicodeError, pyrage.IdentityError) as error:
        raise WorkspaceError(
            "The age identity is damaged", found=error, where=path, hint="put it back from a backup"
        ) from None


def _pyrage() -> ModuleType:
    try:
        import pyrage
    except ImportError:
        raise ResourceError(
            "Encryption needs an extra that isn't installed", expected="pyrage", hint=INSTALL
        ) from None
    return pyrage  # type: ignore[no-any-return]


class _Source:
    """Reads for pyrage: the header under a cap, and an error is kept as it was."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._header: bytes | None = b""
        self._error: OSError | None = None

    def read(self, n_bytes: int) -> bytes:
        try:
            piece = self._stream.read(n_bytes)
        except OSError as error:
            self._error = error
            raise
        if self._header is not None:
            self._header += piece
            if b"\n--- " in self._header:
                self._header = None
            elif len(self._header) > MAX_HEADER_BYTES:
                raise ValueError(f"a header of more than {MAX_HEADER_BYTES} B")
        return piece

    def failure_at(self, where: Path) -> ResourceError | None:
        return None if self._error is None else pour.unreadable(where, self._error)


class _Sink:
    """Writes for pyrage: under a cap, digested on the way, and an error is kept as it was."""

    def __init__(
        self, stream: BinaryIO, digests: Sequence[pour.Hash], *, cap_bytes: int, where: Path
    ) -> None:
        self._stream, self._digests = stream, digests
        self._cap_bytes, self._where = cap_bytes, where
        self._n_bytes = 0
        self.failure: Exception | None = None

    def write(self, piece: bytes) -> int:
        self._n_bytes += len(piece)
        try:
            if self._n_bytes > self._cap_bytes:
                raise pour.too_large(self._cap_bytes, self._where)
            for digest in self._digests:
                digest.update(piece)
            return self._stream.write(piece)
        except (FileRefusedError, OSError) as error:
            self.failure = error
            raise

    def flush(self) -> None:
        self._stream.flush()
