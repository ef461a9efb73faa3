"""What an evaluation has done so far: `NAME.csv.part`, a line a case; gone when the table is there.

An interrupted evaluation goes on from it. Never exchanged, mode 0600;
`docs/formats/score-table.md` describes it.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from brainfed.core.scoring import CaseScore
from brainfed.formats import atomic


@dataclass(frozen=True, slots=True)
class MeasuredCase:
    """All scores of one case, and of which files they are."""

    case: str
    digest: str
    """SHA-256 over what was scored, but for the weights: the case, or both label maps."""
    rows: tuple[CaseScore, ...]
    """By region."""
    is_nominal: bool = False
    """Whether its spacing is a convention."""


_MEASURED = TypeAdapter(MeasuredCase)


@dataclass(frozen=True, slots=True)
class Journal:
    """The cases of one evaluation that are done."""

    path: Path
    done: Mapping[str, MeasuredCase] = field(default_factory=dict)
    """By case, as an interrupted command left them."""

    def kept(self, case: str, digest: str) -> MeasuredCase | None:
        """What is known of a case, if it is still the one that was scored."""
        there = self.done.get(case)
        return there if there is not None and there.digest == digest else None

    def add(self, measured: MeasuredCase) -> None:
        """Write a case down, flushed to the disk.

        Raises:
            ResourceError: The disk refuses.
        """
        atomic.append_lines(self.path, [_MEASURED.dump_json(measured)])

    def close(self) -> None:
        """Remove it: the table is there.

        Raises:
            ResourceError: The disk refuses.
        """
        atomic.remove(self.path)


def path_of(table: Path) -> Path:
    """Where the journal of a table lies."""
    return table.with_name(f"{table.name}.part")


def open_journal(table: Path, key: str) -> Journal:
    """The journal of a table, begun anew where it is of another evaluation.

    Args:
        table: Where the table will lie.
        key: SHA-256 over all but the cases that decides what the scores are.

    Raises:
        ResourceError: The disk refuses.
    """
    path = path_of(table)
    lines = _lines(path)
    if not lines or lines[0] != {"key": key}:
        atomic.make_folder(path.parent)
        atomic.write_bytes(path, _line({"key": key}) + b"\n", mode=0o600, replace=True)
        return Journal(path)
    done: dict[str, MeasuredCase] = {}
    for line in lines[1:]:
        try:
            measured = _MEASURED.validate_python(line)
        except ValidationError:
            continue  # that case is scored again
        done[measured.case] = measured
    if not path.read_bytes().endswith(b"\n"):
        atomic.append_lines(path, [b""])  # what was cut off must not swallow the next line
    return Journal(path, done)


def erase(path: Path, cases: Collection[str]) -> None:
    """Take the lines of cases out of a journal.

    Raises:
        ResourceError: The disk refuses.
    """
    lines = _lines(path)
    kept = [line for line in lines if line.get("case") not in cases]
    if len(kept) < len(lines):
        data = b"".join(_line(line) + b"\n" for line in kept)
        atomic.write_bytes(path, data, mode=0o600, replace=True)


def _lines(path: Path) -> list[dict[str, Any]]:
    """All whole lines; what a kill or a full disk cut off is passed over."""
    found = []
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    for line in data.split(b"\n"):
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(content, dict):
            found.append(content)
    return found


def _line(content: dict[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode("ascii")
