"""The table of a partition: which patient is at which site of a simulation, in which subset.

The columns of the FeTS challenge, `Partition_ID,Subject_ID` and perhaps `TrainOrVal`, so that its
tables are read as they are (`docs/formats/partition.md`). It holds real names: a local file.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from brainfed.core.cohort import Subset
from brainfed.core.partition import Assigned, Member, Partition, check_training, split_sites
from brainfed.core.simulated_sites import as_shown, first_of, site_names
from brainfed.errors import ScanError
from brainfed.formats import atomic, cells
from brainfed.plan import Split

COLUMNS = ("Partition_ID", "Subject_ID", "TrainOrVal")
"""The third may be missing; the order is fixed."""
WORDS = {Subset.TRAIN: "train", Subset.VALIDATION: "val", Subset.TEST: "test"}
"""Of the third column, in any case of letters; FeTS has the first two."""
MAX_BYTES = 2**24
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Row:
    """A patient of a table."""

    line: int
    """In the file, from 1."""
    site: str
    patient: str
    subset: Subset | None
    """None where the table has no third column."""


@dataclass(frozen=True, slots=True)
class Rows:
    """A table: each patient once, at least one."""

    path: Path
    rows: tuple[Row, ...]


def read(path: Path) -> Rows:
    """Read a table; line ends are CRLF or LF.

    Raises:
        ScanError: It can't be read, is no such table, or names a patient twice.
    """
    table = _table(_text(path), path)
    if not table or tuple(table[0][1]) not in (COLUMNS, COLUMNS[:2]):
        raise ScanError(
            "The first line of the partition is not its header",
            expected=f"{','.join(COLUMNS[:2])} or {','.join(COLUMNS)}",
            found=as_shown(",".join(table[0][1])) if table else "an empty file",
            where=path,
            hint="name the columns so, in this order, with commas between them",
        )
    header, lines = table[0][1], table[1:]
    if not lines:
        raise ScanError(
            "The partition names no patient",
            expected="a line for each",
            found="none",
            where=path,
            hint="`brainfed simulate partition` writes such a table",
        )
    raw = [_row(line, found, len(header), path) for line, found in lines]
    names = _names_of(raw, path)
    rows = tuple(Row(row.line, names[row.site], row.patient, row.subset) for row in raw)
    _refuse_repeated(rows, path)
    return Rows(path, rows)


def dumps(partition: Partition) -> bytes:
    """The table of a partition: the same bytes for the same places, lines by site and name."""
    text = io.StringIO(newline="")
    # CRLF, as FeTS and RFC 4180 have it; the writer then quotes either sign inside a cell.
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for patient, place in sorted(partition.items(), key=lambda item: (item[1].site, item[0])):
        writer.writerow((place.site, cells.guarded(patient), WORDS[place.subset]))
    return text.getvalue().encode("utf-8", "backslashreplace")


def write(path: Path, partition: Partition) -> None:
    """Write a table that `read` takes; mode 0600.

    Raises:
        ConflictError: There is a file already.
        ResourceError: The disk refuses.
    """
    atomic.write_bytes(path, dumps(partition), mode=0o600)


def held_against(table: Rows, members: Sequence[Member], *, split: Split, seed: int) -> Partition:
    """The partition that a table means for these patients.

    Args:
        table: What was read.
        members: The patients whose scans are there, each once.
        split: The plan's rule, for a table without subsets: each site splits its own patients.
        seed: The plan's.

    Raises:
        ScanError: It names a patient who is not here, or lacks one who is, or leaves a site with
            nobody to train on.
    """
    here = {member.patient for member in members}
    unknown = [f"{row.patient} (line {row.line})" for row in table.rows if row.patient not in here]
    if unknown:
        raise ScanError(
            "The partition names patients whose scans are not here",
            expected="names of patients of the scans, without the visit",
            found=first_of(unknown),
            where=table.path,
            hint="take these lines out, or give the folder that holds their scans",
        )
    missing = sorted(here - {row.patient for row in table.rows})
    if missing:
        raise ScanError(
            "The partition lacks patients whose scans are here",
            expected="a line for each patient",
            found=f"none for {first_of(missing)}",
            where=table.path,
            hint="add a line for each, or take their scans out of the folder",
        )
    sites = {row.patient: row.site for row in table.rows}
    subsets = {row.patient: row.subset for row in table.rows if row.subset is not None}
    if not subsets:
        return split_sites(sites, members, split=split, seed=seed)
    partition = {patient: Assigned(sites[patient], s) for patient, s in sorted(subsets.items())}
    check_training(partition)
    return partition


def _text(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ScanError(
            "The partition can't be read",
            found=error.strerror,
            where=path,
            hint="check the path and who may read it",
        ) from error
    if len(data) > MAX_BYTES:
        raise ScanError(
            "The partition is too large",
            expected="at most 16 MiB",
            where=path,
            hint="is it the right file?",
        )
    if data.startswith(_BOM):
        raise ScanError(
            "A byte-order mark stands before the header of the partition",
            expected=COLUMNS[0],
            found="the bytes ef bb bf in line 1",
            where=path,
            hint="save it as plain CSV (UTF-8 without BOM)",
        )
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ScanError(
            "The partition is not UTF-8 text",
            found=f"byte 0x{data[error.start]:02x} in line {line}",
            where=path,
            hint="save it as plain CSV in UTF-8",
        ) from None


def _table(text: str, path: Path) -> list[tuple[int, list[str]]]:
    """The lines that aren't blank, each with its number."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        return [(reader.line_num, found) for found in reader if any(map(str.strip, found))]
    except csv.Error as error:
        raise ScanError(
            "The partition is not a CSV file",
            found=f"{error} in line {reader.line_num}",
            where=path,
            hint="look for a quotation mark without its partner",
        ) from None


def _row(line: int, found: Sequence[str], n_columns: int, path: Path) -> Row:
    if len(found) != n_columns:
        raise ScanError(
            f"Line {line} of the partition has too "
            f"{'many' if len(found) > n_columns else 'few'} cells",
            expected=f"{n_columns}, as the header has",
            found=len(found),
            where=path,
            hint="mend that line; `brainfed simulate partition` writes a whole table",
        )
    site, patient, *rest = (cells.text_of(cell) for cell in found)
    if not site or not patient:
        raise ScanError(
            f"Line {line} of the partition has an empty cell",
            expected=f"{COLUMNS[0]} and {COLUMNS[1]} filled",
            found=f"nothing under {COLUMNS[1] if site else COLUMNS[0]}",
            where=path,
        )
    return Row(line, site, patient, _subset(line, rest[0], path) if rest else None)


def _subset(line: int, word: str, path: Path) -> Subset:
    for subset, known in WORDS.items():
        if word.lower() == known:
            return subset
    raise ScanError(
        f"Line {line} of the partition names no subset",
        expected=f"{', '.join(WORDS.values())} under {COLUMNS[2]}",
        found=as_shown(word) or "nothing",
        where=path,
        hint=f"without the column {COLUMNS[2]} the plan's rule splits each site",
    )


def _names_of(rows: Sequence[Row], path: Path) -> dict[str, str]:
    """The name of the site by what stands in the table."""
    words: dict[str, str] = {}
    for row in rows:
        words.setdefault(row.site, f"{as_shown(row.site)} in line {row.line}")
    try:
        return site_names(words)
    except ScanError as error:
        raise ScanError(
            error.message, expected=error.expected, found=error.found, where=path, hint=error.hint
        ) from None


def _refuse_repeated(rows: Sequence[Row], path: Path) -> None:
    seen: dict[str, Row] = {}
    for row in rows:
        first = seen.setdefault(row.patient, row)
        if first is row:
            continue
        both = f"{as_shown(row.patient)} in lines {first.line} and {row.line}"
        if first.site != row.site:
            raise ScanError(
                "The partition has a patient at two sites",
                expected="each patient at one site",
                found=f"{both}, at {first.site} and {row.site}",
                where=path,
                hint="take one of the lines out",
            )
        raise ScanError(
            "The partition names a patient twice",
            expected="one line for each patient",
            found=both,
            where=path,
            hint="take one of the lines out",
        )
