import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from brainfed.core import sshsig
from brainfed.errors import ConflictError, SignatureError, UnsignedError, WorkspaceError
from brainfed.formats import signature
from tests import attacks
from tests.federation import a_key, mode_of

ssh_keygen = pytest.mark.skipif(
    shutil.which("ssh-keygen") is None, reason="OpenSSH's ssh-keygen is not installed"
)


def ssh_key(folder: Path, *options: str, kind: str = "ed25519") -> Path:
    """A key as a person makes one."""
    path = folder / "id"
    command = ["ssh-keygen", "-q", "-t", kind, *options, "-f", path]
    subprocess.run(command, check=True, capture_output=True)
    return path


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


def test_a_missing_damaged_or_other_key_is_a_workspace_error(tmp_path: Path) -> None:
    openssh = serialization.PrivateFormat.OpenSSH
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    whole = a_key().private_bytes(pem, openssh, plain)
    contents = {
        "damaged": b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----",
        "cut": b"\n".join([*whole.split(b"\n")[:3], b"-----END OPENSSH PRIVATE KEY-----"]),
        "empty": b"",
        "pkcs8": a_key().private_bytes(pem, serialization.PrivateFormat.PKCS8, plain),
        "other": ec.generate_private_key(ec.SECP256R1()).private_bytes(pem, openssh, plain),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
        with pytest.raises(WorkspaceError):
            signature.load_key(tmp_path / name)
    with pytest.raises(WorkspaceError):
        signature.load_key(tmp_path / "missing")


def test_a_key_with_a_passphrase_opens_with_it_alone(tmp_path: Path) -> None:
    path = tmp_path / "key"
    public = signature.make_key(path, b"open sesame")
    assert signature.read_public_part(path) == (public, True)
    assert sshsig.public_key(signature.load_key(path, b"open sesame")) == public
    for wrong in (b"", b"Open sesame", None):
        with pytest.raises(WorkspaceError, match="passphrase"):
            signature.load_key(path, wrong)


@ssh_keygen
@pytest.mark.parametrize("cipher", ["aes256-ctr", "aes256-gcm@openssh.com"])
def test_a_key_that_ssh_keygen_encrypted_opens(tmp_path: Path, cipher: str) -> None:
    path = ssh_key(tmp_path, "-N", "open sesame", "-Z", cipher)
    key = signature.load_key(path, b"open sesame")
    assert sshsig.public_key(key) == signature.read_public(signature.public_path(path))
    with pytest.raises(WorkspaceError, match="passphrase is wrong"):
        signature.load_key(path, b"close sesame")


@ssh_keygen
def test_ssh_keygen_opens_a_key_that_we_encrypted(tmp_path: Path) -> None:
    public = signature.make_key(tmp_path / "key", b"open sesame")
    command = ["ssh-keygen", "-y", "-P", "open sesame", "-f", tmp_path / "key"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == public.line


@ssh_keygen
def test_a_cipher_that_can_not_be_read_is_named_with_the_way_out(tmp_path: Path) -> None:
    path = ssh_key(tmp_path, "-N", "open sesame", "-Z", "chacha20-poly1305@openssh.com")
    with pytest.raises(WorkspaceError) as caught:
        signature.load_key(path, b"open sesame")
    assert caught.value.hint == f"ssh-keygen -p -Z aes256-ctr -f {path}"


@ssh_keygen
@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_another_kind_of_key_is_named_before_any_passphrase(tmp_path: Path, kind: str) -> None:
    path = ssh_key(tmp_path, "-N", "open sesame", kind=kind)
    for read in (signature.read_public_part, signature.load_key):
        with pytest.raises(WorkspaceError, match="Ed25519") as caught:
            read(path)
        assert kind in str(caught.value.found)
    with pytest.raises(WorkspaceError, match="Ed25519"):
        signature.read_public(signature.public_path(path))


@ssh_keygen
def test_what_an_ssh_agent_signs_is_accepted(tmp_path: Path) -> None:
    if not (shutil.which("ssh-agent") and shutil.which("ssh-add")):
        pytest.skip("OpenSSH's ssh-agent is not installed")
    path = ssh_key(tmp_path, "-N", "")
    (tmp_path / "file").write_bytes(b"content")
    # A short path: that of a socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="agent-") as folder:
        socket = Path(folder) / "socket"
        agent = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL)
        try:
            while not socket.exists():
                assert agent.poll() is None
                time.sleep(0.01)
            environment = {**os.environ, "SSH_AUTH_SOCK": str(socket)}
            add = ["ssh-add", "-q", path]
            subprocess.run(add, env=environment, check=True, capture_output=True)
            path.unlink()  # from here on the agent alone has it
            public = signature.public_path(path)
            sign = ["ssh-keygen", "-Y", "sign", "-n", "brainfed", "-f", public, tmp_path / "file"]
            subprocess.run(sign, env=environment, check=True, capture_output=True)
        finally:
            agent.terminate()
            agent.wait()
    assert signature.verify_file(tmp_path / "file").key == signature.read_public(public)


def test_a_signed_file_gives_its_key_and_its_digest(path: Path) -> None:
    signed = signature.verify_file(path)
    assert signed.path == path
    assert signed.key == sshsig.public_key(a_key())
    assert signed.digest == hashlib.sha256(b"content").hexdigest()
    assert signature.verify_bytes(b"content", path) == signed.key


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
