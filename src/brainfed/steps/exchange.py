"""Export: fill the outbox with what is to be carried now, and copy it to a medium."""

import os
from dataclasses import dataclass
from pathlib import Path

from brainfed.core.progress import Progress, silent
from brainfed.errors import NotReadyError, ResourceError
from brainfed.formats import atomic, federation, rounds, signature
from brainfed.formats.federation import Federation
from brainfed.formats.ledger import Event
from brainfed.formats.workspace import Role, Workspace


@dataclass(frozen=True)
class Copied:
    """One file on the medium."""

    name: str
    n_bytes: int
    digest: str
    """SHA-256, hexadecimal, of what was read back from the medium."""


@dataclass(frozen=True)
class Exported:
    """What lies in the outbox, and what was copied to a medium."""

    outbox: tuple[str, ...]
    to: Path | None
    copied: tuple[Copied, ...]


def export(place: Workspace, to: Path | None, *, progress: Progress = silent) -> Exported:
    """Sign what is to leave, put it into the outbox, and copy the outbox to a medium.

    Every copy is flushed and read back. Files of ours that are there already are replaced.

    Args:
        place: The workspace.
        to: Folder on the medium; only the outbox is filled where None.
        progress: Told of each file.

    Raises:
        NotReadyError: There is nothing to send.
        ResourceError: The medium is missing, full, or gives back other bytes.
    """
    names = fill_outbox(place)
    if not names:
        raise NotReadyError(
            "There is nothing to send now", where=place.outbox, hint="`brainfed status`"
        )
    copied = []
    if to is not None:
        if not to.is_dir():
            raise ResourceError(
                "The folder to copy to isn't there",
                found=to,
                hint="is the medium mounted? make the folder, or give another one",
            )
        for number, name in enumerate(names, start=1):
            copied.append(_copy_and_read_back(place.outbox / name, to / name))
            progress("copy", number, len(names), name)
    return Exported(names, to, tuple(copied))


def fill_outbox(place: Workspace) -> tuple[str, ...]:
    """Make the outbox hold exactly what is to be carried now; gives the names, sorted.

    At the coordinator: the start, the newest roster, the newest global weights and their record.
    At a site: its enrolment until it has joined, then its update of the open round, signed here.
    """
    if not federation.has_started(place):
        # Nothing but the enrolment: whatever else somebody put here stays here.
        return tuple(sorted(path.name for path in place.outbox.glob("*.enrolment.json*")))
    known = federation.load(place)
    files = (
        _coordinator_files(place, known)
        if place.role is Role.COORDINATOR
        else _site_files(place, known)
    )
    wanted = dict(files)
    for name, path in files.items():
        wanted[f"{name}.sig"] = signature.signature_path(path)
    for old in place.outbox.iterdir():
        if old.name not in wanted or not old.samefile(wanted[old.name]):
            atomic.remove(old)
    for name, path in wanted.items():
        if not (place.outbox / name).exists():
            atomic.link_or_copy(path, place.outbox / name)
    return tuple(sorted(wanted))


def _coordinator_files(place: Workspace, known: Federation) -> dict[str, Path]:
    files = {f"{known.prefix}.start.json": place.federation_folder / federation.START}
    roster = federation.roster_path(place, known.roster.version)
    files[f"{known.prefix}.{roster.name}"] = roster
    newest = rounds.newest_round(place)
    if newest is not None:
        path = rounds.global_path(place, newest)
        assert path is not None
        files[path.name] = path
        files |= {record.name: record for record in rounds.records(place, newest)}
    return files


def _site_files(place: Workspace, known: Federation) -> dict[str, Path]:
    newest = rounds.newest_round(place)
    path = None if newest is None else rounds.update_path(place, known, newest + 1, place.name)
    if path is None:
        return {}
    if not signature.signature_path(path).exists():
        digest = signature.sign_file(path, place.private_key())
        place.note(Event.MADE, what="signed update", file=path.name, digest=digest.hex())
    return {path.name: path}


def _copy_and_read_back(source: Path, target: Path) -> Copied:
    for leftover in target.parent.glob(f"{atomic.TEMPORARY_PREFIX}*-{target.name}"):
        atomic.remove(leftover)  # of a killed export
    n_bytes = source.stat().st_size
    digest = atomic.copy(source, target, cap_bytes=n_bytes, replace=True)
    _forget_cached(target)
    if signature.digest_of(target) != digest:
        raise ResourceError(
            "The medium gave back other bytes than were written",
            where=target,
            hint="use another medium; this one is not to be trusted",
        )
    return Copied(target.name, n_bytes, digest.hex())


def _forget_cached(path: Path) -> None:
    """Ask the system to drop its cached copy, so that reading back reads the medium."""
    if hasattr(os, "posix_fadvise"):
        with path.open("rb") as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
