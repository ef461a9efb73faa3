"""What a party has to send now, and who is to be able to read it."""

from dataclasses import dataclass
from pathlib import Path

from brainfed.errors import NotReadyError
from brainfed.formats import courier, document, federation, rounds
from brainfed.formats.federation import Federation
from brainfed.formats.final import Final
from brainfed.formats.roster import Principal, Role
from brainfed.formats.workspace import Workspace
from brainfed.plan import Encryption


@dataclass(frozen=True)
class Outgoing:
    """One file that is due."""

    name: str
    """What it is called on a medium; safe on FAT32, exFAT and Windows."""
    path: Path
    """Where it lies here, its signature beside it once it has one."""
    what: str
    round: int | None = None
    """Of weights; None for signed JSON, which travels in the clear."""


def due(place: Workspace, known: Federation | None) -> list[Outgoing]:
    """The files that are to be carried now.

    At the coordinator: the start, the rosters newer than the start's, the amendments, the newest
    global weights and their records, and with a final itself also the weights that it names. At any
    other party: its enrolment while the newest roster doesn't name its key as active; then its
    acceptances, its statements of what it erased, its scores of all rounds (nobody tells it which
    have come) and, at a site, its update of the open round with its approval, if it has one.
    """
    if place.role is Role.COORDINATOR:
        return [] if known is None else _coordinators(place, known)
    found = None if known is None else known.roster.get(place.name)
    if (
        known is None
        or found is None
        or not found.is_active
        or found.key != place.public_key().line
    ):
        path = place.outbox / f"{place.name}.enrolment.json"
        return [Outgoing(path.name, path, "enrolment")] if path.exists() else []
    versions = (entry.version.version for entry in known.plans)
    paths = [federation.acceptance_path(place, place.name, version) for version in versions]
    files = [
        Outgoing(f"{known.prefix}.{path.name}", path, "acceptance")
        for path in paths
        if path.exists()
    ]
    statements = sorted(place.federation_folder.glob(f"{place.name}.*erasure.json"))
    files += [Outgoing(f"{known.prefix}.{path.name}", path, "erasure") for path in statements]
    scores = rounds.scores_paths(place, place.name)
    files += [Outgoing(path.name, path, "scores") for path in scores]
    newest = rounds.newest_round(place)
    if place.role is Role.SITE and newest is not None:
        update = rounds.update_path(place, known, newest + 1, place.name)
        if update is not None:
            files.append(Outgoing(update.name, update, "update", newest + 1))
            approved = rounds.approval_for(place, known, update)
            if approved is not None:
                files.append(Outgoing(approved.name, approved, "approval"))
    return files


def recipients_of(file: Outgoing, place: Workspace, known: Federation | None) -> tuple[str, ...]:
    """The age recipients for which a file is encrypted; none where it travels in the clear.

    A site's update is for the coordinator alone, global weights are for all active sites and
    evaluators.

    Raises:
        NotReadyError: The plan requires encryption, and a reader has no recipient in the roster.
    """
    if file.round is None or known is None:
        return ()
    wanted = known.plan_of(file.round).exchange.encryption
    there = readers(place, known)
    lacking = [reader.name for reader in there if reader.recipient is None]
    if wanted is Encryption.REQUIRED and (lacking or not there):
        raise NotReadyError(
            "The plan requires encryption, and not every reader has an age recipient",
            expected="a recipient in the roster for each reader",
            found=f"none for {', '.join(lacking) or 'anybody'}",
            where=file.path,
            hint="they install brainfed[encrypt] and run `brainfed key rotate`; the coordinator "
            "admits the new enrolments",
        )
    if wanted is Encryption.OFF or lacking:
        return ()
    return tuple(reader.recipient for reader in there if reader.recipient is not None)


def carried_name(place: Workspace, path: Path) -> str:
    """What a file is called on the medium: with `.age` where the outbox holds it encrypted."""
    encrypted = path.name + courier.SUFFIX
    return encrypted if (place.outbox / encrypted).exists() else path.name


def addressees(place: Workspace, known: Federation | None) -> tuple[str, ...]:
    """For whom the medium is, by name."""
    if known is None:
        return ("the coordinator",)
    if place.role is not Role.COORDINATOR:
        return (known.roster.coordinator.name,)
    others = {Role.SITE, Role.EVALUATOR, Role.AUDITOR}
    return tuple(p.name for p in known.roster.principals if p.is_active and p.role in others)


def _coordinators(place: Workspace, known: Federation) -> list[Outgoing]:
    documents = [("start", federation.start_path(place))]
    first, last = known.start.roster.version, known.roster.version
    documents += [("roster", federation.roster_path(place, v)) for v in range(first + 1, last + 1)]
    documents += [("amendment", path) for path in federation.amendment_paths(place)]
    files = [Outgoing(f"{known.prefix}.{path.name}", path, what) for what, path in documents]
    finals = rounds.final_paths(place)
    wanted = {rounds.newest_round(place), *(document.read(path, Final).round for path in finals)}
    for number in sorted(number for number in wanted if number is not None):
        path = rounds.global_path(place, number)
        assert path is not None
        files.append(Outgoing(path.name, path, "global weights", number))
        files += [Outgoing(p.name, p, "record") for p in rounds.records(place, number)]
    return files + [Outgoing(path.name, path, "final") for path in finals]


def readers(place: Workspace, known: Federation) -> tuple[Principal, ...]:
    """Whoever is to be able to read the weights that this party sends."""
    if place.role is not Role.COORDINATOR:
        return (known.roster.coordinator,)
    reading = {Role.SITE, Role.EVALUATOR}
    return tuple(p for p in known.roster.principals if p.is_active and p.role in reading)
