"""Where a drill lies: throw-away workspaces, and the folder that is carried."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from brainfed.core.progress import Progress, silent
from brainfed.errors import ResourceError
from brainfed.formats import atomic, document, workspace
from brainfed.formats.document import DRILL, RELEASE
from brainfed.formats.roster import Role
from brainfed.formats.workspace import Workspace
from brainfed.steps.drill_stages import Log
from brainfed.steps.exchange import export
from brainfed.steps.initialise import initialise
from brainfed.steps.receive import receive

MOST_LETTERS = 40
"""Of a name."""


def drill_name(name: str) -> str:
    """What a party is called in a drill: its name with `drill-` before it, cut to fit."""
    role = RELEASE if name.endswith(RELEASE) else ""
    return f"{DRILL}{name.removesuffix(role)}"[:MOST_LETTERS].rstrip("-") + role


@dataclass(frozen=True)
class Room:
    """One site's drill, at the site or at the coordinator."""

    root: Path
    """In `drill/` of the real workspace, called as the site is in the drill."""
    today: date
    device: str | None = None
    progress: Progress = silent

    @property
    def site(self) -> str:
        """What the site is called in the drill."""
        return self.root.name

    @property
    def plan_path(self) -> Path:
        """The plan of the drill, at the coordinator."""
        return self.root / "plan.toml"

    @property
    def own_medium(self) -> Path:
        """What stands for the medium where a site plays both sides."""
        return self.root / "medium"

    def log(self) -> Log:
        """Its ledger."""
        return Log(self.root / "ledger.jsonl")

    def has(self, role: Role) -> bool:
        """Whether the workspace of a role was made."""
        return (self.root / role.value / workspace.MARKER).is_file()

    def workspace(self, role: Role, name: str, *, floor: int = 1) -> Workspace:
        """The throw-away workspace of a role, made if need be.

        Raises:
            ResourceError: The disk refuses.
        """
        root = self.root / role.value
        if not self.has(role):
            initialise(root, role, name, floor=floor, purpose="drill")
        return workspace.find(root)


def stick_of(medium: Path, site: str) -> Path:
    """The folder of a site's drill on a medium.

    Raises:
        ResourceError: The medium isn't there.
    """
    if not medium.is_dir():
        raise ResourceError(
            "The folder of the medium isn't there",
            found=medium,
            hint="is the medium mounted? give its folder: brainfed drill FOLDER",
        )
    return medium / site


def send(stick: Path, *senders: Workspace) -> str:
    """Put on the medium what these parties have to send, and nothing else; says what was copied.

    Raises:
        BrainfedError: As `export` raises.
    """
    for sender in senders:
        export(sender, None)  # what may not leave is refused before anything is taken away
    new = stick.with_name(f"{atomic.TEMPORARY_PREFIX}{stick.name}")
    atomic.remove_tree(new)  # of a killed drill
    atomic.make_folder(new)
    copied = [packed for sender in senders for packed in export(sender, new).copied]
    atomic.place_folder(new, stick)
    n_bytes = sum(packed.n_bytes for packed in copied)
    return f"{len(copied)} files, {n_bytes:,} bytes"


def take(place: Workspace, stick: Path, is_here: Callable[[], bool]) -> bool:
    """Import what lies on the medium; gives whether what is waited for is here now.

    Raises:
        BrainfedError: Why a file was refused, or as `receive` raises.
    """
    if not is_here() and stick.is_dir():
        done = receive(
            place, [stick], confirm=lambda asked: document.is_of_drill(asked.coordinator)
        )
        for file in done.refused:
            assert file.error is not None
            raise file.error
    return is_here()
