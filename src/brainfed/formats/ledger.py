"""The ledger: what this workspace accepted, refused and made (`docs/formats/ledger.md`).

Every line is canonical JSON and holds the digest of the line before, so a line that was changed or
taken out shows. It stays at its party and defends against accidents, not against the party itself:
an end that was cut off shows only where the files that it told of still lie here (`missing`).
"""

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from brainfed.core import canonical
from brainfed.errors import LedgerError, MalformedError
from brainfed.formats import atomic, signature

FIRST = "0" * 64
"""What the first line holds in place of a digest."""
MAX_LINE_BYTES = 2**20
"""No line is longer; so the last one is found without reading what stands before it."""
_BLOCK_BYTES = 2**12


class Event(StrEnum):
    """What a line tells."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    MADE = "made"
    LEFT_OUT = "left-out"
    OPENED_TEST = "opened-test"
    EXCLUDED = "excluded"
    PURGED = "purged"
    REHEARSED = "rehearsed"
    REPAIRED = "repaired"


Entry = tuple[Event, dict[str, str | int | None]]
"""An event and its fields."""


def append(path: Path, event: Event, **fields: str | int | None) -> None:
    """Add a line: the event, the time (UTC), the digest of the line before, and the fields.

    A last line that a crash cut off is taken away first, and a line says so.

    Raises:
        LedgerError: The last whole line is damaged.
        ResourceError: The disk refuses.
    """
    append_all(path, [(event, fields)])


def append_all(path: Path, entries: Iterable[Entry]) -> None:
    """Add several lines with one flush; otherwise as `append`."""
    n_bytes = path.stat().st_size if path.exists() else 0
    last, rest = _last_line(path, n_bytes)
    previous = FIRST
    if last is not None:
        _parse(last, f"{path}, last line")
        previous = hashlib.sha256(last).hexdigest()
    todo = list(entries)
    if rest:
        atomic.cut_off(path, n_bytes - len(rest))
        todo.insert(0, (Event.REPAIRED, {"n_bytes_cut": len(rest)}))
    lines = []
    for event, fields in todo:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        line = canonical.dumps({"at": now, "event": event.value, "previous": previous, **fields})
        previous = hashlib.sha256(line).hexdigest()
        lines.append(line)
    atomic.append_lines(path, lines)


def read(path: Path) -> list[dict[str, Any]]:
    """All lines, the chain of digests checked.

    Raises:
        LedgerError: A line is damaged, or doesn't follow the one before.
    """
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    previous, entries = FIRST, []
    for number, line in enumerate(lines, start=1):
        entry = _parse(line, f"{path}, line {number}")
        if entry.get("previous") != previous:
            raise LedgerError(
                "A line of the ledger doesn't follow the one before",
                expected=previous,
                found=entry.get("previous"),
                where=f"{path}, line {number}",
                hint="the ledger was edited; compare it with a copy",
            )
        previous = hashlib.sha256(line).hexdigest()
        entries.append(entry)
    return entries


def missing(path: Path, *folders: Path) -> list[Path]:
    """Signed files below some folders that no line tells of: the ledger's end was cut off.

    Each file is read once, so this is for an audit, not for every command.

    Args:
        path: The ledger.
        folders: Where accepted and made files lie: `rounds/` and `federation/`.

    Raises:
        LedgerError: As `read`.
    """
    told = {entry.get("digest") for entry in read(path)}
    signatures = sorted(sig for folder in folders for sig in folder.rglob("*.sig"))
    files = [sig.with_suffix("") for sig in signatures]
    return [
        file for file in files if file.is_file() and signature.digest_of(file).hex() not in told
    ]


def _last_line(path: Path, n_bytes: int) -> tuple[bytes | None, bytes]:
    """The last whole line, and the bytes after it that a crash left; read from the end."""
    if not n_bytes:
        return None, b""
    tail = b""
    with path.open("rb") as stream:
        while tail.count(b"\n") < 2 and len(tail) < min(n_bytes, 2 * MAX_LINE_BYTES):
            start = max(0, n_bytes - max(_BLOCK_BYTES, 2 * len(tail)))
            stream.seek(start)
            tail = stream.read(n_bytes - start)
    whole, end, rest = tail.rpartition(b"\n")
    last = whole.rpartition(b"\n")[2]
    if max(len(rest), len(last)) > MAX_LINE_BYTES:
        raise LedgerError(
            "A line of the ledger is damaged",
            expected=f"at most {MAX_LINE_BYTES} B",
            where=f"{path}, last line",
        )
    return last if end else None, rest


def _parse(line: bytes, where: str) -> dict[str, Any]:
    try:
        entry = canonical.loads(line)
    except MalformedError as error:
        raise LedgerError("A line of the ledger is damaged", found=error, where=where) from None
    if not isinstance(entry, dict):
        raise LedgerError("A line of the ledger is damaged", where=where)
    return entry
