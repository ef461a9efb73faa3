"""`brainfed review`: what waits for a person, and the person's decision."""

from typing import TYPE_CHECKING, Annotated

import typer

from brainfed.cli.console import Table, Words, counted, show
from brainfed.cli.options import Json, WorkspaceFolder
from brainfed.cli.place import working
from brainfed.errors import UsageError

if TYPE_CHECKING:
    from brainfed.formats.review import ReviewRow
    from brainfed.steps.review import ReviewResult


def review(
    case: Annotated[
        str | None,
        typer.Argument(metavar="[CASE]", help="Name or id of a case.", show_default=False),
    ] = None,
    accept: Annotated[
        bool, typer.Option("--accept", metavar="", help="Use the case, though it is held.")
    ] = False,
    reject: Annotated[
        bool, typer.Option("--reject", metavar="", help="Leave the case out.")
    ] = False,
    undo: Annotated[
        bool, typer.Option("--undo", metavar="", help="Take an earlier decision back.")
    ] = False,
    remark: Annotated[
        str | None,
        typer.Option("--remark", metavar="TEXT", help="Your reason.", show_default=False),
    ] = None,
    workspace: WorkspaceFolder = None,
    as_json: Json = False,
) -> None:
    """Accept or reject cases; without CASE, list those that wait or were decided on.

    Look at data/quality.html first. Decisions stand in data/review.csv, which may be edited by hand
    as well; brainfed split obeys them.
    """
    from brainfed.formats.review import Decision
    from brainfed.steps import review as step

    words = (Decision.ACCEPT, Decision.REJECT, Decision.NONE)
    chosen = [word for word, wanted in zip(words, (accept, reject, undo), strict=True) if wanted]
    if len(chosen) != (0 if case is None else 1) or (case is None and remark is not None):
        raise UsageError(
            "That is no decision",
            expected="a case and one of --accept, --reject, --undo; or none of them",
            hint="brainfed review CASE --accept",
        )
    with working(workspace, only=("site", "evaluator")) as place:
        if case is None:
            show(step.show(place), _table_words, as_json=as_json)
        else:
            row = step.decide(place, case, chosen[0], remark=remark)
            show(row, _decision_words, as_json=as_json)


def _table_words(done: "ReviewResult") -> Words:
    rows = [
        (row.name, str(row.verdict), str(row.decision), row.remark)
        for row in done.rows
        if row.verdict != "ok" or row.decision
    ]
    if rows:
        yield Table(("case", "verdict", "decision", "remark"), rows)
    yield f"{counted(len(done.rows), 'case')} in all, {done.n_open} held and not decided on."
    if done.n_open:
        yield f"Look at {done.page}, then: brainfed review CASE --accept (or --reject)"


def _decision_words(row: "ReviewRow") -> Words:
    yield f"{row.name}: {row.decision or 'no decision'}"
    yield "Next: brainfed split"
