"""Every error is ours: what was expected, what was found, where, and what to do next.

One class per kind of trouble, one exit code per family. A command that meets bad input ends with
one of these and nothing half-written; only `brainfed.cli` turns them into words and an exit.
"""

from pathlib import Path
from typing import ClassVar


class BrainfedError(Exception):
    """The root of all errors that brainfed raises on purpose.

    Args:
        message: One sentence that says what is wrong.
        expected: What would have been right.
        found: What was there instead.
        where: The file, folder, plan key or tensor that it is about.
        hint: The next thing to do, naming a command where there is one; `usual_hint` where None.
    """

    exit_code = 70
    usual_hint: ClassVar[str | None] = None
    """What to do about most errors of this class."""

    def __init__(
        self,
        message: str,
        *,
        expected: object = None,
        found: object = None,
        where: str | Path | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.expected = None if expected is None else str(expected)
        self.found = None if found is None else str(found)
        self.where = None if where is None else str(where)
        self.hint = hint or self.usual_hint

    def __str__(self) -> str:
        parts = [self.message]
        parts += [f"{name}: {value}" for name, value in self.details().items()]
        return "; ".join(parts)

    def details(self) -> dict[str, str]:
        """The parts besides the message, in reading order, without the empty ones."""
        parts = {
            "where": self.where,
            "expected": self.expected,
            "found": self.found,
            "next": self.hint,
        }
        return {name: value for name, value in parts.items() if value is not None}

    def __reduce__(self) -> tuple[object, ...]:
        # Errors travel back from worker processes; keyword-only arguments need help for that.
        parts = {
            "expected": self.expected,
            "found": self.found,
            "where": self.where,
            "hint": self.hint,
        }
        return (_rebuild, (type(self), self.message, parts))


def _rebuild(
    kind: type[BrainfedError], message: str, parts: dict[str, str | None]
) -> BrainfedError:
    return kind(message, **parts)


class UsageError(BrainfedError):
    """A command was typed in a way that can't be carried out."""

    exit_code = 2
    usual_hint = "brainfed --help lists all commands, brainfed COMMAND --help the options of one"


class WorkspaceError(BrainfedError):
    """The workspace is missing, of the other role, locked, or not yet far enough for this."""

    exit_code = 3
    usual_hint = "brainfed status says where this workspace stands, and what comes next"


class NoWorkspaceError(WorkspaceError):
    """No workspace here or in any folder above."""


class WrongRoleError(WorkspaceError):
    """The command belongs to the other role."""


class LockedError(WorkspaceError):
    """Another process is working in this workspace."""


class NotReadyError(WorkspaceError):
    """A step that must come before this one has not been done."""


class LedgerError(WorkspaceError):
    """The ledger's chain of digests is broken."""

    usual_hint = "put ledger.jsonl back from a backup; brainfed audit FOLDER needs none"


class PlanError(BrainfedError):
    """The plan has an unknown key, a wrong value, or was changed after the start."""

    exit_code = 4
    usual_hint = "mend the plan, then `brainfed plan check PLAN`"


class ScanError(BrainfedError):
    """Scans, cases or the split can't be used as they are."""

    exit_code = 5
    usual_hint = "`brainfed check SCANS` shows every scan, and what is wrong with it"


class FileRefusedError(BrainfedError):
    """A file from another party is not accepted; nothing was changed."""

    exit_code = 6
    usual_hint = "`brainfed inspect FILE` shows what it says of itself; ask its sender for it anew"


class TooLargeError(FileRefusedError):
    """The file is larger than anything this federation exchanges."""


class UnsignedError(FileRefusedError):
    """No signature lies beside the file."""


class SignatureError(FileRefusedError):
    """The signature is damaged, or is not one over these bytes."""


class StrangerError(FileRefusedError):
    """The signature is by a key that is not active in the roster, or not its sender's."""


class MalformedError(FileRefusedError):
    """The bytes are not what the format says, or a field is unknown or out of range."""


class TensorsError(FileRefusedError):
    """The tensors are not the plan's: a name, shape, dtype or value is wrong."""


class WrongFederationError(FileRefusedError):
    """The file belongs to another federation or plan."""


class WrongRoundError(FileRefusedError):
    """The file belongs to another round, parent or purpose than the one that is open."""


class NotForUsError(FileRefusedError):
    """The file is encrypted, for other readers than this workspace."""


class ConflictError(FileRefusedError):
    """There is already another file in its place."""

    usual_hint = (
        "keep both files, and ask the other side which one counts; brainfed inspect FILE shows each"
    )


class QuorumError(BrainfedError):
    """Too few sites or patients, a round that is closed, or not this party's turn."""

    exit_code = 7
    usual_hint = "brainfed status says whom to wait for"


class ResourceError(BrainfedError):
    """The disk, the memory or the device can't carry the work."""

    exit_code = 8
    usual_hint = (
        "brainfed doctor shows disk, memory and device; make room, and run the command again"
    )


class InterruptedByUserError(BrainfedError):
    """Stopped by Ctrl-C; the files are as they were, or as the finished work left them."""

    exit_code = 130
    usual_hint = "run the command again; what was finished is kept"
