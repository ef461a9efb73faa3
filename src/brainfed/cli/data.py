"""`brainfed preprocess` and `brainfed split`: a site's scans become cases, its patients parts."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from brainfed.cli.console import (
    Table,
    Words,
    counted,
    plain,
    progress,
    show,
    show_error,
    show_json,
)
from brainfed.cli.options import Json, LabelChoice, WorkspaceFolder
from brainfed.cli.place import working

if TYPE_CHECKING:
    from brainfed.steps.preprocess import CaseRow, PreprocessResult, RefusedCasesError
    from brainfed.steps.split import SplitResult


def preprocess(
    scans: Annotated[
        Path,
        typer.Argument(
            metavar="SCANS", help="Folder that holds one folder per case.", show_default=False
        ),
    ],
    labels: Annotated[
        LabelChoice,
        typer.Option(
            "--labels",
            metavar="PROTOCOL",
            help=f"What the label values mean; never guessed: {', '.join(get_args(LabelChoice))}.",
            show_default=False,
        ),
    ],
    skip_incomplete: Annotated[
        bool,
        typer.Option(
            "--skip-incomplete", metavar="", help="Go on without refused cases, and record that."
        ),
    ] = False,
    jobs: Annotated[int, typer.Option("--jobs", min=1, metavar="N", help="Cases at a time.")] = 1,
    spacing_nominal: Annotated[
        bool,
        typer.Option(
            "--spacing-nominal",
            metavar="",
            help="The voxel size in the headers is a convention, not a measurement.",
        ),
    ] = False,
    workspace: WorkspaceFolder = None,
    as_json: Json = False,
) -> None:
    """Make cases of scans: checked, on the plan's grid, normalised.

    Prints a line for each case folder: what was made, what was refused and why. Refused cases end
    the command with exit code 5; all others are made. Finished cases are kept, so it can be
    stopped and run again. Everything stays in this workspace.
    """
    from brainfed.core.labels import LabelProtocol
    from brainfed.steps import preprocess as step

    try:
        with working(workspace, only=("site", "evaluator")) as place, progress() as bar:
            done = step.preprocess(
                place,
                scans,
                protocol=LabelProtocol(labels),
                skip_incomplete=skip_incomplete,
                jobs=jobs,
                spacing_nominal=spacing_nominal,
                progress=bar,
            )
    except step.RefusedCasesError as error:
        _show_refused(error, as_json=as_json)
        raise typer.Exit(error.exit_code) from None
    show(done, _preprocess_words, as_json=as_json)


def _show_refused(error: "RefusedCasesError", *, as_json: bool) -> None:
    """The whole table all the same, then what is to be done about the refused cases."""
    if as_json:
        show_json(plain(error.result) | {"error": plain(error)})
    else:
        show(error.result, _table_words, as_json=False)
    error.found = None  # the table says it
    show_error(error, as_json=False)


def _table_words(done: "PreprocessResult") -> Words:
    rows = [_row(row) for row in done.rows]
    yield Table(("case folder", "", "slices", "tumour ml", "lost %", "remark"), rows)
    yield f"{counted(done.n_cases, 'case')} in all, digest {done.dataset_digest[:16]}"


def _row(row: "CaseRow") -> tuple[object, ...]:
    remark = row.reason or row.warning or ""
    if row.entry is None:
        return (row.name, str(row.status), None, None, None, remark)
    lost = f"{100 * row.entry.tumour_lost_fraction:.1f}"
    volume = None if row.tumour_ml is None else round(row.tumour_ml)
    return (row.name, str(row.status), row.entry.n_slices, volume, lost, remark)


def _preprocess_words(done: "PreprocessResult") -> Words:
    yield from _table_words(done)
    yield "Next: brainfed split"


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
    if done.only_evaluates:
        yield "Nobody to train on: this site can only evaluate (brainfed evaluate)."
    else:
        yield "Next: brainfed train-round"
