"""What a party knows of its federation: the start, the newest roster, the plans in force.

`Federation` itself touches no disk: the same object stands behind a workspace, an audit and a test
in memory. `load` reads it from a workspace.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from brainfed import plan as plans
from brainfed.core.architecture import TensorTable, tensor_table
from brainfed.core.sshsig import PublicKey
from brainfed.errors import MalformedError, NotReadyError, PlanError, StrangerError
from brainfed.formats import amendment, atomic, document, signature
from brainfed.formats.acceptance import Acceptance
from brainfed.formats.amendment import Amendment
from brainfed.formats.approval import Approval
from brainfed.formats.document import PlanVersion
from brainfed.formats.final import Final
from brainfed.formats.manifest import Kind, Manifest
from brainfed.formats.record import Record
from brainfed.formats.roster import Principal, Role, Roster
from brainfed.formats.scores import Scores
from brainfed.formats.start import Start
from brainfed.formats.workspace import Workspace
from brainfed.plan import Plan

START, PLAN, ROSTER, REVOKED = "start.json", "plan.toml", "roster", "revoked"


@dataclass(frozen=True)
class PlanInForce:
    """A version of the plan and the rounds that it is for."""

    version: PlanVersion
    from_round: int
    plan: Plan


@dataclass(frozen=True)
class Federation:
    """The federation as this party knows it."""

    digest: str
    """Of start.json: its identity."""
    start: Start
    roster: Roster
    plans: tuple[PlanInForce, ...]
    """All versions, the plan of the start first."""

    @property
    def first_plan(self) -> Plan:
        """The plan of the start: its name, seed, network and data tables hold for ever."""
        return self.plans[0].plan

    @property
    def name(self) -> str:
        """The plan's name, which no amendment can change."""
        return self.first_plan.name

    @property
    def table(self) -> TensorTable:
        """Names and shapes of the network's tensors, which no amendment can change."""
        return tensor_table(self.first_plan)

    def table_of(self, about: Manifest) -> TensorTable:
        """Names and shapes in a weight file: the network's, in a state once for each of its words.

        The values of a word stand one after the other in the network's order.
        """
        words = self.plan_of(about.round).aggregation.rule.state
        if about.kind is not Kind.STATE or not words:  # such a state is refused for its kind
            return self.table
        return {f"{word}/{name}": shape for word in words for name, shape in self.table.items()}

    @property
    def prefix(self) -> str:
        """What the names of exchanged files begin with."""
        return f"{self.name}-{self.digest[:8]}"

    def in_force(self, round_number: int) -> PlanInForce:
        """The version of the plan that a round is under: the newest that begins by then."""
        return [entry for entry in self.plans if entry.from_round <= round_number][-1]

    def plan_of(self, round_number: int) -> Plan:
        """The plan that a round is under."""
        return self.in_force(round_number).plan

    def file_stem(self, about: Manifest | Record | Scores | Approval | Final) -> str:
        """What the name of a round's file begins with: federation, round, edition, sender."""
        return self.stem_of(about.round, about.edition, about.sender)

    def stem_of(self, round_number: int, edition: int, sender: str) -> str:
        """As `file_stem`, of a file that isn't at hand."""
        number = "" if edition == 1 else f".e{edition}"
        return f"{self.prefix}.r{round_number:04d}{number}.{sender}"

    def weights_name(self, manifest: Manifest) -> str:
        """The name of a weight file; only for people, never used to tell what a file is."""
        return f"{self.file_stem(manifest)}.{manifest.kind}.safetensors"

    def principal(self, role: Role, name: str) -> Principal:
        """The active principal of that name and role.

        Raises:
            StrangerError: There is none.
        """
        found = self.roster.get(name)
        if found is None or found.role is not role or not found.is_active:
            raise StrangerError(
                f"The roster has no active {role} of that name",
                found=name,
                hint="import the newest roster from the coordinator",
            )
        return found

    def amended(self, new: Amendment) -> "Federation":
        """The federation after an amendment.

        Raises:
            ConflictError: The amendment doesn't follow the newest plan.
            PlanError: It changes what no amendment can.
        """
        newest = self.plans[-1]
        amendment.check_follows(
            new, version=newest.version, from_round=newest.from_round, plan=newest.plan
        )
        entry = PlanInForce(new.plan, new.from_round, new.content)
        return Federation(self.digest, self.start, self.roster, (*self.plans, entry))


def assemble(
    start: Start, digest: str, roster: Roster | None, amendments: Iterable[Amendment] = ()
) -> Federation:
    """A federation from its documents, whose signatures have been checked.

    Args:
        start: The start.
        digest: Its digest.
        roster: The newest roster; that of the start where None or older.
        amendments: By version.

    Raises:
        MalformedError: The roster is of another federation.
        ConflictError: An amendment doesn't follow the one before, likewise PlanError.
    """
    if roster is None or roster.version < start.roster.version:
        roster = start.roster
    if roster.federation not in {None, digest}:
        raise MalformedError("The roster is of another federation")
    first = PlanInForce(start.plan, 0, plans.parse(start.plan_text.encode(), "start.json"))
    federation = Federation(digest, start, roster, (first,))
    for entry in amendments:
        federation = federation.amended(entry)
    return federation


def may_sign_roster(roster: Roster, signer: PublicKey) -> bool:
    """Whether a key can have signed a roster, by what the roster itself says.

    The rule between two versions is `Roster.check_follows`, applied when one is accepted.
    """
    leads = {p.key for p in roster.principals if p.role is Role.COORDINATOR}
    return signer.line in leads or signer.line == roster.recovery


def check_accepted(workspace: Workspace, federation: Federation, round_number: int) -> None:
    """Check that this party has accepted the plan of a round.

    Raises:
        NotReadyError: It hasn't.
    """
    entry = federation.in_force(round_number)
    number = entry.version.version
    path = acceptance_path(workspace, workspace.name, number)
    if not path.exists() or document.read(path, Acceptance).plan != entry.version:
        shown = START if number == 1 else amendment_path(workspace, number).name
        raise NotReadyError(
            f"Version {number} of the plan, which round {round_number} is under, "
            "has not been accepted here",
            where=workspace.federation_folder,
            hint=f"`brainfed import {workspace.federation_folder / shown}` shows what it changes "
            "and asks",
        )


def start_path(workspace: Workspace) -> Path:
    """Where the start lies."""
    return workspace.federation_folder / START


def roster_path(workspace: Workspace, version: int) -> Path:
    """Where a version of the roster lies; none is ever replaced."""
    return workspace.federation_folder / f"roster.v{version:04d}.json"


def amendment_path(workspace: Workspace, version: int) -> Path:
    """Where the amendment lies that made a version of the plan."""
    return workspace.federation_folder / f"plan.v{version:04d}.amendment.json"


def acceptance_path(workspace: Workspace, name: str, version: int) -> Path:
    """Where a party's acceptance of a version of the plan lies."""
    return workspace.federation_folder / f"{name}.plan.v{version:04d}.acceptance.json"


def erasure_path(workspace: Workspace, name: str, edition: int) -> Path:
    """Where a party's statement lies of what it erased."""
    number = "" if edition == 1 else f".e{edition}"
    return workspace.federation_folder / f"{name}{number}.erasure.json"


def enrolment_path(workspace: Workspace, name: str, roster_version: int) -> Path:
    """Where the coordinator keeps the enrolment that led to a version of the roster."""
    return workspace.federation_folder / f"{name}.roster.v{roster_version:04d}.enrolment.json"


def signed_files(workspace: Workspace, pattern: str) -> list[Path]:
    """Files in `federation/` that have a signature beside them, by name."""
    paths = sorted(workspace.federation_folder.glob(pattern))
    return [path for path in paths if signature.signature_path(path).exists()]


def newest_roster(workspace: Workspace) -> Roster | None:
    """The roster of the highest version in the workspace.

    Raises:
        FileRefusedError: It was changed after it was accepted.
    """
    paths = signed_files(workspace, "roster.v*.json")
    if not paths:
        return None
    roster = document.read(paths[-1], Roster)
    if not may_sign_roster(roster, signature.verify_file(paths[-1]).key):
        raise StrangerError("The roster is not signed by its coordinator", where=paths[-1])
    return roster


def write_allowed_signers(workspace: Workspace, roster: Roster) -> None:
    """Write `federation/roster` and `federation/revoked`, with which ssh-keygen checks."""
    for name, content in ((ROSTER, roster.allowed_signers()), (REVOKED, roster.revoked_keys())):
        atomic.write_bytes(workspace.federation_folder / name, content, replace=True)


def has_started(workspace: Workspace) -> bool:
    """Whether the workspace belongs to a federation yet."""
    path = start_path(workspace)
    return path.exists() and signature.signature_path(path).exists()


def load(workspace: Workspace) -> Federation:
    """Read what the workspace knows of its federation.

    Raises:
        NotReadyError: It hasn't started, or this site hasn't joined yet.
        PlanError: The readable copy of the plan in force was edited.
        FileRefusedError: A file of the federation was changed after it was accepted.
    """
    path = start_path(workspace)
    if not has_started(workspace):
        raise NotReadyError(
            "This workspace belongs to no federation yet",
            where=workspace.root,
            hint="`brainfed start PLAN`"
            if workspace.role is Role.COORDINATOR
            else "`brainfed import FOLDER` with the coordinator's files",
        )
    signed = signature.verify_file(path)
    start = document.read(path, Start)
    if start.roster.coordinator.public_key != signed.key:
        raise StrangerError("start.json is not signed by its coordinator", where=path)
    roster = newest_roster(workspace)
    amendments = [_read_amendment(p, roster or start.roster) for p in amendment_paths(workspace)]
    found = assemble(start, signed.digest, roster, amendments)
    _check_plan_copy(workspace, [start.plan_text, *(entry.plan_text for entry in amendments)])
    return found


def amendment_paths(workspace: Workspace) -> list[Path]:
    """The amendments in a workspace, by version."""
    return signed_files(workspace, "plan.v*.amendment.json")


def _read_amendment(path: Path, roster: Roster) -> Amendment:
    signed = signature.verify_file(path)
    content = document.read(path, Amendment)
    if roster.entry(signed.key).role is not Role.COORDINATOR:
        raise StrangerError("The amendment is not signed by the coordinator", where=path)
    return content


def _check_plan_copy(workspace: Workspace, texts: list[str]) -> None:
    """`plan.toml` is a copy for people of the newest plan; an edited one would mislead them."""
    path = workspace.federation_folder / PLAN
    there = path.read_bytes().decode("utf-8", "replace") if path.exists() else None
    if there == texts[-1]:
        return
    if there is not None and there not in texts:
        raise PlanError(
            "The plan was changed after the start",
            expected="the text of the newest signed plan",
            found="another text",
            where=path,
            hint=f"delete {path}: it is written again from the signed file; a new plan is signed "
            "by the coordinator with `brainfed amend`",
        )
    # Missing, or of an older version: a kill between the signed file and its readable copy.
    atomic.write_bytes(path, texts[-1].encode(), replace=True)
