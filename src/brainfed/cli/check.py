"""`brainfed check`: the first day's command, before any federation and any case."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brainfed.cli.console import Table, Words, counted, progress, show, show_all_the_same
from brainfed.cli.options import (
    Jobs,
    Json,
    LabelChoice,
    Labels,
    Sequences,
    SpacingNominal,
    WorkspaceFolder,
)
from brainfed.cli.place import find_if_any

if TYPE_CHECKING:
    from brainfed.formats.workspace import Workspace
    from brainfed.plan import Plan
    from brainfed.steps.check_rows import CheckResult, CheckRow
    from brainfed.steps.preprocess import Wish

DEFAULT_FOLDER = Path("brainfed-check")
OTHER_ROWS = "Not read: {rows} of {table} where the folder says something else; give the table"


def check(
    scans: Annotated[
        Path,
        typer.Argument(
            metavar="SCANS",
            help="Folder of scans (BraTS folders, BIDS, MSD, nnU-Net, DICOM), or a cases.csv.",
            show_default=False,
        ),
    ],
    labels: Labels = None,
    plan: Annotated[
        Path | None,
        typer.Option(
            "--plan",
            metavar="FILE",
            help="A plan whose modalities, labels and cohort count; without it, that of the "
            "federation, where there is one.",
            show_default=False,
        ),
    ] = None,
    sequences: Sequences = None,
    jobs: Jobs = 1,
    spacing_nominal: SpacingNominal = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FOLDER",
            help="Where cases.csv and check.html go; without it, data in the workspace, or "
            "brainfed-check here.",
            show_default=False,
        ),
    ] = None,
    workspace: WorkspaceFolder = None,
    as_json: Json = False,
) -> None:
    """Look at scans before any case is made: what is what, what is wrong, who belongs.

    Prints a line for each case, and writes cases.csv, to be corrected by hand and given in place
    of the folder, and check.html with pictures. Makes no case and needs no federation. Cases that
    can't be used as they are end it with exit code 5.
    """
    from brainfed.steps import check as step
    from brainfed.steps.check_rows import BadCasesError

    wish = wish_of(labels, spacing_nominal=spacing_nominal, sequences=sequences, jobs=jobs)
    place = find_if_any(workspace)
    folder = out or (place.data if place else DEFAULT_FOLDER)
    try:
        with ExitStack() as stack:
            if place is not None:
                from brainfed.formats import workspace as workspaces

                stack.enter_context(workspaces.locked(place))
            bar = stack.enter_context(progress())
            done = step.check(folder, scans, _plan(plan, place), wish, progress=bar)
    except BadCasesError as error:
        show_all_the_same(error, error.result, _words, as_json=as_json)
        raise typer.Exit(error.exit_code) from None
    show(done, _checked_words, as_json=as_json)


def show_survey(place: "Workspace", scans: Path, wish: "Wish", *, as_json: bool) -> None:
    """What `preprocess --dry-run` says."""
    from brainfed.steps import check as step

    done = step.survey(place.data, scans, _plan(None, place), wish)
    show(done, _words, as_json=as_json)


def wish_of(
    labels: LabelChoice | None,
    *,
    spacing_nominal: bool,
    sequences: Path | None,
    jobs: int,
    skip_incomplete: bool = False,
    atlas: Path | None = None,
) -> "Wish":
    """The options, as the steps take them."""
    from brainfed.core.labels import LabelProtocol
    from brainfed.formats import sequence_rule
    from brainfed.steps.preprocess import Wish

    return Wish(
        protocol=LabelProtocol(labels) if labels else None,
        spacing_nominal=spacing_nominal,
        skip_incomplete=skip_incomplete,
        jobs=jobs,
        atlas=atlas,
        rule=sequence_rule.load(sequences) if sequences else None,
    )


def _plan(path: Path | None, place: "Workspace | None") -> "Plan | None":
    from brainfed import plan as plans
    from brainfed.formats import federation

    if path is not None:
        return plans.load(path)
    if place is not None and federation.has_started(place):
        return federation.load(place).first_plan
    return None


def _words(done: "CheckResult") -> Words:
    yield f"Layout: {done.layout}"
    yield Table(
        ("case", "patient", "visit", "", "what", "file"),
        [line for row in done.rows for line in _lines(row)],
    )
    yield from _said(done)
    yield from _not_used(done)
    yield from _open_questions(done)
    yield from _what_to_correct(done)
    if done.page:
        yield f"Pictures: {done.page} (contains patient images: must not leave the site)"


def _lines(row: "CheckRow") -> Iterator[tuple[object, ...]]:
    """A line for each file; who it is stands on the first alone."""
    verdict = "left out" if row.left_out else str(row.verdict or "complete")
    verdict = "refused" if row.reason else verdict
    patient = None if row.patient == row.name else row.patient
    head: tuple[object, ...] = (row.name, patient, row.visit, verdict)
    for kind, file in row.files.items() or (("nothing", ""),):
        yield (*head, kind, _short(file, row.name))
        head = ("", "", "", "")


def _short(file: str, case: str) -> str:
    """A file's own name, less the case's that begins it; of a DICOM series its folder too."""
    path, mark, part = file.partition("#")
    name = Path(path).name
    if name.startswith(case):
        name = f"...{name.removeprefix(case)}"
    return name + mark + (part if len(part) < 12 else f"...{part[-8:]}")


def _said(done: "CheckResult") -> Iterator[str]:
    """What is to be said of the cases; what is true of several, once."""
    cases: dict[str, list[str]] = {}
    for row in done.rows:
        for words in (row.reason, row.left_out, *row.findings):
            if words:
                cases.setdefault(words, []).append(row.name)
    for words, names in cases.items():
        yield f"{_shown(names)}: {words}"


def _shown(names: list[str], n: int = 8) -> str:
    return ", ".join(names[:n]) + (f" and {len(names) - n} more" if len(names) > n else "")


def _what_to_correct(done: "CheckResult") -> Iterator[str]:
    """Which table is for a person to correct, and whether it was read."""
    from brainfed.steps.recognise import Layout

    if done.layout is Layout.TABLE:
        yield f"What is wrong or open is answered in {done.table}"
        return
    yield (
        f"{counted(done.n_rows_added, 'row')} added to {done.table}: correct it by hand and give "
        "it in place of the folder"
    )
    if done.n_rows_other:
        yield OTHER_ROWS.format(rows=counted(done.n_rows_other, "row"), table=done.table)


def _not_used(done: "CheckResult") -> Iterator[str]:
    """What became no part of a case, a line for each reason."""
    for reason in dict.fromkeys(left.reason for left in done.left_over):
        files = [left.where for left in done.left_over if left.reason == reason]
        yield f"Not used, {reason}: {_shown(files, 3)}"


def _open_questions(done: "CheckResult") -> Iterator[str]:
    """What of the plan's cohort nobody has answered, and for which cases."""
    for question in dict.fromkeys(word for row in done.rows for word in row.unanswered):
        names = [row.name for row in done.rows if question in row.unanswered]
        yield f"Nobody has answered {question} for {counted(len(names), 'case')}: {_shown(names)}"


def _checked_words(done: "CheckResult") -> Words:
    yield from _words(done)
    yield "Next: brainfed preprocess"
