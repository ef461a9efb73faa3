"""What import does with the files of a round: records, updates and global weights."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from brainfed.core.sshsig import public_key
from brainfed.errors import (
    ConflictError,
    MalformedError,
    StrangerError,
    WrongFederationError,
    WrongRoundError,
)
from brainfed.formats import atomic, rounds, signature, weights
from brainfed.formats.federation import Federation
from brainfed.formats.manifest import Kind
from brainfed.formats.record import InputStatus, Record
from brainfed.formats.roster import PrincipalRole
from brainfed.formats.weights import WeightsFile
from brainfed.formats.workspace import Role, Workspace


class Verdict(StrEnum):
    """What import did with a file."""

    ACCEPTED = "accepted"
    ALREADY = "already there"
    IGNORED = "ignored"
    REFUSED = "refused"


@dataclass(frozen=True)
class Outcome:
    """What import did with a file, in words."""

    verdict: Verdict
    what: str
    digest: str | None = None


def accept_record(place: Workspace, local: Path, known: Federation) -> Outcome:
    """Check a staged record against the plan, the roster and what lies here, and put it in place.

    Raises:
        FileRefusedError: It doesn't belong here; nothing was changed.
    """
    record, digest = rounds.verify_record(local, known)
    _check_in_roster(place, known)
    what = f"the record of round {record.round}"
    for path in rounds.records(place, record.round):
        there, there_digest = rounds.verify_record(path, known)
        if there_digest == digest:
            return Outcome(Verdict.ALREADY, what, digest)
        if there.edition == record.edition:
            raise ConflictError(
                "Two records of one round and edition: the coordinator tells two stories",
                expected=there_digest[:16],
                found=digest[:16],
                where=local,
                hint="keep both files and ask the coordinator",
            )
    if place.role is Role.COORDINATOR:
        raise ConflictError("A record that this coordinator didn't make", where=local)
    _check_rule(record, known, local)
    _check_own_update(place, record, known, local)
    _check_global_of(place, record, local)
    name = f"{known.file_stem(record)}.record.json"
    put(local, place.round_folder(record.round) / name)
    mine = next((entry for entry in record.inputs if entry.sender == place.name), None)
    part = "this site is not in it" if mine is None else f"this site's update: {mine.status}"
    return Outcome(Verdict.ACCEPTED, f"{what} ({part})", digest)


def _check_rule(record: Record, known: Federation, where: Path) -> None:
    """The record must aggregate by the plan's rule, and by sites of the roster alone."""
    by_plan = known.plan.aggregation
    if (record.rule, record.weights_by) != (by_plan.rule, by_plan.weights):
        raise WrongFederationError(
            "The record aggregates by another rule than the plan's",
            expected=f"{by_plan.rule}, by {by_plan.weights}",
            found=f"{record.rule}, by {record.weights_by}",
            where=where,
            hint="ask the coordinator",
        )
    if record.roster_version > known.roster.version:
        return  # it may name sites that joined since; the newer roster will come
    for entry in record.inputs:
        known.principal(PrincipalRole.SITE, entry.sender)


def _check_own_update(place: Workspace, record: Record, known: Federation, where: Path) -> None:
    """The record must name this site's update under the digest that it was sent with."""
    mine = next((entry for entry in record.inputs if entry.sender == place.name), None)
    path = rounds.update_path(place, known, record.round, place.name)
    if mine is None or mine.status is not InputStatus.INCLUDED or path is None:
        return
    sent = signature.digest_of(path).hex()
    if mine.digest != sent:
        raise ConflictError(
            "The record names another update of this site than the one that lies here",
            expected=sent[:16],
            found=str(mine.digest)[:16],
            where=where,
            hint="ask the coordinator which file was averaged under this site's name",
        )


def _check_global_of(place: Workspace, record: Record, where: Path) -> None:
    """The record must name the global weights of its round that lie here already."""
    for path in rounds.signed(place, record.round, "*.global.safetensors"):
        there = signature.digest_of(path).hex()
        is_same = there == record.global_digest
        if not is_same and weights.read_manifest(path).edition == record.edition:
            raise ConflictError(
                "The record names other global weights than those of its round that lie here",
                expected=there[:16],
                found=record.global_digest[:16],
                where=where,
                hint="keep both files and ask the coordinator",
            )


def accept_weights(place: Workspace, local: Path, known: Federation) -> Outcome:
    """Check a staged weight file against the open round, and put it in place.

    Raises:
        FileRefusedError: It doesn't belong here; nothing was changed.
    """
    file = rounds.verify_weights(local, known)
    if file.manifest.kind is Kind.UPDATE:
        if place.role is Role.COORDINATOR:
            return _accept_update(place, file, known)
        whose = "this site's own update" if file.manifest.sender == place.name else "not for a site"
        return Outcome(Verdict.IGNORED, whose, file.digest)
    if file.manifest.kind is not Kind.GLOBAL:
        raise MalformedError(
            "The file holds the state of a rule that has none",
            expected=f"global weights or updates, under the rule {known.plan.aggregation.rule}",
            found=file.manifest.kind,
            where=local,
        )
    _check_in_roster(place, known)
    return _accept_global(place, file, known)


def _accept_update(place: Workspace, file: WeightsFile, known: Federation) -> Outcome:
    manifest = file.manifest
    what = f"the update of {manifest.sender} for round {manifest.round}"
    there = rounds.update_path(place, known, manifest.round, manifest.sender)
    if there is not None and signature.signature_path(there).exists():
        if signature.digest_of(there).hex() == file.digest:
            return Outcome(Verdict.ALREADY, what, file.digest)
        raise ConflictError(
            "There is already another update of this site for this round",
            expected="one update a site and round",
            found=what,
            where=file.path,
            hint="the first one stays; ask the site which one is right",
        )
    newest = rounds.newest_global(place, known)
    if manifest.round != newest.manifest.round + 1:
        closed = manifest.round <= newest.manifest.round
        raise WrongRoundError(
            "The update is for a round that is closed" if closed else "The update is too early",
            expected=f"round {newest.manifest.round + 1}",
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
            hint=f"{manifest.sender} imports the newest global weights and trains from them",
        )
    _require_weight(file, known)
    put(file.path, place.round_folder(manifest.round) / known.weights_name(manifest))
    return Outcome(Verdict.ACCEPTED, what, file.digest)


def _require_weight(file: WeightsFile, known: Federation) -> None:
    by = known.plan.aggregation.weights
    if not getattr(file.manifest, f"n_{by}"):
        raise MalformedError(
            "The update has no weight in the mean",
            expected=f"at least 1 of {by} to train on",
            found=0,
            where=file.path,
        )


def _accept_global(place: Workspace, file: WeightsFile, known: Federation) -> Outcome:
    manifest = file.manifest
    what = f"the global weights of round {manifest.round}"
    for path in rounds.signed(place, manifest.round, "*.global.safetensors"):
        if signature.digest_of(path).hex() == file.digest:
            return Outcome(Verdict.ALREADY, what, file.digest)
        if weights.read_manifest(path).edition == manifest.edition:
            raise ConflictError(
                "Two global weights of one round and edition: the coordinator tells two stories",
                expected=signature.digest_of(path).hex()[:16],
                found=file.digest[:16],
                where=file.path,
                hint="keep both files and ask the coordinator",
            )
    if place.role is Role.COORDINATOR:
        raise ConflictError("Global weights that this coordinator didn't make", where=file.path)
    before = rounds.global_path(place, manifest.round - 1) if manifest.round else None
    if before is not None and signature.digest_of(before).hex() != manifest.parent:
        raise WrongRoundError(
            "The global weights don't follow those of the round before",
            expected=signature.digest_of(before).hex()[:16],
            found=str(manifest.parent)[:16],
            where=file.path,
            hint="ask the coordinator; the chain of rounds is broken",
        )
    for path in rounds.records(place, manifest.round):
        record, _ = rounds.verify_record(path, known)
        if record.edition == manifest.edition and record.global_digest != file.digest:
            raise WrongRoundError(
                "The record of this round names other global weights",
                expected=record.global_digest[:16],
                found=file.digest[:16],
                where=file.path,
            )
    put(file.path, place.round_folder(manifest.round) / known.weights_name(manifest))
    return Outcome(Verdict.ACCEPTED, what, file.digest)


def _check_in_roster(place: Workspace, known: Federation) -> None:
    """A site whose own key the roster doesn't name can't take part; say so at once."""
    found = known.roster.get(place.name)
    if found is None or found.public_key != public_key(place.private_key()):
        raise StrangerError(
            "The roster doesn't name this workspace's key",
            expected=f"{place.name} with {public_key(place.private_key()).fingerprint}",
            found="no such name" if found is None else found.public_key.fingerprint,
            hint="send the enrolment in outbox/ to the coordinator, who runs `brainfed admit`",
        )


def put(local: Path, target: Path) -> None:
    """Signature first: the file counts from the moment when it stands beside its signature."""
    atomic.make_folder(target.parent)
    atomic.refuse_existing(target)
    atomic.remove(signature.signature_path(target))  # of a killed import
    atomic.place(signature.signature_path(local), signature.signature_path(target))
    atomic.place(local, target)
