"""`brainfed doctor`: is this machine fit for the work?"""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brainfed.cli.console import Table, Words, counted, progress, show
from brainfed.cli.options import Device, Json, WorkspaceFolder
from brainfed.cli.place import find_if_any
from brainfed.errors import ResourceError

if TYPE_CHECKING:
    from brainfed.steps.doctor import Diagnosis


def doctor(
    plan: Annotated[
        Path | None,
        typer.Option(
            "--plan",
            metavar="PLAN",
            help="Hold the machine against this plan; without it, against the workspace's.",
            show_default=False,
        ),
    ] = None,
    device: Device = None,
    workspace: WorkspaceFolder = None,
    as_json: Json = False,
) -> None:
    """Check this machine: software, memory, disk, clock, signatures, and a training step.

    In a workspace or anywhere. With a plan it also says whether a step fits into the memory and how
    long an epoch and a round would take here. Takes less than a minute, needs no network and no
    rights, and leaves nothing behind. Ends with exit code 8 if something is bad.
    """
    from brainfed import plan as plans
    from brainfed.steps import doctor as step

    place = find_if_any(workspace)
    with progress() as bar:
        found = step.doctor(
            place,
            Path.cwd() if place is None else place.root,
            plan=None if plan is None else plans.load(plan),
            device=device,
            now=datetime.now(UTC),
            progress=bar,
        )
    show(found, _words, as_json=as_json)
    if found.n_bad:
        raise typer.Exit(ResourceError.exit_code)


def _words(done: "Diagnosis") -> Words:
    yield f"Folder: {done.folder}"
    yield f"Plan: {done.plan or 'none; --plan PLAN tells more'}"
    yield Table(
        ("", "what", "found"), [(str(one.health), one.what, one.found) for one in done.checks]
    )
    for one in done.checks:
        if one.todo:
            yield f"- {one.what}: {one.todo}"
    if done.n_bad:
        yield f"{counted(done.n_bad, 'thing')} bad: brainfed will fail there. Then run it again."
    else:
        yield "Nothing is bad."
