"""A workspace: one party's folder, found by walking up (`docs/formats/workspace.md`)."""

import contextlib
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import filelock
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from brainfed.errors import (
    LockedError,
    NoWorkspaceError,
    ResourceError,
    WorkspaceError,
    WrongRoleError,
)
from brainfed.formats import atomic, ledger, signature

MARKER = "brainfed.toml"
KEY = "key/id_ed25519"


class Role(StrEnum):
    """Whose workspace it is."""

    COORDINATOR = "coordinator"
    SITE = "site"


@dataclass(frozen=True)
class Workspace:
    """One party's folder; all paths of it are made here."""

    root: Path
    role: Role
    name: str
    key: str = KEY

    @property
    def key_path(self) -> Path:
        """The private key."""
        return self.root / self.key

    @property
    def federation_folder(self) -> Path:
        """start.json, the rosters and the plan in force."""
        return self.root / "federation"

    @property
    def data(self) -> Path:
        """Cases, their index and the split; nothing in it leaves the building."""
        return self.root / "data"

    @property
    def rounds(self) -> Path:
        """One folder a round."""
        return self.root / "rounds"

    @property
    def inbox(self) -> Path:
        """Local copies of files from a medium while they are checked; empty between commands."""
        return self.root / "inbox"

    @property
    def outbox(self) -> Path:
        """What is to be carried to the other side now."""
        return self.root / "outbox"

    @property
    def reports(self) -> Path:
        """Tables for people of this party; nothing in it leaves the building."""
        return self.root / "reports"

    @property
    def ledger_path(self) -> Path:
        """The ledger."""
        return self.root / "ledger.jsonl"

    def round_folder(self, number: int) -> Path:
        """The folder of a round, such as rounds/r0003."""
        return self.rounds / f"r{number:04d}"

    def note(self, event: ledger.Event, **fields: str | int | None) -> None:
        """Add a line to the ledger."""
        ledger.append(self.ledger_path, event, **fields)

    def private_key(self) -> Ed25519PrivateKey:
        """This party's key.

        Raises:
            WorkspaceError: Missing, damaged, or readable by others.
        """
        return signature.load_key(self.key_path)

    def require(self, role: Role) -> None:
        """Refuse a command of the other role.

        Raises:
            WrongRoleError: This is the other party's workspace.
        """
        if self.role is not role:
            raise WrongRoleError(
                f"This command belongs to the {role}",
                expected=f"a {role}'s workspace",
                found=f"the {self.role}'s workspace of {self.name}",
                where=self.root,
                hint=f"run it in a {role}'s workspace, or `brainfed status` for what to do here",
            )


def create(root: Path, role: Role, name: str) -> Workspace:
    """Make the folders and the key of a workspace; `finish` makes it one.

    Raises:
        WorkspaceError: The folder is one already.
        ResourceError: The disk refuses.
    """
    marker = root / MARKER
    if marker.exists():
        there = _read(root)
        raise WorkspaceError(
            "This folder is a workspace already",
            found=f"the {there.role}'s workspace of {there.name}",
            where=root,
            hint="go on with `brainfed status`, or use an empty folder",
        )
    workspace = Workspace(root, role, name)
    atomic.make_folder(root)
    for folder in (
        workspace.key_path.parent,
        workspace.federation_folder,
        workspace.rounds,
        workspace.inbox,
        workspace.outbox,
    ):
        atomic.make_folder(folder)
    if not workspace.key_path.exists():
        signature.make_key(workspace.key_path)
    return workspace


def finish(workspace: Workspace) -> None:
    """Write the marker. It comes last, so that what was killed before is begun again.

    Raises:
        ResourceError: The disk refuses.
    """
    text = f'role = "{workspace.role}"\nname = "{workspace.name}"\nkey = "{workspace.key}"\n'
    atomic.write_bytes(workspace.root / MARKER, text.encode(), mode=0o600)


def find(start: Path) -> Workspace:
    """The workspace that holds `start`.

    Raises:
        NoWorkspaceError: Neither this folder nor any above is one.
        WorkspaceError: Its marker file is damaged.
    """
    start = start.resolve()
    for folder in (start, *start.parents):
        if (folder / MARKER).is_file():
            return _read(folder)
    raise NoWorkspaceError(
        "There is no workspace here",
        expected=f"a folder with {MARKER}, here or above",
        where=start,
        hint="`brainfed init site --name NAME` or `brainfed init coordinator --name NAME` "
        "makes one in the current folder; or give --workspace FOLDER",
    )


@contextlib.contextmanager
def locked(workspace: Workspace) -> Iterator[None]:
    """Hold the workspace for one command, and clear away what a killed one left.

    Raises:
        LockedError: Another process holds it.
    """
    lock = filelock.FileLock(workspace.root / ".lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise LockedError(
            "Another brainfed command is working in this workspace",
            where=workspace.root,
            hint="wait until it has ended, then run the command again",
        ) from None
    except OSError as error:
        raise ResourceError(
            "The workspace can't be locked", found=error.strerror, where=workspace.root
        ) from None
    try:
        atomic.remove_leftovers(workspace.root)
        yield
    finally:
        lock.release()


def _read(root: Path) -> Workspace:
    path = root / MARKER
    try:
        table = tomllib.loads(path.read_text("utf-8"))
        return Workspace(root, Role(table["role"]), str(table["name"]), str(table["key"]))
    except (OSError, ValueError, KeyError) as error:
        raise WorkspaceError(
            "The workspace's marker file is damaged",
            expected="role, name and key",
            found=error,
            where=path,
            hint="put it back from a backup; it holds three lines",
        ) from None
