"""`brainfed init`: make a workspace."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brainfed.cli.console import COMMAND, Words, show
from brainfed.cli.options import Json, KeyFile, Passphrase, RoleChoice, WorkspaceFolder
from brainfed.cli.place import ask_passphrase, new_key

if TYPE_CHECKING:
    from brainfed.steps.initialise import Initialised


def init(
    role: Annotated[
        RoleChoice,
        typer.Argument(
            metavar="ROLE",
            help="Whose workspace it is: coordinator, site, evaluator (a site that only scores), "
            "approver (lets a site's updates leave) or auditor.",
            show_default=False,
        ),
    ],
    name: Annotated[
        str,
        typer.Option(
            "--name",
            metavar="NAME",
            help="Short name, seen by all parties: lower-case letters, digits, hyphens; an "
            "approver's is that of its site with .release added.",
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
    floor: Annotated[
        int,
        typer.Option(
            "--floor",
            min=1,
            max=10_000,
            metavar="N",
            help="At a site or an evaluator: the fewest patients that a figure may stand for if it "
            "leaves; the plan's floor holds where it is higher.",
            show_default=False,
        ),
    ] = 1,
    key: KeyFile = None,
    passphrase: Passphrase = False,
    workspace: WorkspaceFolder = None,
    as_json: Json = False,
) -> None:
    """Make a workspace in the current folder, with a new key or one that is there.

    Prints the key's fingerprint. The other side compares it with you by telephone or in person. An
    enrolment, which asks the coordinator to take this party in, is put into the outbox. The folder
    is closed to all but its owner.
    """
    from brainfed.formats.roster import Role
    from brainfed.steps.initialise import initialise

    given, protection = new_key(key, passphrase=passphrase)
    made = initialise(
        (workspace or Path.cwd()).resolve(),
        Role(role),
        name,
        n_patients=patients,
        given=given,
        passphrase=protection,
        unlock=ask_passphrase,
        floor=floor,
    )
    show(made, _init_words, as_json=as_json)


def _init_words(made: "Initialised") -> Words:
    yield f"The {made.role}'s workspace of {made.name} is in {made.root}"
    if not made.is_signed:
        yield "Its private key is in an agent or a hardware token. Its fingerprint is"
    elif made.key.is_relative_to(made.root):
        key = made.key.relative_to(made.root).as_posix()
        yield f"Its private key ({key}) never leaves this folder. Its fingerprint is"
    else:
        yield f"Its private key stays where it is ({made.key}). Its fingerprint is"
    yield f"  {made.fingerprint}"
    if made.recovery is not None:
        yield (
            f"Move {made.recovery.relative_to(made.root).as_posix()} to another place now, such as "
            "a safe in another building, and leave no copy here. It signs nothing but a roster "
            "with a new coordinator key, should this one ever be lost or stolen."
        )
    if made.enrolment is None:
        yield "Next: brainfed admit NAME.enrolment.json ..., once the others have sent theirs."
    else:
        yield from bring_words(made.root, made.key, made.enrolment, is_signed=made.is_signed)


def bring_words(root: Path, key: Path, enrolment: Path, *, is_signed: bool) -> Words:
    """How an enrolment gets to the coordinator."""
    name = enrolment.relative_to(root).as_posix()
    if not is_signed:
        yield "Sign the enrolment with it, in the folder of the workspace:"
        public = key.relative_to(root).as_posix()
        yield f"{COMMAND}ssh-keygen -Y sign -n brainfed -f {public} {name}"
    yield (
        f"Next: send {name} and its .sig to the coordinator, and read the fingerprint to the "
        "coordinator by telephone or in person."
    )
