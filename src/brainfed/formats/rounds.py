"""The rounds of a workspace: which global weights, updates and records lie there.

The files are the state. A file counts when its signature lies beside it (an update at its own site
also before it is signed); whoever uses weights checks them here first.
"""

from pathlib import Path

from brainfed.errors import (
    MalformedError,
    NotReadyError,
    StrangerError,
    TooLargeError,
    WrongFederationError,
    WrongRoundError,
)
from brainfed.formats import document, signature, weights
from brainfed.formats.federation import Federation
from brainfed.formats.manifest import Kind, Manifest
from brainfed.formats.record import Record
from brainfed.formats.roster import PrincipalRole
from brainfed.formats.weights import WeightsFile
from brainfed.formats.workspace import Workspace


def check_belongs(about: Manifest | Record, federation: Federation, where: Path) -> None:
    """Refuse a manifest or record of another federation, purpose or plan.

    Raises:
        WrongFederationError: Another federation or plan.
        WrongRoundError: Another purpose.
    """
    if about.federation != federation.digest:
        raise WrongFederationError(
            "The file belongs to another federation",
            expected=federation.digest[:16],
            found=about.federation[:16],
            where=where,
        )
    if about.plan != federation.start.plan:
        raise WrongFederationError(
            "The file was made under another plan",
            expected=f"version {federation.start.plan.version}, "
            f"{federation.start.plan.digest[:16]}",
            found=f"version {about.plan.version}, {about.plan.digest[:16]}",
            where=where,
        )
    if about.purpose != federation.start.purpose:
        raise WrongRoundError(
            "The file has another purpose",
            expected=federation.start.purpose,
            found=about.purpose,
            where=where,
        )


def verify_weights(path: Path, federation: Federation) -> WeightsFile:
    """Check a signed weight file completely, in the order: size, signature, header, values.

    Raises:
        FileRefusedError: One of its kinds, saying what is wrong.
    """
    cap = weights.largest_file(federation.table)
    if path.stat().st_size > cap:
        raise TooLargeError(
            "The weight file is larger than the plan's network can be",
            expected=f"at most {cap} B",
            found=f"{path.stat().st_size} B",
            where=path,
        )
    key, digest = signature.verify_file(path)
    holder = federation.roster.holder(key)
    manifest = weights.check(path, federation.table)
    if manifest.sender != holder.name:
        raise StrangerError(
            "The file names another sender than the one who signed it",
            expected=holder.name,
            found=manifest.sender,
            where=path,
            hint=f"only {manifest.sender} itself can send this file",
        )
    role = PrincipalRole.SITE if manifest.kind is Kind.UPDATE else PrincipalRole.COORDINATOR
    if holder.role is not role:
        raise StrangerError(
            f"A {holder.role} can't sign a file of this kind",
            expected=f"a {role}'s signature on {manifest.kind} weights",
            found=holder.name,
            where=path,
        )
    check_belongs(manifest, federation, path)
    return WeightsFile(path, digest.hex(), manifest)


def verify_record(path: Path, federation: Federation) -> tuple[Record, str]:
    """Check a signed record; gives it and its digest.

    Raises:
        FileRefusedError: One of its kinds, saying what is wrong.
    """
    key, digest = signature.verify_file(path)
    holder = federation.roster.holder(key)
    record = document.read(path, Record)
    if holder.role is not PrincipalRole.COORDINATOR or record.sender != holder.name:
        raise StrangerError(
            "The record is not signed by the coordinator",
            expected=federation.roster.coordinator.name,
            found=holder.name,
            where=path,
        )
    check_belongs(record, federation, path)
    return record, digest.hex()


def signed(workspace: Workspace, round_number: int, pattern: str) -> list[Path]:
    """Files of a round that have a signature beside them, by name."""
    folder = workspace.round_folder(round_number)
    return [p for p in sorted(folder.glob(pattern)) if signature.signature_path(p).exists()]


def numbers(workspace: Workspace) -> list[int]:
    """The rounds that have a folder, ascending."""
    folders = workspace.rounds.glob("r[0-9][0-9][0-9][0-9]")
    return sorted(int(folder.name[1:]) for folder in folders if folder.is_dir())


def global_path(workspace: Workspace, round_number: int) -> Path | None:
    """The global weight file of a round: that of the highest edition."""
    found = signed(workspace, round_number, "*.global.safetensors")
    return max(found, key=lambda path: weights.read_manifest(path).edition) if found else None


def newest_round(workspace: Workspace) -> int | None:
    """The highest round with global weights; None before the first."""
    closed = [n for n in numbers(workspace) if global_path(workspace, n) is not None]
    return closed[-1] if closed else None


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


def records(workspace: Workspace, round_number: int) -> list[Path]:
    """The signed records of a round, oldest edition first."""
    found = signed(workspace, round_number, "*.record.json")
    return sorted(found, key=lambda path: document.read(path, Record).edition)


def new_manifest(federation: Federation, **fields: object) -> Manifest:
    """A manifest of this federation; the fields that are not given are null, edition 1.

    Raises:
        MalformedError: The fields don't fit together: our own bug.
    """
    content: dict[str, object] = {
        "purpose": federation.start.purpose,
        "federation": federation.digest,
        "plan": federation.start.plan,
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
