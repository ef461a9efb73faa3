"""What lies in the rounds of a party, for those who hold a new file against it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from brainfed.core.sshsig import PublicKey
from brainfed.formats import document, federation, rounds, signature, weights
from brainfed.formats.approval import Approval
from brainfed.formats.final import Final
from brainfed.formats.manifest import Kind, Manifest
from brainfed.formats.record import Record
from brainfed.formats.scores import Scores
from brainfed.formats.workspace import Workspace


@dataclass(frozen=True)
class Lying:
    """A signed file of a round that was accepted or made here."""

    path: Path
    about: Manifest | Record | Scores | Approval | Final
    known_digest: str | None = None
    key: PublicKey | None = None
    """The key that signed it; None where nobody asks for it."""

    @property
    def digest(self) -> str:
        """SHA-256 of the file, hexadecimal; read from the disk where it isn't known."""
        return self.known_digest or signature.digest_of(self.path).hex()


class Shelf(Protocol):
    """What a party has; a workspace's is `DiskShelf`, a test's may be in memory."""

    def newest(self) -> int | None:
        """The highest round with global weights; None before the first."""

    def lying(self, round_number: int) -> Sequence[Lying]:
        """The signed files of a round."""

    def acceptance(self, name: str, version: int) -> str | None:
        """Digest of a party's signed acceptance of a version of the plan; None without one."""

    def roster(self, version: int) -> str | None:
        """Digest of the signed roster of a version; None where it doesn't lie here."""

    def erasure(self, name: str, edition: int) -> str | None:
        """Digest of a party's signed statement of what it erased; None without one."""

    def finals(self) -> Sequence[Lying]:
        """The signed finals, of all rounds."""


class DiskShelf:
    """The rounds of a workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def newest(self) -> int | None:
        """See `Shelf`."""
        return rounds.newest_round(self._workspace)

    def lying(self, round_number: int) -> Sequence[Lying]:
        """See `Shelf`; the digest of global weights is that of their record where there is one."""
        place = self._workspace
        recorded = {}
        found = []
        for path in rounds.signed(place, round_number, "*.record.json"):
            record = document.read(path, Record)
            recorded[record.edition] = record.global_digest
            found.append(Lying(path, record))
        for path in rounds.signed(place, round_number, "*.scores.json"):
            key = signature.read_signature(path).key
            found.append(Lying(path, document.read(path, Scores), key=key))
        there = rounds.approvals(place, round_number)
        found += [Lying(one.path, one.content, key=one.key) for one in there]
        for path in rounds.signed(place, round_number, "*.safetensors"):
            about = weights.read_manifest(path)
            is_global = about.kind is Kind.GLOBAL
            digest = recorded.get(about.edition) if is_global else None
            found.append(Lying(path, about, digest, signature.read_signature(path).key))
        return found

    def acceptance(self, name: str, version: int) -> str | None:
        """See `Shelf`."""
        return _digest(federation.acceptance_path(self._workspace, name, version))

    def roster(self, version: int) -> str | None:
        """See `Shelf`."""
        return _digest(federation.roster_path(self._workspace, version))

    def erasure(self, name: str, edition: int) -> str | None:
        """See `Shelf`."""
        return _digest(federation.erasure_path(self._workspace, name, edition))

    def finals(self) -> Sequence[Lying]:
        """See `Shelf`."""
        paths = rounds.final_paths(self._workspace)
        return [Lying(path, document.read(path, Final)) for path in paths]


def _digest(path: Path) -> str | None:
    """Digest of a signed file; None where there is none."""
    is_signed = path.exists() and signature.signature_path(path).exists()
    return signature.digest_of(path).hex() if is_signed else None


def weights_of(
    shelf: Shelf, round_number: int, kind: Kind, sender: str | None = None
) -> list[Lying]:
    """The weight files of a round of one kind, of one sender where given, by edition."""
    found = [
        entry
        for entry in shelf.lying(round_number)
        if isinstance(entry.about, Manifest)
        and entry.about.kind is kind
        and sender in {None, entry.about.sender}
    ]
    return sorted(found, key=lambda entry: (entry.about.sender, entry.about.edition))


def records_of(shelf: Shelf, round_number: int) -> list[tuple[Lying, Record]]:
    """The records of a round, by edition."""
    found = [(e, e.about) for e in shelf.lying(round_number) if isinstance(e.about, Record)]
    return sorted(found, key=lambda pair: pair[1].edition)


def scores_of(
    shelf: Shelf, round_number: int, sender: str, edition: int
) -> list[tuple[Lying, Scores]]:
    """What a party scored of the global weights of a round and edition; one file as a rule."""
    found = [(e, e.about) for e in shelf.lying(round_number) if isinstance(e.about, Scores)]
    return [pair for pair in found if (pair[1].sender, pair[1].edition) == (sender, edition)]
