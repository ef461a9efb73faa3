"""What a workspace knows of its federation: the start, the newest roster, the plan in force."""

from dataclasses import dataclass
from pathlib import Path

from brainfed import plan as plans
from brainfed.core.architecture import TensorTable, tensor_table
from brainfed.errors import MalformedError, NotReadyError, PlanError, StrangerError
from brainfed.formats import atomic, document, signature
from brainfed.formats.manifest import Manifest
from brainfed.formats.record import Record
from brainfed.formats.roster import Principal, PrincipalRole, Roster, Status
from brainfed.formats.start import Start
from brainfed.formats.workspace import Role, Workspace

START, PLAN, ROSTER = "start.json", "plan.toml", "roster"


@dataclass(frozen=True)
class Federation:
    """The federation as this party knows it."""

    digest: str
    """Of start.json: its identity."""
    start: Start
    roster: Roster
    plan: plans.Plan

    @property
    def table(self) -> TensorTable:
        """Names and shapes of the plan's tensors."""
        return tensor_table(self.plan)

    @property
    def prefix(self) -> str:
        """What the names of exchanged files begin with."""
        return f"{self.plan.name}-{self.digest[:8]}"

    def file_stem(self, about: Manifest | Record) -> str:
        """What the name of a round's file begins with: federation, round, edition, sender."""
        edition = "" if about.edition == 1 else f".e{about.edition}"
        return f"{self.prefix}.r{about.round:04d}{edition}.{about.sender}"

    def weights_name(self, manifest: Manifest) -> str:
        """The name of a weight file; only for people, never used to tell what a file is."""
        return f"{self.file_stem(manifest)}.{manifest.kind}.safetensors"

    def principal(self, key_role: PrincipalRole, name: str) -> Principal:
        """The active principal of that name and role.

        Raises:
            StrangerError: There is none.
        """
        found = self.roster.get(name)
        if found is None or found.role is not key_role or found.status is not Status.ACTIVE:
            raise StrangerError(
                f"The roster has no active {key_role} of that name",
                found=name,
                hint="import the newest roster from the coordinator",
            )
        return found


def roster_path(workspace: Workspace, version: int) -> Path:
    """Where a version of the roster lies; none is ever replaced."""
    return workspace.federation_folder / f"roster.v{version:04d}.json"


def newest_roster(workspace: Workspace) -> Roster | None:
    """The roster of the highest version in the workspace.

    Raises:
        FileRefusedError: It was changed after it was accepted.
    """
    paths = sorted(workspace.federation_folder.glob("roster.v*.json"))
    signed = [path for path in paths if signature.signature_path(path).exists()]
    if not signed:
        return None
    key, _ = signature.verify_file(signed[-1])
    roster = document.read(signed[-1], Roster)
    if roster.coordinator.public_key != key:
        raise StrangerError("The roster is not signed by its coordinator", where=signed[-1])
    return roster


def write_allowed_signers(workspace: Workspace, roster: Roster) -> None:
    """Write `federation/roster`, with which ssh-keygen checks a signature."""
    path = workspace.federation_folder / ROSTER
    atomic.write_bytes(path, roster.allowed_signers(), replace=True)


def has_started(workspace: Workspace) -> bool:
    """Whether the workspace belongs to a federation yet."""
    path = workspace.federation_folder / START
    return path.exists() and signature.signature_path(path).exists()


def load(workspace: Workspace) -> Federation:
    """Read what the workspace knows of its federation.

    Raises:
        NotReadyError: It hasn't started, or this site hasn't joined yet.
        PlanError: The plan in force is not the one that was frozen at the start.
        FileRefusedError: start.json or a roster was changed after it was accepted.
    """
    path = workspace.federation_folder / START
    if not has_started(workspace):
        raise NotReadyError(
            "This workspace belongs to no federation yet",
            where=workspace.root,
            hint="`brainfed start PLAN`"
            if workspace.role is Role.COORDINATOR
            else "`brainfed import FOLDER` with the coordinator's files",
        )
    key, digest = signature.verify_file(path)
    start = document.read(path, Start)
    if start.roster.coordinator.public_key != key:
        raise StrangerError("start.json is not signed by its coordinator", where=path)
    _check_plan_unchanged(workspace, start)
    roster = newest_roster(workspace) or start.roster
    if roster.version < start.roster.version:
        roster = start.roster
    if roster.federation not in {None, digest.hex()}:
        raise MalformedError("The roster is of another federation", where=path.parent)
    return Federation(digest.hex(), start, roster, plans.parse(start.plan_text.encode(), path))


def _check_plan_unchanged(workspace: Workspace, start: Start) -> None:
    path = workspace.federation_folder / PLAN
    if not path.exists():
        # A kill between start.json and its readable copy; the copy is made again.
        atomic.write_bytes(path, start.plan_text.encode())
    elif path.read_bytes() != start.plan_text.encode():
        raise PlanError(
            "The plan was changed after the start",
            expected=f"the frozen plan, digest {start.plan.digest[:16]}",
            found="another text",
            where=path,
            hint=f"delete {path}: it is written again from start.json",
        )
