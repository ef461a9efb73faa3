"""`brainfed revoke` and `brainfed amend`: the coordinator changes who takes part, and the plan."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brainfed.cli import completion
from brainfed.cli.console import Table, Words, confirm, show
from brainfed.cli.options import Json, WorkspaceFolder, Yes
from brainfed.cli.place import working
from brainfed.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from brainfed.formats.amendment import Change
    from brainfed.steps.admit import Revoked
    from brainfed.steps.amend import Amended


def revoke(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            autocompletion=completion.parties,
            help="A site or another party of the roster.",
            show_default=False,
        ),
    ],
    yes: Yes = False,
    workspace: WorkspaceFolder = None,
    as_json: Json = False,
) -> None:
    """Let nothing count any more that a party's key signs.

    From the open round on; what it signed in closed rounds stays valid. The new roster goes into
    the outbox. A site whose key was stolen makes a new one with `brainfed key rotate` and is
    admitted again. It can't be taken back.
    """
    from brainfed.steps import admit

    with working(workspace, only="coordinator") as place:
        if not (yes or confirm(f"Revoke the key of {name}, for good?", flag="--yes")):
            raise UsageError("Nothing was revoked", hint=f"brainfed revoke {name}")
        revoked = admit.revoke(place, name)
    show(revoked, _revoke_words, as_json=as_json)


def _revoke_words(done: "Revoked") -> Words:
    verb = "was revoked before" if done.already else "is revoked"
    yield (
        f"The key of {done.name} {verb}: nothing counts that it signs from round "
        f"{done.since_round} on."
    )
    yield f"  {done.fingerprint}"
    yield f"The roster has version {done.version}."
    yield "Next: brainfed export --to FOLDER, and carry the new roster to every site."


def amend(
    plan: Annotated[
        Path, typer.Argument(metavar="PLAN", help="The complete new plan.", show_default=False)
    ],
    from_round: Annotated[
        int,
        typer.Option(
            "--from-round",
            min=1,
            metavar="R",
            help="First round under the new plan; the open one or a later one.",
            show_default=False,
        ),
    ],
    workspace: WorkspaceFolder = None,
    as_json: Json = False,
) -> None:
    """Sign a new version of the plan, from a round on.

    It may change all but the name, the seed, the network and the tables that decide what a case
    holds. Each site sees the difference key by key and accepts it before it trains under it.
    """
    from brainfed.steps import amend as step

    with working(workspace, only="coordinator") as place:
        today = datetime.now(UTC).date()
        amended = step.amend(place, plan, from_round=from_round, today=today)
    show(amended, _amend_words, as_json=as_json)


def _amend_words(done: "Amended") -> Words:
    yield (
        f"Version {done.version} of the plan is "
        f"{'signed already' if done.already else 'signed'}, from round {done.from_round} on."
    )
    yield changes_table(done.changes)
    yield f"Digest of the plan: {done.digest}"
    yield "Next: brainfed export --to FOLDER, and carry the files to every site."


def changes_table(changes: "Iterable[Change]") -> Table:
    """What a new version of the plan changes, key by key."""
    return Table(
        ("key of the plan", "before", "now"), [(c.key, c.before, c.after) for c in changes]
    )
