"""The columns of `cases.csv`: those of the FeTS tool under their usual names, and ours."""

import difflib
from enum import StrEnum
from pathlib import Path

from brainfed.errors import ScanError
from brainfed.formats.modality_names import SPELLINGS, plain_word
from brainfed.formats.scan_folder import printable
from brainfed.plan import Modality


class Column(StrEnum):
    """The columns, by the names and in the order that we write."""

    CASE = "Case"
    PATIENT = "PatientID"
    VISIT = "Visit"
    T1 = "T1"
    T1GD = "T1GD"
    T2 = "T2"
    T2FLAIR = "T2FLAIR"
    LABEL = "Label"
    BRAIN_MASK = "BrainMask"
    LABEL_PROTOCOL = "LabelProtocol"
    LABEL_ORIGIN = "LabelOrigin"
    TREATMENT = "Treatment"
    AGE_YEARS = "AgeYears"
    SPACING_NOMINAL = "SpacingNominal"
    DOUBT = "Doubt"
    REMARK = "Remark"


IMAGE_COLUMNS = {
    Modality.T1: Column.T1,
    Modality.T1CE: Column.T1GD,
    Modality.T2: Column.T2,
    Modality.FLAIR: Column.T2FLAIR,
}
_ALIASES: dict[Column, tuple[str, ...]] = {
    Column.CASE: ("caseid", "casename"),
    Column.PATIENT: ("patient", "subjectid", "subject", "participantid"),
    Column.VISIT: ("timepoint", "session", "sessionid", "visitid"),
    Column.LABEL: ("seg", "segmentation", "groundtruth"),
    Column.LABEL_PROTOCOL: ("protocol",),
    Column.AGE_YEARS: ("age",),
    Column.DOUBT: ("doubts",),
    Column.REMARK: ("remarks", "comment", "comments", "notes"),
    **{column: SPELLINGS[modality] for modality, column in IMAGE_COLUMNS.items()},
}
KNOWN: dict[str, Column] = {
    plain_word(name): column for column in Column for name in (column, *_ALIASES.get(column, ()))
}
"""Column by name, as `plain_word` gives it."""


def find_columns(table: list[list[str]], where: Path) -> dict[Column, int]:
    """Where each column stands, by the first row of the table.

    Raises:
        ScanError: A column is unknown or there twice, or none names the patient or an image.
    """
    header, rows = (table[0], table[1:]) if table else ([], [])
    columns: dict[Column, int] = {}
    for place, name in enumerate(header):
        column = KNOWN.get(plain_word(name))
        if column is None:
            # Spreadsheets like to write empty columns behind the last.
            if not name.strip() and not any(row[place].strip() for row in rows if place < len(row)):
                continue
            raise _unknown_column(name, where)
        if column in columns:
            raise ScanError(
                f"The table has two columns for {column}",
                expected="one",
                found=f"{printable(header[columns[column]])} and {printable(name)}",
                where=where,
                hint="take one of them out",
            )
        columns[column] = place
    images = [column for column in IMAGE_COLUMNS.values() if column in columns]
    if Column.PATIENT not in columns or not images:
        raise ScanError(
            "The table of cases lacks a column",
            expected=f"{Column.PATIENT} and at least one of {', '.join(IMAGE_COLUMNS.values())}",
            found=printable(", ".join(header)) or "an empty file",
            where=where,
        )
    return columns


def _unknown_column(name: str, where: Path) -> ScanError:
    near = difflib.get_close_matches(plain_word(name), KNOWN, n=1, cutoff=0.5)
    return ScanError(
        "The table has an unknown column",
        expected=f"`{KNOWN[near[0]]}`?" if near else ", ".join(Column),
        found=printable(name) or "a column without a name",
        where=where,
        hint="name it right or take it out; text for people goes into the column Remark",
    )
