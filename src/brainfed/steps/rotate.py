"""Rotate: a new key in place of the old one.

The marker says which key is a party's own; it changes by one rename, and everything before that is
begun again after a kill. What an older key signed must stay to be explained, so no key file is ever
removed or replaced.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from brainfed.core import sshsig
from brainfed.core.sshsig import PublicKey
from brainfed.errors import NotReadyError, UsageError, WorkspaceError
from brainfed.formats import document, federation, rounds, signature, workspace
from brainfed.formats.enrolment import Enrolment
from brainfed.formats.ledger import Event
from brainfed.formats.roster import Principal, Role, Roster
from brainfed.formats.workspace import Workspace
from brainfed.steps import exchange, keys, rosters


@dataclass(frozen=True)
class Rotated:
    """A new key in place of an old one."""

    role: Role
    name: str
    fingerprint: str
    key: Path
    enrolment: Path | None
    """What the coordinator needs of anybody else; None at the coordinator."""
    is_signed: bool
    """Whether the enrolment has its signature; one by an agent or a token is made by hand."""
    roster_version: int | None
    """At the coordinator, the roster that names the new key."""


def rotate(
    place: Workspace,
    *,
    given: Path | None = None,
    passphrase: bytes | None = None,
    recovery: Path | None = None,
) -> Rotated:
    """Replace this party's key. A killed one is finished when it is run again.

    Args:
        place: The workspace.
        given: A key that is there, by its absolute path; one is made where None.
        passphrase: Encrypts the key that is made.
        recovery: The coordinator's private recovery key, where the old key is lost or stolen.

    Raises:
        UsageError: The given key is no new one or can't do the work, or only the coordinator can.
        NotReadyError: At the coordinator: the federation has not started.
        WorkspaceError: A key can't be used, or the recovery key is another federation's.
    """
    if place.role is Role.COORDINATOR:
        return _rotate_coordinator(place, given, passphrase, recovery)
    if recovery is not None:
        raise UsageError(
            "Only the coordinator has a recovery key",
            found=recovery,
            where="--recovery",
            hint="`brainfed key rotate`; the coordinator admits the new key",
        )
    current = federation.load(place).roster if federation.has_started(place) else None
    n_patients = _declared(place, current)
    if _is_told(place, current):
        known = [e.key for e in current.principals] if current else []
        new = _put_new(place, given, passphrase, known)
        workspace.with_key(place, new.key)
        place = new
    path = keys.write_enrolment(place, n_patients)
    fingerprint = place.public_key().fingerprint
    place.note(Event.MADE, what="key", name=place.name, fingerprint=fingerprint)
    return Rotated(
        place.role, place.name, fingerprint, place.key_path, path, place.has_private_key, None
    )


def _declared(place: Workspace, current: Roster | None) -> int | None:
    """The patients that this party declared before."""
    if keys.enrolment_path(place).exists():
        return document.read(keys.enrolment_path(place), Enrolment).n_patients
    known = None if current is None else current.get(place.name)
    return None if known is None else known.n_patients


def _is_told(place: Workspace, current: Roster | None) -> bool:
    """Whether the present key has its enrolment, or was lost, so that a new one is due.

    Without one, a killed rotation has changed the marker and not yet written the enrolment.
    """
    if not place.key_path.exists():
        return True
    key = place.public_key().line
    if current is not None and key in {e.key for e in current.principals}:
        return True
    path = keys.enrolment_path(place)
    is_signed = signature.signature_path(path).exists() or not place.has_private_key
    return path.exists() and is_signed and document.read(path, Enrolment).key == key


def _put_new(
    place: Workspace, given: Path | None, passphrase: bytes | None, known: Iterable[str]
) -> Workspace:
    """Make or take another key; gives the workspace as it will be once the marker names it."""
    if given is not None:
        public = keys.check_given(given, place.role)
        if public.line in {*known, _line_or_none(place)}:
            raise UsageError(
                "This key is no new one",
                expected="another key",
                found=public.fingerprint,
                where=given,
                hint="`brainfed key rotate` without --key makes a new one",
            )
    numbers = itertools.count(2)
    own = next(
        name
        for name in (f"{workspace.KEY}-{number}" for number in numbers)
        if not list((place.root / name).parent.glob(f"{Path(name).name}*"))
    )
    new = replace(place, key=keys.entry(place.root, given, own))
    new = replace(new, unlock=keys.answering(passphrase, new.key_path, place.unlock))
    keys.put(new, given, passphrase)
    return new


def _line_or_none(place: Workspace) -> str | None:
    return place.public_key().line if place.key_path.exists() else None


def _rotate_coordinator(
    place: Workspace, given: Path | None, passphrase: bytes | None, recovery: Path | None
) -> Rotated:
    if not federation.has_started(place):
        raise NotReadyError(
            "The federation has not started, so nobody trusts this key yet",
            where=place.root,
            hint="`brainfed init coordinator` in an empty folder, and admit the parties there",
        )
    if given is not None:
        keys.check_given(given, place.role)
    current = federation.load(place).roster
    name = _begun(place, current, given)
    if name is None:
        # What can be refused comes before the first file.
        signer = _signer(place, current, recovery)
        known = [e.key for e in current.principals] + [current.recovery or ""]
        new = _put_new(place, given, passphrase, known)
        current = _successor(place, current, new.public_key())
        rosters.publish(place, current, signer)
        name = new.key
    place = workspace.with_key(place, name)
    fingerprint = current.coordinator.public_key.fingerprint
    place.note(
        Event.MADE,
        what="key",
        name=place.name,
        fingerprint=fingerprint,
        roster_version=current.version,
        digest=current.digest,
    )
    exchange.fill_outbox(place)
    return Rotated(place.role, place.name, fingerprint, place.key_path, None, True, current.version)


def _begun(place: Workspace, current: Roster, given: Path | None) -> str | None:
    """Which key the newest roster names already, where a killed rotation left the marker behind."""
    folder = place.recovery_path.parent
    if _line_or_none(place) == current.coordinator.key:
        return None
    names = [f"key/{path.stem}" for path in sorted(folder.glob("id_ed25519*.pub"))]
    if given is not None:
        names.append(keys.entry(place.root, given, workspace.KEY))
    for name in names:
        there = replace(place, key=name)
        is_other = name != place.key and there.key_path.exists()
        if is_other and there.public_key().line == current.coordinator.key:
            return name
    return None


def _signer(place: Workspace, current: Roster, recovery: Path | None) -> Ed25519PrivateKey:
    """The key that may sign a roster with another coordinator key."""
    path = recovery or place.key_path
    expected = current.recovery if recovery else current.coordinator.key
    if not path.exists():
        raise WorkspaceError(
            "The private key that must sign the next roster is not here",
            where=path,
            hint="`brainfed key rotate --recovery FILE` does without the old key",
        )
    found = signature.read_public_part(path)[0]
    if found.line != expected:
        raise WorkspaceError(
            "This key can't sign the next roster of this federation",
            expected="no recovery key: it has none"
            if expected is None
            else sshsig.parse_public_key(expected).fingerprint,
            found=found.fingerprint,
            where=path,
            hint="give the recovery key that `brainfed init` made here with --recovery; or, if "
            "`brainfed key rotate --key` was interrupted, the same --key again",
        )
    return place.private_key() if recovery is None else place.open_key(path)


def _successor(place: Workspace, current: Roster, key: PublicKey) -> Roster:
    """The next roster: the old key counts no more from the open round on, the new one always.

    Global weights of closed rounds stay those of the old key; those of the open round will be the
    new one's.
    """
    old = current.coordinator
    revoked = old.revoked(rounds.open_round(place))
    new = Principal(name=old.name, role=old.role, key=key.line, recipient=keys.recipient_of(place))
    others = [e for e in current.principals if e != old]
    return rosters.successor(place, [*others, revoked, new])
