"""What the weight files of a round mean to a party: updates, global weights. No disk."""

from brainfed.errors import (
    ConflictError,
    MalformedError,
    StrangerError,
    WrongRoundError,
)
from brainfed.formats.manifest import Kind, Manifest
from brainfed.formats.roster import Role
from brainfed.formats.shelf import Lying, records_of, weights_of
from brainfed.formats.weights import WeightsFile
from brainfed.plan import MAX_TOTAL_WEIGHT, WeightBy
from brainfed.steps import judge_approval
from brainfed.steps.turns import check_turn
from brainfed.steps.verdict import Outcome, Party, Verdict

TWO_STORIES = "the coordinator tells two stories"
KEEP = (
    "keep both files and ask the coordinator; `brainfed audit` of both folders shows it to others"
)


def judge_weights(file: WeightsFile, party: Party) -> Outcome:
    """Hold a weight file, checked by `formats.verify`, against what lies here.

    Raises:
        FileRefusedError: It doesn't belong here.
        QuorumError: An update by a site whose turn it isn't.
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
        if rule.state and party.role is not Role.COORDINATOR:
            whose = f"the state of the rule {rule}: for the coordinator and auditors"
            return Outcome(Verdict.IGNORED, whose, file.digest)
        raise MalformedError(
            "The file holds the state of a rule that has none",
            expected=f"global weights or updates, under the rule {rule}",
            found=manifest.kind,
            where=file.path,
        )
    check_takes_part(party)
    return _judge_global(file, party)


def _judge_update(file: WeightsFile, party: Party) -> Outcome:
    """The rules for updates: early, late, twice, out of turn (`docs/explanation/participation.md`).

    An update counts for the open round, or late for the newest closed one, and only if it was
    trained from the weights that this round began with.
    """
    manifest = file.manifest
    what = f"the update of {manifest.sender} for round {manifest.round}"
    begun_with = global_of(party, manifest.round - 1)
    parent = None if begun_with is None else begun_with.digest
    for there in weights_of(party.shelf, manifest.round, Kind.UPDATE, manifest.sender):
        if not still_counts(there, party):
            continue  # its key was revoked since; it holds no place against one under a new key
        if there.digest == file.digest:
            return Outcome(Verdict.ALREADY, what, file.digest)
        _check_beside(there, file, parent)
    is_late = 0 < manifest.round == party.open_round - 1
    _check_round(file, party, parent, is_late=is_late)
    check_turn(party.known, party.shelf, manifest.round, manifest.sender)
    _check_weight(file, party, party.known.plan_of(manifest.round).aggregation.weights)
    judge_approval.check_update(file, party)
    if is_late:
        what += ", which is closed: late, it counts only once `brainfed aggregate --again` closes "
        what += "that round again"
    return Outcome(Verdict.ACCEPTED, what, file.digest)


def _check_beside(there: Lying, file: WeightsFile, parent: str | None) -> None:
    """Of two updates the first stays, unless it rests on weights that have been superseded."""
    about, manifest = there.about, file.manifest
    assert isinstance(about, Manifest)
    if about.parent != parent == manifest.parent and about.edition < manifest.edition:
        return
    raise ConflictError(
        "There is already another update of this site for this round",
        expected=f"{there.path.name}, {there.digest[:16]}",
        found=f"edition {manifest.edition} from {manifest.sender}, {file.digest[:16]}",
        where=file.path,
        hint="the first one stays; ask the site which one is right",
    )


def _check_round(file: WeightsFile, party: Party, parent: str | None, *, is_late: bool) -> None:
    """An update is for the open round or the one before, and trained from what that began with."""
    manifest = file.manifest
    if manifest.round != party.open_round and not is_late:
        is_closed = manifest.round < party.open_round
        raise WrongRoundError(
            "The update is for a round that is closed" if is_closed else "The update is too early",
            expected=f"round {party.open_round}",
            found=f"round {manifest.round}",
            where=file.path,
            hint=f"{manifest.sender} imports the newest global weights and trains from them",
        )
    if manifest.parent != parent:
        raise WrongRoundError(
            "The update was trained from other global weights than this round's",
            expected=parent and parent[:16],
            found=str(manifest.parent)[:16],
            where=file.path,
            hint=f"{manifest.sender} imports the newest global weights and trains from them; "
            "if it did, two stories were told: audit both folders",
        )


def still_counts(there: Lying, party: Party) -> bool:
    """Whether the key of a file that was accepted before still counts in its round."""
    if there.key is None:
        return True
    since = party.known.roster.entry(there.key).revoked_since
    return since is None or there.about.round < since


def _check_weight(file: WeightsFile, party: Party, by: WeightBy) -> None:
    """The weight must be there, and so small that all sites' weights can be averaged exactly.

    Whether the count is true, nobody here can know; but none may keep a round from closing.
    """
    most = (MAX_TOTAL_WEIGHT - 1) // max(1, len(party.known.roster.sites))
    weight = file.manifest.weight_by(by)
    if not 0 < weight <= most:
        raise MalformedError(
            "The update's weight in the mean can't be used",
            expected=f"1 to {most} {by} to train on",
            found=weight,
            where=file.path,
            hint=f"ask {file.manifest.sender} how many {by} it trained on",
        )


def global_of(party: Party, round_number: int) -> Lying | None:
    """The global weights of a round, of the newest edition; None without any."""
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
    last = max(entry.plan.rounds for entry in party.known.plans)
    if manifest.round > last:
        raise WrongRoundError(
            "The global weights are of a round that the plan doesn't have",
            expected=f"at most round {last}",
            found=f"round {manifest.round}",
            where=file.path,
            hint="ask the coordinator",
        )
    before = global_of(party, manifest.round - 1) if manifest.round else None
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
