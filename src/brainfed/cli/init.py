"""`brainfed init`: make a workspace."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brainfed.cli.console import Words, show
from brainfed.cli.options import Json, RoleChoice, WorkspaceFolder

if TYPE_CHECKING:
    from brainfed.steps.initialise import Initialised


def init(
    role: Annotated[
        RoleChoice,
        typer.Argument(
            metavar="coordinator|site", help="Whose workspace it is.", show_default=False
        ),
    ],
    name: Annotated[
        str,
        typer.Option(
            "--name",
            metavar="NAME",
            help="Short name, seen by all parties: lower-case letters, digits, hyphens.",
            show_default=False,
        ),
    ],
    patients: Annotated[
        int | None,
        typer.Option(
            "--patients",
            min=0,
            metavar="N",
            help="At a site: about how many patients it will train on.",
            show_default=False,
        ),
    ] = None,
    workspace: WorkspaceFolder = None,
    as_json: Json = False,
) -> None:
    """Make a workspace in the current folder, with a new key.

    Prints the key's fingerprint. The other side compares it with you by telephone or in person. A
    site's enrolment, which asks the coordinator to take it in, is put into its outbox.
    """
    from brainfed.formats.workspace import Role
    from brainfed.steps.initialise import initialise

    made = initialise((workspace or Path.cwd()).resolve(), Role(role), name, n_patients=patients)
    show(made, _init_words, as_json=as_json)


def _init_words(made: "Initialised") -> Words:
    yield f"The {made.role}'s workspace of {made.name} is in {made.root}"
    yield "Its private key (key/id_ed25519) never leaves this folder. Its fingerprint is"
    yield f"  {made.fingerprint}"
    if made.enrolment is None:
        yield "Next: brainfed admit SITE.enrolment.json ..., once the sites have sent theirs."
    else:
        yield (
            f"Next: send outbox/{made.enrolment.name} and its .sig to the coordinator, and read "
            "the fingerprint to the coordinator by telephone or in person."
        )
