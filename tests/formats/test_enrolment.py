from pathlib import Path

import pytest

from brainfed.core.sshsig import public_key
from brainfed.errors import (
    FileRefusedError,
    MalformedError,
    SignatureError,
    StrangerError,
    TooLargeError,
    UnsignedError,
    UsageError,
)
from brainfed.formats import document, signature
from brainfed.formats.enrolment import Enrolment, read_verified
from brainfed.formats.roster import Role
from tests import attacks
from tests.federation import a_key


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "hospital-a.enrolment.json"
    content = Enrolment(
        name="hospital-a", role=Role.SITE, key=public_key(a_key()).line, n_patients=12
    )
    document.write_signed(path, content, a_key())
    return path


def test_an_enrolment_signed_by_its_own_key_is_read(path: Path) -> None:
    assert read_verified(path).n_patients == 12


def test_an_enrolment_signed_by_another_key_is_refused(path: Path) -> None:
    signature.sign_file(path, a_key(2))
    with pytest.raises(StrangerError):
        read_verified(path)


def test_an_enrolment_without_signature_is_refused(path: Path) -> None:
    signature.signature_path(path).unlink()
    with pytest.raises(UnsignedError):
        read_verified(path)


def test_an_enrolment_changed_afterwards_is_refused(path: Path) -> None:
    attacks.edit_json(path, attacks.setting("n_patients", 13))
    with pytest.raises(SignatureError):
        read_verified(path)


def test_a_signed_document_of_another_kind_is_refused(path: Path) -> None:
    path.write_bytes(b'{"kind":"start"}')
    signature.sign_file(path, a_key())
    with pytest.raises(MalformedError):
        read_verified(path)


def test_a_key_that_only_looks_like_one_is_refused(path: Path) -> None:
    attacks.edit_json(path, attacks.setting("key", "ssh-ed25519 " + "A" * 68))
    signature.sign_file(path, a_key())
    with pytest.raises(FileRefusedError):
        read_verified(path)


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        read_verified(tmp_path / "no.enrolment.json")


def test_a_huge_file_is_refused_before_it_is_hashed(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.truncate(2**40)  # sparse: hashing it would take an hour
    with pytest.raises(TooLargeError):
        read_verified(path)
