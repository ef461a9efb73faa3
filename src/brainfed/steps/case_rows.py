"""What became of each case, as a table for the site's own screen."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from brainfed.errors import ScanError
from brainfed.formats.dataset import CaseEntry, Verdict
from brainfed.formats.found_case import FoundCase
from brainfed.formats.scan_folder import printable
from brainfed.plan import Modality
from brainfed.steps.make_case import Made, Task


class CaseStatus(StrEnum):
    """What became of a case."""

    MADE = "made"
    KEPT = "kept"  # made before, in the same way from the same scans
    REFUSED = "refused"  # something is wrong with it; the command ends with an error
    SKIPPED = "skipped"  # wrong, but left out on demand; or not of the plan's cohort; or excluded


@dataclass(frozen=True, slots=True)
class CaseRow:
    """One line of the table: real names, for the site's own screen only."""

    name: str
    """The case's real name, unprintable characters escaped."""
    patient: str
    """Patient's name, likewise."""
    case_id: str
    status: CaseStatus
    reason: str | None = None
    """Why the case was refused or skipped."""
    findings: tuple[str, ...] = ()
    """What is odd about a case that was made."""
    entry: CaseEntry | None = None
    """What the index holds of it."""

    @property
    def is_held(self) -> bool:
        """Whether a person must accept it before it is used."""
        return self.entry is not None and self.entry.verdict is Verdict.HELD

    @property
    def tumour_ml(self) -> float | None:
        """Volume of the whole tumour on the plan's grid; None where the spacing is nominal."""
        if self.entry is None or self.entry.spacing_nominal:
            return None
        z, y, x = self.entry.spacing_mm
        return self.entry.n_tumour_voxels * z * y * x / 1000


@dataclass(frozen=True, slots=True)
class PreprocessResult:
    """What became of each case."""

    rows: tuple[CaseRow, ...]
    """By name."""
    modalities: tuple[Modality, ...]
    """What the flags `entry.present` stand for."""
    unanswered: tuple[str, ...]
    """Names of the cases of which nobody has answered whether they belong to the plan's cohort."""
    n_cases: int
    """Cases in the index, those of earlier commands included."""
    dataset_digest: str
    """SHA-256 over all of them."""
    n_rows_other: int
    """Rows of `data/cases.csv` that say something else than the folder that was given, unread."""

    def count(self, status: CaseStatus) -> int:
        """Number of cases with this status."""
        return sum(row.status is status for row in self.rows)


class RefusedCasesError(ScanError):
    """Some cases were refused; all others are made. `result` has the whole table."""

    def __init__(self, result: PreprocessResult) -> None:
        refused = [row for row in result.rows if row.status is CaseStatus.REFUSED]
        shown = [f"{row.name}: {row.reason}" for row in refused[:5]]
        super().__init__(
            f"{len(refused)} of {len(result.rows)} cases refused",
            found=" | ".join(shown) + (" | ..." if len(refused) > len(shown) else ""),
            hint="mend them and run the command again, or leave them out with --skip-incomplete; "
            "the other cases are made",
        )
        self.result = result


def row_of(task: Task, outcome: Made | ScanError, refused_as: CaseStatus) -> CaseRow:
    """The line of a case that was to be made."""
    name, patient = printable(task.found.name), printable(task.found.patient)
    if isinstance(outcome, ScanError):
        return CaseRow(name, patient, task.case_id, refused_as, reason=reason_of(outcome))
    return CaseRow(
        name,
        patient,
        task.case_id,
        CaseStatus.KEPT if outcome.is_kept else CaseStatus.MADE,
        findings=outcome.findings,
        entry=outcome.entry,
    )


def skipped_row(found: FoundCase, case_id: str, reason: str) -> CaseRow:
    """The line of a case that was not to be made."""
    return CaseRow(
        printable(found.name),
        printable(found.patient),
        case_id,
        CaseStatus.SKIPPED,
        reason=printable(reason),
    )


def reason_of(error: ScanError) -> str:
    """An error on one line."""
    parts = [error.message]
    parts += [f"found {error.found}"] if error.found else []
    parts += [f"expected {error.expected}"] if error.expected else []
    return printable("; ".join(parts))


def by_name(rows: Iterable[CaseRow]) -> tuple[CaseRow, ...]:
    """The rows in the order of the table."""
    return tuple(sorted(rows, key=lambda row: row.name))
