import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainfed.core import canonical
from brainfed.errors import LedgerError, ResourceError
from brainfed.formats import ledger
from brainfed.formats.ledger import Event
from tests.federation import mode_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.jsonl"
    for number in range(4):
        ledger.append(path, Event.MADE, what="something", number=number)
    return path


def test_each_line_holds_the_digest_of_the_one_before(path: Path) -> None:
    lines = path.read_bytes().splitlines()
    entries = [canonical.loads(line) for line in lines]
    assert entries[0]["previous"] == "0" * 64
    for line, entry in zip(lines, entries[1:], strict=False):
        assert entry["previous"] == hashlib.sha256(line).hexdigest()
    assert ledger.read(path) == entries
    assert [entry["number"] for entry in entries] == [0, 1, 2, 3]


def test_the_ledger_is_private(path: Path) -> None:
    assert mode_of(path) == 0o600


def test_a_ledger_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert ledger.read(tmp_path / "no.jsonl") == []


@pytest.mark.parametrize("line", [0, 1, 2])
def test_an_edited_line_is_found(path: Path, line: int) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line] = lines[line].replace(b'"something"', b'"sometheng"')
    path.write_bytes(b"".join(lines))
    with pytest.raises(LedgerError) as caught:
        ledger.read(path)
    assert caught.value.where == f"{path}, line {line + 2}"


@pytest.mark.parametrize("line", [0, 1, 2])
def test_a_line_taken_out_is_found(path: Path, line: int) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    del lines[line]
    path.write_bytes(b"".join(lines))
    with pytest.raises(LedgerError):
        ledger.read(path)


def test_lines_that_changed_places_are_found(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], lines[2], lines[1], lines[3]]))
    with pytest.raises(LedgerError):
        ledger.read(path)


@pytest.mark.parametrize("damage", [b"\n", b"no json\n", b"[]\n", b"\xff\n", b'{"a":1 }\n'])
def test_a_damaged_last_line_stops_the_next_one(path: Path, damage: bytes) -> None:
    path.write_bytes(path.read_bytes() + damage)
    before = path.read_bytes()
    with pytest.raises(LedgerError):
        ledger.append(path, Event.MADE)
    with pytest.raises(LedgerError):
        ledger.read(path)
    assert path.read_bytes() == before


@given(st.data())
def test_wherever_a_crash_cuts_the_last_line_it_is_repaired_and_noted(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("ledger") / "ledger.jsonl"
    ledger.append(path, Event.MADE, number=0)
    whole = path.stat().st_size
    ledger.append(path, Event.MADE, number=1)
    cut = data.draw(st.integers(0, path.stat().st_size - 1))
    path.write_bytes(path.read_bytes()[:cut])
    ledger.append(path, Event.MADE, number=2)
    entries = ledger.read(path)
    assert entries[-1]["number"] == 2
    rest = cut - whole if cut >= whole else cut
    repaired = [entry["n_bytes_cut"] for entry in entries if entry["event"] == "repaired"]
    assert repaired == ([rest] if rest else [])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_is_a_resource_error(tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").symlink_to("/dev/full")
    with pytest.raises(ResourceError):
        # Reading /dev/full gives zeros without end, so only the writing half is tried.
        ledger.atomic.append_line(tmp_path / "ledger.jsonl", b"{}")
