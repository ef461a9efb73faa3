"""`data/review.csv`: what a person decided about each case, one row a case; `split` obeys it.

Written by `preprocess`, edited by a person in any editor or spreadsheet program, or by `brainfed
review`. It holds real names, so it is 0600 and never leaves the site; `docs/formats/review.md`
describes it.
"""

import csv
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from brainfed.errors import ScanError, UsageError
from brainfed.formats import atomic, cells

COLUMNS = ("case", "name", "verdict", "decision", "remark", "digest")
DIGEST_DIGITS = 16
LOST = "[accepted before the case changed: look again]"
"""Stands before the remark of a case that lost its acceptance."""


class Verdict(StrEnum):
    """What the checks say of a case, from best to worst."""

    OK = "ok"
    HELD = "held"
    """Made, but a person must accept it before it is used."""
    REFUSED = "refused"
    """Not made."""


class Decision(StrEnum):
    """What a person says of a case."""

    NONE = ""
    ACCEPT = "accept"
    REJECT = "reject"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewRow:
    """One case."""

    case: str
    """Case id."""
    name: str
    """Real name of the case."""
    verdict: Verdict
    digest: str = ""
    """First 16 hexadecimal digits of the case file's SHA-256; empty where there is no file."""
    decision: Decision = Decision.NONE
    remark: str = ""
    """A person's own words."""

    def accepts(self, digest: str) -> bool:
        """Whether the case file with this SHA-256 is what a person accepted."""
        return self.decision is Decision.ACCEPT and self.digest == digest[:DIGEST_DIGITS]


def path_of(data_folder: Path) -> Path:
    """Where the review lies."""
    return data_folder / "review.csv"


def read(data_folder: Path) -> dict[str, ReviewRow]:
    """The rows by case id; none where there is no file.

    Byte order mark, semicolons, any line ends and the order of columns and rows don't matter:
    spreadsheet programs change all of them.

    Raises:
        ScanError: The file can't be read, or a row or word in it is not one of ours.
    """
    path = path_of(data_folder)
    try:
        text = _decode(path.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ScanError(
            f"{path.name} can't be read",
            found=error.strerror,
            where=path,
            hint="check the path and who may read it, then run the command again",
        ) from error
    rows: dict[str, ReviewRow] = {}
    first_line = text.partition("\n")[0]
    delimiter = ";" if ";" in first_line else "\t" if "\t" in first_line else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        head = [cell.strip().casefold() for cell in next(reader, [])]
        if sorted(head) != sorted(COLUMNS):
            raise _wrong(path, 1, "the head", expected=", ".join(COLUMNS), found=", ".join(head))
        for line in reader:
            if any(cell.strip() for cell in line):
                row = _parse(path, reader.line_num, head, line)
                if row.case in rows:
                    raise _wrong(
                        path, reader.line_num, "case", expected="one row a case", found=row.case
                    )
                rows[row.case] = row
    except csv.Error as error:
        raise ScanError(
            f"{path.name} is not a table",
            found=error,
            where=path,
            hint="save it as CSV with the columns " + ", ".join(COLUMNS),
        ) from error
    return rows


def merge(data_folder: Path, rows: Iterable[ReviewRow]) -> tuple[str, ...]:
    """Bring the review up to date with what the checks now say.

    A person's decisions and remarks stay, and so do the rows of all other cases. But whoever
    accepted a case accepted what was in its file then: where its digest is another now, `accept` is
    taken back, and the remark says so. A `reject` stays.

    Args:
        data_folder: Where the review lies.
        rows: The cases that were checked now; their own decision and remark don't count.

    Returns:
        Ids of the cases that lost their acceptance.

    Raises:
        ScanError: The file that is there is damaged.
        ResourceError: The disk refuses.
    """
    known = read(data_folder)
    merged = dict(known)
    for row in rows:
        merged[row.case] = _kept(row, known.get(row.case))
    _write(data_folder, merged)
    return tuple(
        case
        for case, row in known.items()
        if row.decision is Decision.ACCEPT and merged[case].decision is not Decision.ACCEPT
    )


def decide(
    data_folder: Path, case: str, decision: Decision, *, remark: str | None = None
) -> ReviewRow:
    """Write a person's decision down; gives the new row.

    Args:
        data_folder: Where the review lies.
        case: Id or name of the case.
        decision: What it is now; NONE takes an earlier one back.
        remark: The person's words; None leaves those that are there.

    Raises:
        UsageError: There is no such case, or a refused case was to be accepted.
        ScanError: The file is damaged.
        ResourceError: The disk refuses.
    """
    rows = read(data_folder)
    old = rows.get(case) or next((row for row in rows.values() if row.name == case), None)
    if old is None:
        raise UsageError(
            "There is no such case to decide on",
            expected="a name or id in the review",
            found=case,
            where=path_of(data_folder),
            hint="`brainfed preprocess` lists them all, and so does this file",
        )
    if old.verdict is Verdict.REFUSED and decision is Decision.ACCEPT:
        raise UsageError(
            "A refused case can't be accepted: there is no case file",
            where=case,
            hint="mend its scans, then run `brainfed preprocess` again",
        )
    words = old.remark.removeprefix(LOST).lstrip() if remark is None else remark
    new = replace(old, decision=decision, remark=words)
    _write(data_folder, rows | {old.case: new})
    return new


def erase(data_folder: Path, *case_ids: str) -> bool:
    """Take the rows of cases out, all at once; gives whether there were any.

    Errors are those of `merge`.
    """
    rows = read(data_folder)
    left = {case: row for case, row in rows.items() if case not in case_ids}
    if left == rows:
        return False
    _write(data_folder, left)
    return True


def _kept(row: ReviewRow, old: ReviewRow | None) -> ReviewRow:
    """The new row with what a person wrote in the old one."""
    if old is None:
        return replace(row, decision=Decision.NONE, remark="")
    if old.decision is Decision.ACCEPT and old.digest != row.digest:
        return replace(row, decision=Decision.NONE, remark=f"{LOST} {old.remark}".rstrip())
    return replace(row, decision=old.decision, remark=old.remark)


def _write(data_folder: Path, rows: dict[str, ReviewRow]) -> None:
    """Worst first, then by name."""
    order = list(Verdict)
    content = io.StringIO(newline="")
    writer = csv.writer(content)  # CRLF, as RFC 4180 has it
    writer.writerow(COLUMNS)
    for row in sorted(rows.values(), key=lambda row: (-order.index(row.verdict), row.name)):
        writer.writerow(_cell(column, str(getattr(row, column))) for column in COLUMNS)
    # With a byte order mark, or Excel takes UTF-8 for something else.
    data = b"\xef\xbb\xbf" + content.getvalue().encode("utf-8", "backslashreplace")
    atomic.write_bytes(path_of(data_folder), data, mode=0o600, replace=True)


def _cell(column: str, text: str) -> str:
    if column == "remark" or not text:
        return cells.guarded(text)
    # An id is guarded as names are: a spreadsheet would round 1234567890123e45 to a number.
    return cells.guarded_name(text)


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        # Excel's plain "CSV" is in the system's code page; what counts in it is ASCII.
        return data.decode("cp1252", "replace")


def _parse(path: Path, number: int, head: list[str], line: list[str]) -> ReviewRow:
    def wrong(column: str, expected: str, found: str) -> ScanError:
        return _wrong(path, number, column, expected=expected, found=found)

    if len(line) != len(head):
        raise wrong("any", f"{len(head)} cells", f"{len(line)} cells")
    values = {column: cells.text_of(cell) for column, cell in zip(head, line, strict=True)}
    case, verdict, decision = (
        values[column].casefold() for column in ("case", "verdict", "decision")
    )
    digest = values["digest"].casefold()
    if not re.fullmatch(r"[0-9a-f]{16}", case):
        raise wrong("case", "16 hexadecimal digits", case)
    if not re.fullmatch(r"([0-9a-f]{16})?", digest):
        raise wrong("digest", "16 hexadecimal digits", digest)
    if verdict not in list(Verdict):
        raise wrong("verdict", ", ".join(Verdict), verdict)
    if decision not in list(Decision):
        raise wrong("decision", "accept, reject or nothing", decision)
    if (verdict, decision) == (Verdict.REFUSED, Decision.ACCEPT):
        raise wrong("decision", "reject or nothing: a refused case has no case file", decision)
    return ReviewRow(
        case=case,
        name=values["name"],
        verdict=Verdict(verdict),
        digest=digest,
        decision=Decision(decision),
        remark=values["remark"],
    )


def _wrong(path: Path, number: int, column: str, *, expected: str, found: str) -> ScanError:
    return ScanError(
        f"{path.name} can't be understood",
        expected=expected,
        found=found[:200] or "nothing",
        where=f"{path}, line {number}, column {column}",
        hint="correct the cell; or move the file away and run `brainfed preprocess` again, which "
        "makes it anew, without decisions",
    )
