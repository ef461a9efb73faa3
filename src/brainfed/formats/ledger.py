"""The ledger: what this workspace accepted, refused and made (`docs/formats/ledger.md`).

Every line is canonical JSON and holds the digest of the line before, so a line that was changed or
taken out shows. It stays at its party and defends against accidents, not against the party itself:
an end that was cut off can't be told from a ledger that never went further.
"""

import hashlib
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from brainfed.core import canonical
from brainfed.errors import LedgerError, MalformedError
from brainfed.formats import atomic

FIRST = "0" * 64
"""What the first line holds in place of a digest."""


class Event(StrEnum):
    """What a line tells."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    MADE = "made"
    OPENED_TEST = "opened-test"
    REPAIRED = "repaired"


def append(path: Path, event: Event, **fields: str | int | None) -> None:
    """Add a line: the event, the time (UTC), the digest of the line before, and the fields.

    A last line that a crash cut off is taken away first, and a line says so.

    Raises:
        LedgerError: The last whole line is damaged.
        ResourceError: The disk refuses.
    """
    data = path.read_bytes() if path.exists() else b""
    whole, _, rest = data.rpartition(b"\n")
    previous = _digest_of_last(whole, path)
    if rest:
        atomic.write_bytes(path, whole + b"\n" if whole else b"", mode=0o600, replace=True)
        previous = _put(path, previous, Event.REPAIRED, {"n_bytes_cut": len(rest)})
    _put(path, previous, event, fields)


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


def _put(path: Path, previous: str, event: Event, fields: dict[str, Any]) -> str:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    line = canonical.dumps({"at": now, "event": event.value, "previous": previous, **fields})
    atomic.append_line(path, line)
    return hashlib.sha256(line).hexdigest()


def _digest_of_last(whole: bytes, path: Path) -> str:
    if not whole:
        return FIRST
    last = whole.rpartition(b"\n")[2]
    _parse(last, f"{path}, last line")
    return hashlib.sha256(last).hexdigest()


def _parse(line: bytes, where: str) -> dict[str, Any]:
    try:
        entry = canonical.loads(line)
    except MalformedError as error:
        raise LedgerError("A line of the ledger is damaged", found=error, where=where) from None
    if not isinstance(entry, dict):
        raise LedgerError("A line of the ledger is damaged", where=where)
    return entry
