"""A workspace: one party's folder, found by walking up (`docs/formats/workspace.md`)."""

import contextlib
import json
import os
import stat
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import filelock
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from brainfed.core import sshsig
from brainfed.core.sshsig import PublicKey
from brainfed.errors import (
    LockedError,
    NoWorkspaceError,
    ResourceError,
    UsageError,
    WorkspaceError,
    WrongRoleError,
)
from brainfed.formats import atomic, ledger, signature
from brainfed.formats.roster import Role

MARKER = "brainfed.toml"
KEY = "key/id_ed25519"
MAX_FLOOR = 10_000

Unlock = Callable[[Path], bytes]
"""Asks for the passphrase of an encrypted private key."""


@dataclass(frozen=True)
class Workspace:
    """One party's folder; all paths of it are made here."""

    root: Path
    role: Role
    name: str
    key: str = KEY
    unlock: Unlock | None = field(default=None, compare=False, repr=False)
    floor: int = 1
    """The fewest patients that this party lets a figure stand for; the plan's holds if higher."""
    _opened: dict[Path, Ed25519PrivateKey] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    @property
    def key_path(self) -> Path:
        """The private key; where that is in an agent or a hardware token, the public key."""
        return self.root / self.key

    @property
    def has_private_key(self) -> bool:
        """Whether the private key is a file, in this workspace or elsewhere."""
        return self.key_path.suffix != ".pub"

    @property
    def recovery_path(self) -> Path:
        """At the coordinator, the private recovery key until somebody has moved it away."""
        return self.root / "key" / "recovery_ed25519"

    @property
    def recovery_is_here(self) -> bool:
        """Whether the private recovery key still lies where a thief of this folder finds it."""
        return self.recovery_path.exists()

    @property
    def identity_path(self) -> Path:
        """The age identity, which opens what is encrypted for this party."""
        return self.root / "key" / "age_identity"

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
    def drill(self) -> Path:
        """The throw-away workspaces of a drill; nothing in it counts elsewhere."""
        return self.root / "drill"

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

    def public_key(self) -> PublicKey:
        """This party's public key; nobody is asked for a passphrase.

        Raises:
            WorkspaceError: Missing, damaged, or not Ed25519.
        """
        path = self.key_path
        if self.has_private_key:
            path = signature.public_path(path)
            if not path.exists():
                return signature.read_public_part(self.key_path)[0]
        return signature.read_public(path)

    def private_key(self) -> Ed25519PrivateKey:
        """This party's key; whoever holds the passphrase is asked for it once.

        Raises:
            WorkspaceError: Missing, damaged, readable by others, not the one that belongs to the
                public key, the passphrase is wrong, or the key is in an agent or a hardware token.
        """
        path = self.key_path
        if not self.has_private_key:
            raise WorkspaceError(
                "The private key is in an agent or a hardware token, where brainfed can't use it",
                where=path,
                hint="`brainfed export --unsigned` writes the exact bytes; then "
                f"`ssh-keygen -Y sign -n {sshsig.NAMESPACE} -f {path} FILE` signs them",
            )
        key = self.open_key(path)
        if sshsig.public_key(key) != self.public_key():
            raise WorkspaceError(
                "The private key is not the one that belongs to the public key beside it",
                expected=self.public_key().fingerprint,
                found=sshsig.public_key(key).fingerprint,
                where=path,
                hint="put the right ones back from a backup, or `brainfed key rotate`",
            )
        return key

    def open_key(self, path: Path) -> Ed25519PrivateKey:
        """A private key of this party; its passphrase, where it has one, is asked for once.

        Raises:
            WorkspaceError: Missing, damaged, readable by others, or the passphrase is wrong.
        """
        if path not in self._opened:
            _, is_encrypted = signature.read_public_part(path)
            passphrase = self.unlock(path) if is_encrypted and self.unlock is not None else None
            self._opened[path] = signature.load_key(path, passphrase)
        return self._opened[path]

    def require(self, *roles: Role) -> None:
        """Refuse a command that belongs to none of these roles.

        Raises:
            WrongRoleError: This workspace is another party's.
        """
        if self.role not in roles:
            whose = " or the ".join(roles)
            raise WrongRoleError(
                f"This command belongs to the {whose}",
                expected=f"the workspace of the {whose}",
                found=f"the {self.role}'s workspace of {self.name}",
                where=self.root,
                hint=f"run it in the workspace of the {whose}, or `brainfed status` for what to "
                "do here",
            )


def refuse_existing(root: Path) -> None:
    """Refuse a folder that is a workspace, or can't be made one.

    Raises:
        WorkspaceError: It is one already.
        UsageError: It belongs to all users of the machine, such as /tmp.
    """
    if (root / MARKER).exists():
        there = _read(root, None)
        raise WorkspaceError(
            "This folder is a workspace already",
            found=f"the {there.role}'s workspace of {there.name}",
            where=root,
            hint="go on with `brainfed status`, or use an empty folder",
        )
    # A workspace is closed to everybody else, which would break what all others use.
    if root.is_dir() and root.stat().st_mode & stat.S_ISVTX:
        raise UsageError(
            "This folder is shared by all users of the machine",
            expected="a folder of your own",
            where=root,
            hint="make a folder in it and run `brainfed init` there",
        )


def create(workspace: Workspace) -> None:
    """Make the folders of a workspace, for their owner alone; `finish` makes it one.

    Raises:
        WorkspaceError: The folder is one already.
        UsageError: It belongs to all users of the machine.
        ResourceError: The disk refuses.
    """
    refuse_existing(workspace.root)
    for folder in (
        workspace.root,
        workspace.root / "key",
        workspace.federation_folder,
        workspace.rounds,
        workspace.inbox,
        workspace.outbox,
    ):
        atomic.make_folder(folder)
        if os.name == "posix" and folder.stat().st_mode & 0o077:
            # It was there before. Where the file system has no permissions there are none to set.
            with contextlib.suppress(OSError):
                folder.chmod(0o700)


def finish(workspace: Workspace) -> None:
    """Write the marker. It comes last, so that what was killed before is begun again.

    Raises:
        ResourceError: The disk refuses.
    """
    _write_marker(workspace, replace=False)


def with_key(workspace: Workspace, key: str) -> Workspace:
    """Change the marker, by one rename, so that it names another key; gives the new workspace.

    Raises:
        ResourceError: The disk refuses.
    """
    changed = replace(workspace, key=key)
    _write_marker(changed, replace=True)
    return changed


def find(start: Path, unlock: Unlock | None = None) -> Workspace:
    """The workspace that holds `start`.

    Args:
        start: A folder.
        unlock: Asked for the passphrase when an encrypted private key is first needed.

    Raises:
        NoWorkspaceError: Neither this folder nor any above is one.
        WorkspaceError: Its marker file is damaged.
    """
    start = start.resolve()
    for folder in (start, *start.parents):
        if (folder / MARKER).is_file():
            return _read(folder, unlock)
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


def _write_marker(workspace: Workspace, *, replace: bool) -> None:
    # JSON's strings are TOML's, as long as every character can be printed.
    values = {"role": workspace.role, "name": workspace.name, "key": workspace.key}
    text = "".join(f"{k} = {json.dumps(v, ensure_ascii=False)}\n" for k, v in values.items())
    if workspace.floor > 1:
        text += f"floor = {workspace.floor}\n"
    atomic.write_bytes(workspace.root / MARKER, text.encode(), mode=0o600, replace=replace)


def _read(root: Path, unlock: Unlock | None) -> Workspace:
    path = root / MARKER
    try:
        table = tomllib.loads(path.read_text("utf-8"))
        role, name, key = Role(table["role"]), str(table["name"]), str(table["key"])
        floor = table.get("floor", 1)
        if type(floor) is not int or not 1 <= floor <= MAX_FLOOR:
            raise ValueError(f"floor = {floor!r}")
    except (OSError, ValueError, KeyError) as error:
        raise WorkspaceError(
            "The workspace's marker file is damaged",
            expected=f"role, name and key; a floor is a whole number from 1 to {MAX_FLOOR}",
            found=error,
            where=path,
            hint="mend that line, or put the file back from a backup",
        ) from None
    return Workspace(root, role, name, key, unlock, floor)
