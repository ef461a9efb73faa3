"""Hand-overs: how many signed files were carried each way, and how large they are, by round."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from brainfed.errors import BrainfedError
from brainfed.formats import signature
from brainfed.formats.federation import Federation
from brainfed.formats.roster import Role
from brainfed.formats.workspace import Workspace


@dataclass(frozen=True, slots=True)
class HandOver:
    """The signed files of one round, or those of the federation itself."""

    round: int | None
    """None for the start, rosters, plans and consents."""
    n_received: int
    """Files that another party signed."""
    received_bytes: int
    """Each with its signature."""
    n_sent: int
    """Files that this party signed."""
    sent_bytes: int


def hand_overs(place: Workspace, known: Federation) -> tuple[HandOver, ...]:
    """Count the signed files that lie in a workspace, each once; the federation's own first.

    What was carried in vain, twice, or encrypted for the way leaves no trace here. A file that goes
    to several parties (`n_readers`) counts once.
    """
    folders: list[tuple[int | None, Path]] = [(None, place.federation_folder)]
    folders += [(int(p.name[1:]), p) for p in sorted(place.rounds.glob("r[0-9][0-9][0-9][0-9]"))]
    return tuple(_count(number, _files(folder, known), place) for number, folder in folders)


def n_readers(place: Workspace, known: Federation) -> int:
    """To how many parties what this one sends goes: by the newest roster."""
    if place.role is not Role.COORDINATOR:
        return 1
    readers = {Role.SITE, Role.EVALUATOR}
    return sum(p.is_active and p.role in readers for p in known.roster.principals)


def _files(folder: Path, known: Federation) -> Iterator[tuple[str, int]]:
    """Signer and size of each signed file, its signature included."""
    for path in sorted(folder.glob("*.sig")):
        signed = path.with_suffix("")
        if not signed.is_file():
            continue
        try:
            signer = known.roster.entry(signature.read_signature(signed).key).name
        except BrainfedError:
            # A roster under the recovery key, which has no entry; or a damaged signature, which
            # the audit names.
            signer = known.roster.coordinator.name
        yield signer, signed.stat().st_size + path.stat().st_size


def _count(number: int | None, files: Iterator[tuple[str, int]], place: Workspace) -> HandOver:
    sizes: dict[bool, list[int]] = {True: [], False: []}
    for signer, n_bytes in files:
        sizes[signer == place.name].append(n_bytes)
    own, others = sizes[True], sizes[False]
    return HandOver(number, len(others), sum(others), len(own), sum(own))
