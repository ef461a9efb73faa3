"""Begin: make a workspace, admit sites to the roster, freeze the plan and start the federation."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np

from brainfed import plan as plans
from brainfed.core.sshsig import PublicKey, parse_public_key, public_key
from brainfed.errors import ConflictError, NotReadyError, PlanError
from brainfed.formats import (
    atomic,
    document,
    enrolment,
    federation,
    roster,
    rounds,
    signature,
    start,
    weights,
    workspace,
)
from brainfed.formats.document import Purpose
from brainfed.formats.ledger import Event
from brainfed.formats.manifest import Kind
from brainfed.formats.workspace import Role, Workspace
from brainfed.steps import exchange


@dataclass(frozen=True)
class Initialised:
    """A new workspace."""

    root: Path
    role: Role
    name: str
    fingerprint: str
    enrolment: Path | None


def initialise(root: Path, role: Role, name: str, *, n_patients: int | None = None) -> Initialised:
    """Make a workspace with a new key; at a site also the enrolment, in the outbox.

    Args:
        root: The folder; made if it isn't there.
        role: Whose workspace.
        name: Short name: lower-case letters, digits and hyphens.
        n_patients: How many patients a site expects to train on, if it says so.

    Raises:
        UsageError: The name can't be used.
        WorkspaceError: The folder is a workspace already.
    """
    plans.check_name(name)
    place = workspace.create(root, role, name)
    key = public_key(place.private_key())
    path = None
    if role is Role.SITE:
        path = place.outbox / f"{name}.enrolment.json"
        content = enrolment.Enrolment(name=name, key=key.line, n_patients=n_patients)
        atomic.remove(path)  # of a killed command
        document.write_signed(path, content, place.private_key())
    workspace.finish(place)
    place.note(Event.MADE, what="workspace", name=name, fingerprint=key.fingerprint)
    return Initialised(root, role, name, key.fingerprint, path)


@dataclass(frozen=True)
class Candidate:
    """A site that asks to be admitted."""

    name: str
    fingerprint: str
    n_patients: int | None


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
    """Take sites into the roster, each after its fingerprint was confirmed.

    Args:
        place: The coordinator's workspace.
        paths: Enrolments, each with its `.sig` beside it.
        confirm: Asked for each new site; the person compares the fingerprint by a second channel.

    Raises:
        FileRefusedError: An enrolment is unsigned or damaged; then none is admitted.
        ConflictError: The name or the key is in the roster already, as another party's.
    """
    place.require(Role.COORDINATOR)
    requests = [enrolment.read_verified(path) for path in paths]
    current = federation.newest_roster(place)
    principals = {p.name: p for p in current.principals} if current else _first_roster(place)
    admitted, already, declined = [], [], []
    for request in requests:
        if _is_known(request, principals):
            already.append(request.name)
            continue
        key = parse_public_key(request.key)
        if not confirm(Candidate(request.name, key.fingerprint, request.n_patients)):
            declined.append(request.name)
            continue
        principals[request.name] = roster.Principal(
            name=request.name,
            role=roster.PrincipalRole.SITE,
            key=request.key,
            recipient=request.recipient,
            n_patients=request.n_patients,
        )
        admitted.append(request.name)
    if admitted or current is None:
        current = _write_roster(place, principals, 1 if current is None else current.version + 1)
    for name in admitted:
        place.note(Event.MADE, what="admission", name=name, roster_version=current.version)
    exchange.fill_outbox(place)
    sites = tuple(p.name for p in current.sites)
    return Admitted(current.version, tuple(admitted), tuple(already), tuple(declined), sites)


def _first_roster(place: Workspace) -> dict[str, roster.Principal]:
    key: PublicKey = public_key(place.private_key())
    own = roster.Principal(name=place.name, role=roster.PrincipalRole.COORDINATOR, key=key.line)
    return {place.name: own}


def _is_known(request: enrolment.Enrolment, principals: dict[str, roster.Principal]) -> bool:
    known = principals.get(request.name)
    if known is not None and known.key == request.key and known.role is roster.PrincipalRole.SITE:
        return True
    owner = next((p.name for p in principals.values() if p.key == request.key), None)
    if known is not None or owner is not None:
        raise ConflictError(
            "The roster has another entry under this name or key",
            expected="a new name and a new key",
            found=f"{request.name}, whose place is taken by {owner or request.name}",
            hint="ask the site to run `brainfed init site` under another name",
        )
    return False


def _write_roster(
    place: Workspace, principals: dict[str, roster.Principal], number: int
) -> roster.Roster:
    known = federation.load(place).digest if federation.has_started(place) else None
    content = roster.Roster(
        version=number,
        federation=known,
        principals=tuple(principals[name] for name in sorted(principals)),
    )
    path = federation.roster_path(place, number)
    atomic.remove(path)  # of a killed command: without its signature it never counted
    # What is derived comes first: once the signature stands, nothing is left to do.
    federation.write_allowed_signers(place, content)
    document.write_signed(path, content, place.private_key())
    return content


@dataclass(frozen=True)
class Started:
    """A federation that has begun."""

    federation: str
    plan: plans.Plan
    n_parameters: int
    sites: tuple[str, ...]
    already: bool


InitialWeights = Callable[[plans.Plan], dict[str, "np.typing.NDArray[np.float32]"]]


def start_federation(
    place: Workspace,
    plan_path: Path,
    *,
    initial_weights: InitialWeights,
    today: date,
    purpose: Purpose = "real",
) -> Started:
    """Freeze the completed plan and make start.json and the global weights of round 0.

    Run again with the same plan it does what is left to do and changes nothing else.

    Args:
        place: The coordinator's workspace.
        plan_path: The plan.
        initial_weights: Makes the weights of round 0 from the plan; given, so that only the caller
            needs torch.
        today: The day for start.json.
        purpose: `real`, or a marked simulation or drill.

    Raises:
        PlanError: The plan is wrong, or differs from the one that has been started.
        NotReadyError: No site has been admitted yet.
    """
    place.require(Role.COORDINATOR)
    plan = plans.load(plan_path)
    already = federation.has_started(place)
    if not already:
        _write_start(place, plan, purpose, today)
    known = federation.load(place)
    if known.plan != plan:
        raise PlanError(
            "This federation was started with another plan",
            expected=f"the frozen plan, digest {known.start.plan.digest[:16]}",
            found=f"digest {plans.plan_digest(plan)[:16]}",
            where=plan_path,
            hint="a new plan is a new federation: `brainfed init coordinator` in an empty folder",
        )
    if rounds.newest_round(place) is None:
        _write_first_weights(place, known, initial_weights)
    exchange.fill_outbox(place)
    n = sum(int(np.prod(shape)) for shape in known.table.values())
    return Started(known.digest, plan, n, tuple(p.name for p in known.roster.sites), already)


def _write_start(place: Workspace, plan: plans.Plan, purpose: Purpose, today: date) -> None:
    current = federation.newest_roster(place)
    if current is None or len(current.sites) < plan.participation.quorum_sites:
        found = 0 if current is None else len(current.sites)
        raise NotReadyError(
            "Too few sites have been admitted to start",
            expected=f"at least {plan.participation.quorum_sites} (participation.quorum_sites)",
            found=found,
            where=place.root,
            hint="`brainfed admit SITE.enrolment.json ...`",
        )
    content = start.make(
        plan, current, purpose=purpose, nonce=secrets.token_hex(16), day=today.isoformat()
    )
    path = place.federation_folder / federation.START
    atomic.remove(path)  # of a killed command: without its signature it never counted
    digest = document.write_signed(path, content, place.private_key())
    place.note(Event.MADE, what="start", digest=digest)


def _write_first_weights(
    place: Workspace, known: federation.Federation, initial_weights: InitialWeights
) -> None:
    manifest = rounds.new_manifest(
        known,
        kind=Kind.GLOBAL,
        round=0,
        sender=place.name,
        versions={"brainfed": version("brainfed"), "torch": version("torch")},
    )
    path = place.round_folder(0) / known.weights_name(manifest)
    atomic.make_folder(path.parent)
    atomic.remove(path)
    weights.write(path, manifest, initial_weights(known.plan))
    digest = signature.sign_file(path, place.private_key())
    place.note(Event.MADE, what="global weights", round=0, digest=digest.hex())
