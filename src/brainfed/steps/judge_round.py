"""What the files of a round mean to a party: records, updates, global weights. No disk."""

from brainfed.errors import (
    ConflictError,
    MalformedError,
    StrangerError,
    WrongFederationError,
    WrongRoundError,
)
from brainfed.formats.manifest import Kind
from brainfed.formats.record import Input, InputStatus, Record
from brainfed.formats.roster import Role
from brainfed.formats.shelf import Lying, records_of, weights_of
from brainfed.formats.signature import Signed
from brainfed.formats.weights import WeightsFile
from brainfed.plan import WeightBy
from brainfed.steps.verdict import Outcome, Party, Verdict

TWO_STORIES = "the coordinator tells two stories"
KEEP = (
    "keep both files and ask the coordinator; `brainfed audit` of both folders shows it to others"
)


def judge_weights(file: WeightsFile, party: Party) -> Outcome:
    """Hold a weight file, checked by `formats.verify`, against what lies here.

    Raises:
        FileRefusedError: It doesn't belong here.
    """
    manifest = file.manifest
    if manifest.kind is Kind.UPDATE:
        if party.role is Role.COORDINATOR:
            return _judge_update(file, party)
        is_own = manifest.sender == party.name
        whose = "this site's own update" if is_own else f"an update, not for {party.name}"
        return Outcome(Verdict.IGNORED, whose, file.digest)
    if manifest.kind is Kind.STATE:
        rule = party.known.plan_of(manifest.round).aggregation.rule
        raise MalformedError(
            "The file holds the state of a rule that has none",
            expected=f"global weights or updates, under the rule {rule}",
            found=manifest.kind,
            where=file.path,
        )
    check_takes_part(party)
    return _judge_global(file, party)


def _judge_update(file: WeightsFile, party: Party) -> Outcome:
    manifest = file.manifest
    what = f"the update of {manifest.sender} for round {manifest.round}"
    for there in weights_of(party.shelf, manifest.round, Kind.UPDATE, manifest.sender):
        if not _counts(there, party):
            continue  # its key was revoked since; it holds no place against one under a new key
        if there.digest == file.digest:
            return Outcome(Verdict.ALREADY, what, file.digest)
        raise ConflictError(
            "There is already another update of this site for this round",
            expected=f"{there.path.name}, {there.digest[:16]}",
            found=f"{what}, {file.digest[:16]}",
            where=file.path,
            hint="the first one stays; ask the site which one is right",
        )
    newest = newest_global(party)
    if newest is None or manifest.round != party.open_round:
        is_closed = newest is not None and manifest.round < party.open_round
        raise WrongRoundError(
            "The update is for a round that is closed" if is_closed else "The update is too early",
            expected=f"round {party.open_round}",
            found=f"round {manifest.round}",
            where=file.path,
            hint=f"{manifest.sender} imports the newest global weights and trains from them",
        )
    if manifest.parent != newest.digest:
        raise WrongRoundError(
            "The update was trained from other global weights than this round's",
            expected=newest.digest[:16],
            found=str(manifest.parent)[:16],
            where=file.path,
            hint=f"{manifest.sender} imports the newest global weights and trains from them; "
            "if it did, two stories were told: audit both folders",
        )
    _require_weight(file, party.known.plan_of(manifest.round).aggregation.weights)
    return Outcome(Verdict.ACCEPTED, what, file.digest)


def _counts(there: Lying, party: Party) -> bool:
    """Whether the key of a file that was accepted before still counts in its round."""
    if there.key is None:
        return True
    since = party.known.roster.entry(there.key).revoked_since
    return since is None or there.about.round < since


def _require_weight(file: WeightsFile, by: WeightBy) -> None:
    if not getattr(file.manifest, f"n_{by}"):
        raise MalformedError(
            "The update has no weight in the mean",
            expected=f"at least 1 of {by} to train on",
            found=0,
            where=file.path,
        )


def newest_global(party: Party) -> Lying | None:
    """The global weights of the newest round, of the newest edition."""
    newest = party.shelf.newest()
    return None if newest is None else _global_of(party, newest)


def _global_of(party: Party, round_number: int) -> Lying | None:
    found = weights_of(party.shelf, round_number, Kind.GLOBAL)
    return max(found, key=lambda entry: entry.about.edition) if found else None


def _judge_global(file: WeightsFile, party: Party) -> Outcome:
    manifest = file.manifest
    what = f"the global weights of round {manifest.round}"
    for there in weights_of(party.shelf, manifest.round, Kind.GLOBAL):
        if there.digest == file.digest:
            return Outcome(Verdict.ALREADY, what, file.digest)
        if there.about.edition == manifest.edition:
            raise ConflictError(
                f"Two global weights of one round and edition: {TWO_STORIES}",
                expected=f"{there.path.name}, {there.digest[:16]}",
                found=f"{what}, {file.digest[:16]}",
                where=file.path,
                hint=KEEP,
            )
    if party.role is Role.COORDINATOR:
        raise ConflictError("Global weights that this coordinator didn't make", where=file.path)
    before = _global_of(party, manifest.round - 1) if manifest.round else None
    if before is not None and before.digest != manifest.parent:
        raise WrongRoundError(
            "The global weights don't follow those of the round before",
            expected=f"{before.path.name}, {before.digest[:16]}",
            found=str(manifest.parent)[:16],
            where=file.path,
            hint="ask the coordinator; the chain of rounds is broken",
        )
    for _, record in records_of(party.shelf, manifest.round):
        if record.edition == manifest.edition and (record.global_digest, record.parent) != (
            file.digest,
            manifest.parent,
        ):
            raise WrongRoundError(
                "The record of this round names other global weights",
                expected=f"{record.global_digest[:16]} from {record.parent[:16]}",
                found=f"{file.digest[:16]} from {str(manifest.parent)[:16]}",
                where=file.path,
                hint=KEEP,
            )
    return Outcome(Verdict.ACCEPTED, what, file.digest)


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
    return Outcome(Verdict.ACCEPTED, f"{what} ({_own_part(record, party, signed)})", signed.digest)


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


def _check_globals(record: Record, party: Party, signed: Signed) -> None:
    """The record must name the global weights that lie here: of its round and the one before."""
    before = _global_of(party, record.round - 1)
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
    return _part_in_words(mine, record, has_sent=bool(sent))


def _part_in_words(mine: Input, record: Record, *, has_sent: bool) -> str:
    if mine.status is InputStatus.INCLUDED:
        total = sum(entry.weight for entry in record.inputs)
        return f"this site's update is in it, with weight {mine.weight} of {total}"
    if mine.status is InputStatus.EXCLUDED:
        return f"this site's update was LEFT OUT by the coordinator, reason: {mine.reason}"
    if has_sent:
        return "this site's update is NOT in it: the coordinator says that it had not come"
    return "this site is absent from it and has sent nothing"


def check_takes_part(party: Party) -> None:
    """Refuse on behalf of a party that the roster doesn't name, or no longer.

    Raises:
        StrangerError: So it is.
    """
    found = party.known.roster.get(party.name)
    if found is None:
        raise StrangerError(
            "The roster doesn't name this workspace",
            expected=f"{party.name} with {party.key.fingerprint}",
            found="no such name",
            hint="send the enrolment in outbox/ to the coordinator, who runs `brainfed admit`",
        )
    if not found.is_active:
        raise StrangerError(
            "This workspace's key was revoked",
            expected=f"an active key of {party.name}",
            found=f"revoked since round {found.revoked_since}",
            hint="talk to the coordinator; `brainfed key rotate` makes a new key and its enrolment",
        )
