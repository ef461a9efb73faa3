"""Import: take from a medium what concerns this workspace, after checking it (`docs/formats`).

The order is always: cap on the size, copy, signature, content. Only the local copy is looked into,
and a file is what its signed content says, whatever its name (portals rename). A file that is
refused changes nothing but one line in the ledger.
"""

import contextlib
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from brainfed.core import sshsig
from brainfed.core.progress import Progress, silent
from brainfed.errors import (
    BrainfedError,
    FileRefusedError,
    NotReadyError,
    ResourceError,
    SignatureError,
    UnsignedError,
    UsageError,
    WrongRoleError,
)
from brainfed.formats import atomic, document, federation, signature, weights
from brainfed.formats.ledger import Event
from brainfed.formats.workspace import Workspace
from brainfed.steps import accept
from brainfed.steps.accept import Confirm
from brainfed.steps.accept_round import Outcome, Verdict

MAX_DEPTH = 3
"""Folders below the given one that are looked into."""
MAX_UNJOINED_BYTES = 2**32
"""Cap for weights before the plan is known; afterwards the plan's own network is the cap."""


class Sniffed(StrEnum):
    """What the first bytes of a file look like."""

    SIGNATURE = "signature"
    JSON = "json"
    WEIGHTS = "weights"
    FOREIGN = "foreign"


@dataclass(frozen=True)
class Received:
    """What became of one file."""

    path: Path
    verdict: Verdict
    what: str
    error: BrainfedError | None = None


@dataclass(frozen=True)
class Import:
    """What became of all files."""

    files: tuple[Received, ...]
    n_foreign: int

    @property
    def refused(self) -> tuple[Received, ...]:
        """The files that were refused."""
        return tuple(f for f in self.files if f.verdict is Verdict.REFUSED)


@dataclass
class _Staged:
    """A local copy with its signature beside it, checked against it."""

    source: Path
    local: Path
    kind: str
    order: tuple[int, int] = field(default=(9, 0))


def receive(
    place: Workspace,
    sources: Sequence[Path],
    *,
    confirm: Confirm,
    progress: Progress = silent,
) -> Import:
    """Import files or folders into a workspace.

    Args:
        place: The workspace.
        sources: Files, or folders that are searched three levels deep.
        confirm: Asked once, before a site joins a federation.
        progress: Told of each file.

    Raises:
        UsageError: A source isn't there.
        ResourceError: The medium can't be read or the disk refuses.
    """
    files, signatures, n_foreign = _look(sources)
    results: list[Received] = []
    with _staging(place) as folder_prefix:
        staged = []
        for number, (path, kind) in enumerate(files.items(), start=1):
            local = place.inbox / f"{folder_prefix}{number:05d}"
            try:
                staged.append(_stage(place, path, kind, local, signatures))
            except FileRefusedError as error:
                results.append(_refused(place, path, local, error))
                atomic.remove(local)  # at once: refused files must not fill the disk
            progress("check", number, len(files), path.name)
        for item in sorted(staged, key=lambda item: item.order):
            try:
                outcome = accept.accept(place, item.local, item.kind, confirm)
            except (FileRefusedError, NotReadyError, WrongRoleError) as error:
                results.append(_refused(place, item.source, item.local, error))
            else:
                results.append(Received(item.source, outcome.verdict, outcome.what))
                _note(place, item.source, outcome)
    return Import(tuple(results), n_foreign)


def _look(
    sources: Sequence[Path],
) -> tuple[dict[Path, Sniffed], dict[Path, sshsig.Signature | None], int]:
    """Find signed files, and all signatures, by their first bytes; count the foreign ones."""
    found: dict[Path, Sniffed] = {}
    for source in sources:
        if not source.exists():
            raise UsageError(
                "There is nothing under this path", where=source, hint="is the medium mounted?"
            )
        for path in _walk(source, MAX_DEPTH) if source.is_dir() else [source]:
            found[path] = _sniff(path)
        if not source.is_dir():
            beside = signature.signature_path(source)
            if beside.is_file():
                found[beside] = _sniff(beside)
    signatures: dict[Path, sshsig.Signature | None] = {}
    for path, kind in found.items():
        if kind is Sniffed.SIGNATURE:
            with contextlib.suppress(SignatureError):
                signatures[path] = signature.parse_file(path)
            signatures.setdefault(path, None)
    files = {
        path: kind
        for path, kind in found.items()
        if path not in signatures
        # A name with a signature beside it was meant for us, whatever its bytes have become.
        and (kind is not Sniffed.FOREIGN or signature.signature_path(path) in found)
    }
    return files, signatures, len(found) - len(files) - len(signatures)


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    """Regular files below a folder, by name; links and special files are left alone."""
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or path.name.startswith("."):
            continue
        if path.is_dir() and depth > 0:
            yield from _walk(path, depth - 1)
        elif path.is_file():
            yield path


def _sniff(path: Path) -> Sniffed:
    try:
        with path.open("rb") as stream:
            start = stream.read(40)
    except OSError as error:
        raise ResourceError("The medium can't be read", found=error.strerror, where=path) from None
    if start.startswith(b"-----BEGIN SSH SIGNATURE-----"):
        return Sniffed.SIGNATURE
    if start.startswith(b'{"'):
        return Sniffed.JSON
    if start[8:10] == b'{"':
        return Sniffed.WEIGHTS
    return Sniffed.FOREIGN


@contextlib.contextmanager
def _staging(place: Workspace) -> Iterator[str]:
    prefix = f"{atomic.TEMPORARY_PREFIX}{secrets.token_hex(4)}-"
    try:
        yield prefix
    finally:
        for path in place.inbox.glob(f"{prefix}*"):
            atomic.remove(path)


def _stage(
    place: Workspace,
    path: Path,
    kind: Sniffed,
    local: Path,
    signatures: dict[Path, sshsig.Signature | None],
) -> _Staged:
    """Copy a file, find the signature that is over its bytes, and say what it claims to be."""
    digest = atomic.copy(path, local, cap_bytes=_cap(place, kind))
    found = _find_signature(path, local, digest, signatures)
    atomic.write_bytes(signature.signature_path(local), found.armored)
    item = _Staged(path, local, kind)
    if kind is Sniffed.JSON:
        item.kind = document.kind_of(document.read_capped(local))
        order = {"start": 0, "roster": 1, "record": 2}.get(item.kind, 3)
        item.order = (order, 0)
    if federation.has_started(place) and item.kind != "enrolment":
        # Whose signature it is comes before what the file says.
        federation.load(place).roster.holder(found.key)
    if kind is not Sniffed.JSON:
        item.order = (4, weights.read_manifest(local).round)
        item.kind = "weights"
    return item


def _cap(place: Workspace, kind: Sniffed) -> int:
    if kind is Sniffed.JSON:
        return document.MAX_JSON_BYTES
    if federation.has_started(place):
        return weights.largest_file(federation.load(place).table)
    return MAX_UNJOINED_BYTES


def _find_signature(
    path: Path, local: Path, digest: bytes, signatures: dict[Path, sshsig.Signature | None]
) -> sshsig.Signature:
    """The signature over a file: that of its name if it fits, else any on the medium that does."""
    own = signature.signature_path(path)
    digests = {"sha256": digest}
    for where in sorted(signatures, key=lambda where: where != own):
        candidate = signatures[where]
        if candidate is None:
            continue
        algorithm = candidate.hash_algorithm
        if algorithm not in digests:
            digests[algorithm] = signature.digest_of(local, algorithm)
        with contextlib.suppress(SignatureError):
            sshsig.verify(candidate, digests[algorithm])
            return candidate
    if own not in signatures and not own.exists():
        raise UnsignedError(
            "No signature on the medium belongs to the file",
            expected=own.name,
            where=path,
            hint="ask the sender for the .sig file that belongs to it",
        )
    # Read once more for the reason: damaged, another namespace, or over other bytes.
    found = signatures.get(own) or signature.read_signature(path)
    sshsig.verify(found, digests.get(found.hash_algorithm, b""))
    raise SignatureError("The signature changed while it was read", where=own)


def _refused(place: Workspace, path: Path, local: Path, error: BrainfedError) -> Received:
    # The local copy is gone; the person knows the original.
    error.where = str(path) if error.where is None else error.where.replace(str(local), str(path))
    place.note(
        Event.REFUSED, file=_readable(path), reason=type(error).__name__, message=error.message
    )
    return Received(path, Verdict.REFUSED, error.message, error)


def _note(place: Workspace, source: Path, outcome: Outcome) -> None:
    if outcome.verdict is Verdict.ACCEPTED:
        place.note(Event.ACCEPTED, file=_readable(source), what=outcome.what, digest=outcome.digest)


def _readable(path: Path) -> str:
    """The file's name; bytes that are not UTF-8, which a stick may carry, as question marks."""
    return path.name.encode("utf-8", "replace").decode()
