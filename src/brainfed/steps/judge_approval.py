"""What an approval of an update means to a party, and whether an update has one. No disk."""

from brainfed.errors import ConflictError, WrongRoundError
from brainfed.formats import approval
from brainfed.formats.approval import Approval, SignedApproval
from brainfed.formats.manifest import Kind
from brainfed.formats.roster import Role
from brainfed.formats.shelf import Shelf, weights_of
from brainfed.formats.signature import Signed
from brainfed.formats.weights import WeightsFile
from brainfed.steps.verdict import Outcome, Party, Verdict


def judge_approval(content: Approval, signed: Signed, party: Party) -> Outcome:
    """Hold an approval, checked by `formats.verify`, against what lies here.

    One of an update that lies here keeps its place. Any other gives way to a newer one: its update
    never came, or its key was revoked since.

    Raises:
        ConflictError: The approver lets two updates leave in one place.
        WrongRoundError: Its round isn't open, nor the one that was closed last.
    """
    what = f"{content.sender} lets an update of round {content.round} leave"
    if party.role is not Role.COORDINATOR:
        return Outcome(Verdict.IGNORED, f"{what}: for the coordinator", signed.digest)
    sites = {entry.digest for entry in weights_of(party.shelf, content.round, Kind.UPDATE)}
    for there in approvals_of(party.shelf, content.round):
        told = there.content
        if (told.sender, told.edition) != (content.sender, content.edition):
            continue
        if told == content:
            return Outcome(Verdict.ALREADY, what, signed.digest)
        if not approval.counts(there, party.known.roster) or told.update not in sites:
            continue
        if told.update == content.update:
            # Approved once more, on another day or after another page.
            return Outcome(Verdict.ALREADY, what, signed.digest)
        raise ConflictError(
            f"Two approvals in one place: {content.sender} lets two updates leave",
            expected=f"{told.update[:16]}, as in {there.path.name}",
            found=content.update[:16],
            where=signed.path,
            hint=f"the first one stays, with its update; ask {content.sender} which one is right",
        )
    if not party.open_round - 1 <= content.round <= party.open_round:
        raise WrongRoundError(
            "The approval is for a round that isn't open",
            expected=f"round {party.open_round}",
            found=f"round {content.round}",
            where=signed.path,
            hint="the site imports the newest global weights, trains from them and approves anew",
        )
    return Outcome(Verdict.ACCEPTED, what, signed.digest)


def check_update(file: WeightsFile, party: Party) -> None:
    """Refuse an update without the approval that the plan of its round asks for.

    Raises:
        FileRefusedError: One of its kinds, saying what is wrong with the approval.
    """
    about = file.manifest
    if party.known.plan_of(about.round).exchange.approval:
        there = approvals_of(party.shelf, about.round)
        approval.check_approved(about, file.digest, there, party.known.roster, file.path)


def approvals_of(shelf: Shelf, round_number: int) -> list[SignedApproval]:
    """The approvals of a round."""
    return [
        SignedApproval(entry.path, entry.key, entry.about)
        for entry in shelf.lying(round_number)
        if isinstance(entry.about, Approval) and entry.key is not None
    ]
