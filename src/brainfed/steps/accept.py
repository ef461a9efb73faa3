"""What import does with one signed file, once its signature is known to fit its bytes."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from brainfed import plan as plans
from brainfed.errors import StrangerError
from brainfed.formats import atomic, document, federation, signature, verify
from brainfed.formats.acceptance import Acceptance
from brainfed.formats.amendment import Amendment, Change, changes
from brainfed.formats.approval import Approval
from brainfed.formats.erasure import Erasure
from brainfed.formats.federation import Federation, PlanInForce
from brainfed.formats.final import Final
from brainfed.formats.manifest import Kind, Manifest
from brainfed.formats.record import Record
from brainfed.formats.roster import Role, Roster
from brainfed.formats.scores import Scores
from brainfed.formats.shelf import DiskShelf
from brainfed.formats.signature import Signed
from brainfed.formats.workspace import Workspace
from brainfed.steps.judge import check_start, judge
from brainfed.steps.verdict import Outcome, Party, Verdict


@dataclass(frozen=True)
class JoinRequest:
    """What a person must see and accept before a site goes on under a plan."""

    federation: str
    purpose: str
    coordinator: str
    fingerprint: str
    site: str
    plan: plans.Plan
    plan_digest: str
    version: int = 1
    from_round: int = 0
    changes: tuple[Change, ...] = ()
    """Key by key, what an amendment changes; none where the site joins."""


Confirm = Callable[[JoinRequest], bool]


def accept(
    place: Workspace,
    signed: Signed,
    kind: str,
    confirm: Confirm,
    *,
    known: Federation | None = None,
) -> Outcome:
    """Judge one staged file by the state of the workspace, and put it in place.

    Args:
        place: The workspace.
        signed: The copy, in the inbox, with its signature beside it.
        kind: `weights`, or the kind that a signed JSON file names.
        confirm: Asked before the site joins, and before it goes on under an amended plan.
        known: What the workspace knows, if it has just been read; read here where None.

    Raises:
        FileRefusedError: It doesn't belong here; nothing was changed.
        QuorumError: It is an update of a site whose turn it isn't; nothing was changed.
        NotReadyError: The site has joined no federation yet.
    """
    if kind == "enrolment":
        return Outcome(Verdict.IGNORED, "an enrolment: `brainfed admit` takes it")
    if kind == "start" and place.role is not Role.COORDINATOR:
        if not federation.has_started(place):
            return _join(place, signed, confirm)
        _ask(place, confirm, version=1)
    party = party_of(place, known)
    with signed.path.open("rb") as stream:
        judged = judge(party, signed, kind, stream, signed.path.stat().st_size)
    content = judged.content
    if judged.outcome.verdict is Verdict.ACCEPTED:
        if isinstance(content, Roster):
            federation.write_allowed_signers(place, content)  # derived, so it comes first
        target = _target(place, party.known, content)
        is_update = isinstance(content, Manifest) and content.kind is Kind.UPDATE
        if is_update or isinstance(content, Scores | Approval):
            # Where the judge let it pass, what lies here is of a key that was revoked since, scores
            # that say less, or the approval of an update that never came. The file goes first: no
            # kill leaves it beside a wrong signature.
            atomic.remove(target)
            atomic.remove(signature.signature_path(target))
        put(signed.path, target)
    if isinstance(content, Amendment):
        _ask(place, confirm, version=content.plan.version)
    return judged.outcome


def party_of(place: Workspace, known: Federation | None = None) -> Party:
    """Who this workspace is, and what it knows, read here where not given.

    Raises:
        NotReadyError: It belongs to no federation yet.
    """
    known = known or federation.load(place)
    return Party(place.role, place.name, place.public_key(), known, DiskShelf(place))


def _target(place: Workspace, known: Federation, content: object) -> Path:
    if isinstance(content, Manifest):
        return place.round_folder(content.round) / known.weights_name(content)
    if isinstance(content, Record | Scores | Approval | Final):
        name = f"{known.file_stem(content)}.{content.kind}.json"
        return place.round_folder(content.round) / name
    if isinstance(content, Roster):
        return federation.roster_path(place, content.version)
    if isinstance(content, Amendment):
        return federation.amendment_path(place, content.plan.version)
    if isinstance(content, Erasure):
        return federation.erasure_path(place, content.sender, content.edition)
    assert isinstance(content, Acceptance)
    return federation.acceptance_path(place, content.sender, content.plan.version)


def _join(place: Workspace, signed: Signed, confirm: Confirm) -> Outcome:
    start = check_start(document.read_capped(signed.path), signed)
    document.check_purpose(place.name, start.purpose, "The start", signed.path)
    known = federation.assemble(start, signed.digest, None)
    request = _request(place, known, known.plans[0])
    if not confirm(request):
        raise StrangerError(
            "The coordinator's fingerprint was not confirmed; the site has not joined",
            found=signed.key.fingerprint,
            hint="compare it with the coordinator by telephone or in person, then import again",
        )
    # What is derived comes first: once start.json stands, nothing is left to do.
    text = start.plan_text.encode()
    atomic.write_bytes(place.federation_folder / federation.PLAN, text, replace=True)
    federation.write_allowed_signers(place, start.roster)
    if _must_accept(place):
        _write_acceptance(place, known, known.plans[0])
    put(signed.path, federation.start_path(place))
    return Outcome(Verdict.ACCEPTED, "the start: this site has joined", signed.digest)


def _request(place: Workspace, known: Federation, entry: PlanInForce) -> JoinRequest:
    coordinator = known.roster.coordinator
    before = [older for older in known.plans if older.version.version < entry.version.version]
    return JoinRequest(
        federation=known.digest,
        purpose=known.start.purpose,
        coordinator=coordinator.name,
        fingerprint=coordinator.public_key.fingerprint,
        site=place.name,
        plan=entry.plan,
        plan_digest=entry.version.digest,
        version=entry.version.version,
        from_round=entry.from_round,
        changes=changes(before[-1].plan, entry.plan) if before else (),
    )


def _ask(place: Workspace, confirm: Confirm, *, version: int) -> None:
    """Ask for a version of the plan, if this party has to accept it and hasn't.

    Raises:
        StrangerError: It was not accepted; the file stays, and importing it again asks again.
    """
    known = federation.load(place)
    entry = next(entry for entry in known.plans if entry.version.version == version)
    path = federation.acceptance_path(place, place.name, version)
    if not _must_accept(place) or path.exists():
        return
    if not confirm(_request(place, known, entry)):
        raise StrangerError(
            f"Version {version} of the plan was not accepted; training stops before round "
            f"{max(1, entry.from_round)}",
            where=path,
            hint="talk to the coordinator; importing the file again asks again",
        )
    _write_acceptance(place, known, entry)


def _must_accept(place: Workspace) -> bool:
    return place.role in verify.SIGNERS[Acceptance]


def _write_acceptance(place: Workspace, known: Federation, entry: PlanInForce) -> None:
    """Note the consent; `brainfed export` signs and sends it."""
    content = Acceptance(
        purpose=known.start.purpose,
        federation=known.digest,
        sender=place.name,
        roster_version=known.roster.version,
        plan=entry.version,
        from_round=entry.from_round,
        weights_licence=entry.plan.terms.weights_licence,
        agreement=entry.plan.terms.agreement_sha256 or None,
        day=_today().isoformat(),
    )
    path = federation.acceptance_path(place, place.name, entry.version.version)
    atomic.write_bytes(path, content.dumps(), replace=True)


def _today() -> date:
    return datetime.now(UTC).date()


def put(local: Path, target: Path) -> None:
    """Signature first: the file counts from the moment when it stands beside its signature."""
    atomic.make_folder(target.parent)
    atomic.refuse_existing(target)
    atomic.remove(signature.signature_path(target))  # of a killed import
    atomic.place(signature.signature_path(local), signature.signature_path(target))
    atomic.place(local, target)
