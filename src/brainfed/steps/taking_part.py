"""Who takes part in the closing of a round, by written rules (`docs/explanation/participation.md`).

Nothing is left out silently: every site that is active, and every update that lies here though its
key was revoked, gets an entry in the record, and whoever was left out a reason.
"""

import contextlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from brainfed.core.rules import fewest_sites
from brainfed.core.schedule import next_site
from brainfed.errors import NotReadyError, QuorumError, UsageError, WrongRoundError
from brainfed.formats import approval, document, rounds, signature, weights
from brainfed.formats.checked_stream import CheckedStream
from brainfed.formats.federation import Federation
from brainfed.formats.record import Input, InputStatus, Reason, Record
from brainfed.formats.weights import WeightsFile
from brainfed.formats.workspace import Workspace
from brainfed.plan import Method, Plan
from brainfed.steps.record_rules import shares
from brainfed.steps.turns import turn_after


@dataclass(frozen=True)
class Wishes:
    """What the coordinator decides about a round."""

    without: Mapping[str, Reason]
    """Sites that are left out, and why."""
    taken_in: Collection[str] = ()
    """Sites that the edition before left out and this one doesn't."""
    again: bool = False
    """Close the newest closed round once more, as its next edition."""


@dataclass(frozen=True)
class Closing:
    """A round that is to be closed."""

    number: int
    edition: int
    plan: Plan
    parent: WeightsFile
    """The global weights that its updates were trained from."""
    before: Record | None
    """Of the round before; None in round 1."""
    superseded: tuple[Record, str] | None
    """The record of the edition before and its digest."""
    updates: tuple[CheckedStream, ...]
    """Those that count, open, in name order of their sites."""
    weights: tuple[int, ...]
    """Their integer weights."""
    inputs: tuple[Input, ...]
    """Of the others: excluded and absent ones."""
    next_site: str | None


def close_what(
    place: Workspace, known: Federation, wishes: Wishes, opened: contextlib.ExitStack
) -> Closing:
    """Decide which round is to be closed, and with whom.

    Args:
        place: The coordinator's workspace.
        known: Its federation.
        wishes: What the coordinator decides.
        opened: Closes the updates at the end.

    Raises:
        QuorumError: Too few sites or patients, or not the turn of any site whose update is here.
        UsageError: A wish names no site, or closing again would change nothing.
        FileRefusedError: An update was damaged after its import.
    """
    newest = rounds.newest_global(place, known)
    number = newest.manifest.round + (0 if wishes.again else 1)
    if number == 0:
        raise QuorumError(
            "No round is closed yet", hint="`brainfed aggregate` without --again closes the first"
        )
    parent = newest if not wishes.again else _global(place, known, number - 1)
    superseded = _newest_record(place, number) if wishes.again else None
    before = _newest_record(place, number - 1)
    plan = known.plan_of(number)
    without = _without(known, wishes, superseded)
    turn = _turn(plan, known, before)
    sites = {site.name for site in known.roster.sites}
    if plan.method is not Method.FL:
        without = _only_the_turn(without, turn, number)
    streams, others = _lying(place, known, parent, number, opened)
    included = {
        name: stream
        for name, stream in streams.items()
        if name not in without and (plan.method is Method.FL or name == turn)
    }
    absent = {
        name: _entry(name, InputStatus.ABSENT) for name in sites - {*included, *without, *others}
    }
    excluded = {
        name: _entry(
            name,
            InputStatus.EXCLUDED,
            reason,
            signature.digest_of(streams[name].path).hex() if name in streams else None,
        )
        for name, reason in without.items()
    }
    updates = tuple(included[name] for name in sorted(included))
    _check_quorum(place, plan, number, updates, is_skipped=turn in without)
    return Closing(
        number=number,
        edition=1 if superseded is None else superseded[0].edition + 1,
        plan=plan,
        parent=parent,
        before=None if before is None else before[0],
        superseded=superseded,
        updates=updates,
        weights=shares([stream.manifest for stream in updates], plan.aggregation),
        inputs=tuple((absent | others | excluded).values()),
        next_site=None if turn is None else next_site(plan, sites, turn),
    )


def _global(place: Workspace, known: Federation, number: int) -> WeightsFile:
    path = rounds.global_path(place, number)
    if path is None:
        raise NotReadyError(
            f"The global weights of round {number} are missing",
            where=place.round_folder(number),
            hint="bring them back from an archive: `brainfed archive` copies them",
        )
    return rounds.verify_weights(path, known)


def _newest_record(place: Workspace, number: int) -> tuple[Record, str] | None:
    paths = rounds.records(place, number) if number else []
    if not paths:
        return None
    return document.read(paths[-1], Record), signature.digest_of(paths[-1]).hex()


def _without(
    known: Federation, wishes: Wishes, superseded: tuple[Record, str] | None
) -> dict[str, Reason]:
    """Who is left out: by wish, and as in the edition before where no wish takes them in again."""
    sites = [site.name for site in known.roster.sites]
    for name in (*wishes.without, *wishes.taken_in):
        if name not in sites:
            raise UsageError(
                "The roster has no active site of that name",
                expected=", ".join(sites),
                found=name,
                where="--without" if name in wishes.without else "--with",
                hint="`brainfed status` lists the sites of the open round",
            )
    kept = {
        entry.sender: entry.reason
        for entry in (() if superseded is None else superseded[0].inputs)
        if entry.reason not in {None, Reason.REVOKED} and entry.sender in sites
    }
    found = {name: reason for name, reason in kept.items() if name not in wishes.taken_in}
    return {n: r for n, r in (found | dict(wishes.without)).items() if r is not None}


def _turn(plan: Plan, known: Federation, before: tuple[Record, str] | None) -> str | None:
    """Whose turn the round is, in a relay.

    Raises:
        QuorumError: All sites have had theirs.
    """
    if plan.method is Method.FL:
        return None
    sites = [site.name for site in known.roster.sites]
    turn = turn_after(plan, sites, None if before is None else before[0])
    if turn is None:
        raise QuorumError(
            "All sites have had their turn", hint="`brainfed finish` names the best weights"
        )
    return turn


def _only_the_turn(without: dict[str, Reason], turn: str | None, number: int) -> dict[str, Reason]:
    wrong = sorted(set(without) - {turn})
    if wrong:
        raise QuorumError(
            f"Round {number} is not the turn of {wrong[0]}, so it can't be left out of it",
            expected=turn,
            found=wrong[0],
            where="--without",
            hint=f"to skip the turn: `brainfed aggregate --without {turn} --reason late`",
        )
    return without


def _lying(
    place: Workspace,
    known: Federation,
    parent: WeightsFile,
    number: int,
    opened: contextlib.ExitStack,
) -> tuple[dict[str, CheckedStream], dict[str, Input]]:
    """Updates that were trained from these global weights, by site; and those of revoked keys.

    An update of a superseded edition's weights is none of this round any more.
    """
    found: dict[str, CheckedStream] = {}
    revoked: dict[str, Input] = {}
    for path in rounds.update_paths(place, number):
        if not rounds.counts(path, known, number) or _approver_was_revoked(place, known, path):
            sender = weights.read_manifest(path).sender
            digest = signature.digest_of(path).hex()
            revoked[sender] = _entry(sender, InputStatus.EXCLUDED, Reason.REVOKED, digest)
            continue
        stream = opened.enter_context(CheckedStream(path, known))
        about = stream.manifest
        older = found.get(about.sender)
        if about.parent != parent.digest:
            _check_superseded(place, stream, parent)
        elif older is None or older.manifest.edition < about.edition:
            found[about.sender] = stream
    return found, {name: entry for name, entry in revoked.items() if name not in found}


def _approver_was_revoked(place: Workspace, known: Federation, update: Path) -> bool:
    """Whether an update was approved, where the plan asks, with a key that counts no more.

    Raises:
        FileRefusedError: It never was: somebody put it here by hand.
    """
    about = weights.read_manifest(update)
    if not known.plan_of(about.round).exchange.approval:
        return False
    digest, there = signature.digest_of(update).hex(), rounds.approvals(place, about.round)
    if approval.the_one_for(about, digest, there, known.roster) is not None:
        return False
    approver = approval.approver_of(about.sender)
    if any((one.content.sender, one.content.update) == (approver, digest) for one in there):
        return True
    rounds.check_approved(place, known, update)
    return False


def _check_superseded(place: Workspace, update: CheckedStream, parent: WeightsFile) -> None:
    """An update that doesn't count must have been trained from an older edition of its parent."""
    about = update.manifest
    records = [document.read(p, Record) for p in rounds.records(place, about.round - 1)]
    if about.parent not in {record.global_digest for record in records}:
        raise WrongRoundError(
            "An update in the round's folder wasn't trained from its global weights",
            expected=parent.digest[:16],
            found=str(about.parent)[:16],
            where=update.path,
            hint="take it out of the folder, and ask its site which weights it trained from",
        )


def _entry(
    sender: str, status: InputStatus, reason: Reason | None = None, digest: str | None = None
) -> Input:
    return Input(sender=sender, digest=digest, weight=0, status=status, reason=reason)


def _check_quorum(
    place: Workspace,
    plan: Plan,
    number: int,
    updates: Collection[CheckedStream],
    *,
    is_skipped: bool,
) -> None:
    """Enough sites and patients; in a relay the one site whose turn it is, or its being skipped."""
    least = max(plan.participation.quorum_sites, fewest_sites(plan.aggregation))
    if plan.method is not Method.FL:
        least = 0 if is_skipped else 1
    where: str | Path = place.round_folder(number)
    if len(updates) < least:
        closed = f"round {number - 1} is closed; " if number > 1 else ""
        named = "participation.quorum_sites" if plan.method is Method.FL else "whose turn it is"
        if fewest_sites(plan.aggregation) > plan.participation.quorum_sites:
            named = f"rule {plan.aggregation.rule}, n_dishonest {plan.aggregation.n_dishonest}"
        raise QuorumError(
            f"Too few updates to close round {number}",
            expected=f"at least {least} ({named})",
            found=f"{closed}{len(updates)} for round {number}",
            where=where,
            hint="`brainfed import FOLDER` with the sites' files; `brainfed status` names them",
        )
    n_patients = sum(stream.manifest.n_patients or 0 for stream in updates)
    if plan.method is Method.FL and n_patients < plan.participation.quorum_patients:
        raise QuorumError(
            f"Too few patients to close round {number}",
            expected=f"at least {plan.participation.quorum_patients} "
            "(participation.quorum_patients)",
            found=f"{n_patients} of {len(updates)} sites",
            where=where,
            hint="wait for the updates of more sites; `brainfed status` names them",
        )
