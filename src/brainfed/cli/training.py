"""`brainfed train-round` and `brainfed evaluate`: the network on a site's own cases."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from brainfed.cli.console import Table, Words, confirm, counted, progress, say, show
from brainfed.cli.options import Device, Json, SubsetChoice, Threads, WorkspaceFolder, Yes
from brainfed.cli.place import working

if TYPE_CHECKING:
    from brainfed.core.scoring import Summary
    from brainfed.steps.evaluate import EvaluateResult
    from brainfed.steps.train import TrainResult


def train_round(
    device: Device = None,
    threads: Threads = None,
    workspace: WorkspaceFolder = None,
    as_json: Json = False,
) -> None:
    """Train from the newest global weights on this site's cases.

    Scores the weights that came, trains, and scores the result, on the validation patients. The
    site's update lies in the folder of its round; `brainfed export` signs it. Run again, it gives
    the update that is there.
    """
    from brainfed.steps import train

    with working(workspace, only="site") as place, progress() as bar:
        done = train.train_round(place, device=device, threads=threads, progress=bar)
    show(_facts(done), lambda facts: _train_words(done, facts), as_json=as_json)


def _facts(done: "TrainResult") -> dict[str, Any]:
    """The result without the weights themselves, which lie in the file."""
    how = done.trained
    return {
        "round": done.round_number,
        "already": done.already,
        "update": done.update,
        "n_steps": None if how is None else len(how.steps),
        "last_loss": None if how is None else how.last_loss,
        "seconds": None if how is None else how.seconds,
        "device": done.device,
        "incoming": done.incoming,
        "result": done.result,
        "log": done.log_path,
    }


def _train_words(done: "TrainResult", facts: dict[str, Any]) -> Words:
    manifest = done.update.manifest
    if done.already:
        yield f"The update of round {done.round_number} is there already; nothing was trained."
    else:
        seconds = facts["seconds"]
        took = f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.1f} s"
        yield (
            f"Round {done.round_number}: {counted(facts['n_steps'], 'step')} in {took} on "
            f"{done.device}, loss at the end {facts['last_loss']:.3f}"
        )
        yield "Dice on the validation patients, for this site's eyes (the file obeys the floor):"
        yield _before_and_after(done)
    yield (
        f"Trained on {counted(manifest.n_patients or 0, 'patient')}, "
        f"{counted(manifest.n_cases or 0, 'case')}, {counted(manifest.n_slices or 0, 'slice')}."
    )
    yield f"The update: {done.update.path}"
    yield "Next: brainfed inspect FILE, to read what it holds; brainfed export --to FOLDER"


def _before_and_after(done: "TrainResult") -> Table:
    rows = [
        (str(before.region), MEASURES[before.measure], before.n, before.mean, after.mean)
        for before, after in zip(done.incoming, done.result, strict=True)
    ]
    return Table(("region", "measure", "patients", "weights that came", "after training"), rows)


MEASURES = {"dice": "Dice, 3-D", "soft-slice-dice": "soft slice Dice (paper)"}
"""Names of the measures for people."""


def evaluate(
    weights: Annotated[
        Path | None,
        typer.Option(
            "--weights",
            metavar="FILE",
            help="Weights to score; without it, the newest global weights.",
            show_default=False,
        ),
    ] = None,
    subset: Annotated[
        SubsetChoice,
        typer.Option(
            "--subset", metavar="validation|test", help="Whose cases; test is opened once."
        ),
    ] = "validation",
    yes: Yes = False,
    device: Device = None,
    threads: Threads = None,
    workspace: WorkspaceFolder = None,
    as_json: Json = False,
) -> None:
    """Score weights on this site's patients, region by region.

    Prints the Dice of every case; the same table lies as CSV in reports/. Nothing of it leaves the
    site. The test patients are opened once, at the end: this asks first and writes it to the
    ledger.
    """
    from brainfed.formats.dataset import Subset
    from brainfed.steps import evaluate as step

    with working(workspace, only=("site", "evaluator")) as place, progress() as bar:
        done = step.evaluate(
            place,
            weights=weights,
            subset=Subset(subset),
            confirmed=subset == "test" and _open_test(yes=yes),
            device=device,
            threads=threads,
            progress=bar,
        )
    show(done, _evaluate_words, as_json=as_json)


def _open_test(*, yes: bool) -> bool:
    say(
        "The test patients tell how good the final weights are, and only once: whoever looks, "
        "chooses, and looks again no longer measures. Open them at the end, when nothing will be "
        "chosen any more. That you opened them is written to the ledger."
    )
    return yes or confirm("Open the test patients now?", flag="--yes")


def _evaluate_words(done: "EvaluateResult") -> Words:
    manifest = done.weights.manifest
    yield (
        f"Round {manifest.round}, {manifest.kind} weights of {manifest.sender}, on the "
        f"{done.subset} part: {counted(done.n_patients, 'patient')}, "
        f"{counted(done.n_cases, 'case')}"
    )
    rows = [(row.case, str(row.region), *row.values.values(), row.n_voxels) for row in done.rows]
    yield Table(("case", "region", "Dice", "soft slice", "tumour voxels"), rows)
    yield ""
    yield _summaries(done.summaries)
    for summary in done.summaries:
        if summary.measure == "dice" and summary.worst:
            worst = ", ".join(f"{patient} {value:.3f}" for patient, value in summary.worst)
            yield f"Lowest patients, {summary.region}: {worst}"
    yield f"The table as CSV, for this site alone: {done.report_path}"


def _summaries(summaries: "Iterable[Summary]") -> Table:
    rows = [(MEASURES[s.measure], str(s.region), s.n, s.mean, s.sd, s.median) for s in summaries]
    return Table(("over patients", "region", "n", "mean", "sd", "median"), rows)
