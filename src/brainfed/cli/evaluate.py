"""`brainfed evaluate`: weights on a site's own cases, or ready label maps."""

import contextlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from brainfed.cli import completion
from brainfed.cli.console import confirm, progress, say, show
from brainfed.cli.options import (
    Device,
    Jobs,
    Json,
    LabelChoice,
    Labels,
    SpaceChoice,
    SpacingNominal,
    SubsetChoice,
    Threads,
    WorkspaceFolder,
    Yes,
)
from brainfed.cli.place import find_if_any, working
from brainfed.errors import UsageError


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
    round_number: Annotated[
        int | None,
        typer.Option(
            "--round",
            min=0,
            metavar="R",
            autocompletion=completion.rounds,
            help="Score the global weights of this round.",
            show_default=False,
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            "--against",
            metavar="FILE",
            help="Score these weights on the same cases too, and compare.",
            show_default=False,
        ),
    ] = None,
    subset: Annotated[
        SubsetChoice,
        typer.Option(
            "--subset", metavar="validation|test", help="Whose cases; test is opened once."
        ),
    ] = "validation",
    space: Annotated[
        SpaceChoice,
        typer.Option(
            "--space",
            metavar="plan|native",
            help="Compare on the plan's grid, or on the scan that each label was drawn on.",
        ),
    ] = "plan",
    predictions: Annotated[
        Path | None,
        typer.Option(
            "--predictions",
            metavar="FOLDER",
            help="Score ready label maps in place of weights; needs --truth and --labels.",
            show_default=False,
        ),
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(
            "--truth",
            metavar="FOLDER",
            help="The readers' label maps, under the same names.",
            show_default=False,
        ),
    ] = None,
    labels: Labels = None,
    resample: Annotated[
        bool,
        typer.Option(
            "--resample",
            metavar="",
            help="Bring a ready label map onto the grid of the truth if it is on another.",
        ),
    ] = False,
    spacing_nominal: SpacingNominal = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE.csv",
            help="The table of ready label maps; else in reports/, or scores.csv here.",
            show_default=False,
        ),
    ] = None,
    jobs: Jobs = 1,
    yes: Yes = False,
    device: Device = None,
    threads: Threads = None,
    workspace: WorkspaceFolder = None,
    as_json: Json = False,
) -> None:
    """Score weights, or ready label maps, on this site's patients, region by region.

    Prints means over patients; every measure of every case lies as CSV in reports/, which stays at
    the site. Of global weights on the plan's grid, what the floor allows goes into a score file for
    `brainfed export`. It can be stopped and run again. The test patients are opened once, for the
    weights that the coordinator's final names: this asks first and writes it to the ledger.
    """
    of_weights = {
        "--weights": weights is not None,
        "--round": round_number is not None,
        "--against": against is not None,
        "--subset": subset != "validation",
        "--space": space != "plan",
    }
    of_maps = {
        "--labels": labels is not None,
        "--out": out is not None,
        "--resample": resample,
        "--spacing-nominal": spacing_nominal,
    }
    if predictions is not None or truth is not None:
        _refuse(of_weights, "--predictions")
        if predictions is None or truth is None or labels is None:
            raise UsageError(
                "Ready label maps need three options",
                expected="--predictions FOLDER --truth FOLDER --labels PROTOCOL",
                hint="values alone don't say what they mean: name the protocol",
            )
        _score_maps(
            predictions,
            truth,
            labels,
            out=out,
            resample=resample,
            spacing_nominal=spacing_nominal,
            jobs=jobs,
            workspace=workspace,
            as_json=as_json,
        )
        return
    _refuse(of_maps, "weights")
    if weights is not None and round_number is not None:
        raise UsageError(
            "Weights are named twice",
            expected="--weights or --round",
            found="both of them",
            hint="leave one out; a second file to compare with is --against FILE",
        )
    _score_weights(
        weights,
        round_number,
        against,
        subset=subset,
        space=space,
        jobs=jobs,
        yes=yes,
        device=device,
        threads=threads,
        workspace=workspace,
        as_json=as_json,
    )


def _refuse(options: dict[str, bool], beside: str) -> None:
    """Refuse options that say nothing here, so that nobody believes that they did."""
    given = [name for name, is_given in options.items() if is_given]
    if given:
        what = "ready label maps" if beside == "weights" else "weights"
        raise UsageError(
            f"{' and '.join(given)} {'is' if len(given) == 1 else 'are'} for {what}",
            found=f"{given[0]} beside {beside}",
            hint="`brainfed evaluate --help` has all options",
        )


def _score_weights(
    weights: Path | None,
    round_number: int | None,
    against: Path | None,
    *,
    subset: SubsetChoice,
    space: SpaceChoice,
    jobs: int,
    yes: bool,
    device: str | None,
    threads: int | None,
    workspace: Path | None,
    as_json: bool,
) -> None:
    from brainfed.cli.score_words import weights_words
    from brainfed.formats import federation
    from brainfed.formats.dataset import Subset
    from brainfed.formats.score_table import ScoredSpace
    from brainfed.steps import evaluate as step
    from brainfed.steps.choose_weights import Wish, check_finished

    wish = Wish(
        weights=weights,
        round=round_number,
        against=against,
        subset=Subset(subset),
        space=ScoredSpace(space),
    )
    with working(workspace, only=("site", "evaluator")) as place, progress() as bar:
        if subset == "test":  # nobody is asked whether to open what can't be opened
            check_finished(place, federation.load(place))
        done = step.evaluate(
            place,
            wish,
            today=datetime.now(UTC).date(),
            confirmed=subset == "test" and _open_test(yes=yes),
            jobs=jobs,
            device=device,
            threads=threads,
            progress=bar,
        )
    show(done, weights_words, as_json=as_json)


def _score_maps(
    predictions: Path,
    truth: Path,
    labels: LabelChoice,
    *,
    out: Path | None,
    resample: bool,
    spacing_nominal: bool,
    jobs: int,
    workspace: Path | None,
    as_json: bool,
) -> None:
    from brainfed.cli.score_words import maps_words
    from brainfed.core.labels import LabelProtocol
    from brainfed.formats.workspace import locked
    from brainfed.steps import score_maps as step

    place = find_if_any(workspace)
    plan = step.plan_of(place) if place is not None else None
    home = None if plan is None else place
    if out is None:
        out = Path("scores.csv") if home is None else step.table_path(home, predictions, truth)
    wish = step.MapsWish(
        predictions=predictions,
        truth=truth,
        protocol=LabelProtocol(labels),
        out=out,
        resample=resample,
        spacing_nominal=spacing_nominal,
    )
    with progress() as bar, contextlib.nullcontext() if home is None else locked(home):
        done = step.score_maps(wish, plan, jobs=jobs, progress=bar)
    show(done, maps_words, as_json=as_json)


def _open_test(*, yes: bool) -> bool:
    say(
        "The test patients tell how good the weights are that the coordinator's final names, and "
        "only once: whoever looks, chooses, and looks again no longer measures. That you opened "
        "them is written to the ledger."
    )
    return yes or confirm("Open the test patients now?", flag="--yes")
