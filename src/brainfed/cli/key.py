"""`brainfed key show` and `brainfed key rotate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brainfed.cli.console import COMMAND, Words, show
from brainfed.cli.init import bring_words
from brainfed.cli.options import Json, KeyFile, Passphrase, WorkspaceFolder
from brainfed.cli.place import find, new_key, working

if TYPE_CHECKING:
    from brainfed.steps.keys import Shown
    from brainfed.steps.rotate import Rotated


def show_key(workspace: WorkspaceFolder = None, as_json: Json = False) -> None:
    """Show the fingerprint and the public halves of this party's keys."""
    from brainfed.steps import keys

    show(keys.show(find(workspace)), _show_words, as_json=as_json)


def _show_words(shown: "Shown") -> Words:
    yield f"The key of {shown.name}, {shown.role}. Its fingerprint is"
    yield f"  {shown.fingerprint}"
    yield "Its public half, as in a .pub file, is"
    yield f"{COMMAND}{shown.public_key}"
    if shown.private_key is None:
        yield "Private key: in an agent or a hardware token"
    else:
        state = "protected by a passphrase" if shown.is_encrypted else "without a passphrase"
        yield f"Private key: {shown.private_key}, {state if shown.is_here else 'MISSING'}"
    yield f"Age recipient: {shown.recipient or 'none'}"
    if shown.recovery_fingerprint is not None:
        yield "The recovery key's fingerprint is"
        yield f"  {shown.recovery_fingerprint}"
    if shown.recovery_is_here:
        yield "The private recovery key still lies here: move it to another place."


def rotate(
    key: KeyFile = None,
    passphrase: Passphrase = False,
    recovery: Annotated[
        Path | None,
        typer.Option(
            "--recovery",
            metavar="FILE",
            help="At the coordinator: the private recovery key, where the old key is lost or "
            "stolen.",
            show_default=False,
        ),
    ] = None,
    workspace: WorkspaceFolder = None,
    as_json: Json = False,
) -> None:
    """Replace this party's key by a new one.

    The old key stays, so that what it signed can be explained. At the coordinator a roster with the
    new key is signed and put into the outbox. Everybody else gets a fresh enrolment there, to be
    brought to the coordinator.
    """
    from brainfed.steps import rotate as step

    given, protection = new_key(key, passphrase=passphrase)
    with working(workspace) as place:
        rotated = step.rotate(
            place,
            given=given,
            passphrase=protection,
            recovery=None if recovery is None else recovery.resolve(),
        )
        root = place.root

    def words(done: "Rotated") -> Words:
        yield f"The new key of {done.name} is {done.key}. Its fingerprint is"
        yield f"  {done.fingerprint}"
        if done.enrolment is None:
            yield f"The roster, version {done.roster_version}, names it; the old key is revoked."
            yield (
                "Next: brainfed export --to FOLDER, carry the roster to everybody, and read them "
                "the new fingerprint by telephone or in person."
            )
        else:
            yield from bring_words(root, done.key, done.enrolment, is_signed=done.is_signed)
            yield "The old key counts until the coordinator has run brainfed admit on it."

    show(rotated, words, as_json=as_json)
