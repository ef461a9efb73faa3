"""Gather: find the signed files of a federation in folders, by what they hold.

A folder is a workspace, an archive, an outbox, a stick, or one that holds several of these. Signed
JSON is checked against its signature here; weight files are listed by what their headers claim, and
checked round by round (`steps.rederive`).
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from brainfed.core import sshsig
from brainfed.errors import BrainfedError, MalformedError, SignatureError, UsageError
from brainfed.formats import atomic, document, federation, signature, weights
from brainfed.formats.acceptance import Acceptance
from brainfed.formats.amendment import Amendment
from brainfed.formats.approval import Approval
from brainfed.formats.document import Belonging, Header
from brainfed.formats.enrolment import Enrolment
from brainfed.formats.erasure import Erasure
from brainfed.formats.final import Final
from brainfed.formats.manifest import Kind, Manifest
from brainfed.formats.record import Record
from brainfed.formats.roster import Roster
from brainfed.formats.scores import Scores
from brainfed.formats.signature import Signed
from brainfed.formats.start import Start
from brainfed.formats.workspace import MARKER
from brainfed.steps.findings import Finding, FindingKind, finding_of

KINDS: dict[str, type[Header]] = {
    "acceptance": Acceptance,
    "amendment": Amendment,
    "approval": Approval,
    "enrolment": Enrolment,
    "erasure": Erasure,
    "final": Final,
    "record": Record,
    "roster": Roster,
    "scores": Scores,
    "start": Start,
}
"""What signed JSON can be."""
DERIVED = (federation.ROSTER, federation.REVOKED, federation.PLAN)
"""Unsigned files beside start.json that follow from signed ones."""
EXCHANGED = ("federation", "rounds", "outbox")
"""Folders of a workspace that hold files for others; the rest concerns nobody else."""
STAYS = "release"
"""The kind of signed JSON that lies there too, and is for its own site alone."""
_SIGNED_LATER = (".acceptance.json", ".approval.json", ".erasure.json", ".scores.json")
"""How the names of files end that wait in a workspace for their signature."""
_BEGIN = b"-----BEGIN SSH SIGNATURE-----"


@dataclass(frozen=True)
class Paper:
    """A signed JSON file whose signature fits its bytes; not more."""

    signed: Signed
    content: Header


@dataclass(frozen=True)
class Claim:
    """A weight file by what its header claims; neither signature nor values are checked yet."""

    path: Path
    n_bytes: int
    manifest: Manifest


@dataclass
class Gathered:
    """All that lies in the folders."""

    papers: list[Paper] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    layouts: list[Path] = field(default_factory=list)
    """Workspaces and archives: folders with federation/start.json."""
    workspaces: list[Path] = field(default_factory=list)
    unsigned: list[tuple[Path, int | None]] = field(default_factory=list)
    """Files of ours without a signature, and the round that they claim."""
    n_foreign: int = 0
    """Files of other kinds or federations."""


def gather(folders: Sequence[Path]) -> Gathered:
    """Find all files of federations, however they are named.

    Args:
        folders: Where to look, with all that is below.

    Raises:
        UsageError: One of them is no folder.
    """
    found = Gathered()
    seen: set[Path] = set()
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(
                "There is no such folder",
                where=folder,
                hint="mount the medium, then `brainfed audit FOLDER`",
            )
        for path in _files(folder, found):
            place = path.resolve()
            if place not in seen:
                seen.add(place)
                _look(path, found)
    found.unsigned = [entry for entry in found.unsigned if not _is_unfinished(*entry, found)]
    for path, number in found.unsigned:
        sentence = "No signature lies beside this file, so it counts as missing."
        found.findings.append(Finding(FindingKind.UNSIGNED, sentence, path, number))
    return found


def _files(folder: Path, found: Gathered) -> Iterator[Path]:
    """Regular files below a folder, in order; of a workspace only those that are exchanged."""
    for name, folders, files in os.walk(folder):
        here = Path(name)
        if MARKER in files:
            found.workspaces.append(here)
            folders[:] = [inner for inner in folders if inner in EXCHANGED]
            files.clear()
        if _is_file(here / "federation" / federation.START):
            found.layouts.append(here)
        folders.sort()
        for file in sorted(files):
            path = here / file
            is_leftover = file.startswith(atomic.TEMPORARY_PREFIX)
            if not is_leftover and _is_file(path) and not path.is_symlink():
                yield path


def _is_file(path: Path) -> bool:
    """Whether a file lies there; none does under a name that is too long for the disk."""
    return os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises at such a name


def _look(path: Path, found: Gathered) -> None:
    """Say what a file is, and put it where it belongs."""
    if path.suffix == ".sig" and _is_signature(path):
        _look_at_signature(path, found)
        return
    beside = signature.signature_path(path)
    try:
        claim, data = _claim(path), _json(path)
    except OSError as error:
        if _is_file(beside):
            sentence = f"The file can't be read ({error.strerror})."
            found.findings.append(Finding(FindingKind.MISSING, sentence, path))
        return
    kind = None if data is None else _kind(data)
    if kind == STAYS:
        return
    is_ours = claim is not None or kind is not None
    if not _is_file(beside):
        if is_ours:
            found.unsigned.append((path, claim.manifest.round if claim else _round(data)))
        elif path.name not in DERIVED:
            found.n_foreign += 1
    elif claim is not None:
        found.claims.append(claim)
    elif is_ours or _is_signature(beside):
        _read_paper(path, data, kind, found)
    else:
        found.n_foreign += 1


def _read_paper(path: Path, data: bytes | None, kind: str | None, found: Gathered) -> None:
    try:
        if data is None or kind is None:
            signature.verify_file(path)
            raise MalformedError("A signed file of a kind that is not known here")
        read = signature.read_signature(path)
        namespace = sshsig.RELEASE_NAMESPACE if kind == "approval" else sshsig.NAMESPACE
        sshsig.verify(read, hashlib.new(read.hash_algorithm, data).digest(), namespace)
        signed = Signed(path, read.key, document.sha256(data))
        found.papers.append(Paper(signed, KINDS[kind].loads(data)))
    except BrainfedError as error:
        found.findings.append(finding_of(error, path))


def _claim(path: Path) -> Claim | None:
    """What a weight file claims to be; None where the file is none."""
    with path.open("rb") as stream:
        head = stream.read(9)
        if int.from_bytes(head[:8], "little") > weights.MAX_HEADER_BYTES or head[8:] != b"{":
            return None
        stream.seek(0)
        try:
            manifest = weights.parse_manifest(weights.read_raw_header(stream, path), path)
        except BrainfedError:
            return None  # foreign, or damaged, which its signature will tell
        return Claim(path, path.stat().st_size, manifest)


def _json(path: Path) -> bytes | None:
    """The bytes of what looks like a JSON file of ours; None where it can't be one."""
    with path.open("rb") as stream:
        if stream.read(1) != b"{" or path.stat().st_size > document.MAX_JSON_BYTES:
            return None
        stream.seek(0)
        return stream.read(document.MAX_JSON_BYTES)


def _kind(data: bytes) -> str | None:
    try:
        kind = document.kind_of(data)
    except MalformedError:
        return None
    return kind if kind in {*KINDS, STAYS} else None


def _round(data: bytes | None) -> int | None:
    """The round that unsigned JSON of ours claims."""
    try:
        return Record.loads(data or b"").round
    except MalformedError:
        return None


def _is_signature(path: Path) -> bool:
    """Whether a `.sig` file is an OpenSSH signature for us, as far as its damage lets us see."""
    try:
        with path.open("rb") as stream:
            text = stream.read(sshsig.MAX_SIGNATURE_BYTES + 1)
        namespace = sshsig.parse_signature(text).namespace
    except OSError:
        return False
    except SignatureError:
        return text.startswith(_BEGIN)
    return namespace in {sshsig.NAMESPACE, sshsig.RELEASE_NAMESPACE}


def _look_at_signature(path: Path, found: Gathered) -> None:
    """Name a signature whose file is gone; one whose file was encrypted for a courier is not."""
    signed = path.with_suffix("")
    if not signed.exists() and not signed.with_name(f"{signed.name}.age").exists():
        sentence = "Only the signature of this file lies here, not the file itself."
        found.findings.append(Finding(FindingKind.MISSING, sentence, signed))


def _is_unfinished(path: Path, round_number: int | None, found: Gathered) -> bool:
    """Whether an unsigned file is work on the open round of the workspace that it lies in."""
    root = next((place for place in found.workspaces if place in path.parents), None)
    if root is not None and path.name.endswith(_SIGNED_LATER):
        return True
    if root is None or round_number is None:
        return False
    closed = [
        claim.manifest.round
        for claim in found.claims
        if claim.manifest.kind is Kind.GLOBAL and root in claim.path.parents
    ]
    return round_number > max(closed, default=-1)


def choose(found: Gathered, wanted: str | None) -> str:
    """Keep the files of one federation; gives its digest.

    Args:
        found: What was gathered; files of other federations are taken out and counted.
        wanted: The digest, or how it begins; needed where the folders hold several.

    Raises:
        UsageError: Files of no federation, of several, or not of the one that is wanted.
    """
    named = {f: paper.signed.path for paper in reversed(found.papers) if (f := _belongs(paper))}
    for claim in list(found.claims):
        if claim.manifest.federation not in named:  # another federation, or a damaged header
            try:
                signature.verify_file(claim.path)
                named[claim.manifest.federation] = claim.path
            except BrainfedError as error:
                found.claims.remove(claim)
                found.findings.append(finding_of(error, claim.path, claim.manifest.round))
    matching = [digest for digest in named if digest.startswith(wanted or "")]
    if len(matching) != 1:
        raise _not_one(named, wanted)
    chosen = matching[0]
    n_files = len(found.papers) + len(found.claims)
    others = {p.signed.path for p in found.papers if _belongs(p) not in {None, chosen}}
    found.layouts = [f for f in found.layouts if f / "federation" / federation.START not in others]
    found.papers = [p for p in found.papers if _belongs(p) in {None, chosen}]
    found.claims = [c for c in found.claims if c.manifest.federation == chosen]
    found.n_foreign += n_files - len(found.papers) - len(found.claims)
    return chosen


def _belongs(paper: Paper) -> str | None:
    """The federation of a signed file; None for what is older than any start."""
    content = paper.content
    if isinstance(content, Start):
        return paper.signed.digest
    return content.federation if isinstance(content, Belonging | Roster) else None


def _not_one(named: dict[str, Path], wanted: str | None) -> UsageError:
    there = ", ".join(f"{digest[:16]} ({path})" for digest, path in sorted(named.items()))
    if not named:
        return UsageError(
            "No signed file of a federation lies here",
            hint="give a workspace, an archive, or folders with files that were exchanged",
        )
    return UsageError(
        "The folders don't hold the files of exactly one federation",
        expected="one federation" if wanted is None else f"one that begins with {wanted}",
        found=there,
        hint="give the folders of one, or --federation DIGEST. If all of them should belong to "
        "one, the coordinator has told two stories from the start: keep all files",
    )
