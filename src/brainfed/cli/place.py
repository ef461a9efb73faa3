"""Where a command works: the workspace that it finds, and its lock."""

import contextlib
import getpass
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from brainfed.cli.console import confirm, visible
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

    return workspace.find(folder or Path.cwd(), ask_passphrase)


def find_if_any(folder: Path | None) -> "Workspace | None":
    """As `find`, but None where no folder was named and there is no workspace."""
    if folder is not None:
        return find(folder)
    try:
        return find(None)
    except NoWorkspaceError:
        return None


@contextlib.contextmanager
def working(
    folder: Path | None, *, only: RoleChoice | tuple[RoleChoice, ...] = ()
) -> Iterator["Workspace"]:
    """The workspace, held for this command alone.

    Args:
        folder: As for `find`.
        only: Whose workspace it must be, one role or several; anybody's where empty.

    Raises:
        NoWorkspaceError: There is none.
        WrongRoleError: It is another party's.
        LockedError: Another command works in it.
    """
    from brainfed.formats import roster, workspace

    place = find(folder)
    if only:
        names = (only,) if isinstance(only, str) else only
        place.require(*(roster.Role(name) for name in names))
    with workspace.locked(place):
        yield place


def ask_passphrase(path: Path) -> bytes:
    """Ask for the passphrase of a private key, without echo.

    Raises:
        UsageError: There is nobody to ask.
    """
    return _typed(f"Passphrase of {path}: ")


def new_passphrase() -> bytes:
    """Ask twice for a passphrase that is to protect a new key, without echo.

    Raises:
        UsageError: Empty, the two differ, or there is nobody to ask.
    """
    first = _typed("New passphrase: ")
    if not first:
        raise UsageError(
            "The passphrase is empty",
            where="--passphrase",
            hint="type one, or leave --passphrase away",
        )
    if _typed("The same again: ") != first:
        raise UsageError(
            "The two passphrases differ", where="--passphrase", hint="run the command again"
        )
    return first


def new_key(given: Path | None, *, passphrase: bool) -> tuple[Path | None, bytes | None]:
    """The absolute path of a key that is there, or the passphrase for one that is to be made.

    Raises:
        UsageError: Both were asked for, or the passphrase can't be typed.
    """
    if given is not None and passphrase:
        raise UsageError(
            "--passphrase is for a key that is made here",
            where="--key",
            found=given,
            hint=f"ssh-keygen -p -f {given} gives an existing key a passphrase",
        )
    return (
        None if given is None else given.expanduser().resolve(),
        new_passphrase() if passphrase else None,
    )


def _typed(question: str) -> bytes:
    # Never by an option or an environment variable: other processes can read both.
    if sys.stdin.isatty():
        with contextlib.suppress(EOFError):
            return getpass.getpass(visible(question)).encode()
    raise UsageError(
        "A passphrase is needed, and there is no terminal to type it on",
        where=question.rstrip(": "),
        hint="run it in a terminal; for work without one, use a key without a passphrase",
    )


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
                hint="copy the whole line that `ssh-keygen -lf FILE.pub` prints at the other side, "
                "or leave --fingerprint away and answer the question",
            )
