"""What import does with one signed file, once its signature is known to fit its bytes."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path

from brainfed import plan as plans
from brainfed.core.sshsig import public_key
from brainfed.errors import (
    ConflictError,
    MalformedError,
    StrangerError,
    WrongFederationError,
    WrongRoundError,
)
from brainfed.formats import atomic, document, federation, rounds, signature, weights
from brainfed.formats.federation import Federation
from brainfed.formats.manifest import Kind
from brainfed.formats.record import InputStatus, Record
from brainfed.formats.roster import PrincipalRole, Roster
from brainfed.formats.start import Start
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


@dataclass(frozen=True)
class JoinRequest:
    """What a person must see before the site joins."""

    federation: str
    purpose: str
    coordinator: str
    fingerprint: str
    site: str
    plan: plans.Plan
    plan_digest: str


Confirm = Callable[[JoinRequest], bool]


def accept(place: Workspace, local: Path, kind: str, confirm: Confirm) -> Outcome:
    """Check one staged file against the state of the workspace, and put it in place.

    Args:
        place: The workspace.
        local: The copy, in the inbox, with its signature beside it.
        kind: `weights`, or the kind that a signed JSON file names.
        confirm: Asked before the site joins.

    Raises:
        FileRefusedError: It doesn't belong here; nothing was changed.
        NotReadyError: The site has joined no federation yet.
    """
    if kind == "start":
        return _accept_start(place, local, confirm)
    if kind == "enrolment":
        return Outcome(Verdict.IGNORED, "an enrolment: `brainfed admit` takes it")
    known = federation.load(place)
    if kind == "roster":
        return _accept_roster(place, local, known)
    if kind == "record":
        return _accept_record(place, local, known)
    if kind == "weights":
        return _accept_weights(place, local, known)
    raise MalformedError(
        "The file is of a kind that this brainfed doesn't know", found=kind[:40], where=local
    )


def _accept_start(place: Workspace, local: Path, confirm: Confirm) -> Outcome:
    key, raw_digest = signature.verify_file(local)
    digest = raw_digest.hex()
    if federation.has_started(place):
        if federation.load(place).digest == digest:
            return Outcome(Verdict.ALREADY, "the start of this federation", digest)
        raise WrongFederationError(
            "The start of another federation",
            expected=federation.load(place).digest[:16],
            found=digest[:16],
            where=local,
            hint="one workspace takes part in one federation; "
            "use another folder with `brainfed init site` for another one",
        )
    place.require(Role.SITE)
    start = document.read(local, Start)
    coordinator = start.roster.coordinator
    if coordinator.public_key != key:
        raise StrangerError("start.json is not signed by its coordinator", where=local)
    if _numbers(version("brainfed")) < _numbers(start.minimum_version):
        raise WrongFederationError(
            "This federation needs a newer brainfed",
            expected=f"{start.minimum_version} or later",
            found=version("brainfed"),
            hint="install the newer version, then import again",
        )
    request = JoinRequest(
        federation=digest,
        purpose=start.purpose,
        coordinator=coordinator.name,
        fingerprint=key.fingerprint,
        site=place.name,
        plan=plans.parse(start.plan_text.encode(), local),
        plan_digest=start.plan.digest,
    )
    if not confirm(request):
        raise StrangerError(
            "The coordinator's fingerprint was not confirmed; the site has not joined",
            found=key.fingerprint,
            hint="compare it with the coordinator by telephone or in person, then import again",
        )
    # What is derived comes first: once start.json stands, nothing is left to do.
    atomic.write_bytes(
        place.federation_folder / federation.PLAN, start.plan_text.encode(), replace=True
    )
    federation.write_allowed_signers(place, start.roster)
    _place(local, place.federation_folder / federation.START)
    return Outcome(Verdict.ACCEPTED, "the start: this site has joined", digest)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def _accept_roster(place: Workspace, local: Path, known: Federation) -> Outcome:
    key, raw_digest = signature.verify_file(local)
    if key != known.roster.coordinator.public_key:
        raise StrangerError("The roster is not signed by the coordinator", where=local)
    roster = document.read(local, Roster)
    if roster.coordinator != known.roster.coordinator:
        raise StrangerError("The roster names another coordinator", where=local)
    what = f"the roster, version {roster.version}"
    mine = known.start.roster if roster.version == known.start.roster.version else known.roster
    if roster.version < known.roster.version or roster == mine:
        return Outcome(Verdict.ALREADY, what)
    if roster.federation != known.digest:
        raise WrongFederationError(
            "The roster is of another federation",
            expected=known.digest[:16],
            found=str(roster.federation)[:16],
            where=local,
        )
    if roster.version == known.roster.version:
        raise ConflictError(
            "Two rosters of one version: the coordinator tells two stories",
            found=what,
            where=local,
            hint="compare both files with the coordinator before going on",
        )
    federation.write_allowed_signers(place, roster)  # derived, so it comes first
    _place(local, federation.roster_path(place, roster.version))
    return Outcome(Verdict.ACCEPTED, what, raw_digest.hex())


def _accept_record(place: Workspace, local: Path, known: Federation) -> Outcome:
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
    _place(local, place.round_folder(record.round) / name)
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


def _accept_weights(place: Workspace, local: Path, known: Federation) -> Outcome:
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
    _place(file.path, place.round_folder(manifest.round) / known.weights_name(manifest))
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
    _place(file.path, place.round_folder(manifest.round) / known.weights_name(manifest))
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


def _place(local: Path, target: Path) -> None:
    """Signature first: the file counts from the moment when it stands beside its signature."""
    atomic.make_folder(target.parent)
    atomic.refuse_existing(target)
    atomic.remove(signature.signature_path(target))  # of a killed import
    atomic.place(signature.signature_path(local), signature.signature_path(target))
    atomic.place(local, target)
