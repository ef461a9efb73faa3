import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from brainfed.errors import (
    ConflictError,
    FileRefusedError,
    MalformedError,
    NotForUsError,
    ResourceError,
    TooLargeError,
    WorkspaceError,
)
from brainfed.formats import courier
from tests.federation import leftovers, mode_of

pytest.importorskip("pyrage", reason="the extra [encrypt] is not installed")
DATA = bytes(range(256)) * 1000
needs_age = pytest.mark.skipif(shutil.which("age") is None, reason="Debian's age is not installed")


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    courier.make_identity(tmp_path / "identity")
    return tmp_path / "identity"


def encrypted(identity: Path, data: bytes = DATA) -> bytes:
    source, target = identity.with_name("plain"), identity.with_name("file.age")
    source.write_bytes(data)
    courier.encrypt(source, target, [courier.recipient_of(identity)])
    return target.read_bytes()


def decrypted(identity: Path, data: bytes, *, cap_bytes: int = 2**20) -> bytes:
    target = identity.with_name(".tmp-decrypted")
    courier.decrypt(
        io.BytesIO(data), target, identity, cap_bytes=cap_bytes, where=Path("u.safetensors.age")
    )
    try:
        assert mode_of(target) == 0o600
        return target.read_bytes()
    finally:
        target.unlink()


def test_an_identity_is_private_and_never_replaced(identity: Path) -> None:
    assert mode_of(identity) == 0o600
    recipient = courier.recipient_of(identity)
    assert recipient.startswith("age1")
    assert len(recipient) == 62
    with pytest.raises(ConflictError):
        courier.make_identity(identity)
    assert courier.recipient_of(identity) == recipient


@pytest.mark.parametrize("n_bytes", [0, 1, 2**16 - 1, 2**16, 2**16 + 1, 300_000])
def test_what_is_encrypted_comes_out_again_and_is_as_long_as_foretold(
    identity: Path, n_bytes: int
) -> None:
    data = os.urandom(n_bytes)
    there = encrypted(identity, data)
    assert there.startswith(courier.MAGIC)
    assert mode_of(identity.with_name("file.age")) == 0o600
    assert len(there) <= courier.largest_encrypted(n_bytes)
    assert decrypted(identity, there) == data


def test_the_cap_leaves_room_for_six_hundred_readers(identity: Path) -> None:
    recipient = courier.recipient_of(identity)
    source, target = identity.with_name("plain"), identity.with_name("file.age")
    source.write_bytes(b"weights")
    courier.encrypt(source, target, [recipient] * 600)
    assert decrypted(identity, target.read_bytes()) == b"weights"


def test_digests_are_of_the_plain_file(identity: Path) -> None:
    import hashlib

    target = identity.with_name("out")
    where = Path("x")
    stream = io.BytesIO(encrypted(identity))
    digests = courier.decrypt(
        stream, target, identity, cap_bytes=2**20, where=where, hashes=("sha256", "sha512")
    )
    assert digests["sha256"] == hashlib.sha256(DATA).digest()
    assert digests["sha512"] == hashlib.sha512(DATA).digest()


def test_a_file_for_others_says_so(identity: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    courier.make_identity(other)
    there = encrypted(identity)
    with pytest.raises(NotForUsError, match="not for this workspace") as caught:
        decrypted(other, there)
    assert caught.value.where == "u.safetensors.age"
    with pytest.raises(FileRefusedError, match="no age identity"):
        decrypted(tmp_path / "none", there)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[:-100],
        lambda data: data[:60],
        lambda data: data[: len(courier.MAGIC)],
        lambda data: data[:1000] + bytes([data[1000] ^ 1]) + data[1001:],
        lambda data: data + b"x",
        lambda data: data.replace(b"X25519", b"Y25519"),
        lambda data: courier.MAGIC + b"junk" * 100,
        lambda data: courier.MAGIC + b"-> X25519 " + b"x" * 10_000_000,
    ],
)
def test_a_damaged_file_is_refused_and_leaves_nothing(identity: Path, damage) -> None:
    with pytest.raises(FileRefusedError) as caught:
        decrypted(identity, damage(encrypted(identity)))
    assert "damaged" in caught.value.message or "not for this" in caught.value.message
    assert leftovers(identity.parent) == []


def test_a_long_header_is_not_read_to_its_end(identity: Path) -> None:
    stream = io.BytesIO(courier.MAGIC + b"-> X25519 " + b"x" * 10_000_000)
    with pytest.raises(MalformedError):
        courier.decrypt(stream, identity.with_name("o"), identity, cap_bytes=9, where=Path("x"))
    assert stream.tell() < 2 * courier.MAX_HEADER_BYTES


def test_a_plain_file_over_the_cap_is_refused_and_leaves_nothing(identity: Path) -> None:
    with pytest.raises(TooLargeError):
        decrypted(identity, encrypted(identity), cap_bytes=len(DATA) - 1)
    assert leftovers(identity.parent) == []


@pytest.mark.parametrize("text", ["", "AGE-SECRET-KEY-1XX", "hello", "\xff"])
def test_a_damaged_identity_is_a_workspace_error(identity: Path, text: str) -> None:
    identity.write_bytes(text.encode("latin-1"))
    with pytest.raises(WorkspaceError):
        courier.recipient_of(identity)
    identity.unlink()
    with pytest.raises(WorkspaceError):
        courier.recipient_of(identity)


def test_an_identity_that_others_can_read_is_a_workspace_error(identity: Path) -> None:
    identity.chmod(0o640)
    with pytest.raises(WorkspaceError, match="read by others"):
        courier.recipient_of(identity)


def test_a_recipient_that_is_none_is_ours_to_say(identity: Path) -> None:
    identity.with_name("plain").write_bytes(b"")
    with pytest.raises(WorkspaceError):
        courier.encrypt(identity.with_name("plain"), identity.with_name("x"), ["age1" + "q" * 58])
    assert not identity.with_name("x").exists()


def test_a_full_disk_is_a_resource_error(identity: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match="full"):
        encrypted(identity)


def test_without_the_extra_the_error_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyrage", None)
    with pytest.raises(ResourceError) as caught:
        courier.make_identity(tmp_path / "identity")
    assert caught.value.hint == 'pip install "brainfed[encrypt]"'


def test_memory_stays_the_same_for_a_large_file(identity: Path) -> None:
    code = """
import resource, sys
from pathlib import Path
from brainfed.formats import courier
folder = Path(sys.argv[1])
recipient = courier.recipient_of(folder / "identity")
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
def round_trip(n_bytes):
    with (folder / "big").open("wb") as stream:
        stream.truncate(n_bytes)
    courier.encrypt(folder / "big", folder / "big.age", [recipient])
    with (folder / "big.age").open("rb") as stream:
        courier.decrypt(stream, folder / "out", folder / "identity", cap_bytes=n_bytes,
                        where=folder)
    (folder / "out").unlink()
    return peak()
first = round_trip(2**20)
print(round_trip(200 * 2**20) - first)
"""
    words = [sys.executable, "-c", code, str(identity.parent)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    assert int(done.stdout) < 4000  # kB


@needs_age
def test_debians_age_opens_what_we_encrypt(identity: Path) -> None:
    encrypted(identity)
    command = ["age", "-d", "-i", str(identity), str(identity.with_name("file.age"))]
    assert subprocess.run(command, check=True, capture_output=True).stdout == DATA


@needs_age
def test_we_open_what_debians_age_encrypts(identity: Path) -> None:
    command = ["age", "-r", courier.recipient_of(identity)]
    done = subprocess.run(command, input=DATA, check=True, capture_output=True)
    assert decrypted(identity, done.stdout) == DATA


@needs_age
def test_an_identity_of_age_keygen_is_read(tmp_path: Path) -> None:
    command = ["age-keygen", "-o", str(tmp_path / "identity")]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    assert courier.recipient_of(tmp_path / "identity") in said
