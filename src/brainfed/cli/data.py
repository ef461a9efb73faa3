"""`brainfed preprocess` and `brainfed split`: a site's scans become cases, its patients parts."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brainfed.cli.check import OTHER_ROWS
from brainfed.cli.console import Table, Words, counted, progress, show, show_all_the_same
from brainfed.cli.options import Jobs, Json, Labels, Sequences, SpacingNominal, WorkspaceFolder
from brainfed.cli.place import working

if TYPE_CHECKING:
    from brainfed.steps.case_rows import CaseRow, PreprocessResult
    from brainfed.steps.split import SplitResult


def preprocess(
    scans: Annotated[
        Path,
        typer.Argument(
            metavar="SCANS",
            help="Folder of scans (BraTS folders, BIDS, MSD, nnU-Net, DICOM), or a cases.csv.",
            show_default=False,
        ),
    ],
    labels: Labels = None,
    skip_incomplete: Annotated[
        bool,
        typer.Option(
            "--skip-incomplete", metavar="", help="Go on without refused cases, and record that."
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            metavar="",
            help="Only print what is recognised as what, and write data/cases.csv.",
        ),
    ] = False,
    atlas: Annotated[
        Path | None,
        typer.Option(
            "--atlas",
            metavar="FILE",
            help="The plan's atlas; needed once, a copy stays in the workspace.",
            show_default=False,
        ),
    ] = None,
    sequences: Sequences = None,
    jobs: Jobs = 1,
    spacing_nominal: SpacingNominal = False,
    workspace: WorkspaceFolder = None,
    as_json: Json = False,
) -> None:
    """Make cases of scans: checked, registered, on the plan's grid, normalised.

    Prints a line for each case: what was made, what was refused and why; data/quality.html shows
    them. Refused cases end the command with exit code 5; all others are made. Every step is kept,
    so it can be stopped and run again. Everything stays in this workspace.
    """
    from brainfed.cli.check import show_survey, wish_of
    from brainfed.steps import preprocess as step
    from brainfed.steps.case_rows import RefusedCasesError

    wish = wish_of(
        labels,
        spacing_nominal=spacing_nominal,
        sequences=sequences,
        jobs=jobs,
        skip_incomplete=skip_incomplete,
        atlas=atlas,
    )
    try:
        with working(workspace, only=("site", "evaluator")) as place, progress() as bar:
            if dry_run:
                show_survey(place, scans, wish, as_json=as_json)
                return
            done = step.preprocess(place, scans, wish, progress=bar)
    except RefusedCasesError as error:
        show_all_the_same(error, error.result, _table_words, as_json=as_json)
        raise typer.Exit(error.exit_code) from None
    show(done, _preprocess_words, as_json=as_json)


def _table_words(done: "PreprocessResult") -> Words:
    rows = [_row(row) for row in done.rows]
    yield Table(("case", "", "slices", "tumour ml", "lost %", "remark"), rows)
    yield f"{counted(done.n_cases, 'case')} in all, digest {done.dataset_digest[:16]}"
    if done.unanswered:
        yield (
            f"Nobody has said of {counted(len(done.unanswered), 'case')} whether the plan's cohort "
            "takes them: brainfed check lists what is open, cases.csv has a column for it."
        )
    if done.n_rows_other:
        unread = counted(done.n_rows_other, "row")
        yield OTHER_ROWS.format(rows=unread, table="data/cases.csv")
    if n_held := sum(row.is_held for row in done.rows):
        yield f"{counted(n_held, 'case')} held: look at data/quality.html, then brainfed review"


def _row(row: "CaseRow") -> tuple[object, ...]:
    remark = row.reason or "; ".join(row.findings)
    if row.entry is None:
        return (row.name, str(row.status), None, None, None, remark)
    status = "held" if row.is_held else str(row.status)
    lost = f"{100 * row.entry.tumour_lost_fraction:.1f}"
    volume = None if row.tumour_ml is None else round(row.tumour_ml)
    return (row.name, status, row.entry.n_slices, volume, lost, remark)


def _preprocess_words(done: "PreprocessResult") -> Words:
    yield from _table_words(done)
    yield "Next: look at data/quality.html, then brainfed split"


def split(workspace: WorkspaceFolder = None, as_json: Json = False) -> None:
    """Divide the patients into train, validation and test.

    By patient, by the plan's rule and seed. Patients that come later are divided by the same rule;
    those assigned before stay where they are.
    """
    from brainfed.steps import split as step

    with working(workspace, only=("site", "evaluator")) as place:
        done = step.split(place)
    show(done, _split_words, as_json=as_json)


def _split_words(done: "SplitResult") -> Words:
    rows = [
        (str(subset), counts.n_patients, counts.n_cases, counts.n_slices)
        for subset, counts in done.counts.items()
    ]
    yield Table(("part", "patients", "cases", "slices"), rows)
    yield f"{counted(done.n_joined, 'patient')} assigned now, {done.n_stayed} before."
    yield f"Written down in {done.path}"
    if done.n_rejected:
        yield f"Left out: {counted(done.n_rejected, 'case')} rejected in data/review.csv."
    if done.n_held:
        yield (
            f"Left out: {counted(done.n_held, 'case')} held until a person accepts. Look at "
            "data/quality.html, write accept or reject into data/review.csv (or use brainfed "
            "review), then run brainfed split again."
        )
    if not done.only_evaluates:
        yield "Next: brainfed train-round"
    elif not done.n_held:
        yield "Nobody to train on: this site can only evaluate (brainfed evaluate)."
