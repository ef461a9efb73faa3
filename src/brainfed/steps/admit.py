"""Admit and revoke: who is in the roster, and under which key."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from brainfed.core.sshsig import parse_public_key
from brainfed.errors import ConflictError, NotReadyError, UsageError
from brainfed.formats import (
    atomic,
    courier,
    document,
    enrolment,
    federation,
    rounds,
    signature,
)
from brainfed.formats.enrolment import Enrolment
from brainfed.formats.ledger import Event
from brainfed.formats.roster import Principal, Role, Roster
from brainfed.formats.workspace import Workspace
from brainfed.steps import exchange, keys, rosters


@dataclass(frozen=True)
class Candidate:
    """A party that asks to be admitted."""

    name: str
    role: Role
    fingerprint: str
    n_patients: int | None
    replaces: str | None = None
    """Fingerprint of its key that this one replaces; None for a new party."""


@dataclass(frozen=True)
class Admitted:
    """The roster after admitting."""

    version: int
    admitted: tuple[str, ...]
    already: tuple[str, ...]
    declined: tuple[str, ...]
    sites: tuple[str, ...]


def admit(
    place: Workspace, paths: Sequence[Path], *, confirm: Callable[[Candidate], bool]
) -> Admitted:
    """Take parties, or their new keys, into the roster, after each fingerprint was compared.

    A new key replaces the party's old one from the round after the open one, so that an update that
    is on its way still counts. If the old key was stolen, `revoke` it first.

    Args:
        place: The coordinator's workspace.
        paths: Enrolments, each with its `.sig` beside it.
        confirm: Asked for each new key; the person compares the fingerprint by a second channel.

    Raises:
        FileRefusedError: An enrolment is unsigned or damaged; then none is admitted.
        ConflictError: The name or the key is in the roster already, as another party's.
    """
    place.require(Role.COORDINATOR)
    requests = [(enrolment.read_verified(path), path) for path in paths]
    for request, path in requests:
        purpose = "drill" if document.is_of_drill(request.name) else "real"
        document.check_purpose(place.name, purpose, f"The enrolment of {request.name}", path)
        if request.recipient is not None:
            courier.check_recipient(request.recipient, request.name)
    current = federation.newest_roster(place)
    entries = list(current.principals) if current else [_own_entry(place)]
    admitted, already, declined = [], [], []
    taken: list[tuple[Enrolment, Path]] = []
    for request, path in requests:
        if any(entry == _entry_of(request) for entry in entries):
            already.append(request.name)
            continue
        before = _entry_before(request, entries)
        if before is not None and before.key == request.key:
            entries.remove(before)  # the same key, which now says more of itself
        elif not confirm(_candidate(request, before)):
            declined.append(request.name)
            continue
        elif before is not None and before.is_active:
            entries.remove(before)
            entries.append(before.revoked(rounds.open_round(place) + 1))
        entries.append(_entry_of(request))
        admitted.append(request.name)
        taken.append((request, path))
    first = current is None
    if taken or current is None:
        current = _publish(place, entries, taken)
    for request, _ in taken:
        digest = document.sha256(request.dumps())
        place.note(Event.ACCEPTED, what="enrolment", name=request.name, digest=digest)
    if taken or first:
        what, version = "roster", current.version
        place.note(Event.MADE, what=what, roster_version=version, digest=current.digest)
    exchange.fill_outbox(place)
    sites = tuple(p.name for p in current.sites)
    return Admitted(current.version, tuple(admitted), tuple(already), tuple(declined), sites)


def _own_entry(place: Workspace) -> Principal:
    """The coordinator's own entry in the first roster."""
    return Principal(
        name=place.name,
        role=Role.COORDINATOR,
        key=place.public_key().line,
        recipient=keys.recipient_of(place),
    )


def _entry_of(request: Enrolment) -> Principal:
    return Principal(
        name=request.name,
        role=request.role,
        key=request.key,
        recipient=request.recipient,
        n_patients=request.n_patients,
    )


def _entry_before(request: Enrolment, entries: Sequence[Principal]) -> Principal | None:
    """The newest entry of that name, if the request may follow it."""
    owner = next((e for e in entries if e.key == request.key), None)
    named = [e for e in entries if e.name == request.name]
    if owner is not None and (owner.name, owner.is_active) != (request.name, True):
        raise ConflictError(
            "The roster has this key already, "
            + ("revoked" if owner.name == request.name else "as another party's"),
            expected="a new key",
            found=f"{request.name}, with the key of {owner.name}",
            hint="ask the site to run `brainfed key rotate`, or `brainfed init` in a new folder",
        )
    if named and named[-1].role is not request.role:
        raise ConflictError(
            "The roster has another party under this name",
            expected=f"a {named[-1].role}",
            found=f"{request.name}, who asks to be a {request.role}",
            hint="ask for an enrolment under another name",
        )
    if request.role is Role.APPROVER and not any(
        e.role is Role.SITE and f"{e.name}{document.RELEASE}" == request.name for e in entries
    ):
        raise ConflictError(
            "The approver's site is not in the roster",
            expected=f"the site {request.name.removesuffix(document.RELEASE)}, admitted before",
            found=request.name,
            hint="admit the site first",
        )
    return named[-1] if named else None


def _candidate(request: Enrolment, before: Principal | None) -> Candidate:
    return Candidate(
        name=request.name,
        role=request.role,
        fingerprint=parse_public_key(request.key).fingerprint,
        n_patients=request.n_patients,
        replaces=None if before is None else before.public_key.fingerprint,
    )


def _publish(
    place: Workspace, entries: Sequence[Principal], taken: Sequence[tuple[Enrolment, Path]] = ()
) -> Roster:
    """Keep the enrolments, then write the roster that follows from them."""
    recovery = None
    if signature.public_path(place.recovery_path).exists():
        recovery = signature.read_public(signature.public_path(place.recovery_path)).line
    content = rosters.successor(place, entries, recovery=recovery)
    for request, path in taken:
        kept = federation.enrolment_path(place, request.name, content.version)
        for source, target in (
            (signature.signature_path(path), signature.signature_path(kept)),
            (path, kept),
        ):
            cap = document.MAX_JSON_BYTES
            atomic.copy(source, target, cap_bytes=cap, replace=True)
    rosters.publish(place, content, rosters.coordinator_key(place))
    return content


@dataclass(frozen=True)
class Revoked:
    """A key that no longer counts."""

    name: str
    fingerprint: str
    since_round: int
    version: int
    already: bool


def revoke(place: Workspace, name: str) -> Revoked:
    """Let nothing count that a party's key signs from the open round on.

    What it signed in closed rounds stays valid. An update of the open round that lies here already
    is left out of the mean, with the reason `revoked`.

    Args:
        place: The coordinator's workspace.
        name: A principal; not the coordinator.

    Raises:
        NotReadyError: There is no roster yet.
        UsageError: The roster has no such party, or it is the coordinator.
    """
    place.require(Role.COORDINATOR)
    current = federation.newest_roster(place)
    if current is None:
        raise NotReadyError("There is no roster yet", hint="`brainfed admit ENROLMENT...`")
    entry = current.get(name)
    if entry is None or entry.role is Role.COORDINATOR:
        raise UsageError(
            "The coordinator's own key can't be revoked, only replaced"
            if entry
            else "The roster has no such party",
            expected="one of " + ", ".join(p.name for p in current.principals if p.is_active),
            found=name,
            hint="`brainfed key rotate` replaces it, with --recovery FILE if it was lost or stolen"
            if entry
            else "`brainfed status` names the sites",
        )
    already = not entry.is_active
    if not already:
        since = rounds.open_round(place)
        entries = [p for p in current.principals if p != entry]
        entry = entry.revoked(since)
        current = _publish(place, [*entries, entry])
        place.note(
            Event.MADE,
            what="roster, revoking a key",
            name=name,
            roster_version=current.version,
            digest=current.digest,
        )
    exchange.fill_outbox(place)
    assert entry.revoked_since is not None
    fingerprint = entry.public_key.fingerprint
    return Revoked(name, fingerprint, entry.revoked_since, current.version, already)
