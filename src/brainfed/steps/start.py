"""Start: freeze the plan and make start.json and the global weights of round 0."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np

from brainfed import plan as plans
from brainfed.core.architecture import n_parameters, network_table
from brainfed.errors import ConflictError, NotReadyError, PlanError
from brainfed.formats import (
    atomic,
    document,
    federation,
    rounds,
    signature,
    start,
    weights,
)
from brainfed.formats.document import Purpose
from brainfed.formats.ledger import Event
from brainfed.formats.manifest import Kind
from brainfed.formats.roster import Role
from brainfed.formats.workspace import Workspace
from brainfed.steps import exchange, rosters


@dataclass(frozen=True)
class Started:
    """A federation that has begun."""

    federation: str
    plan: plans.Plan
    n_parameters: int
    """Of the whole network."""
    n_local: int
    """Of them, those that each site keeps to itself."""
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
    are_given: bool = False,
) -> Started:
    """Freeze the completed plan and make start.json and the global weights of round 0.

    Run again with the same plan it does what is left to do and changes nothing else.

    Args:
        place: The coordinator's workspace.
        plan_path: The plan.
        initial_weights: Makes the weights of round 0 from the plan; given, so that only the caller
            needs torch. Layers that stay at the sites are not written.
        today: The day for start.json.
        purpose: `real`, or a marked simulation or drill.
        are_given: Whether the weights come from a file; run again, they must be the same.

    Raises:
        PlanError: The plan is wrong, or differs from the one that has been started.
        NotReadyError: No site has been admitted yet.
        WrongRoundError: A workspace of a drill begins drills alone, and no other begins one.
        ConflictError: It was started with other weights than those given.
    """
    place.require(Role.COORDINATOR)
    plan = plans.load(plan_path)
    already = federation.has_started(place)
    # Before anything is written: weights that don't fit must not leave a start behind.
    first = initial_weights(plan) if rounds.newest_round(place) is None else None
    if not already:
        _write_start(place, plan, purpose, today)
    known = federation.load(place)
    if plan not in {entry.plan for entry in known.plans}:
        raise PlanError(
            "This federation was started with another plan",
            expected=f"the frozen plan, digest {known.start.plan.digest[:16]}",
            found=f"digest {plans.plan_digest(plan)[:16]}",
            where=plan_path,
            hint="`brainfed amend PLAN --from-round R` changes training, aggregation and terms; "
            "another network or other data are a new federation, in an empty folder",
        )
    if first is not None:
        _write_first_weights(place, known, first, by="numpy" if are_given else "torch")
    elif are_given:
        _check_same(place, known, initial_weights(plan))
    exchange.fill_outbox(place)
    n = n_parameters(network_table(plan))
    return Started(
        federation=known.digest,
        plan=plan,
        n_parameters=n,
        n_local=n - n_parameters(known.table),
        sites=tuple(p.name for p in known.roster.sites),
        already=already,
    )


def _write_start(place: Workspace, plan: plans.Plan, purpose: Purpose, today: date) -> None:
    path = place.federation_folder / federation.START
    document.check_purpose(place.name, purpose, "The federation to begin", path)
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
    atomic.remove(path)  # of a killed command: without its signature it never counted
    digest = document.write_signed(path, content, rosters.coordinator_key(place))
    place.note(Event.MADE, what="start", digest=digest)


def _check_same(place: Workspace, known: federation.Federation, given: weights.Tensors) -> None:
    path = rounds.global_path(place, 0)
    there = {} if path is None else weights.read_tensors(path, known.table)
    if any(there[name].tobytes() != given[name].tobytes() for name in there):
        raise ConflictError(
            "This federation was started with other weights",
            expected="the weights of round 0",
            where=path,
            hint="leave --weights out; other weights to begin with are a new federation, in an "
            "empty folder",
        )


def _write_first_weights(
    place: Workspace, known: federation.Federation, tensors: weights.Tensors, *, by: str
) -> None:
    manifest = rounds.new_manifest(
        known,
        0,
        kind=Kind.GLOBAL,
        sender=place.name,
        versions={name: version(name) for name in ("brainfed", by)},
    )
    path = place.round_folder(0) / known.weights_name(manifest)
    atomic.make_folder(path.parent)
    atomic.remove(path)
    weights.write(path, manifest, {name: tensors[name] for name in known.table})
    digest = signature.sign_file(path, rosters.coordinator_key(place))
    place.note(Event.MADE, what="global weights", round=0, digest=digest.hex())
