"""Completion of command lines in bash, zsh and fish: typer's own, and the names of a workspace.

What is offered here are hints, read from the workspace's files without checking a signature; the
command itself checks. So it is quick, asks for nothing, and where it can't read it offers nothing.
"""

import contextlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any, Literal

import typer

VARIABLE = "_BRAINFED_COMPLETE"
"""By it a shell asks for completions; the name is typer's."""
Shell = Literal["bash", "zsh", "fish"]
OFFERED_TO_INSTALL = {"install_completion", "show_completion"}
"""Options of typer's that write to a person's start-up files, or guess the shell: `--completion`
does neither."""


def command_of(app: typer.Typer) -> Any:
    """The whole command line, able to answer a shell."""
    command: Any = typer.main.get_command(app)
    command.params = [p for p in command.params if p.name not in OFFERED_TO_INSTALL]
    return command


def answer(app: typer.Typer) -> int:
    """Answer a shell on stdout; gives the exit code. It never disturbs the line being typed."""
    try:
        command_of(app).main(args=[], prog_name="brainfed", standalone_mode=False)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    except Exception:
        return 1
    return 0


def print_script(context: typer.Context, shell: Shell | None) -> None:
    """Print what a shell has to run once, and end."""
    if shell is None or context.resilient_parsing:
        return
    os.environ[VARIABLE] = f"source_{shell}"
    with contextlib.redirect_stdout(io.StringIO()) as script, contextlib.suppress(SystemExit):
        context.command.main(args=[], prog_name="brainfed")
    del os.environ[VARIABLE]
    # As a file of its own, zsh wants the mark of one on its first line.
    sys.stdout.write(script.getvalue().strip() + "\n")
    raise typer.Exit


def sites(context: typer.Context, incomplete: str) -> list[str]:
    """The sites of the roster, but for those that the line has named."""
    named = {name for value in context.params.values() for name in _listed(value)}
    return [name for name in _parties(context, "site", incomplete) if name not in named]


def parties(context: typer.Context, incomplete: str) -> list[str]:
    """All of the roster but the coordinator."""
    return _parties(context, "", incomplete)


def rounds(context: typer.Context, incomplete: str) -> list[str]:
    """The rounds that lie in the workspace, the newest first."""
    root = _workspace(context)
    found = sorted(root.glob("rounds/r[0-9][0-9][0-9][0-9]"), reverse=True) if root else []
    numbers = [str(int(folder.name[1:])) for folder in found]
    return [number for number in numbers if number.startswith(incomplete)]


def _parties(context: typer.Context, role: str, incomplete: str) -> list[str]:
    """Names of a role, of every role but the coordinator's where empty."""
    root = _workspace(context)
    if root is None:
        return []
    try:
        entries = json.loads((root / "federation" / "roster.json").read_bytes())["principals"]
        found = {str(e["name"]): str(e["role"]) for e in entries if e["role"] != "coordinator"}
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [
        name
        for name, its_role in found.items()
        if role in {"", its_role} and name.startswith(incomplete)
    ]


def _workspace(context: typer.Context) -> Path | None:
    """The nearest folder that is a workspace, as `formats.workspace.find` has it."""
    start = Path(context.params.get("workspace") or Path.cwd()).absolute()
    for folder in (start, *start.parents):
        if (folder / "brainfed.toml").is_file():
            return folder
    return None


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []
