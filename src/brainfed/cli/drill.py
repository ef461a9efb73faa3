"""`brainfed drill`: a rehearsal with throw-away keys, before anything counts."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brainfed.cli.console import COMMAND, Table, Words, counted, progress, show
from brainfed.cli.options import Device, Json, WorkspaceFolder
from brainfed.cli.place import working
from brainfed.errors import UsageError

if TYPE_CHECKING:
    from brainfed.steps.drill import Cleared, Drill, Rehearsal


def drill(
    medium: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FOLDER]",
            help="The medium that goes between a site and the coordinator; without it a site "
            "plays both sides.",
            show_default=False,
        ),
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option(
            "--plan",
            metavar="PLAN",
            help="The plan to rehearse, where this workspace has none yet.",
            show_default=False,
        ),
    ] = None,
    clear: Annotated[
        bool, typer.Option("--clear", metavar="", help="Take the drill away, and stop.")
    ] = False,
    device: Device = None,
    workspace: WorkspaceFolder = None,
    as_json: Json = False,
) -> None:
    """Rehearse a round: throw-away keys, random weights, one training step, there and back.

    Each run does whatever is next here, says to whom the medium goes, and at the end what worked.
    The site's cases are read through links; keys, rounds and test patients in earnest stay
    untouched. Everything lies in the folder drill/ of the workspace, is marked as a drill, and is
    refused by every other command.
    """
    from brainfed.steps import drill as step

    if clear:
        if medium is not None or plan is not None:
            raise UsageError(
                "--clear takes the drill away and does nothing else",
                expected="no folder and no --plan",
                where="--clear",
                hint="brainfed drill --clear",
            )
        with working(workspace) as place:
            gone = step.clear(place)
        show(gone, _cleared_words, as_json=as_json)
        return
    with working(workspace) as place, progress() as bar:
        done = step.drill(
            place,
            medium,
            plan_path=plan,
            device=device,
            today=datetime.now(UTC).date(),
            progress=bar,
        )
    show(done, _words, as_json=as_json)
    if done.failed is not None:
        raise typer.Exit(done.failed.error.exit_code)


def _words(done: "Drill") -> Words:
    for one in done.rehearsals:
        yield f"The drill of {one.site}"
        yield Table(
            ("", "what", "s", "found"),
            [("ok", check.what, f"{check.seconds:.1f}", check.found) for check in one.checks],
        )
        yield from _end_words(one, done.medium)
    yield done.limits


def _end_words(one: "Rehearsal", medium: Path | None) -> Words:
    if one.failed is not None:
        error = one.failed.error
        yield f"Failed: {one.failed.what}"
        yield f"  {error.message}"
        for name, value in error.details().items():
            yield f"  {name}: {value}"
        yield "What was made is kept; run brainfed drill again, and it goes on there."
    elif one.carry_to is not None:
        yield f"Next: carry {medium} to {one.carry_to}, and run in the workspace there:"
        yield f"{COMMAND}brainfed drill FOLDER"
        if not one.is_finished:
            yield "Then bring it back here and run the same again."
    elif one.is_finished:
        yield (
            f"All {counted(len(one.checks), 'check')} worked. Everything lies in {one.folder}; "
            "brainfed drill --clear takes it away."
        )


def _cleared_words(done: "Cleared") -> Words:
    if done.was_there:
        yield f"The drill is gone: {done.folder}. What is on a medium, delete by hand."
    else:
        yield "There is no drill here."
