"""The rounds of a workspace: which global weights, updates and records lie there.

The files are the state. A file counts when its signature lies beside it (an update at its own site
also before it is signed); whoever uses weights checks them here first.
"""

import os
from pathlib import Path

from brainfed.core import sshsig
from brainfed.errors import (
    ConflictError,
    FileRefusedError,
    MalformedError,
    NotReadyError,
    TooLargeError,
)
from brainfed.formats import approval, document, signature, verify, weights
from brainfed.formats.approval import Approval, SignedApproval
from brainfed.formats.federation import Federation
from brainfed.formats.final import Final
from brainfed.formats.manifest import Manifest
from brainfed.formats.record import Record
from brainfed.formats.signature import Signed
from brainfed.formats.weights import WeightsFile
from brainfed.formats.workspace import Workspace


def verify_weights(path: Path, federation: Federation, signed: Signed | None = None) -> WeightsFile:
    """Check a signed weight file completely, in the order: size, signature, header, values.

    Args:
        path: The file, its signature beside it.
        federation: What is known here.
        signed: What a check of its signature gave a moment ago; made here where None.

    Raises:
        FileRefusedError: One of its kinds, saying what is wrong.
    """
    n_bytes = check_size(path, federation)
    signed = signed or signature.verify_file(path)
    with path.open("rb") as stream:
        return verify.check_weights(stream, n_bytes, signed, federation)


def check_size(path: Path, federation: Federation) -> int:
    """The size of a weight file in bytes, if the plan's network can have it.

    Raises:
        TooLargeError: It can't.
    """
    n_bytes = path.stat().st_size
    n_words = max(len(entry.plan.aggregation.rule.state) for entry in federation.plans)
    cap = weights.largest_file(federation.table) * max(1, n_words)  # a state has as many
    if n_bytes > cap:
        raise TooLargeError(
            "The weight file is larger than the plan's network can be",
            expected=f"at most {cap} B",
            found=f"{n_bytes} B",
            where=path,
        )
    return n_bytes


def verify_record(path: Path, federation: Federation) -> tuple[Record, str]:
    """Check a signed record; gives it and its digest.

    Raises:
        FileRefusedError: One of its kinds, saying what is wrong.
    """
    signed = signature.verify_file(path)
    record = verify.check_document(Record, document.read_capped(path), signed, federation)
    return record, signed.digest


def final_paths(workspace: Workspace) -> list[Path]:
    """The signed finals, by round; one at most, unless somebody put another there by hand."""
    return [
        path for number in numbers(workspace) for path in signed(workspace, number, "*.final.json")
    ]


def verify_final(workspace: Workspace, federation: Federation) -> tuple[Final, Path] | None:
    """The coordinator's final that lies here, checked, and where; None without one.

    Raises:
        ConflictError: Two lie here.
        FileRefusedError: It was damaged after it was accepted.
    """
    paths = final_paths(workspace)
    if not paths:
        return None
    if len(paths) > 1:
        raise ConflictError(
            "Two finals lie here, and a federation has one",
            expected=paths[0].name,
            found=paths[-1].name,
            where=workspace.rounds,
            hint="ask the coordinator which one was signed first, and audit both folders",
        )
    told = signature.verify_file(paths[0])
    data = document.read_capped(paths[0])
    return verify.check_document(Final, data, told, federation), paths[0]


def signed(workspace: Workspace, round_number: int, pattern: str) -> list[Path]:
    """Files of a round that have a signature beside them, by name.

    Args:
        workspace: Where.
        round_number: Of which round.
        pattern: A star and how the name ends.
    """
    folder = workspace.round_folder(round_number)
    # By names alone: a federation of 100 sites has hundreds of files in each round.
    there = names(workspace, round_number)
    ending = pattern.removeprefix("*")
    found = [name for name in there if name.endswith(ending) and is_signed(name, there)]
    return [folder / name for name in sorted(found)]


def names(workspace: Workspace, round_number: int) -> frozenset[str]:
    """The names of all that lies in the folder of a round; none where it has no folder."""
    try:
        return frozenset(os.listdir(workspace.round_folder(round_number)))  # noqa: PTH208 - names
    except FileNotFoundError:
        return frozenset()


def is_signed(name: str, there: frozenset[str]) -> bool:
    """Whether a file and its signature are among the names of a folder."""
    return name in there and f"{name}.sig" in there


def numbers(workspace: Workspace) -> list[int]:
    """The rounds that have a folder, ascending."""
    folders = workspace.rounds.glob("r[0-9][0-9][0-9][0-9]")
    return sorted(int(folder.name[1:]) for folder in folders if folder.is_dir())


def global_path(workspace: Workspace, round_number: int) -> Path | None:
    """The global weight file of a round: that of the highest edition."""
    found = signed(workspace, round_number, "*.global.safetensors")
    if len(found) == 1:
        return found[0]
    return max(found, key=lambda path: weights.read_manifest(path).edition) if found else None


def begins_with_given(workspace: Workspace) -> bool:
    """Whether the coordinator brought the weights of round 0."""
    path = global_path(workspace, 0)
    return path is not None and weights.read_manifest(path).are_given


def newest_round(workspace: Workspace) -> int | None:
    """The highest round with global weights; None before the first."""
    latest_first = reversed(numbers(workspace))
    return next((n for n in latest_first if signed(workspace, n, "*.global.safetensors")), None)


def open_round(workspace: Workspace) -> int:
    """The round that is to be closed next; 0 before the first global weights."""
    newest = newest_round(workspace)
    return 0 if newest is None else newest + 1


def newest_global(workspace: Workspace, federation: Federation) -> WeightsFile:
    """The newest global weights, checked.

    Raises:
        NotReadyError: There are none yet.
        FileRefusedError: They are damaged.
    """
    number = newest_round(workspace)
    path = None if number is None else global_path(workspace, number)
    if path is None:
        raise NotReadyError(
            "There are no global weights yet",
            where=workspace.rounds,
            hint="`brainfed import FOLDER` with the coordinator's files",
        )
    return verify_weights(path, federation)


def update_path(
    workspace: Workspace, federation: Federation, round_number: int, site: str
) -> Path | None:
    """A site's update of a round, of the highest edition, signed or not yet; None without one."""
    name = f"{federation.prefix}.r{round_number:04d}*.{site}.update.safetensors"
    found = sorted(workspace.round_folder(round_number).glob(name))
    return max(found, key=lambda path: weights.read_manifest(path).edition) if found else None


def update_paths(workspace: Workspace, round_number: int) -> list[Path]:
    """The signed updates of a round, by name (so by site)."""
    return signed(workspace, round_number, "*.update.safetensors")


def is_of_newest(workspace: Workspace, path: Path) -> bool:
    """Whether an update was trained from the newest edition of its parent, as far as is known."""
    about = weights.read_manifest(path)
    before = records(workspace, about.round - 1)
    return not before or about.parent == document.read(before[-1], Record).global_digest


def counts(path: Path, federation: Federation, round_number: int) -> bool:
    """Whether the key that signed a file, which lies here, still counts in its round."""
    entry = federation.roster.entry(signature.read_signature(path).key)
    return entry.revoked_since is None or round_number < entry.revoked_since


def records(workspace: Workspace, round_number: int) -> list[Path]:
    """The signed records of a round, oldest edition first."""
    found = signed(workspace, round_number, "*.record.json")
    return sorted(found, key=lambda path: document.read(path, Record).edition)


def scores_path(
    workspace: Workspace, federation: Federation, scored: Manifest, sender: str
) -> Path:
    """Where the scores lie that a party measured of global weights, once it has done so."""
    stem = federation.file_stem(scored.model_copy(update={"sender": sender}))
    return workspace.round_folder(scored.round) / f"{stem}.scores.json"


def scores_paths(workspace: Workspace, sender: str) -> list[Path]:
    """The scores of a party in all rounds, signed or not yet, by round."""
    return sorted(workspace.rounds.glob(f"r*/*.{sender}.scores.json"))


def release_paths(place: Workspace, update: Path) -> tuple[Path, Path]:
    """Where the release of an update lies: its signed JSON, and the page for people."""
    folder = place.rounds / update.parent.name
    return folder / f"{update.stem}.release.json", folder / f"{update.stem}.release.html"


def approval_path(place: Workspace, known: Federation, manifest: Manifest) -> Path:
    """Where the approval of an update lies, signed or not yet."""
    sender = approval.approver_of(manifest.sender)
    stem = known.file_stem(manifest.model_copy(update={"sender": sender}))
    return place.round_folder(manifest.round) / f"{stem}.approval.json"


def approvals(place: Workspace, round_number: int) -> list[SignedApproval]:
    """The approvals of a round whose signatures fit; whether they count, the roster says."""
    found = []
    for path in signed(place, round_number, "*.approval.json"):
        try:
            told = signature.verify_file(path, sshsig.RELEASE_NAMESPACE)
            found.append(SignedApproval(path, told.key, document.read(path, Approval)))
        except FileRefusedError:
            continue  # one that doesn't fit its file any more approves nothing
    return found


def approval_for(place: Workspace, known: Federation, update: Path) -> Path | None:
    """The signed approval of exactly this update, by a key that counts; None without one."""
    about = weights.read_manifest(update)
    there = approvals(place, about.round)
    if not there:
        return None
    digest = signature.digest_of(update).hex()
    found = approval.the_one_for(about, digest, there, known.roster)
    return None if found is None else found.path


def check_approved(place: Workspace, known: Federation, update: Path) -> None:
    """Refuse an update without the approval that its plan asks for.

    Raises:
        FileRefusedError: One of its kinds, saying what is wrong with the approval.
    """
    about = weights.read_manifest(update)
    if known.plan_of(about.round).exchange.approval:
        digest = signature.digest_of(update).hex()
        there = approvals(place, about.round)
        approval.check_approved(about, digest, there, known.roster, update)


def new_manifest(federation: Federation, round_number: int, **fields: object) -> Manifest:
    """A manifest of a round; the fields that are not given are null, edition 1.

    Raises:
        MalformedError: The fields don't fit together: our own bug.
    """
    content: dict[str, object] = {
        "purpose": federation.start.purpose,
        "federation": federation.digest,
        "plan": federation.in_force(round_number).version,
        "round": round_number,
        "edition": 1,
        "roster_version": federation.roster.version,
        "parent": None,
        "split": None,
        "n_patients": None,
        "n_cases": None,
        "n_slices": None,
        "n_validation": None,
        "scores": (),
    }
    try:
        return Manifest.model_validate(content | fields)
    except ValueError as error:
        raise MalformedError("The manifest doesn't fit together", found=error) from error
