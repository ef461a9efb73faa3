"""What import does with one signed file, once its signature is known to fit its bytes."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from brainfed import plan as plans
from brainfed.errors import (
    ConflictError,
    MalformedError,
    StrangerError,
    WrongFederationError,
)
from brainfed.formats import atomic, document, federation, signature
from brainfed.formats.federation import Federation
from brainfed.formats.roster import Roster
from brainfed.formats.start import Start
from brainfed.formats.workspace import Role, Workspace
from brainfed.steps.accept_round import Outcome, Verdict, accept_record, accept_weights, put


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
        return accept_record(place, local, known)
    if kind == "weights":
        return accept_weights(place, local, known)
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
    put(local, place.federation_folder / federation.START)
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
    put(local, federation.roster_path(place, roster.version))
    return Outcome(Verdict.ACCEPTED, what, raw_digest.hex())
