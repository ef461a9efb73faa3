"""`brainfed aggregate` and `brainfed status`: how a round is closed, and where one stands."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from brainfed.cli.console import Table, Words, progress, show
from brainfed.cli.options import Json, WorkspaceFolder
from brainfed.cli.place import find, working

if TYPE_CHECKING:
    from brainfed.steps.aggregate import Aggregated
    from brainfed.steps.status import Status


def aggregate(workspace: WorkspaceFolder = None, as_json: Json = False) -> None:
    """Close the open round: average the sites' updates.

    Makes the next global weights and a signed record of who took part with which file, and puts
    them into the outbox. A round is closed once; with too few updates the exit code is 7.
    """
    from brainfed.steps import aggregate as step

    with working(workspace, only="coordinator") as place, progress() as bar:
        done = step.aggregate(place, today=datetime.now(UTC).date(), progress=bar)
    show(done, _aggregate_words, as_json=as_json)


def _aggregate_words(done: "Aggregated") -> Words:
    yield f"Round {done.round} is closed."
    rows = [
        (
            part.site,
            str(part.status),
            part.n_patients,
            f"{100 * part.share:.1f} %",
            part.change_norm,
            part.dice_before,
            part.dice_after,
        )
        for part in done.parts
    ]
    yield Table(("site", "", "patients", "weight", "change", "Dice before", "Dice after"), rows)
    yield (
        "Dice: as the sites report it on their validation patients, with the weights that came "
        "and with their own; a dash where the floor forbids it. Change: Euclidean norm of a "
        "site's update minus the weights that came."
    )
    yield f"The global weights: {done.path}"
    yield f"The record: {done.record}"
    yield "Next: brainfed export --to FOLDER, and carry the files to every site."


def status(workspace: WorkspaceFolder = None, as_json: Json = False) -> None:
    """Say which round it is, whose file is missing, and what to do next.

    Reads only; it can be run at any time.
    """
    from brainfed.steps import status as step

    show(step.status(find(workspace)), _status_words, as_json=as_json)


def _status_words(now: "Status") -> Words:
    yield f"{now.name}, a {now.role}" if now.role == "site" else f"{now.name}, the {now.role}"
    if now.federation is None:
        yield "No federation yet."
    else:
        yield f"Federation {now.federation[:16]}, plan {now.plan}"
    if now.closed_round is not None:
        yield f"Newest global weights: round {now.closed_round} of {now.rounds_planned}"
    if now.seats:
        rows = [(seat.site, "here" if seat.has_sent else "missing") for seat in now.seats]
        yield ""
        yield Table(("site", f"update of round {(now.closed_round or 0) + 1}"), rows)
    if now.outbox:
        yield "\nIn the outbox, each with its .sig:"
        yield from (f"- {name}" for name in now.outbox)
    yield "\nNext:"
    yield from (f"{number}. {todo}" for number, todo in enumerate(now.todo, start=1))
