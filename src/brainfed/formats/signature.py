"""Keys and detached signatures on the disk (`docs/formats/signature.md`)."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from brainfed.core import sshsig
from brainfed.errors import (
    ConflictError,
    MalformedError,
    SignatureError,
    UnsignedError,
    WorkspaceError,
)
from brainfed.formats import atomic

_MAX_KEY_BYTES = 2**16
_BCRYPT_ROUNDS = 64
"""Of a passphrase: about half a second of work; ssh-keygen's own 16 or 24 are for many logins."""


@dataclass(frozen=True)
class Signed:
    """A file on this party's own disk whose signature fits its bytes; not more."""

    path: Path
    key: sshsig.PublicKey
    """The key that made the signature."""
    digest: str
    """SHA-256 of the file, hexadecimal."""


def make_key(path: Path, passphrase: bytes | None = None) -> sshsig.PublicKey:
    """Make a new Ed25519 key in OpenSSH format, readable by its owner alone, and its `.pub`.

    Args:
        path: The private key; its public half goes beside it, with `.pub` added.
        passphrase: Encrypts the private key; not encrypted where None.

    Raises:
        ConflictError: There is a key already.
    """
    key = Ed25519PrivateKey.generate()
    protection: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        builder = serialization.PrivateFormat.OpenSSH.encryption_builder()
        protection = builder.kdf_rounds(_BCRYPT_ROUNDS).build(passphrase)
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, protection
    )
    public = sshsig.public_key(key)
    if path.exists():
        raise ConflictError(
            "There is a key already",
            where=path,
            hint=f"take it in: `brainfed init --key {path}`, or move it away",
        )
    # The private key comes last: where it lies, its public half does too.
    write_public(public_path(path), public)
    atomic.write_bytes(path, text, mode=0o600)
    return public


def public_path(path: Path) -> Path:
    """Where the public half of a private key lies: beside it, with `.pub` added."""
    return path.with_name(path.name + ".pub")


def write_public(path: Path, key: sshsig.PublicKey) -> None:
    """Write a `.pub` file, without a comment."""
    atomic.write_bytes(path, f"{key.line}\n".encode(), replace=True)


def read_public(path: Path) -> sshsig.PublicKey:
    """Read a `.pub` file.

    Raises:
        WorkspaceError: Missing, damaged, or not Ed25519.
    """
    try:
        with path.open("rb") as stream:
            return sshsig.parse_public_key(stream.read(_MAX_KEY_BYTES).decode("utf-8", "replace"))
    except OSError as error:
        raise WorkspaceError(
            "The public key can't be read", found=error.strerror, where=path
        ) from None
    except MalformedError as error:
        raise _other_kind(path, error) from None


def read_public_part(path: Path) -> tuple[sshsig.PublicKey, bool]:
    """What a private key file says in clear: its public key, and whether it is encrypted.

    Raises:
        WorkspaceError: Missing, readable by others, damaged, or not Ed25519 in OpenSSH's format.
    """
    return _public_part(_read_private(path), path)


def load_key(path: Path, passphrase: bytes | None = None) -> Ed25519PrivateKey:
    """Read a private key.

    Args:
        path: The file.
        passphrase: Opens it where it is encrypted; not used where it is not.

    Raises:
        WorkspaceError: Missing, readable by others, damaged, not Ed25519, or the passphrase is
            wrong or missing.
    """
    data = _read_private(path)
    public, is_encrypted = _public_part(data, path)
    if public.application is not None:
        raise WorkspaceError(
            "This file is no private key, but what a hardware token makes one of",
            where=path,
            hint=f"give the public key: --key {public_path(path)}",
        )
    if is_encrypted and passphrase is None:
        raise WorkspaceError("The private key is encrypted, and there is no passphrase", where=path)
    try:
        key = serialization.load_ssh_private_key(data, passphrase if is_encrypted else None)
    except (ValueError, TypeError, InvalidTag) as error:
        if is_encrypted:
            raise WorkspaceError(
                "The passphrase is wrong",
                where=path,
                hint=f"run the command again; `ssh-keygen -y -f {path}` asks for the same "
                "passphrase, and tells whether the file itself is damaged",
            ) from None
        raise WorkspaceError("The private key is damaged", found=error, where=path) from None
    except UnsupportedAlgorithm as error:
        raise WorkspaceError(
            "The private key is encrypted in a way that can't be read here",
            found=error,
            where=path,
            hint=f"ssh-keygen -p -Z aes256-ctr -f {path}",
        ) from None
    if not isinstance(key, Ed25519PrivateKey) or sshsig.public_key(key) != public:
        raise WorkspaceError("The private key is damaged", where=path)
    return key


def _read_private(path: Path) -> bytes:
    try:
        if os.name == "posix" and path.stat().st_mode & 0o077:
            raise WorkspaceError(
                "The private key can be read by others",
                expected="mode 0600",
                found=f"mode {path.stat().st_mode & 0o777:04o}",
                where=path,
                hint=f"chmod 600 {path}; on a medium that has no permissions, copy it to a folder "
                "of your own first",
            )
        with path.open("rb") as stream:
            return stream.read(_MAX_KEY_BYTES)
    except OSError as error:
        raise WorkspaceError(
            "The private key can't be read", found=error.strerror, where=path
        ) from None


def _public_part(data: bytes, path: Path) -> tuple[sshsig.PublicKey, bool]:
    try:
        return sshsig.public_part(data)
    except MalformedError as error:
        raise _other_kind(path, error) from None


def _other_kind(path: Path, error: MalformedError) -> WorkspaceError:
    return WorkspaceError(
        f"{error.message}, or damaged",
        expected=error.expected,
        found=error.found,
        where=path,
        hint="`brainfed init` without --key makes one; so does `ssh-keygen -t ed25519`",
    )


def signature_path(path: Path) -> Path:
    """Where a file's signature lies: beside it, with `.sig` added."""
    return path.with_name(path.name + ".sig")


def digest_of(path: Path, algorithm: str = "sha256") -> bytes:
    """The file's digest, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).digest()


def sign_file(
    path: Path,
    key: Ed25519PrivateKey,
    digest: bytes | None = None,
    namespace: str = sshsig.NAMESPACE,
) -> bytes:
    """Write the signature beside a file; gives the file's SHA-256 digest (32 bytes).

    A signature that is there already is replaced: Ed25519 signs the same bytes the same way.

    Args:
        path: The file.
        key: Of whom signs.
        digest: Of the file, where it has just been computed; read here where None.
        namespace: What the signature is for.
    """
    digest = digest or digest_of(path)
    made = sshsig.sign(key, digest, namespace)
    atomic.write_bytes(signature_path(path), made.armored, replace=True)
    return digest


def read_signature(path: Path) -> sshsig.Signature:
    """Read the signature that lies beside `path`.

    Raises:
        UnsignedError: There is none.
        SignatureError: It is damaged.
    """
    where = signature_path(path)
    if not where.is_file():
        raise UnsignedError(
            "No signature lies beside the file",
            expected=where.name,
            where=path,
            hint="ask the sender for the .sig file that belongs to it",
        )
    return parse_file(where)


def parse_file(where: Path) -> sshsig.Signature:
    """Read a signature file.

    Raises:
        SignatureError: It can't be read or is damaged.
    """
    try:
        with where.open("rb") as stream:
            return sshsig.parse_signature(stream.read(sshsig.MAX_SIGNATURE_BYTES + 1))
    except OSError as error:
        raise SignatureError(
            "The signature can't be read", found=error.strerror, where=where
        ) from None


def verify_bytes(data: bytes, path: Path) -> sshsig.PublicKey:
    """Check the signature beside `path` over bytes that were read from there; gives its key.

    Raises:
        UnsignedError: No signature.
        SignatureError: Damaged, or not over these bytes.
    """
    signature = read_signature(path)
    sshsig.verify(signature, hashlib.new(signature.hash_algorithm, data).digest())
    return signature.key


def verify_file(path: Path, namespace: str = sshsig.NAMESPACE) -> Signed:
    """Check the signature beside a file; gives the key that made it and the file's digest.

    Who holds that key, and whether it may sign this, is for the roster to say.

    Raises:
        UnsignedError: No signature.
        SignatureError: Damaged, for another purpose, or not over these bytes.
    """
    signature = read_signature(path)
    digest = digest_of(path)
    if signature.hash_algorithm == "sha256":
        sshsig.verify(signature, digest, namespace)
    else:
        sshsig.verify(signature, digest_of(path, signature.hash_algorithm), namespace)
    return Signed(path, signature.key, digest.hex())
