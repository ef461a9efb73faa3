"""The report of an error that is ours: a file for the workspace, never a traceback on a screen."""

import platform
import tempfile
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from brainfed.cli.place import find
from brainfed.errors import BrainfedError
from brainfed.formats import atomic

PACKAGES = ("brainfed", "torch", "numpy", "SimpleITK", "h5py", "pydantic", "safetensors", "typer")


def write_report(error: BaseException, argv: Sequence[str], folder: Path | None) -> Path:
    """Write what is needed to mend an error; gives the file.

    Args:
        error: The error.
        argv: What was typed; of it only the command and the names of options are kept.
        folder: What `--workspace` named.

    Raises:
        ResourceError: The disk refuses.
    """
    try:
        reports = find(folder).reports
    except BrainfedError:
        reports = Path(tempfile.gettempdir())
    atomic.make_folder(reports)
    now = datetime.now(UTC)
    path = reports / f"bug-{now:%Y%m%dT%H%M%S%f}Z.txt"
    text = "\n".join(_lines(error, argv, now))
    atomic.write_bytes(path, text.encode("utf-8", "backslashreplace"), mode=0o600)
    return path


def _lines(error: BaseException, argv: Sequence[str], now: datetime) -> list[str]:
    typed = [word.partition("=")[0] for word in argv if word.startswith("-")]
    command = argv[0] if argv and not argv[0].startswith("-") else ""
    return [
        "A bug in brainfed. This file stays here; read it before you send it to anybody: the",
        "message of an error can name a file.",
        "",
        f"when: {now:%Y-%m-%d %H:%M:%S} UTC",
        f"command: {' '.join(['brainfed', command, *typed])}",
        f"python: {platform.python_version()} on {platform.system()} {platform.machine()}",
        *(f"{name}: {_version(name)}" for name in PACKAGES),
        "",
        "".join(traceback.format_exception(error)),
    ]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
