"""OpenSSH signatures (SSHSIG) with Ed25519: bytes in, bytes out.

The format is that of `ssh-keygen -Y sign` (openssh-portable/PROTOCOL.sshsig): a signature over
`"SSHSIG" namespace reserved hash-algorithm H(file)`, each but the first as an SSH string (four
bytes of length, big-endian, then the bytes). A FIDO token signs the digest of that together with
what it adds itself (openssh-portable/PROTOCOL.u2f). What this module does not do: decide whose key
may sign what; that is the roster's matter (`formats.roster`).
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from brainfed.errors import MalformedError, SignatureError

NAMESPACE = "brainfed"
RELEASE_NAMESPACE = "brainfed-release"
"""Of approvals: a signature that lets an update leave can't pass for one under the update."""
HASHES = ("sha256", "sha512")
"""Read; written is always the first."""
MAX_SIGNATURE_BYTES = 4096

_MAGIC = b"SSHSIG"
_KEY_TYPE = b"ssh-ed25519"
_TOKEN_TYPE = b"sk-ssh-ed25519@openssh.com"
_APPLICATION = rb"ssh:[!-~]{0,60}"
"""What a token's key is for, as `ssh-keygen -O application` makes it."""
_TOKEN_BYTES = 5
_PRIVATE_MAGIC = b"openssh-key-v1\0"
_BEGIN, _END = b"-----BEGIN SSH SIGNATURE-----", b"-----END SSH SIGNATURE-----"
_BEGIN_PRIVATE = b"-----BEGIN OPENSSH PRIVATE KEY-----"
_END_PRIVATE = b"-----END OPENSSH PRIVATE KEY-----"


@dataclass(frozen=True)
class PublicKey:
    """An Ed25519 public key, of a file or of a FIDO token; `raw` is its 32 bytes."""

    raw: bytes
    application: bytes | None = None
    """What a FIDO token's key is for, such as `ssh:`; None for every other key."""

    @property
    def kind(self) -> str:
        """The key's type, as OpenSSH names it."""
        return (_KEY_TYPE if self.application is None else _TOKEN_TYPE).decode()

    @property
    def blob(self) -> bytes:
        """The key in SSH wire format."""
        application = b"" if self.application is None else _string(self.application)
        return _string(self.kind.encode()) + _string(self.raw) + application

    @property
    def line(self) -> str:
        """The key as in a `.pub` file, without a comment (comments carry user@host)."""
        return f"{self.kind} {base64.b64encode(self.blob).decode()}"

    @property
    def fingerprint(self) -> str:
        """`SHA256:` and 43 characters, as `ssh-keygen -l` prints it."""
        digest = base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")
        return f"SHA256:{digest}"


@dataclass(frozen=True)
class Signature:
    """A parsed signature: the key that it claims, its namespace, its hash, and 64 bytes."""

    key: PublicKey
    namespace: str
    hash_algorithm: str
    raw: bytes
    token: bytes = b""
    """What a FIDO token adds: its flags (1 byte) and its counter (4 bytes); else empty."""

    @property
    def armored(self) -> bytes:
        """The text that `ssh-keygen -Y sign` writes."""
        body = (
            _MAGIC
            + (1).to_bytes(4, "big")
            + _string(self.key.blob)
            + _string(self.namespace.encode())
            + _string(b"")
            + _string(self.hash_algorithm.encode())
            + _string(_string(self.key.kind.encode()) + _string(self.raw) + self.token)
        )
        text = base64.b64encode(body)
        lines = [text[start : start + 70] for start in range(0, len(text), 70)]
        return b"\n".join([_BEGIN, *lines, _END]) + b"\n"


def public_key(private_key: Ed25519PrivateKey) -> PublicKey:
    """The public half of a key."""
    return PublicKey(
        private_key.public_key().public_bytes(
            serialization.Encoding.Raw, serialization.PublicFormat.Raw
        )
    )


def parse_public_key(line: str) -> PublicKey:
    """Read `ssh-ed25519 AAAA...` or `sk-ssh-ed25519@openssh.com AAAA...`; a comment is let go.

    Raises:
        MalformedError: Another type of key, or damaged.
    """
    parts = line.split()
    try:
        key = _parse_blob(base64.b64decode(parts[1], validate=True))
        if parts[0] != key.kind:
            raise ValueError(parts[0])
    except (ValueError, IndexError, binascii.Error) as error:
        raise MalformedError(
            "Not an Ed25519 public key", expected="ssh-ed25519 AAAA...", found=error
        ) from None
    return key


def public_part(private_file: bytes) -> tuple[PublicKey, bool]:
    """What an OpenSSH private key file says in clear: its public key, and whether it is encrypted.

    Raises:
        MalformedError: Not such a file, another type of key, or damaged.
    """
    try:
        lines = private_file.replace(b"\r\n", b"\n").strip().split(b"\n")
        if lines[0] != _BEGIN_PRIVATE or lines[-1] != _END_PRIVATE:
            raise ValueError("no BEGIN OPENSSH PRIVATE KEY line")
        reader = _Reader(base64.b64decode(b"".join(lines[1:-1]), validate=True))
        if reader.take(len(_PRIVATE_MAGIC)) != _PRIVATE_MAGIC:
            raise ValueError("not openssh-key-v1")
        is_encrypted = reader.string() != b"none"
        reader.string()  # how the passphrase becomes a key
        reader.string()
        if reader.take(4) != (1).to_bytes(4, "big"):
            raise ValueError("more than one key in it")
        return _parse_blob(reader.string()), is_encrypted
    except (ValueError, IndexError, binascii.Error) as error:
        raise MalformedError(
            "Not an Ed25519 private key of OpenSSH",
            expected="-----BEGIN OPENSSH PRIVATE KEY-----, of type ssh-ed25519",
            found=error,
        ) from None


def parse_signature(armored: bytes) -> Signature:
    """Read a signature file.

    Raises:
        SignatureError: Not an SSHSIG signature by an Ed25519 key, or damaged.
    """
    try:
        if len(armored) > MAX_SIGNATURE_BYTES:
            raise ValueError("too long")
        lines = armored.replace(b"\r\n", b"\n").removesuffix(b"\n").split(b"\n")
        if lines[0] != _BEGIN or lines[-1] != _END:
            raise ValueError("no BEGIN and END lines")
        text = b"".join(lines[1:-1])
        body = base64.b64decode(text, validate=True)
        if base64.b64encode(body) != text:
            raise ValueError("bits left over at the end of the base64 text")
        reader = _Reader(body)
        if reader.take(6) != _MAGIC or reader.take(4) != (1).to_bytes(4, "big"):
            raise ValueError("not SSHSIG version 1")
        key = _parse_blob(reader.string())
        namespace = reader.string().decode("ascii")
        if reader.string() != b"":
            raise ValueError("the reserved field is not empty")
        algorithm = reader.string().decode("ascii")
        if algorithm not in HASHES:
            raise ValueError(f"hash {algorithm!r}")
        inner = _Reader(reader.string())
        reader.end()
        if inner.string() != key.kind.encode():
            raise ValueError("not a signature of its key's type")
        raw = inner.string(64)
        token = b"" if key.application is None else inner.take(_TOKEN_BYTES)
        inner.end()
    except (ValueError, IndexError, binascii.Error) as error:
        raise SignatureError(
            "The signature file is damaged or of an unknown kind",
            expected="an OpenSSH signature by an Ed25519 key, SHA-256 or SHA-512",
            found=error,
        ) from None
    return Signature(key, namespace, algorithm, raw, token)


def sign(private_key: Ed25519PrivateKey, digest: bytes, namespace: str = NAMESPACE) -> Signature:
    """Sign a file by its SHA-256 digest (32 bytes)."""
    raw = private_key.sign(_signed_data(namespace, HASHES[0], digest))
    return Signature(public_key(private_key), namespace, HASHES[0], raw)


def verify(signature: Signature, digest: bytes, namespace: str = NAMESPACE) -> None:
    """Check that the signature's own key made it over a file of this digest.

    Args:
        signature: The parsed signature.
        digest: The file's digest by `signature.hash_algorithm`.
        namespace: What the signature must be for.

    Raises:
        SignatureError: Another namespace, another file, or not made by that key.
    """
    if signature.namespace != namespace:
        raise SignatureError(
            "The signature is for another purpose",
            expected=f"namespace {namespace}",
            found=f"namespace {signature.namespace!r}",
        )
    data = _signed_data(namespace, signature.hash_algorithm, digest)
    if signature.key.application is not None:
        data = _token_data(signature.key.application, signature.token, data)
    try:
        Ed25519PublicKey.from_public_bytes(signature.key.raw).verify(signature.raw, data)
    except (InvalidSignature, ValueError):
        raise SignatureError(
            "The signature is not one over these bytes",
            hint="the file or its signature was changed or mixed up; ask the sender for both "
            "again, copied by `brainfed export --to FOLDER`",
        ) from None


def _signed_data(namespace: str, algorithm: str, digest: bytes) -> bytes:
    return (
        _MAGIC
        + _string(namespace.encode())
        + _string(b"")
        + _string(algorithm.encode())
        + _string(digest)
    )


def _token_data(application: bytes, token: bytes, data: bytes) -> bytes:
    """What a FIDO token signs (PROTOCOL.u2f, "SSH U2F signatures"), its flags and counter given.

    Whether somebody touched the token is one of the flags; as `ssh-keygen -Y verify` does, it is
    left to the key's holder.
    """
    return hashlib.sha256(application).digest() + token + hashlib.sha256(data).digest()


def _parse_blob(blob: bytes) -> PublicKey:
    reader = _Reader(blob)
    kind = reader.string()
    if kind not in {_KEY_TYPE, _TOKEN_TYPE}:
        raise ValueError(f"a key of type {kind[:60].decode('ascii', 'replace')}, not Ed25519")
    key = PublicKey(reader.string(32), reader.string() if kind == _TOKEN_TYPE else None)
    reader.end()
    if key.application is not None and not re.fullmatch(_APPLICATION, key.application):
        raise ValueError("a token's key whose application doesn't begin with ssh:, or is too long")
    return key


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


class _Reader:
    """Reads SSH strings from bytes; whatever is cut off or left over is an error."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        part = self._data[self._at : self._at + count]
        if len(part) != count:
            raise ValueError("cut off")
        self._at += count
        return part

    def string(self, length: int | None = None) -> bytes:
        part = self.take(int.from_bytes(self.take(4), "big"))
        if length is not None and len(part) != length:
            raise ValueError(f"a field of {len(part)} bytes where {length} are due")
        return part

    def end(self) -> None:
        if self._at != len(self._data):
            raise ValueError("bytes left over")
