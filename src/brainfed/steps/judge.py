"""What a signed file means to a party, by what the party knows: bytes in, a verdict out, no disk.

The signature is known to fit the bytes; `formats.verify` says whose the file is and that it
belongs. Here it is held against what lies there already. The rules, for every kind:

* The same digest again changes nothing.
* Another file for a place that is taken is an alarm: the first one stays, both are named.
* Versions and rounds only rise: a roster or plan follows the newest one, an update is for the open
  round, or late for the one before, and names the global weights that it began with, global weights
  and records name those of the round before. In a relay an update is of the site whose turn it is.
* A record names the party's own update as it was sent, or says why it was left out.
* Scores are of global weights that lie here; a later file of theirs may say more, not other things.
* Where the plan asks for it, an update has its approver's approval, of these very bytes.
* A federation has one final, of global weights that lie here.

What this module doesn't do: ask a person, or put anything in place (`steps.accept`).
"""

import re
from dataclasses import dataclass
from importlib.metadata import version
from typing import BinaryIO

from brainfed.core.sshsig import PublicKey
from brainfed.errors import (
    ConflictError,
    MalformedError,
    PlanError,
    StrangerError,
    WrongFederationError,
    WrongRoundError,
)
from brainfed.formats import document, verify
from brainfed.formats.acceptance import Acceptance
from brainfed.formats.amendment import Amendment
from brainfed.formats.approval import Approval
from brainfed.formats.document import Document
from brainfed.formats.erasure import Erasure
from brainfed.formats.federation import PlanInForce
from brainfed.formats.final import Final
from brainfed.formats.manifest import Kind, Manifest
from brainfed.formats.record import Record
from brainfed.formats.roster import Role, Roster
from brainfed.formats.scores import Scores
from brainfed.formats.signature import Signed
from brainfed.formats.start import Start
from brainfed.steps.judge_approval import judge_approval
from brainfed.steps.judge_final import judge_final
from brainfed.steps.judge_record import judge_record
from brainfed.steps.judge_round import TWO_STORIES, judge_weights
from brainfed.steps.judge_scores import judge_scores
from brainfed.steps.verdict import Outcome, Party, Verdict

WEIGHTS = "weights"
"""Stands for a weight file, beside the kinds that signed JSON names."""


@dataclass(frozen=True)
class Judged:
    """A verdict, and what the file says, typed."""

    outcome: Outcome
    content: Document


def judge(party: Party, signed: Signed, kind: str, stream: BinaryIO, n_bytes: int) -> Judged:
    """Judge one file for a party that belongs to a federation.

    Args:
        party: Whom it was brought to.
        signed: Its path for messages, the key that signed it, and its digest.
        kind: `weights`, or the kind that a signed JSON file names.
        stream: The file, from its first byte.
        n_bytes: Its size.

    Raises:
        FileRefusedError: It doesn't belong here.
        QuorumError: It is an update of a site whose turn it isn't.
    """
    if kind == WEIGHTS:
        file = verify.check_weights(stream, n_bytes, signed, party.known)
        _check_edition(file.manifest, signed, party)
        return Judged(judge_weights(file, party), file.manifest)
    data = document.capped(stream, signed.path)
    if kind == "start":
        return _judge_start(data, signed, party)
    if kind == "roster":
        return _judge_roster(data, signed, party)
    if kind == "record":
        record = verify.check_document(Record, data, signed, party.known)
        _check_edition(record, signed, party)
        return Judged(judge_record(record, signed, party), record)
    if kind == "amendment":
        return _judge_amendment(data, signed, party)
    if kind == "acceptance":
        return _judge_acceptance(data, signed, party)
    if kind == "erasure":
        return _judge_erasure(data, signed, party)
    if kind == "scores":
        scores = verify.check_document(Scores, data, signed, party.known)
        return Judged(judge_scores(scores, signed, party), scores)
    if kind == "approval":
        approval = verify.check_document(Approval, data, signed, party.known)
        return Judged(judge_approval(approval, signed, party), approval)
    if kind == "final":
        final = verify.check_document(Final, data, signed, party.known)
        return Judged(judge_final(final, signed, party), final)
    raise MalformedError(
        "The file is of a kind that this brainfed doesn't take in",
        expected="start, roster, amendment, acceptance, record, erasure, scores, approval, final, "
        "global weights or an update",
        found=kind[:40],
        where=signed.path,
    )


def _check_edition(about: Manifest | Record, signed: Signed, party: Party) -> None:
    """A closed round can be closed again, but not by a key of the coordinator that was replaced."""
    is_update = isinstance(about, Manifest) and about.kind is Kind.UPDATE
    if about.edition > 1 and not is_update:
        verify.check_coordinator(signed.key, party.known, signed.path)


def check_start(data: bytes, signed: Signed) -> Start:
    """Check a start by itself, as the first file that a party sees of a federation.

    Nothing vouches for its key yet: a person must confirm the fingerprint.

    Raises:
        StrangerError: Not signed by the coordinator that it names.
        WrongFederationError: It needs a newer brainfed.
        MalformedError: Not a start.
    """
    start = Start.loads(data)
    if start.roster.coordinator.public_key != signed.key:
        raise StrangerError("start.json is not signed by its coordinator", where=signed.path)
    if _numbers(version("brainfed")) < _numbers(start.minimum_version):
        raise WrongFederationError(
            "This federation needs a newer brainfed",
            expected=f"{start.minimum_version} or later",
            found=version("brainfed"),
            where=signed.path,
            hint="install the newer version, then import again",
        )
    return start


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def _judge_start(data: bytes, signed: Signed, party: Party) -> Judged:
    if party.known.digest == signed.digest:
        outcome = Outcome(Verdict.ALREADY, "the start of this federation", signed.digest)
        return Judged(outcome, party.known.start)
    raise WrongFederationError(
        "The start of another federation",
        expected=party.known.digest[:16],
        found=signed.digest[:16],
        where=signed.path,
        hint="one workspace takes part in one federation; "
        "use another folder with `brainfed init` for another one",
    )


def _judge_roster(data: bytes, signed: Signed, party: Party) -> Judged:
    known = party.known
    key_is_known(signed.key, party)
    roster = Roster.loads(data)
    what = f"the roster, version {roster.version}"
    mine = known.start.roster if roster.version == known.start.roster.version else known.roster
    already = Judged(Outcome(Verdict.ALREADY, what, signed.digest), roster)
    if roster == mine:
        return already
    is_before_start = roster.version <= known.start.roster.version
    if roster.federation != (None if is_before_start else known.digest):
        raise WrongFederationError(
            "The roster is of another federation",
            expected=known.digest[:16],
            found=str(roster.federation)[:16],
            where=signed.path,
        )
    if roster.version == mine.version:
        raise _two_rosters(mine.digest, signed)
    if roster.version < known.roster.version:
        there = party.shelf.roster(roster.version)
        if there not in {None, signed.digest}:
            raise _two_rosters(str(there), signed)
        return already
    if roster.version > known.roster.version + 1:
        raise WrongRoundError(
            "The rosters before this one are missing",
            expected=f"version {known.roster.version + 1} first",
            found=what,
            where=signed.path,
            hint="the coordinator's export holds all of them: import its whole folder",
        )
    roster.check_follows(known.roster, signed.key)
    return Judged(Outcome(Verdict.ACCEPTED, what, signed.digest), roster)


def _two_rosters(there: str, signed: Signed) -> ConflictError:
    return ConflictError(
        f"Two rosters of one version: {TWO_STORIES}",
        expected=there[:16],
        found=signed.digest[:16],
        where=signed.path,
        hint="compare both files with the coordinator before going on",
    )


def _judge_amendment(data: bytes, signed: Signed, party: Party) -> Judged:
    known = party.known
    content = verify.check_document(Amendment, data, signed, known)
    what = f"version {content.plan.version} of the plan, from round {content.from_round} on"
    there = next((p for p in known.plans if p.version.version == content.plan.version), None)
    if there is not None:
        if (there.version, there.from_round) == (content.plan, content.from_round):
            return Judged(Outcome(Verdict.ALREADY, what, signed.digest), content)
        raise ConflictError(
            f"Two plans of one version: {TWO_STORIES}",
            expected=f"{there.version.digest[:16]} from round {there.from_round}",
            found=f"{content.plan.digest[:16]} from round {content.from_round}",
            where=signed.path,
            hint="keep both files and ask the coordinator",
        )
    verify.check_coordinator(signed.key, known, signed.path)
    try:
        known.amended(content)
    except PlanError as error:
        raise MalformedError(
            error.message,
            expected=error.expected,
            found=error.found,
            where=signed.path,
            hint="ask the coordinator",
        ) from None
    if content.from_round < party.open_round:
        raise WrongRoundError(
            "The amendment begins in a round that is closed here",
            expected=f"round {party.open_round} or later",
            found=f"round {content.from_round}",
            where=signed.path,
            hint="ask the coordinator",
        )
    return Judged(Outcome(Verdict.ACCEPTED, what, signed.digest), content)


def _judge_acceptance(data: bytes, signed: Signed, party: Party) -> Judged:
    known = party.known
    content = verify.check_document(Acceptance, data, signed, known)
    what = f"{content.sender} accepts version {content.plan.version} of the plan"
    if party.role is not Role.COORDINATOR:
        return Judged(Outcome(Verdict.IGNORED, f"{what}: for the coordinator"), content)
    if not any(_is_acceptance_of(content, entry) for entry in known.plans):
        raise WrongFederationError(
            "The acceptance is of another plan than this federation's",
            expected=", ".join(p.version.digest[:16] for p in known.plans),
            found=content.plan.digest[:16],
            where=signed.path,
            hint=f"{content.sender} was shown another plan: compare both with `brainfed audit`",
        )
    if party.shelf.acceptance(content.sender, content.plan.version) is not None:
        # A second one, signed on another day, says nothing new.
        return Judged(Outcome(Verdict.ALREADY, what, signed.digest), content)
    return Judged(Outcome(Verdict.ACCEPTED, what, signed.digest), content)


def _judge_erasure(data: bytes, signed: Signed, party: Party) -> Judged:
    content = verify.check_document(Erasure, data, signed, party.known)
    what = f"{content.sender} states that it erased its data"
    if party.role is not Role.COORDINATOR:
        return Judged(Outcome(Verdict.IGNORED, f"{what}: for the coordinator"), content)
    there = party.shelf.erasure(content.sender, content.edition)
    if there not in {None, signed.digest}:
        raise ConflictError(
            f"Two statements of one erasure: {content.sender} tells two stories",
            expected=str(there)[:16],
            found=signed.digest[:16],
            where=signed.path,
            hint=f"keep both files and ask {content.sender}",
        )
    verdict = Verdict.ACCEPTED if there is None else Verdict.ALREADY
    return Judged(Outcome(verdict, what, signed.digest), content)


def _is_acceptance_of(content: Acceptance, entry: PlanInForce) -> bool:
    terms = entry.plan.terms
    return (content.plan, content.from_round, content.weights_licence, content.agreement) == (
        entry.version,
        entry.from_round,
        terms.weights_licence,
        terms.agreement_sha256 or None,
    )


def key_is_known(key: PublicKey, party: Party) -> None:
    """Refuse a file by a key that nobody of this federation ever held.

    Raises:
        StrangerError: So it is.
    """
    if key.line != party.known.roster.recovery:
        party.known.roster.entry(key)
