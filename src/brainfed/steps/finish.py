"""Finish: sign which global weights the federation ends with, once and for good.

Which ones is not asked where validation can tell (`steps.compare_rounds`). Only once the final is
there may test patients be looked at; and no further round is closed, for nobody could choose it.
"""

from dataclasses import dataclass
from datetime import date
from pathlib import Path

from brainfed.errors import ConflictError, NotReadyError, QuorumError, UsageError
from brainfed.formats import atomic, document, federation, rounds, signature
from brainfed.formats.federation import Federation
from brainfed.formats.final import Final
from brainfed.formats.ledger import Event
from brainfed.formats.roster import Role
from brainfed.formats.weights import WeightsFile
from brainfed.formats.workspace import Workspace
from brainfed.steps import exchange, rosters
from brainfed.steps.compare_rounds import RoundsCompared, compare_rounds


@dataclass(frozen=True, slots=True)
class Finished:
    """The final, and what it was chosen by."""

    final: Final
    path: Path
    digest: str
    already: bool
    """Whether it lay here before."""
    by_validation: bool
    """Whether the figures here name this round as the best; else a person named it."""
    told: RoundsCompared
    rounds_planned: int
    n_local: int
    """Tensors that stay at the sites and without which the weights don't run; of an external
    network, of which brainfed doesn't know that, 0."""


def finish(place: Workspace, *, round_number: int | None = None, today: date) -> Finished:
    """Sign the final of the best round, of its newest edition, and put it into the outbox.

    A final that lies here stays as it is, whatever figures have come since.

    Args:
        place: The coordinator's workspace.
        round_number: Which round, where validation can't tell.
        today: The day for the final.

    Raises:
        WrongRoleError: Not the coordinator.
        UsageError: Validation can't tell and no round is named, or it names another one.
        NotReadyError: The newest round can't be compared yet, or there is no such round.
        ConflictError: There is a final of another round.
        FileRefusedError: Weights, record or final were damaged.
    """
    place.require(Role.COORDINATOR)
    known = federation.load(place)
    key = rosters.coordinator_key(place)
    told = compare_rounds(place, known)
    there = rounds.verify_final(place, known)
    if there is not None:
        final, path = there
        _check_same(final, path, round_number)
        if signature.read_signature(path).key != place.public_key():
            signature.sign_file(path, key)  # rotated since: sites take it by the newest key alone
    else:
        chosen = _weights_of(place, known, _choose(told, round_number))
        final = _final(place, known, chosen, today)
        path = chosen.path.with_name(f"{known.file_stem(final)}.final.json")
        atomic.remove(path)  # of a killed command: without its signature it never counted
        document.write_signed(path, final, key)
        digest = signature.digest_of(path).hex()
        place.note(Event.MADE, what="final", round=final.round, digest=digest)
    exchange.fill_outbox(place)
    network = known.first_plan.network
    return Finished(
        final=final,
        path=path,
        digest=signature.digest_of(path).hex(),
        already=there is not None,
        by_validation=told.best == final.round,
        told=told,
        rounds_planned=known.plans[-1].plan.rounds,
        n_local=len(network.local) if network.n_dimensions else 0,
    )


def check_unfinished(place: Workspace, known: Federation) -> None:
    """Refuse to close a round, for the first time or again, once the final is signed.

    Raises:
        QuorumError: It is.
        FileRefusedError: The final was damaged.
    """
    there = rounds.verify_final(place, known)
    if there is not None:
        final, path = there
        raise QuorumError(
            "The federation is finished: no round is closed after the final",
            expected="a federation without a final",
            found=f"the final names round {final.round}, signed on {final.day}",
            where=path,
            hint="bring it to the sites: `brainfed export --to FOLDER`; to train on, start a "
            "federation anew from these weights",
        )


def _choose(told: RoundsCompared, wanted: int | None) -> int:
    """The round to end with: the best one, or where validation can't tell the one that is named."""
    if told.best is None:
        if wanted is None:
            raise UsageError(
                "Validation can't tell which round is best",
                expected="figures of two rounds that can be compared, or --round R",
                found="; ".join(told.not_compared) or "no round",
                where="brainfed status --rounds",
                hint="import the sites' scores (`brainfed evaluate --round R`, then "
                "`brainfed export`), or name the round: `brainfed finish --round R`",
            )
        return wanted
    if wanted not in {None, told.best}:
        raise UsageError(
            "Validation tells which round is best, and it is another one",
            expected=f"round {told.best}",
            found=f"--round {wanted}",
            where="brainfed status --rounds",
            hint="`brainfed finish` without --round signs the best one",
        )
    newest = told.rounds[-1]
    if wanted is None and newest.mean is None:
        raise NotReadyError(
            f"Round {newest.round}, the newest, can't be compared yet",
            expected=f"figures of {', '.join(newest.lacking)}",
            where="brainfed status --rounds",
            hint="there the site runs `brainfed evaluate` and `brainfed export`; import its "
            f"scores. If they can't come: `brainfed finish --round {told.best}` signs the best of "
            "the others",
        )
    return told.best


def _check_same(final: Final, path: Path, wanted: int | None) -> None:
    if wanted not in {None, final.round}:
        raise ConflictError(
            "The final is signed already, and a federation has one",
            expected=f"round {final.round}, signed on {final.day}",
            found=f"--round {wanted}",
            where=path,
            hint="it can't be taken back: sites may have opened their test patients for it",
        )


def _weights_of(place: Workspace, known: Federation, number: int) -> WeightsFile:
    path = rounds.global_path(place, number)
    if path is None:
        raise NotReadyError(
            f"There are no global weights of round {number}",
            expected=f"a round from 0 to {rounds.newest_round(place)}",
            where=place.round_folder(number),
            hint="`brainfed status --rounds` lists them",
        )
    return rounds.verify_weights(path, known)


def _final(place: Workspace, known: Federation, chosen: WeightsFile, today: date) -> Final:
    manifest = chosen.manifest
    record = None
    if manifest.round > 0:
        found = [rounds.verify_record(p, known) for p in rounds.records(place, manifest.round)]
        digests = {content.edition: digest for content, digest in found}
        record = digests.get(manifest.edition)
        if record is None:
            raise NotReadyError(
                "The record of these global weights doesn't lie here",
                expected=f"the record of round {manifest.round}, edition {manifest.edition}",
                where=chosen.path.parent,
                hint="bring it back from an archive: the final names it",
            )
    version = known.in_force(manifest.round)
    return Final(
        purpose=manifest.purpose,
        federation=manifest.federation,
        sender=place.name,
        roster_version=known.roster.version,
        plan=version.version,
        round=manifest.round,
        edition=manifest.edition,
        weights=chosen.digest,
        record=record,
        weights_licence=known.plans[-1].plan.terms.weights_licence,
        day=today.isoformat(),
    )
