"""`review`: which cases wait for a person, and what the person decides."""

from dataclasses import dataclass
from pathlib import Path

from brainfed.formats import quality_page
from brainfed.formats import review as reviews
from brainfed.formats.review import Decision, ReviewRow, Verdict
from brainfed.formats.workspace import Workspace


@dataclass(frozen=True, slots=True)
class ReviewResult:
    """The review as it stands: real names, for the site's own screen only."""

    rows: tuple[ReviewRow, ...]
    """Worst first."""
    path: Path
    page: Path
    """The quality page."""

    @property
    def n_open(self) -> int:
        """Held cases that nobody has decided on."""
        return sum(
            row.verdict is Verdict.HELD and row.decision is Decision.NONE for row in self.rows
        )


def show(workspace: Workspace) -> ReviewResult:
    """All cases and what was decided about them.

    Raises:
        ScanError: The review is damaged.
    """
    return ReviewResult(
        rows=tuple(reviews.read(workspace.data).values()),
        path=reviews.path_of(workspace.data),
        page=quality_page.page_path(workspace.data),
    )


def decide(
    workspace: Workspace, case: str, decision: Decision, *, remark: str | None = None
) -> ReviewRow:
    """Write a person's decision down; arguments and errors are those of `formats.review.decide`."""
    return reviews.decide(workspace.data, case, decision, remark=remark)
