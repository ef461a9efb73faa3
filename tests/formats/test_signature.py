import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from brainfed.core import sshsig
from brainfed.errors import ConflictError, SignatureError, UnsignedError, WorkspaceError
from brainfed.formats import signature
from tests import attacks
from tests.federation import a_key, mode_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    signature.sign_file(path, a_key())
    return path


def test_a_key_is_readable_by_its_owner_alone_and_has_no_comment(tmp_path: Path) -> None:
    public = signature.make_key(tmp_path / "key")
    assert mode_of(tmp_path / "key") == 0o600
    assert (tmp_path / "key.pub").read_text() == f"{public.line}\n"
    assert sshsig.public_key(signature.load_key(tmp_path / "key")) == public


def test_a_key_is_never_replaced(tmp_path: Path) -> None:
    signature.make_key(tmp_path / "key")
    before = (tmp_path / "key").read_bytes(), (tmp_path / "key.pub").read_bytes()
    with pytest.raises(ConflictError):
        signature.make_key(tmp_path / "key")
    assert ((tmp_path / "key").read_bytes(), (tmp_path / "key.pub").read_bytes()) == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_key_that_others_can_read_is_not_used(tmp_path: Path, mode: int) -> None:
    signature.make_key(tmp_path / "key")
    (tmp_path / "key").chmod(mode)
    with pytest.raises(WorkspaceError, match="read by others") as caught:
        signature.load_key(tmp_path / "key")
    assert "chmod 600" in str(caught.value.hint)


def test_a_missing_damaged_encrypted_or_other_key_is_a_workspace_error(tmp_path: Path) -> None:
    openssh = serialization.PrivateFormat.OpenSSH
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    locked = serialization.BestAvailableEncryption(b"secret")
    contents = {
        "damaged": b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----",
        "empty": b"",
        "encrypted": a_key().private_bytes(pem, openssh, locked),
        "other": ec.generate_private_key(ec.SECP256R1()).private_bytes(pem, openssh, plain),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
        with pytest.raises(WorkspaceError):
            signature.load_key(tmp_path / name)
    with pytest.raises(WorkspaceError):
        signature.load_key(tmp_path / "missing")


def test_a_signed_file_gives_its_key_and_its_digest(path: Path) -> None:
    key, digest = signature.verify_file(path)
    assert key == sshsig.public_key(a_key())
    assert digest == hashlib.sha256(b"content").digest()
    assert signature.verify_bytes(b"content", path) == key


def test_signing_again_gives_the_same_signature(path: Path) -> None:
    before = signature.signature_path(path).read_bytes()
    signature.sign_file(path, a_key())
    assert signature.signature_path(path).read_bytes() == before


def test_a_missing_signature_is_named(path: Path) -> None:
    signature.signature_path(path).unlink()
    with pytest.raises(UnsignedError) as caught:
        signature.verify_file(path)
    assert caught.value.expected == "file.sig"


def test_every_flipped_bit_of_the_file_is_found(path: Path) -> None:
    for bit in range(8 * 7):
        attacks.flip_bit(path, bit)
        with pytest.raises(SignatureError):
            signature.verify_file(path)
        with pytest.raises(SignatureError):
            signature.verify_bytes(path.read_bytes(), path)
        attacks.flip_bit(path, bit)
    signature.verify_file(path)


def test_a_signature_in_place_of_which_anything_else_lies_is_damaged(path: Path) -> None:
    signature.signature_path(path).write_bytes(b"\0" * 100_000)
    with pytest.raises(SignatureError):
        signature.verify_file(path)
