"""What the final means to a party: which global weights the federation ends with. No disk."""

from brainfed.errors import ConflictError, WrongRoundError
from brainfed.formats import verify
from brainfed.formats.final import Final
from brainfed.formats.manifest import Kind
from brainfed.formats.roster import Role
from brainfed.formats.shelf import records_of, weights_of
from brainfed.formats.signature import Signed
from brainfed.steps.judge_round import KEEP, TWO_STORIES, check_takes_part, global_of
from brainfed.steps.verdict import Outcome, Party, Verdict


def judge_final(final: Final, signed: Signed, party: Party) -> Outcome:
    """Hold a final, checked by `formats.verify`, against what lies here.

    A federation has one. It must be signed by the coordinator's newest key, whatever round it
    names: a key that was stolen and replaced counts in old rounds, and could else end it there.

    Raises:
        FileRefusedError: It doesn't belong here.
    """
    check_takes_part(party)
    what = f"the final: the federation ends with the global weights of round {final.round}"
    for there in party.shelf.finals():
        if there.digest == signed.digest:
            return Outcome(Verdict.ALREADY, what, signed.digest)
        raise ConflictError(
            f"Two finals of one federation: {TWO_STORIES}",
            expected=f"{there.path.name}, {there.digest[:16]}",
            found=f"{what}, {signed.digest[:16]}",
            where=signed.path,
            hint=KEEP,
        )
    if party.role is Role.COORDINATOR:
        raise ConflictError(
            "A final that this coordinator didn't sign",
            where=signed.path,
            hint="`brainfed finish` signs it; find out who made this one with your key",
        )
    verify.check_coordinator(signed.key, party.known, signed.path)
    _check_weights(final, signed, party)
    _check_record(final, signed, party)
    return Outcome(Verdict.ACCEPTED, what, signed.digest)


def _check_weights(final: Final, signed: Signed, party: Party) -> None:
    """It must name global weights that lie here, of the newest edition of their round."""
    about = f"round {final.round}, edition {final.edition}"
    for there in weights_of(party.shelf, final.round, Kind.GLOBAL):
        if there.about.edition == final.edition and there.digest != final.weights:
            raise ConflictError(
                "The final names other global weights than those of its round that lie here",
                expected=f"{there.path.name}, {there.digest[:16]}",
                found=final.weights[:16],
                where=signed.path,
                hint=KEEP,
            )
    newest = global_of(party, final.round)
    if newest is None or newest.about.edition < final.edition:
        raise WrongRoundError(
            "The final names global weights that don't lie here",
            expected=f"the global weights of {about}",
            found="none" if newest is None else f"edition {newest.about.edition}",
            where=signed.path,
            hint="import the coordinator's whole export: the weights and their record lie in it",
        )
    if newest.about.edition > final.edition:
        raise WrongRoundError(
            "The final names global weights that were superseded",
            expected=f"{newest.path.name}, {newest.digest[:16]}",
            found=about,
            where=signed.path,
            hint="ask the coordinator",
        )


def _check_record(final: Final, signed: Signed, party: Party) -> None:
    if final.round == 0:
        return
    found = [
        entry
        for entry, record in records_of(party.shelf, final.round)
        if record.edition == final.edition
    ]
    if not found:
        raise WrongRoundError(
            "The record of the weights that the final names doesn't lie here",
            expected=f"the record of round {final.round}, edition {final.edition}",
            where=signed.path,
            hint="import the coordinator's whole export: the weights and their record lie in it",
        )
    if found[0].digest != final.record:
        raise ConflictError(
            "The final names another record than the one that lies here",
            expected=f"{found[0].path.name}, {found[0].digest[:16]}",
            found=str(final.record)[:16],
            where=signed.path,
            hint=KEEP,
        )
