import base64
import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from brainfed.core import sshsig
from brainfed.errors import MalformedError, SignatureError
from brainfed.formats import signature
from tests.federation import a_key

SHA256 = hashlib.sha256(b"content").digest()

ssh_keygen = pytest.mark.skipif(
    shutil.which("ssh-keygen") is None, reason="OpenSSH's ssh-keygen is not installed"
)


TOUCHED = b"\x01\x00\x00\x00\x2a"
"""What a token adds: somebody touched it, and this is its 42nd signature."""


def a_token_signature(
    digest: bytes = SHA256, *, application: bytes = b"ssh:", token: bytes = TOUCHED
) -> sshsig.Signature:
    """What a FIDO token would make, by openssh-portable/PROTOCOL.u2f, from a key of software."""
    raw = a_key().public_key().public_bytes_raw()
    key = sshsig.PublicKey(raw, application)

    def string(data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + data

    message = b"SSHSIG" + b"".join(map(string, (b"brainfed", b"", b"sha256", digest)))
    parts = (hashlib.sha256(application).digest(), token, hashlib.sha256(message).digest())
    return sshsig.Signature(key, "brainfed", "sha256", a_key().sign(b"".join(parts)), token)


def run(*command: object, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([str(c) for c in command], input=data, capture_output=True, check=False)


@pytest.fixture
def key_path(tmp_path: Path) -> Path:
    signature.make_key(tmp_path / "key")
    return tmp_path / "key"


def test_a_signature_verifies_over_its_digest_alone() -> None:
    made = sshsig.sign(a_key(), SHA256)
    sshsig.verify(made, SHA256)
    with pytest.raises(SignatureError, match="not one over these bytes"):
        sshsig.verify(made, hashlib.sha256(b"other").digest())


def test_a_signature_for_another_purpose_is_refused() -> None:
    made = sshsig.sign(a_key(), SHA256, "file")
    with pytest.raises(SignatureError, match="another purpose"):
        sshsig.verify(made, SHA256)


def test_a_namespace_can_not_be_exchanged_afterwards() -> None:
    made = sshsig.sign(a_key(), SHA256, "file")
    renamed = sshsig.Signature(made.key, sshsig.NAMESPACE, made.hash_algorithm, made.raw)
    with pytest.raises(SignatureError, match="not one over these bytes"):
        sshsig.verify(renamed, SHA256)


def test_a_key_can_not_be_exchanged_afterwards() -> None:
    made = sshsig.sign(a_key(1), SHA256)
    claimed = sshsig.Signature(sshsig.public_key(a_key(2)), "brainfed", "sha256", made.raw)
    with pytest.raises(SignatureError):
        sshsig.verify(claimed, SHA256)


def test_reading_gives_back_what_was_written() -> None:
    made = sshsig.sign(a_key(), SHA256)
    assert sshsig.parse_signature(made.armored) == made
    assert sshsig.parse_signature(made.armored.replace(b"\n", b"\r\n")) == made


def test_every_flipped_bit_of_a_signature_file_is_found() -> None:
    armored = sshsig.sign(a_key(), SHA256).armored
    for bit in range(8 * len(armored)):
        damaged = bytearray(armored)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SignatureError):
            sshsig.verify(sshsig.parse_signature(bytes(damaged)), SHA256)


def test_every_shortened_signature_file_is_found() -> None:
    armored = sshsig.sign(a_key(), SHA256).armored
    for length in range(len(armored) - 1):  # the last line end alone may be missing
        with pytest.raises(SignatureError):
            sshsig.parse_signature(armored[:length])


@pytest.mark.parametrize(
    "body",
    [
        b"SSHSIG\0\0\0\2",
        b"SSHSIG\0\0\0\1\xff\xff\xff\xff",
        b"SSHSIG\0\0\0\1\0\0\0\0",
        b"",
        b"\0" * 178,
    ],
)
def test_a_body_that_claims_what_is_not_there_is_refused(body: bytes) -> None:
    text = b"-----BEGIN SSH SIGNATURE-----\n%b\n-----END SSH SIGNATURE-----\n"
    with pytest.raises(SignatureError):
        sshsig.parse_signature(text % base64.b64encode(body))


def test_an_endless_signature_file_is_refused() -> None:
    with pytest.raises(SignatureError):
        sshsig.parse_signature(sshsig.sign(a_key(), SHA256).armored + b"\n" * 5000)


@pytest.mark.parametrize("algorithm", ["sha1", "md5", "SHA256", "", "sha256\0"])
def test_other_hashes_than_sha256_and_sha512_are_refused(algorithm: str) -> None:
    made = sshsig.sign(a_key(), SHA256)
    other = sshsig.Signature(made.key, made.namespace, algorithm, made.raw)
    with pytest.raises(SignatureError):
        sshsig.parse_signature(other.armored)


def test_a_public_key_reads_with_and_without_its_comment() -> None:
    key = sshsig.public_key(a_key())
    assert sshsig.parse_public_key(key.line) == key
    assert sshsig.parse_public_key(f"{key.line} someone@somewhere\n") == key
    assert "@" not in key.line


@pytest.mark.parametrize(
    "line",
    [
        "",
        "ssh-ed25519",
        "ssh-ed25519 AAAA",
        "ssh-ed25519 ????",
        "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQ==",
        "ssh-ed25519 äöü",
        sshsig.public_key(a_key()).line.replace("ssh-ed25519", "ssh-rsa"),
        sshsig.public_key(a_key()).line + "AAAA",
    ],
)
def test_another_kind_of_key_is_refused(line: str) -> None:
    with pytest.raises(MalformedError):
        sshsig.parse_public_key(line)


@ssh_keygen
def test_the_fingerprint_is_the_one_that_ssh_keygen_prints(key_path: Path) -> None:
    key = sshsig.public_key(signature.load_key(key_path))
    printed = run("ssh-keygen", "-l", "-f", f"{key_path}.pub").stdout.decode()
    assert printed.split()[1] == key.fingerprint


@ssh_keygen
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_what_ssh_keygen_signed_is_accepted(tmp_path: Path, key_path: Path, algorithm: str) -> None:
    path = tmp_path / "u.safetensors"
    path.write_bytes(b"content")
    made = run(
        "ssh-keygen", "-Y", "sign", "-n", "brainfed", "-O", f"hashalg={algorithm}", "-f", key_path,
        path,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    signed = signature.verify_file(path)
    assert sshsig.parse_signature((tmp_path / "u.safetensors.sig").read_bytes()).hash_algorithm == (
        algorithm
    )
    assert signed.key == sshsig.public_key(signature.load_key(key_path))
    assert signed.digest == SHA256.hex()


@ssh_keygen
def test_our_signature_file_is_ssh_keygens_to_the_byte(tmp_path: Path, key_path: Path) -> None:
    path = tmp_path / "u.safetensors"
    path.write_bytes(b"content")
    run("ssh-keygen", "-Y", "sign", "-n", "brainfed", "-O", "hashalg=sha256", "-f", key_path, path)
    theirs = (tmp_path / "u.safetensors.sig").read_bytes()
    (tmp_path / "u.safetensors.sig").unlink()
    signature.sign_file(path, signature.load_key(key_path))
    assert (tmp_path / "u.safetensors.sig").read_bytes() == theirs


@ssh_keygen
def test_a_signature_by_another_namespace_of_ssh_keygen_is_refused(
    tmp_path: Path, key_path: Path
) -> None:
    path = tmp_path / "u.safetensors"
    path.write_bytes(b"content")
    run("ssh-keygen", "-Y", "sign", "-n", "file", "-f", key_path, path)
    with pytest.raises(SignatureError, match="another purpose"):
        signature.verify_file(path)


@ssh_keygen
def test_a_signature_by_another_kind_of_key_is_refused_clearly(tmp_path: Path) -> None:
    path = tmp_path / "u.safetensors"
    path.write_bytes(b"content")
    run("ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", tmp_path / "ec")
    run("ssh-keygen", "-Y", "sign", "-n", "brainfed", "-f", tmp_path / "ec", path)
    with pytest.raises(SignatureError, match="Ed25519"):
        signature.verify_file(path)


def test_the_key_is_a_real_ed25519_key() -> None:
    assert isinstance(a_key(), ed25519.Ed25519PrivateKey)
    assert len(sshsig.public_key(a_key()).line.split()[1]) == 68


def test_a_signature_by_a_hardware_token_is_read_and_checked() -> None:
    made = a_token_signature()
    assert sshsig.parse_signature(made.armored) == made
    assert made.key.kind == "sk-ssh-ed25519@openssh.com"
    assert sshsig.parse_public_key(f"{made.key.line} someone@somewhere") == made.key
    sshsig.verify(made, SHA256)
    with pytest.raises(SignatureError, match="not one over these bytes"):
        sshsig.verify(made, hashlib.sha256(b"other").digest())


def test_every_flipped_bit_of_a_tokens_signature_is_found() -> None:
    armored = a_token_signature().armored
    for bit in range(8 * len(armored)):
        damaged = bytearray(armored)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SignatureError):
            sshsig.verify(sshsig.parse_signature(bytes(damaged)), SHA256)


def test_a_token_and_a_file_with_the_same_bytes_are_two_keys() -> None:
    token, file = a_token_signature(), sshsig.sign(a_key(), SHA256)
    assert token.key.raw == file.key.raw
    assert token.key != file.key
    for mixed in (
        sshsig.Signature(file.key, "brainfed", "sha256", token.raw),
        sshsig.Signature(token.key, "brainfed", "sha256", file.raw, TOUCHED),
    ):
        with pytest.raises(SignatureError):
            sshsig.verify(mixed, SHA256)


@pytest.mark.parametrize("application", [b"", b"https://x", b"ssh:\n", b"ssh:" + b"x" * 61])
def test_a_token_key_for_something_else_than_ssh_is_refused(application: bytes) -> None:
    made = a_token_signature(application=application)
    with pytest.raises(SignatureError):
        sshsig.parse_signature(made.armored)
    with pytest.raises(MalformedError):
        sshsig.parse_public_key(made.key.line)


@pytest.mark.parametrize("token", [b"", TOUCHED[:4], TOUCHED + b"\0"])
def test_a_tokens_signature_without_its_flags_and_counter_is_refused(token: bytes) -> None:
    with pytest.raises(SignatureError):
        sshsig.parse_signature(a_token_signature(token=token).armored)


@ssh_keygen
@pytest.mark.parametrize("token", [TOUCHED, b"\x05\0\0\0\0", b"\0\0\0\0\0"])
def test_ssh_keygen_says_the_same_of_a_tokens_signature(tmp_path: Path, token: bytes) -> None:
    for content, digest in ((b"content", SHA256), (b"other", hashlib.sha256(b"content").digest())):
        made = a_token_signature(digest, token=token)
        (tmp_path / "roster").write_text(f'hospital-a namespaces="brainfed" {made.key.line}\n')
        (tmp_path / "file.sig").write_bytes(made.armored)
        done = run(
            "ssh-keygen", "-Y", "verify", "-n", "brainfed", "-f", tmp_path / "roster", "-I",
            "hospital-a", "-s", tmp_path / "file.sig", data=content,
        )  # fmt: skip
        (tmp_path / "file").write_bytes(content)
        if done.returncode == 0:
            assert signature.verify_file(tmp_path / "file").key == made.key
        else:
            with pytest.raises(SignatureError):
                signature.verify_file(tmp_path / "file")
        assert (done.returncode == 0) == (content == b"content"), done.stderr


@pytest.mark.parametrize("passphrase", [None, b"open sesame"])
def test_a_private_key_file_tells_its_public_half_and_whether_it_is_encrypted(
    passphrase: bytes | None,
) -> None:
    protection = (
        serialization.NoEncryption()
        if passphrase is None
        else serialization.BestAvailableEncryption(passphrase)
    )
    data = a_key().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, protection
    )
    expected = (sshsig.public_key(a_key()), passphrase is not None)
    assert sshsig.public_part(data) == expected
    assert sshsig.public_part(data.replace(b"\n", b"\r\n")) == expected
    for length in range(0, len(data) - 1, 7):
        with pytest.raises(MalformedError):
            sshsig.public_part(data[:length])
