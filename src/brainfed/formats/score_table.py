"""The table of scores that `evaluate` writes, and beside it what it is about.

`reports/evaluate.*.csv`, one row a case and region, and `.json` of the same name; mode 0600, never
exchanged. `docs/formats/score-table.md` describes them.
"""

import csv
import io
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from brainfed.core.metrics import Measure
from brainfed.core.scoring import CaseScore
from brainfed.errors import ScanError
from brainfed.formats import atomic, cells
from brainfed.plan import LesionPreset, Region

MEASURES = {
    measure: "_".join(filter(None, (measure.replace("-", "_"), measure.unit)))
    for measure in Measure
}
"""The column of each measure, with its unit."""
COLUMNS = (
    "patient",
    "case",
    "region",
    "complete",
    "n_voxels",
    "n_voxels_predicted",
    *MEASURES.values(),
)
_WORDS = {True: "yes", False: "no"}
FORMAT: Literal["brainfed-score-table-1"] = "brainfed-score-table-1"

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ScoredSpace(StrEnum):
    """On which grid outlines were compared."""

    PLAN = "plan"
    """The plan's."""
    NATIVE = "native"
    """That of the scan that the label was drawn on."""
    FILES = "files"
    """That of ready label maps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a table of scores is about."""

    format: Literal["brainfed-score-table-1"] = FORMAT
    space: ScoredSpace
    subset: Literal["train", "validation", "test"] | None = None
    """Whose cases; None for ready label maps, as the five that follow."""
    weights: Digest | None = None
    """Digest of the weight file."""
    kind: Literal["global", "update", "state"] | None = None
    round: int | None = None
    edition: int | None = None
    sender: str | None = None
    plan: Digest | None = None
    """Digest of the plan that the regions and rules come from; None without one."""
    regions: tuple[Region, ...]
    tolerance_mm: float
    """Of `nsd`."""
    lesions: LesionPreset
    """Rules of the lesion-wise scores."""
    n_patients: int
    n_cases: int
    n_nominal: int
    """Cases without mm and ml, since their spacing is a convention."""
    n_missing: int = 0
    """Cases without a prediction, counted as missed: of ready label maps alone."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


_ABOUT = TypeAdapter(About)


def about_path(table: Path) -> Path:
    """Where the description of a table lies."""
    return table.with_suffix(".json")


def picture_path(table: Path, case: str) -> Path:
    """Where the picture of a case lies that belongs to a table."""
    return table.with_suffix(f".{case}.png")


def pictures_of(table: Path) -> tuple[Path, ...]:
    """All pictures that belong to a table, by name."""
    pattern = re.compile(re.escape(table.stem) + r"\.[0-9a-f]{16}\.png")
    return tuple(sorted(p for p in table.parent.glob("*.png") if pattern.fullmatch(p.name)))


def write_table(path: Path, rows: Iterable[CaseScore], about: About) -> None:
    """Write a table and its description, in place of older ones; the table comes last.

    Raises:
        ResourceError: The disk refuses.
    """
    atomic.make_folder(path.parent)
    words = _ABOUT.dump_json(about, indent=1) + b"\n"
    atomic.write_bytes(about_path(path), words, mode=0o600, replace=True)
    _write(path, [COLUMNS, *map(_line, rows)])


def read_table(path: Path) -> tuple[CaseScore, ...]:
    """The rows of a table, figures rounded to six decimals as they stand there.

    Raises:
        ScanError: It is missing or damaged.
    """
    try:
        first, *lines = _read(path)
        if tuple(first) != COLUMNS:
            raise ValueError("other columns")
        return tuple(_parse(dict(zip(COLUMNS, line, strict=True))) for line in lines)
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise _damaged(path, error) from error


def read_about(table: Path) -> About:
    """The description of a table.

    Raises:
        ScanError: It is missing or damaged.
    """
    path = about_path(table)
    try:
        return _ABOUT.validate_json(path.read_bytes(), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise _damaged(path, first["msg"]) from None
    except OSError as error:
        raise _damaged(path, error.strerror) from error


def erase(path: Path, cases: Collection[str]) -> None:
    """Take the rows of cases out of a table, whatever its columns; all others stay as they are.

    Raises:
        ResourceError: The disk refuses.
    """
    lines = _read(path)
    kept = [line for line in lines if {cells.text_of(cell) for cell in line}.isdisjoint(cases)]
    if len(kept) < len(lines):
        _write(path, kept)


def _line(row: CaseScore) -> tuple[object, ...]:
    figures = [f"{row.values[m]:.6f}" if m in row.values else "" for m in MEASURES]
    # A file may be called anything: no spreadsheet must take its name for a formula.
    names = (cells.guarded(row.patient), cells.guarded(row.case))
    counts = (row.n_voxels, row.n_voxels_predicted)
    return *names, row.region, _WORDS[row.is_complete], *counts, *figures


def _parse(cell: dict[str, str]) -> CaseScore:
    return CaseScore(
        case=cells.text_of(cell["case"]),
        patient=cells.text_of(cell["patient"]),
        region=Region(cell["region"]),
        n_voxels=int(cell["n_voxels"]),
        n_voxels_predicted=int(cell["n_voxels_predicted"]),
        values={m: float(cell[name]) for m, name in MEASURES.items() if cell[name]},
        is_complete={word: value for value, word in _WORDS.items()}[cell["complete"]],
    )


def _read(path: Path) -> list[list[str]]:
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    return list(csv.reader(io.StringIO(text, newline="")))


def _write(path: Path, lines: Iterable[Iterable[object]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(lines)
    data = text.getvalue().encode("utf-8", "surrogateescape")
    atomic.write_bytes(path, data, mode=0o600, replace=True)


def _damaged(path: Path, reason: object) -> ScanError:
    return ScanError(
        "A table of scores is missing or damaged",
        found=reason,
        where=path,
        hint="run `brainfed evaluate` again; it makes the table anew",
    )
