"""Amend: sign a new version of the plan, from a round on."""

from dataclasses import dataclass
from datetime import date
from pathlib import Path

from brainfed import plan as plans
from brainfed.errors import ConflictError, PlanError, UsageError
from brainfed.formats import amendment, atomic, document, federation, rounds
from brainfed.formats.amendment import Amendment, Change
from brainfed.formats.document import PlanVersion
from brainfed.formats.federation import Federation
from brainfed.formats.ledger import Event
from brainfed.formats.roster import Role
from brainfed.formats.workspace import Workspace
from brainfed.steps import exchange, rosters


@dataclass(frozen=True)
class Amended:
    """A new version of the plan."""

    version: int
    from_round: int
    changes: tuple[Change, ...]
    digest: str
    """Of the new plan."""
    already: bool


def amend(place: Workspace, plan_path: Path, *, from_round: int, today: date) -> Amended:
    """Sign a new version of the plan and put it into the outbox.

    Each site sees the difference key by key and must accept it before it trains under it.

    Args:
        place: The coordinator's workspace.
        plan_path: The complete new plan.
        from_round: First round under it; the open one, or a later one.
        today: The day for the amendment.

    Raises:
        PlanError: The plan is wrong, changes nothing, or what no amendment can change.
        UsageError: The round is closed, or begins before an earlier amendment.
        ConflictError: An update for that round, made under the plan before, lies here.
    """
    place.require(Role.COORDINATOR)
    known = federation.load(place)
    plan = plans.load(plan_path)
    newest = known.plans[-1]
    if newest.plan == plan and newest.from_round == from_round and len(known.plans) > 1:
        exchange.fill_outbox(place)
        return _amended(known, already=True)
    differences = amendment.changes(newest.plan, plan)
    if not differences:
        raise PlanError(
            "The plan is the one in force; nothing to amend",
            where=plan_path,
            hint="`brainfed plan show federation/plan.toml` prints the plan in force",
        )
    amendment.check_may_follow(plan, newest.plan)
    _check_round(place, known, from_round)
    content = Amendment(
        purpose=known.start.purpose,
        federation=known.digest,
        sender=place.name,
        roster_version=known.roster.version,
        plan_text=plans.render(plan),
        plan=PlanVersion(version=newest.version.version + 1, digest=plans.plan_digest(plan)),
        previous=newest.version.digest,
        from_round=from_round,
        day=today.isoformat(),
    )
    path = federation.amendment_path(place, content.plan.version)
    atomic.remove(path)  # of a killed command: without its signature it never counted
    digest = document.write_signed(path, content, rosters.coordinator_key(place))
    place.note(Event.MADE, what="amendment", round=from_round, digest=digest)
    exchange.fill_outbox(place)
    return _amended(federation.load(place), already=False)


def _check_round(place: Workspace, known: Federation, from_round: int) -> None:
    first = max(known.plans[-1].from_round, rounds.open_round(place), 1)
    if from_round < first:
        raise UsageError(
            "A new plan can't begin in a round that is closed, or before an earlier amendment",
            expected=f"round {first} or later",
            found=from_round,
            where="--from-round",
            hint=f"brainfed amend PLAN --from-round {first}",
        )
    there = [
        path
        for path in rounds.update_paths(place, from_round)
        if rounds.counts(path, known, from_round)
    ]
    if there:
        raise ConflictError(
            "Updates for this round lie here, made under the plan before",
            expected=f"round {from_round + 1} or later",
            found=", ".join(path.name for path in there),
            where="--from-round",
            hint=f"--from-round {from_round + 1}",
        )


def _amended(known: Federation, *, already: bool) -> Amended:
    before, newest = known.plans[-2:]
    return Amended(
        version=newest.version.version,
        from_round=newest.from_round,
        changes=amendment.changes(before.plan, newest.plan),
        digest=newest.version.digest,
        already=already,
    )
