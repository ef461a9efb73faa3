"""What the record of a round means to a party. No disk."""

from collections.abc import Sequence

from brainfed.errors import (
    ConflictError,
    StrangerError,
    WrongFederationError,
    WrongRoundError,
)
from brainfed.formats.manifest import Kind, Manifest
from brainfed.formats.record import Input, InputStatus, Record
from brainfed.formats.roster import Role
from brainfed.formats.shelf import Lying, records_of, weights_of
from brainfed.formats.signature import Signed
from brainfed.steps.judge_round import KEEP, TWO_STORIES, check_takes_part, global_of
from brainfed.steps.record_rules import plan_faults, turn_fault
from brainfed.steps.verdict import Outcome, Party, Verdict


def judge_record(record: Record, signed: Signed, party: Party) -> Outcome:
    """Hold a record, checked by `formats.verify`, against what lies here.

    Raises:
        FileRefusedError: It doesn't belong here.
    """
    check_takes_part(party)
    what = f"the record of round {record.round}"
    for entry, there in records_of(party.shelf, record.round):
        if entry.digest == signed.digest:
            return Outcome(Verdict.ALREADY, what, signed.digest)
        if there.edition == record.edition:
            raise ConflictError(
                f"Two records of one round and edition: {TWO_STORIES}",
                expected=f"{entry.path.name}, {entry.digest[:16]}",
                found=f"{what}, {signed.digest[:16]}",
                where=signed.path,
                hint=KEEP,
            )
    if party.role is Role.COORDINATOR:
        raise ConflictError("A record that this coordinator didn't make", where=signed.path)
    _check_rule(record, party, signed)
    _check_globals(record, party, signed)
    own_part = _own_part(record, party, signed)
    _check_turn(record, party, signed)
    return Outcome(Verdict.ACCEPTED, f"{what} ({own_part})", signed.digest)


def _check_rule(record: Record, party: Party, signed: Signed) -> None:
    """The record must aggregate by the plan's rule, and by sites of the roster alone."""
    by_plan = party.known.plan_of(record.round).aggregation
    if (record.rule, record.weights_by) != (by_plan.rule, by_plan.weights):
        raise WrongFederationError(
            "The record aggregates by another rule than the plan's",
            expected=f"{by_plan.rule}, by {by_plan.weights}",
            found=f"{record.rule}, by {record.weights_by}",
            where=signed.path,
            hint="ask the coordinator",
        )
    for entry in record.inputs:
        found = party.known.roster.get(entry.sender)
        if found is None or found.role is not Role.SITE:
            raise StrangerError(
                "The record names a site that is not in the roster",
                found=entry.sender,
                where=signed.path,
                hint="import the newest roster from the coordinator; if it is the newest, ask",
            )


def _check_turn(record: Record, party: Party, signed: Signed) -> None:
    """In a relay a record includes only the site whose turn it was; else it names no next one."""
    plan = party.known.plan_of(record.round)
    before = records_of(party.shelf, record.round - 1)
    sites = [site.name for site in party.known.roster.sites]
    faults = [*plan_faults(record, plan)]
    if record.roster_version == party.known.roster.version:  # the turn depends on who is active
        faults.append(turn_fault(record, plan, sites, before[-1][1] if before else None) or "")
    for fault in filter(None, faults):
        raise WrongFederationError(fault, where=signed.path, hint=KEEP)


def _check_globals(record: Record, party: Party, signed: Signed) -> None:
    """The record must name the global weights that lie here: of its round and the one before."""
    before = global_of(party, record.round - 1)
    if before is not None and before.digest != record.parent:
        raise WrongRoundError(
            "The record starts from other global weights than those of the round before",
            expected=f"{before.path.name}, {before.digest[:16]}",
            found=record.parent[:16],
            where=signed.path,
            hint=KEEP,
        )
    for there in weights_of(party.shelf, record.round, Kind.GLOBAL):
        if there.about.edition == record.edition and there.digest != record.global_digest:
            raise ConflictError(
                "The record names other global weights than those of its round that lie here",
                expected=f"{there.path.name}, {there.digest[:16]}",
                found=record.global_digest[:16],
                where=signed.path,
                hint=KEEP,
            )


def _own_part(record: Record, party: Party, signed: Signed) -> str:
    """What the record says of this site's own update, which must be the one that was sent.

    Raises:
        ConflictError: It was averaged under another digest.
    """
    if party.role is not Role.SITE:
        n_included = sum(e.status is InputStatus.INCLUDED for e in record.inputs)
        return f"{n_included} of {len(record.inputs)} sites"
    mine = next((entry for entry in record.inputs if entry.sender == party.name), None)
    sent = weights_of(party.shelf, record.round, Kind.UPDATE, party.name)
    first = party.known.start.roster.get(party.name)
    if mine is None and (sent or (first is not None and first.is_active)):
        raise ConflictError(
            "The record leaves out this site without a word",
            expected="every site of the roster: included, excluded or absent",
            found=f"no entry of {party.name}",
            where=signed.path,
            hint=KEEP,
        )
    if mine is None:
        return "this site is not in it: it had not been admitted when the round was closed"
    if mine.digest is not None and sent and mine.digest not in {e.digest for e in sent}:
        raise ConflictError(
            "The record names another update of this site than the one that lies here",
            expected=f"{sent[-1].path.name}, {sent[-1].digest[:16]}",
            found=mine.digest[:16],
            where=signed.path,
            hint="ask the coordinator which file was averaged under this site's name",
        )
    _check_own_weight(mine, record, sent, party, signed)
    return _part_in_words(mine, record, has_sent=bool(sent))


def _check_own_weight(
    mine: Input, record: Record, sent: Sequence[Lying], party: Party, signed: Signed
) -> None:
    """An update that is in the mean must have the weight that it declares."""
    if mine.status is not InputStatus.INCLUDED:
        return
    declared = [
        e.about.weight_by(record.weights_by)
        for e in sent
        if e.digest == mine.digest and isinstance(e.about, Manifest)
    ]
    is_capped = party.known.plan_of(record.round).aggregation.max_weight_fraction < 1
    is_largest = mine.weight == max(entry.weight for entry in record.inputs)
    if is_capped and is_largest and declared and mine.weight < max(declared):
        return
    if declared and mine.weight not in declared:
        raise ConflictError(
            "The record gives this site's update another weight than the update says",
            expected=declared[0],
            found=mine.weight,
            where=signed.path,
            hint=KEEP,
        )


def _part_in_words(mine: Input, record: Record, *, has_sent: bool) -> str:
    if mine.status is InputStatus.INCLUDED:
        total = sum(entry.weight for entry in record.inputs)
        return f"this site's update is in it, with weight {mine.weight} of {total}"
    if mine.status is InputStatus.EXCLUDED:
        return f"this site's update was LEFT OUT by the coordinator, reason: {mine.reason}"
    if has_sent:
        return "this site's update is NOT in it: the coordinator says that it had not come"
    return "this site is absent from it and has sent nothing"
