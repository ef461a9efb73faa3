"""What `check` found, as a table for the site's own screen."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from brainfed.errors import ScanError
from brainfed.formats.found_case import LeftOver
from brainfed.formats.review import Verdict
from brainfed.steps.recognise import Layout


@dataclass(frozen=True, slots=True)
class CheckRow:
    """One case as it was found: real names, for the site's own screen only."""

    name: str
    """Unprintable characters escaped, here and below."""
    patient: str
    visit: str
    files: Mapping[str, str]
    """By modality, `seg` or `brain-mask`: the file, below the folder of scans."""
    verdict: Verdict | None
    """None where the scans themselves weren't looked at."""
    reason: str | None
    """Why it would be refused."""
    left_out: str | None
    """Why the plan's cohort doesn't take it."""
    findings: tuple[str, ...]
    """What is odd about it."""
    unanswered: tuple[str, ...]
    """What of the plan's cohort nobody has answered."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What was found in a folder of scans."""

    layout: Layout
    rows: tuple[CheckRow, ...]
    """By name."""
    left_over: tuple[LeftOver, ...]
    table: Path
    """The `cases.csv` to correct by hand: the one that was given, or the one written."""
    n_rows_added: int
    """Cases that were written into it now; rows that are there are never changed."""
    n_rows_other: int
    """Rows that are there and say something else than the scans that were given."""
    page: Path | None
    """The page with pictures; None of a survey."""

    @property
    def n_refused(self) -> int:
        """Cases of which `preprocess` would make nothing as they are."""
        return sum(row.reason is not None for row in self.rows)


class BadCasesError(ScanError):
    """Some cases can't be used as they are. `result` has the whole table."""

    def __init__(self, result: CheckResult) -> None:
        how = "" if result.layout is Layout.TABLE else " and give it in place of the folder"
        super().__init__(
            f"{result.n_refused} of {len(result.rows)} cases can't be used as they are",
            hint=f"mend the scans, or correct {result.table}{how}",
        )
        self.result = result
