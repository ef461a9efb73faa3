"""Begin: make a workspace with its keys, and the enrolment that asks the coordinator in."""

from dataclasses import dataclass
from pathlib import Path

from brainfed import plan as plans
from brainfed.errors import UsageError
from brainfed.formats import document, workspace
from brainfed.formats.document import Purpose
from brainfed.formats.ledger import Event
from brainfed.formats.roster import Role
from brainfed.formats.workspace import Unlock, Workspace
from brainfed.steps import keys


@dataclass(frozen=True)
class Initialised:
    """A new workspace."""

    root: Path
    role: Role
    name: str
    fingerprint: str
    key: Path
    """The private key, or the public one where the private is in an agent or a token."""
    enrolment: Path | None
    """None at the coordinator."""
    is_signed: bool
    """Whether the enrolment has its signature; one by an agent or a token is made by hand."""
    recovery: Path | None
    """At the coordinator, the private recovery key, to be moved away."""


def initialise(
    root: Path,
    role: Role,
    name: str,
    *,
    n_patients: int | None = None,
    given: Path | None = None,
    passphrase: bytes | None = None,
    unlock: Unlock | None = None,
    floor: int = 1,
    purpose: Purpose = "real",
) -> Initialised:
    """Make a workspace with its keys; for all but the coordinator also the enrolment.

    Args:
        root: The folder; made if it isn't there, and closed to all but its owner.
        role: Whose workspace.
        name: Short name: lower-case letters, digits and hyphens; an approver's is that of its site
            with `.release` added.
        n_patients: How many patients a site expects to train on, if it says so.
        given: A key that is there, by its absolute path: a private one, or the `.pub` of one in an
            agent or a hardware token; one is made where None.
        passphrase: Encrypts the keys that are made.
        unlock: Asked for the passphrase of the given key, if it has one.
        floor: The fewest patients that a party with patients lets a figure stand for that leaves;
            the plan's holds where it is higher.
        purpose: A drill's parties, and no others, have names that begin with `drill-`.

    Raises:
        UsageError: The name or the given key can't be used.
        WorkspaceError: The folder is a workspace already, or the given key can't be opened.
    """
    check_name(role, name)
    if document.is_of_drill(name) != (purpose == "drill"):
        raise UsageError(
            f"Names that begin with {document.DRILL} are kept for drills",
            expected="another name",
            found=name,
            where="--name",
            hint="choose another name and run the command again",
        )
    if floor > 1 and role not in {Role.SITE, Role.EVALUATOR}:
        raise UsageError(
            "A floor is for those who have patients",
            expected="a site or an evaluator",
            found=role,
            where="--floor",
            hint="that of the federation stands in its plan, participation.floor",
        )
    workspace.refuse_existing(root)
    if given is not None:
        keys.check_given(given, role)
        passphrase = keys.passphrase_of(given, unlock)
    own = keys.entry(root, given, workspace.KEY)
    place = Workspace(root, role, name, own, keys.answering(passphrase), floor)
    if given is not None and place.has_private_key:
        place.private_key()  # what can't be opened makes nothing
    workspace.create(place)
    keys.put(place, given, passphrase)
    keys.recipient_of(place)
    path = None
    if role is Role.COORDINATOR:
        keys.make(place.recovery_path, passphrase)
    else:
        path = keys.write_enrolment(place, n_patients)
    workspace.finish(place)
    fingerprint = place.public_key().fingerprint
    place.note(Event.MADE, what="workspace", name=name, fingerprint=fingerprint)
    return Initialised(
        root,
        role,
        name,
        fingerprint,
        place.key_path,
        path,
        place.has_private_key,
        place.recovery_path if role is Role.COORDINATOR else None,
    )


def check_name(role: Role, name: str) -> None:
    """Refuse a name that its role can't have.

    Raises:
        UsageError: Not a name, or an approver's that is not its site's with `.release` added.
    """
    if role is Role.APPROVER and not name.endswith(document.RELEASE):
        raise UsageError(
            "An approver's name is that of its site with .release added",
            expected=f"such as hospital-a{document.RELEASE}",
            found=name,
            where="--name",
            hint=f"brainfed init approver --name {name}{document.RELEASE}",
        )
    plans.check_name(name.removesuffix(document.RELEASE) if role is Role.APPROVER else name)
