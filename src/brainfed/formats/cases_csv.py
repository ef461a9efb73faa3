"""`cases.csv`: which file is what, one row a case, for a person to read and to correct.

The columns of the FeTS tool under any of their usual names, and further ones of ours; see
`docs/formats/cases-csv.md`. A cell that can't be right becomes a doubt of its case, so that the
other cases go on; a table that can't be understood is refused whole. The file holds real names: it
stays at the site.
"""

import csv
import io
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from brainfed.core.labels import LabelProtocol
from brainfed.errors import ScanError
from brainfed.formats import atomic, cells
from brainfed.formats.cells import WrongCellError
from brainfed.formats.columns import IMAGE_COLUMNS, KNOWN, Column, find_columns
from brainfed.formats.found_case import LABEL, WHOLE_CASE, FoundCase, LabelOrigin, ScanFile
from brainfed.formats.modality_names import plain_word
from brainfed.formats.scan_folder import add_doubt, patient_and_visit, printable
from brainfed.plan import Modality, Treatment

FILE_NAME = "cases.csv"
"""The name under which a folder of scans may hold one."""
MAX_BYTES = 2**24

_Row = dict[Column, str]
_DOUBT_KEYS = (*Modality, LABEL, WHOLE_CASE)
T = TypeVar("T")


def read(path: Path) -> tuple[FoundCase, ...]:
    """The cases of a table, in the order of its rows.

    A relative path is taken from the table's own folder. `folder` of each case is the table.

    Raises:
        ScanError: It can't be read, or `parse` refuses it.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ScanError(
            "The table of cases can't be read",
            found=error.strerror,
            where=path,
            hint="check the path and who may read it, then run the command again",
        ) from error
    return parse(data, path.absolute(), is_there=_is_there)


def _is_there(scan: ScanFile) -> bool:
    try:
        return scan.path.is_file() if scan.series is None else scan.path.is_dir()
    except OSError:  # a name that is too long, or a folder that may not be looked into
        return False


def write(path: Path, cases: Iterable[FoundCase]) -> None:
    """Write a table that `read` takes, in place of an older one; mode 0600.

    Reading gives equal cases but for `folder` and `remarks`, if their paths are absolute.

    Raises:
        ResourceError: The disk refuses.
    """
    atomic.write_bytes(path, render(cases), mode=0o600, replace=True)


def add(path: Path, cases: Iterable[FoundCase]) -> int:
    """Write the cases that a table lacks into it, and say how many; no other row is changed.

    Raises:
        ScanError: `read` refuses the table.
        ResourceError: The disk refuses.
    """
    there = read(path) if path.exists() else ()
    names = {case.name for case in there}
    new = [case for case in cases if case.name not in names]
    if new or not path.exists():
        write(path, (*there, *new))
    return len(new)


def n_other(path: Path, cases: Iterable[FoundCase]) -> int:
    """How many rows of a table, if there is one, say something else than these cases."""
    rows = {case.name: case for case in read(path)} if path.exists() else {}
    return sum(
        rows[case.name] != replace(case, folder=rows[case.name].folder, remarks=())
        for case in cases
        if case.name in rows
    )


def render(cases: Iterable[FoundCase]) -> bytes:
    """The bytes of the table of these cases, all columns in it."""
    rows = map(_row_of, cases)
    return _bytes_of([list(Column), *([row.get(column, "") for column in Column] for row in rows)])


def _bytes_of(table: Iterable[Iterable[str]]) -> bytes:
    text = io.StringIO(newline="")
    # CRLF is the CSV standard's (RFC 4180); the writer then quotes either sign inside a cell.
    csv.writer(text, lineterminator="\r\n").writerows(table)
    # A spreadsheet takes the bytes for UTF-8 only where the mark stands before them.
    return text.getvalue().encode("utf-8-sig", "backslashreplace")


def erase(path: Path, is_erased: Callable[[str, str], bool]) -> None:
    """Take rows out of a table; all others stay cell by cell, right or wrong.

    Args:
        path: The table.
        is_erased: Whether a row goes, by the real names of its case and patient.

    Raises:
        ScanError: Not a table of text, a column is unknown, or a row names no patient.
        ResourceError: The disk refuses.
    """
    with path.open("rb") as stream:
        table = _table(_decode(stream.read(MAX_BYTES + 1), path), path)
    columns = find_columns(table, path)
    kept = table[:1]
    for number, line in enumerate(table[1:], start=2):
        row = {c: cells.text_of(line[n]) for c, n in columns.items() if n < len(line)}
        is_empty = not any(cell.strip() for cell in line)
        name, patient, _ = _identity(number, row, path) if not is_empty else ("", "", "")
        if is_empty or not is_erased(name, patient):
            kept.append(line)
    if len(kept) < len(table):
        atomic.write_bytes(path, _bytes_of(kept), mode=0o600, replace=True)


def _row_of(case: FoundCase) -> _Row:
    row = {
        Column.CASE: cells.guarded_name(case.name),
        Column.PATIENT: cells.guarded_name(case.patient),
        Column.VISIT: cells.guarded_name(case.visit),
        Column.LABEL: cells.from_scan(case.label),
        Column.BRAIN_MASK: cells.from_scan(case.brain_mask),
        Column.LABEL_PROTOCOL: cells.from_value(case.protocol),
        Column.LABEL_ORIGIN: cells.from_value(case.label_origin),
        Column.TREATMENT: cells.from_value(case.treatment),
        Column.AGE_YEARS: cells.from_value(case.age_years),
        Column.SPACING_NOMINAL: cells.from_value(case.spacing_nominal),
        Column.DOUBT: cells.guarded(
            "\n".join(f"{key}: {printable(doubt)}" for key, doubt in case.doubts.items())
        ),
        Column.REMARK: cells.guarded(" | ".join(printable(remark) for remark in case.remarks)),
    }
    return row | {IMAGE_COLUMNS[m]: cells.from_scan(scan) for m, scan in case.images.items()}


def parse(
    data: bytes, where: Path, *, is_there: Callable[[ScanFile], bool]
) -> tuple[FoundCase, ...]:
    """The cases of a table from its bytes; touches no disk but through `is_there`.

    Args:
        data: UTF-8, with or without byte-order mark, cells parted by comma, semicolon or tab.
        where: The table; relative paths are taken from its folder.
        is_there: Whether a scan lies where its row says.

    Raises:
        ScanError: Not a table of text; a column is unknown, missing or there twice; a row has
            another number of cells than the first, or no patient; two rows have one name.
    """
    table = _table(_decode(data, where), where)
    columns = find_columns(table, where)
    cases: dict[str, tuple[int, FoundCase]] = {}
    for number, line in enumerate(table[1:], start=2):
        if not any(cell.strip() for cell in line):
            continue
        if len(line) != len(table[0]):
            raise ScanError(
                f"Row {number} of the table has too "
                f"{'many' if len(line) > len(table[0]) else 'few'} cells",
                expected=f"{len(table[0])}, as the first row has",
                found=len(line),
                where=where,
                hint="a name that holds the separator must stand between quotation marks",
            )
        row = {column: line[place] for column, place in columns.items()}
        case = _case(number, row, where, is_there)
        if case.name in cases:
            raise ScanError(
                f"Rows {cases[case.name][0]} and {number} of the table name one case",
                expected="a name of its own for each case",
                where=where,
                hint="fill the column Visit where a patient has several visits, "
                "or give each row a name in the column Case",
            )
        cases[case.name] = (number, case)
    return tuple(case for _, case in cases.values())


def _decode(data: bytes, where: Path) -> str:
    if len(data) > MAX_BYTES:
        raise ScanError(
            "The table of cases is too large",
            expected="at most 16 MiB",
            where=where,
            hint="is it the right file? else divide it in two and give one after the other",
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ScanError(
            "The table of cases is not UTF-8 text",
            found=f"byte 0x{data[error.start]:02x} in line {line}",
            where=where,
            hint="save it as `CSV UTF-8` in the spreadsheet",
        ) from None


def _table(text: str, where: Path) -> list[list[str]]:
    """The cells by row; the separator is the one that parts the first row into known columns."""

    def n_known(separator: str) -> int:
        first = next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), [])
        return sum(plain_word(cell) in KNOWN for cell in first)

    try:
        separator = max(",;\t", key=n_known)
        return list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
    except csv.Error as error:
        raise ScanError(
            "The table of cases is not a CSV file",
            found=error,
            where=where,
            hint="look for a quotation mark without its partner",
        ) from None


def _case(number: int, row: _Row, where: Path, is_there: Callable[[ScanFile], bool]) -> FoundCase:
    cell = {column: cells.text_of(row.get(column, "")) for column in Column}
    doubts = _written_doubts(cell[Column.DOUBT])

    def doubt(column: Column, key: str, words: object) -> None:
        add_doubt(doubts, key, f"Row {number}, column {column}: {words}")

    def take(column: Column, to_value: Callable[[str], T], key: str = WHOLE_CASE) -> T | None:
        try:
            return to_value(cell[column]) if cell[column] else None
        except WrongCellError as wrong:
            doubt(column, key, wrong)
            return None

    def take_scan(column: Column, key: str = WHOLE_CASE) -> ScanFile | None:
        scan = take(column, lambda text: cells.to_scan(text, where.parent), key)
        if scan is not None and not is_there(scan):
            doubt(column, key, "expected a file or series that is there, found none of this name")
        return scan

    for column in (Column.CASE, Column.PATIENT, Column.VISIT):
        if cells.is_rewritten(raw := row.get(column, "")):
            words = f"expected a name, found {cells.shown(raw)}, as a spreadsheet rewrites another"
            doubt(column, WHOLE_CASE, words)
    name, patient, visit = _identity(number, cell, where)
    images = {m: take_scan(column, m) for m, column in IMAGE_COLUMNS.items()}
    return FoundCase(
        name=name,
        patient=patient,
        visit=visit,
        folder=where,
        images={m: scan for m, scan in images.items() if scan is not None},
        label=take_scan(Column.LABEL, LABEL),
        brain_mask=take_scan(Column.BRAIN_MASK),
        protocol=take(Column.LABEL_PROTOCOL, cells.to_word(LabelProtocol), LABEL),
        label_origin=take(Column.LABEL_ORIGIN, cells.to_word(LabelOrigin), LABEL),
        treatment=take(Column.TREATMENT, cells.to_word(Treatment, besides=(Treatment.ANY,))),
        age_years=take(Column.AGE_YEARS, cells.to_age),
        spacing_nominal=take(Column.SPACING_NOMINAL, cells.to_truth),
        doubts=doubts,
    )


def _identity(number: int, cell: _Row, where: Path) -> tuple[str, str, str]:
    """Name, patient and visit of a row; a name that BraTS or BIDS gave tells patient and visit."""
    patient, visit = cell.get(Column.PATIENT, ""), cell.get(Column.VISIT, "")
    if not patient:
        raise ScanError(
            f"Row {number} of the table names no patient",
            expected=f"a name in the column {Column.PATIENT}",
            where=where,
            hint="cases of one patient must stay together, so each row needs the patient",
        )
    name = cell.get(Column.CASE) or (f"{patient}_{visit}" if visit else patient)
    if not visit:
        patient, visit = patient_and_visit(patient)
    return name, patient, visit


def _written_doubts(text: str) -> dict[str, str]:
    """The doubts in the cell of that name: `t1ce: why` by line, anything else about the case."""
    doubts: dict[str, str] = {}
    for line in text.splitlines():
        before, sign, behind = line.partition(": ")
        key, words = (before, behind) if sign and before in _DOUBT_KEYS else (WHOLE_CASE, line)
        if words.strip():
            add_doubt(doubts, key, words)
    return doubts
