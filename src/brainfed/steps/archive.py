"""Archive: copy what an auditor needs, and nothing else (`docs/formats/archive.md`)."""

from dataclasses import dataclass
from pathlib import Path

from brainfed.core.progress import Progress, silent
from brainfed.errors import ConflictError, FileRefusedError, UsageError
from brainfed.formats import atomic, document, federation, signature
from brainfed.formats.federation import Federation
from brainfed.formats.scores import Scores
from brainfed.formats.signature import Signed
from brainfed.formats.workspace import MARKER, Workspace
from brainfed.steps import exchange
from brainfed.steps.findings import finding_of
from brainfed.steps.gather import DERIVED, choose, gather


@dataclass(frozen=True)
class Archived:
    """An archive, complete as far as its workspace goes."""

    path: Path
    federation: str
    n_files: int
    """Signed files that were to be in it."""
    n_new: int
    """Of these, copied now."""
    n_bytes: int
    """Of the files that were copied now."""


def archive(place: Workspace, to: Path, *, progress: Progress = silent) -> Archived:
    """Copy all signed files of the federation, and the three files that follow from them.

    Every copy is flushed and read back. Run again it adds what is new and changes no signed file,
    but that scores which say more take the place of those that say less.

    Args:
        place: The workspace of any party.
        to: The folder, outside the workspace; made where it isn't there.
        progress: Told of each file.

    Raises:
        NotReadyError: The workspace belongs to no federation yet.
        UsageError: The folder lies in the workspace.
        ConflictError: It holds other things than an archive of this federation.
        FileRefusedError: A file of the workspace is damaged.
        ResourceError: The disk refuses, or gives back other bytes than were written.
    """
    known = federation.load(place)
    if to.resolve().is_relative_to(place.root.resolve()):
        raise UsageError(
            "The archive can't lie in its own workspace", where=to, hint="give another folder"
        )
    _check_target(to, known)
    files = _signed_files(place, known)  # the start first: by it a next time knows the archive
    atomic.make_folder(to)
    atomic.remove_leftovers(to)
    n_new, n_bytes = 0, 0
    for number, signed in enumerate(files, start=1):
        path = to / signed.path.relative_to(place.root)
        atomic.make_folder(path.parent)
        if _copy(signed, path):
            n_new += 1
            n_bytes += path.stat().st_size
        progress("copy", number, len(files), path.name)
    for name in DERIVED:
        data = document.read_capped(place.federation_folder / name)
        atomic.write_bytes(to / "federation" / name, data, replace=True)
    return Archived(to, known.digest, len(files), n_new, n_bytes)


def _check_target(to: Path, known: Federation) -> None:
    """The folder is empty, or an archive of this federation."""
    files = [path for path in to.rglob("*") if not path.is_dir()] if to.exists() else []
    there = to / "federation" / federation.START
    is_ours = there.is_file() and signature.digest_of(there).hex() == known.digest
    is_empty = all(path.name.startswith(atomic.TEMPORARY_PREFIX) for path in files)
    if (to / MARKER).exists() or not (is_empty or is_ours):
        raise ConflictError(
            "The folder holds other things than an archive of this federation",
            expected=f"an empty folder, or an archive of {known.digest[:16]}",
            where=to,
            hint="give another folder",
        )


def _signed_files(place: Workspace, known: Federation) -> list[Signed]:
    """What counts in the workspace: files of the federation whose signatures fit.

    Raises:
        FileRefusedError: One is damaged.
    """
    found = gather([place.federation_folder, place.rounds])
    choose(found, known.digest)
    files = [paper.signed for paper in found.papers]
    for claim in found.claims:
        try:
            files.append(signature.verify_file(claim.path))
        except FileRefusedError as error:
            found.findings.append(finding_of(error, claim.path))
    wrong = next((finding for finding in found.findings if finding.kind.is_wrong), None)
    if wrong is not None:
        raise FileRefusedError(
            "A file of the workspace is damaged, so nothing was archived",
            found=wrong.sentence,
            where=wrong.file,
            hint="`brainfed audit` of this workspace names all of them",
        )
    return sorted(files, key=lambda file: (file.path.name != federation.START, file.path))


def _copy(signed: Signed, path: Path) -> bool:
    """Copy a file, then its signature, which makes it count; whether that was needed."""
    is_new = False
    if path.exists() and _has_grown(signed.path, path):
        atomic.remove(signature.signature_path(path))
        atomic.remove(path)
    pairs = (signed.path, path), (*map(signature.signature_path, (signed.path, path)),)
    for source, target in pairs:
        right = signed.digest if source == signed.path else signature.digest_of(source).hex()
        if not target.exists():
            exchange.copy_and_read_back(source, target)
            is_new = True
        if signature.digest_of(target).hex() != right:
            raise ConflictError(
                "The archive holds another file in this place",
                expected=right[:16],
                where=target,
                hint="keep both files; `brainfed audit` of both folders says what differs",
            )
    return is_new


def _has_grown(source: Path, target: Path) -> bool:
    """Whether scores keep all figures of those in the archive and add some."""
    if not source.name.endswith(".scores.json"):
        return False
    new, old = document.read(source, Scores), document.read(target, Scores)
    return new.keeps(old) and not old.keeps(new)
