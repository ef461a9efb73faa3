"""What the scores of a site or an evaluator mean to a party. No disk."""

from brainfed.errors import ConflictError, StrangerError, WrongRoundError
from brainfed.formats.manifest import Kind
from brainfed.formats.roster import Role
from brainfed.formats.scores import Scores
from brainfed.formats.shelf import scores_of, weights_of
from brainfed.formats.signature import Signed
from brainfed.steps.judge_round import still_counts
from brainfed.steps.verdict import Outcome, Party, Verdict


def judge_scores(scores: Scores, signed: Signed, party: Party) -> Outcome:
    """Hold scores, checked by `formats.verify`, against what lies here.

    A file that keeps every figure of the one that lies here and adds some, takes its place. Any
    other file for the same place is an alarm: whoever could change a figure could choose one.

    Raises:
        FileRefusedError: They don't belong here.
    """
    what = f"the scores of {scores.sender} for the global weights of round {scores.round}"
    if party.role is not Role.COORDINATOR:
        return Outcome(Verdict.IGNORED, f"{what}: for the coordinator", signed.digest)
    _check_weights(scores, signed, party)
    for entry, there in scores_of(party.shelf, scores.round, scores.sender, scores.edition):
        if not still_counts(entry, party):
            continue  # its key was revoked since; it holds no place against one under a new key
        if there.keeps(scores):  # the same, an older one, or the same figures on another day
            return Outcome(Verdict.ALREADY, what, signed.digest)
        if not scores.keeps(there):
            raise ConflictError(
                f"Two scores of the same weights: {scores.sender} tells two stories",
                expected=f"all figures of {entry.path.name}, {entry.digest[:16]}, unchanged",
                found=f"{what}, {signed.digest[:16]}",
                where=signed.path,
                hint=f"the first one stays; keep both files and ask {scores.sender}",
            )
    _check_key(signed, party)
    return Outcome(Verdict.ACCEPTED, what, signed.digest)


def _check_key(signed: Signed, party: Party) -> None:
    """What comes now is signed by a key that counts now, of whatever round it tells.

    Whoever stole a key that was revoked could else tell of all rounds that were closed before.
    """
    entry = party.known.roster.entry(signed.key)
    if not entry.is_active:
        raise StrangerError(
            "The signature is by a revoked key",
            expected=f"the newest key of {entry.name}",
            found=f"{signed.key.fingerprint}, revoked since round {entry.revoked_since}",
            where=signed.path,
            hint=f"{entry.name} exports again: its new key signs the same scores",
        )


def _check_weights(scores: Scores, signed: Signed, party: Party) -> None:
    """The scores must be of the global weights of their round and edition that lie here."""
    found = [
        entry
        for entry in weights_of(party.shelf, scores.round, Kind.GLOBAL)
        if entry.about.edition == scores.edition
    ]
    if not any(entry.digest == scores.weights for entry in found):
        there = ", ".join(f"{entry.path.name}, {entry.digest[:16]}" for entry in found)
        raise WrongRoundError(
            "The scores are of other weights than the global weights of their round",
            expected=there or f"global weights of round {scores.round}, edition {scores.edition}",
            found=scores.weights[:16],
            where=signed.path,
            hint=f"{scores.sender} imports the newest global weights and runs `brainfed evaluate`; "
            "if it did, two stories were told: audit both folders",
        )
