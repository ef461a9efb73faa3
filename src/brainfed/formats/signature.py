"""Keys and detached signatures on the disk (`docs/formats/signature.md`)."""

import hashlib
import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from brainfed.core import sshsig
from brainfed.errors import ConflictError, SignatureError, UnsignedError, WorkspaceError
from brainfed.formats import atomic


def make_key(path: Path) -> sshsig.PublicKey:
    """Make a new Ed25519 key in OpenSSH format, readable by its owner alone, and its `.pub`.

    Raises:
        ConflictError: There is a key already.
    """
    key = Ed25519PrivateKey.generate()
    text = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    public = sshsig.public_key(key)
    if path.exists():
        raise ConflictError("There is a key already", where=path)
    # The private key comes last: where it lies, its public half does too.
    atomic.write_bytes(
        path.with_name(path.name + ".pub"), f"{public.line}\n".encode(), replace=True
    )
    atomic.write_bytes(path, text, mode=0o600)
    return public


def load_key(path: Path) -> Ed25519PrivateKey:
    """Read a private key.

    Raises:
        WorkspaceError: Missing, readable by others, encrypted, or not Ed25519.
    """
    try:
        if os.name == "posix" and path.stat().st_mode & 0o077:
            raise WorkspaceError(
                "The private key can be read by others",
                expected="mode 0600",
                found=f"mode {path.stat().st_mode & 0o777:04o}",
                where=path,
                hint=f"chmod 600 {path}",
            )
        key = serialization.load_ssh_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise WorkspaceError(
            "The private key can't be read", found=error.strerror, where=path
        ) from None
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise WorkspaceError("The private key is damaged", found=error, where=path) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise WorkspaceError("The private key is not Ed25519", where=path)
    return key


def signature_path(path: Path) -> Path:
    """Where a file's signature lies: beside it, with `.sig` added."""
    return path.with_name(path.name + ".sig")


def digest_of(path: Path, algorithm: str = "sha256") -> bytes:
    """The file's digest, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).digest()


def sign_file(path: Path, key: Ed25519PrivateKey) -> bytes:
    """Write the signature beside a file; gives the file's SHA-256 digest (32 bytes).

    A signature that is there already is replaced: Ed25519 signs the same bytes the same way.
    """
    digest = digest_of(path)
    atomic.write_bytes(signature_path(path), sshsig.sign(key, digest).armored, replace=True)
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


def verify_file(path: Path) -> tuple[sshsig.PublicKey, bytes]:
    """Check the signature beside a file; gives the key that made it and the SHA-256 digest.

    Who holds that key, and whether it may sign this, is for the roster to say.

    Raises:
        UnsignedError: No signature.
        SignatureError: Damaged, or not over these bytes.
    """
    signature = read_signature(path)
    digest = digest_of(path)
    if signature.hash_algorithm == "sha256":
        sshsig.verify(signature, digest)
    else:
        sshsig.verify(signature, digest_of(path, signature.hash_algorithm))
    return signature.key, digest
