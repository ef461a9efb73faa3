from pathlib import Path

import numpy as np
import pytest

from brainfed.errors import FileRefusedError, MalformedError, TooLargeError, UsageError
from brainfed.formats import federation, signature
from brainfed.formats.manifest import Manifest
from brainfed.steps.inspect import inspect
from tests import attacks
from tests.federation import Small, a_federation, a_key, close_round, sign, train


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return a_federation(tmp_path)


@pytest.fixture
def path(small: Small) -> Path:
    site = small.sites["hospital-a"]
    return sign(train(site), site)


def test_every_field_every_tensor_and_whose_signature_it_is(small: Small, path: Path) -> None:
    found = inspect(path, small.coordinator)
    assert set(found.content) == set(Manifest.model_fields)
    assert {t.name: t.shape for t in found.tensors} == small.known.table
    assert found.kind == "update"
    assert found.is_canonical
    assert "hospital-a (site)" in found.signature
    assert found.digest == signature.digest_of(path).hex()
    assert found.n_bytes == path.stat().st_size


def test_outside_of_a_workspace_a_key_has_no_name(path: Path) -> None:
    assert "owner isn't known" in inspect(path, None).signature


def test_a_strangers_a_damaged_and_a_missing_signature_do_not_count(
    small: Small, path: Path
) -> None:
    sign(path, a_key(9))
    assert "not in the roster" in inspect(path, small.coordinator).signature
    attacks.put_value(path, 0, 3.0)
    assert "none that counts" in inspect(path, small.coordinator).signature
    signature.signature_path(path).unlink()
    assert "none that counts" in inspect(path, small.coordinator).signature


@pytest.mark.parametrize(
    "attack",
    [attacks.append, attacks.truncate, attacks.open_hole, attacks.duplicate_key],
    ids=lambda attack: attack.__name__,
)
def test_room_for_other_bytes_is_told(path: Path, attack) -> None:
    attack(path)
    assert not inspect(path, None).is_canonical


def test_a_file_with_nan_is_shown_and_not_in_order(path: Path) -> None:
    attacks.put_value(path, 0, np.nan)
    found = inspect(path, None)
    assert not found.is_canonical
    assert found.content["sender"] == "hospital-a"


def test_signed_json_is_shown_with_every_field(small: Small) -> None:
    done = close_round(small)
    found = inspect(done.record, small.coordinator)
    assert found.kind == "record"
    assert found.content["global_digest"] == done.digest
    assert found.tensors == ()
    start = inspect(small.coordinator.federation_folder / federation.START, small.coordinator)
    assert start.kind == "start"
    assert "uni-lead (coordinator)" in start.signature


def test_what_is_no_file_of_ours_is_refused(tmp_path: Path, path: Path) -> None:
    with pytest.raises(UsageError):
        inspect(tmp_path / "missing", None)
    with pytest.raises(UsageError):
        inspect(tmp_path, None)
    other = tmp_path / "other"
    for data in (b"", b"hello", b'{"a":1}', b'{"', attacks.nested_json(900)):
        other.write_bytes(data)
        with pytest.raises(FileRefusedError):
            inspect(other, None)
    attacks.claim_header_of(path, 100 * 2**20)
    with pytest.raises(TooLargeError):
        inspect(path, None)
    path.write_bytes(b"\x08" + bytes(7) + b"not json")
    with pytest.raises(MalformedError):
        inspect(path, None)
