import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainfed.core import canonical
from brainfed.errors import LedgerError, ResourceError
from brainfed.formats import ledger, signature
from brainfed.formats.ledger import Event
from tests.federation import a_federation, a_key, close_round, mode_of


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
        ledger.atomic.append_lines(tmp_path / "ledger.jsonl", [b"{}"])


def test_several_lines_are_chained_and_flushed_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    ledger.append_all(path, [(Event.REFUSED, {"file": str(n)}) for n in range(100)])
    assert [entry["file"] for entry in ledger.read(path)[4:]] == [str(n) for n in range(100)]
    assert len(flushed) == 1


def test_a_line_is_added_without_reading_what_stands_before_the_last_one(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.append_all(path, [(Event.REFUSED, {"file": "x" * 200})] * 20_000)
    assert path.stat().st_size > 6_000_000
    n_bytes = bytes_read_by(lambda: ledger.append(path, Event.MADE), path, monkeypatch)
    assert 0 < n_bytes < 10_000
    monkeypatch.undo()
    assert len(ledger.read(path)) == 20_005


@pytest.mark.parametrize("size", [0, 3_900, 4_096, 100_000])
@pytest.mark.parametrize("rest", [b"", b"{", b"{" * 9_000])
def test_the_last_line_is_found_whatever_its_length(path: Path, size: int, rest: bytes) -> None:
    ledger.append(path, Event.REFUSED, message="x" * size)
    path.write_bytes(path.read_bytes() + rest)
    ledger.append(path, Event.MADE, number=9)
    entries = ledger.read(path)
    assert (entries[-1]["number"], entries[4]["message"]) == (9, "x" * size)
    assert (entries[-2]["event"] == "repaired") == bool(rest)


def test_an_endless_line_is_not_read_to_its_start(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_bytes(path.read_bytes() + b"x" * 20_000_000)

    def refuse() -> None:
        with pytest.raises(LedgerError):
            ledger.append(path, Event.MADE)

    assert bytes_read_by(refuse, path, monkeypatch) < 10 * ledger.MAX_LINE_BYTES


def bytes_read_by(action: Callable[[], None], path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    read = []
    original = Path.open

    class Counting:
        def __init__(self, stream: Any) -> None:
            self._stream = stream

        def read(self, n: int) -> bytes:
            data: bytes = self._stream.read(n)
            read.append(len(data))
            return data

        def __getattr__(self, name: str) -> Any:
            return getattr(self._stream, name)

        def __enter__(self) -> "Counting":
            return self

        def __exit__(self, *_: object) -> None:
            self._stream.close()

    def counted(self: Path, *arguments: Any, **named: Any) -> Any:
        stream = original(self, *arguments, **named)
        return Counting(stream) if self == path else stream

    monkeypatch.setattr(Path, "open", counted)
    action()
    return sum(read)


# --- what the ledger tells of and what lies there -----------------------------------------------


def test_an_end_that_was_cut_off_shows_in_the_files_that_no_line_tells_of(tmp_path: Path) -> None:
    path, folder = tmp_path / "ledger.jsonl", tmp_path / "rounds" / "r0001"
    folder.mkdir(parents=True)
    for number in range(3):
        file = folder / f"{number}.safetensors"
        file.write_bytes(bytes([number]))
        digest = signature.sign_file(file, a_key()).hex()
        ledger.append(path, Event.ACCEPTED, digest=digest)
    (folder / "unsigned").write_bytes(b"not exchanged yet")
    assert ledger.missing(path, tmp_path / "rounds", tmp_path / "no-such-folder") == []
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:1]))
    assert ledger.missing(path, tmp_path / "rounds") == [
        folder / "1.safetensors",
        folder / "2.safetensors",
    ]
    path.unlink()
    assert len(ledger.missing(path, tmp_path / "rounds")) == 3


def test_every_signed_file_of_a_round_has_its_line_at_every_party(tmp_path: Path) -> None:
    small = a_federation(tmp_path)
    close_round(small)
    for place in (small.coordinator, *small.sites.values()):
        untold = ledger.missing(place.ledger_path, place.rounds, place.federation_folder)
        assert untold == []
