import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainfed.errors import NotReadyError, ScanError
from brainfed.formats import identities
from brainfed.formats.identities import Identities


def test_identities_are_the_owners_alone(tmp_path: Path) -> None:
    identities.write(tmp_path, Identities(key=bytes(32)))
    assert stat.S_IMODE(identities.path_of(tmp_path).stat().st_mode) == 0o600


def test_what_was_written_is_read_even_names_that_are_no_text(tmp_path: Path) -> None:
    known = Identities(bytes(range(32)), {"0" * 16: "Müller\n\udcff"}, {"1" * 16: "x"})
    identities.write(tmp_path, known)
    read = identities.read(tmp_path)
    assert (read.key, read.cases, read.patients) == (known.key, known.cases, known.patients)


@given(name=st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_ids_depend_on_the_key_and_on_what_they_name(name: str) -> None:
    one, other = Identities(bytes(32)), Identities(b"\1" * 32)
    ids = {one.case_id(name), one.patient_id(name), other.case_id(name), other.patient_id(name)}
    assert len(ids) == 4
    assert all(len(i) == 16 and not set(i) - set("0123456789abcdef") for i in ids)
    assert one.case_id(name) == Identities(bytes(32)).case_id(name)


def test_neither_key_nor_names_show_up_in_a_report() -> None:
    known = Identities(b"\x41" * 32, {"0" * 16: "Smith"}, {})
    assert "41" not in repr(known)
    assert "Smith" not in repr(known)


def test_no_identities_yet(tmp_path: Path) -> None:
    with pytest.raises(NotReadyError):
        identities.read(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b'{"key": "00", "cases": {}, "patients": {}}',
        b'{"key": 5, "cases": {}, "patients": {}}',
        b'{"key": "' + b"0" * 64 + b'", "cases": [], "patients": {}}',
        b'{"key": "' + b"0" * 64 + b'", "cases": {"a": 1}, "patients": {}}',
        b'{"key": "' + b"0" * 64 + b'", "cases": {}}',
        b"[" * 100_000,
    ],
)
def test_damaged_identities_are_refused(tmp_path: Path, content: bytes) -> None:
    identities.path_of(tmp_path).write_bytes(content)
    with pytest.raises(ScanError, match="damaged"):
        identities.read(tmp_path)
