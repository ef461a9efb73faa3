"""Where a command works: the workspace that it finds, and its lock."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from brainfed.cli.console import confirm
from brainfed.cli.options import RoleChoice
from brainfed.errors import NoWorkspaceError, StrangerError, UsageError

if TYPE_CHECKING:
    from brainfed.formats.workspace import Workspace


def find(folder: Path | None) -> "Workspace":
    """The workspace at or above a folder; above the current one where None.

    Raises:
        NoWorkspaceError: There is none.
    """
    from brainfed.formats import workspace

    return workspace.find(folder or Path.cwd())


def find_if_any(folder: Path | None) -> "Workspace | None":
    """As `find`, but None where no folder was named and there is no workspace."""
    if folder is not None:
        return find(folder)
    try:
        return find(None)
    except NoWorkspaceError:
        return None


@contextlib.contextmanager
def working(folder: Path | None, *, only: RoleChoice | None = None) -> Iterator["Workspace"]:
    """The workspace, held for this command alone.

    Args:
        folder: As for `find`.
        only: Whose workspace it must be; either one's where None.

    Raises:
        NoWorkspaceError: There is none.
        WrongRoleError: It is the other party's.
        LockedError: Another command works in it.
    """
    from brainfed.formats import workspace

    place = find(folder)
    if only is not None:
        place.require(workspace.Role(only))
    with workspace.locked(place):
        yield place


def confirm_fingerprint(whose: str, fingerprint: str, given: list[str] | None) -> bool:
    """Whether a person says, or said on the command line, that the fingerprint is right.

    Raises:
        StrangerError: Fingerprints were given, and this is none of them.
        UsageError: None was given and there is nobody to ask.
    """
    if not given:
        question = f"Did {whose} read you the same fingerprint by telephone or in person?"
        return confirm(question, flag="--fingerprint SHA256:...")
    if fingerprint in given:
        return True
    raise StrangerError(
        f"The fingerprint of {whose} is not the one that was given",
        expected=" or ".join(given),
        found=fingerprint,
        hint=f"compare it with {whose} by telephone or in person; somebody may stand between you",
    )


def check_fingerprints(given: list[str] | None) -> None:
    """Refuse a fingerprint that is none.

    Raises:
        UsageError: Not SHA256: and 43 characters.
    """
    for text in given or []:
        if not re.fullmatch(r"SHA256:[A-Za-z0-9+/]{43}", text):
            raise UsageError(
                "This is no fingerprint",
                expected="SHA256: and 43 letters, digits, + or /, as `brainfed init` prints it",
                found=text,
                where="--fingerprint",
            )
