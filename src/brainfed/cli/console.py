"""Words in, words out: results on stdout, everything else on stderr.

Plain text when piped, on a terminal that can't draw, and where NO_COLOR is set: no colour, no lines
of a table, nothing drawn twice. Rich, which draws tables and bars, is imported where one is drawn.
What comes from files and file names is shown with its control characters spelled out, so that no
file can paint on a terminal.
"""

import contextlib
import dataclasses
import enum
import json
import math
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from brainfed.errors import BrainfedError, UsageError

if TYPE_CHECKING:
    from brainfed.cli.bar import Bar

MAX_WIDTH = 100
COMMAND = "  $ "
"""Begins a line of words that is a command to be copied."""


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows under headers; columns of numbers stand to the right, None is a dash."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[object, ...]]


Words = Iterable[str | Table]
"""What a result looks like to a person: sentences and tables, in reading order."""


def can_draw(stream: TextIO) -> bool:
    """Whether to draw with lines, colour and a moving cursor, or to write plain words.

    Words go into pipes, to terminals that say they are dumb (as Emacs and screen readers want it),
    and to everybody who sets NO_COLOR (https://no-color.org).
    """
    is_dumb = os.environ.get("TERM", "dumb") in {"", "dumb", "unknown"}
    return stream.isatty() and not is_dumb and not os.environ.get("NO_COLOR")


def show(result: object, words: Callable[[Any], Words], *, as_json: bool) -> None:
    """Print a result on stdout: as one JSON object, or in words."""
    if as_json:
        show_json(result)
    else:
        show_words(words(result), sys.stdout)


def show_json(content: object) -> None:
    """Print one JSON object on stdout."""
    sys.stdout.write(json.dumps(plain(content), indent=1) + "\n")


def show_words(words: Words, stream: TextIO) -> None:
    """Print sentences and tables."""
    for part in words:
        if isinstance(part, Table):
            _draw(part, stream)
        else:
            stream.write(wrapped(part) + "\n")
    stream.flush()


def say(*words: str | Table) -> None:
    """Print sentences and tables on stderr."""
    show_words(words, sys.stderr)


def show_error(error: BrainfedError, *, as_json: bool) -> None:
    """Say what is wrong and what to do next, on stderr; with --json also as an object on stdout."""
    if as_json:
        show_json({"error": error})
    lines = [f"error: {visible(error.message)}"]
    for name, value in error.details().items():
        lines.append(wrapped(f"  {name + ':':<10}{value}", indent=12))
    sys.stderr.write("\n".join([wrapped(lines[0], indent=7), *lines[1:]]) + "\n")
    sys.stderr.flush()


def show_all_the_same(
    error: BrainfedError, result: object, words: Callable[[Any], Words], *, as_json: bool
) -> None:
    """The whole result of a command that refused a part of it, then what is to be done about it."""
    if as_json:
        show_json(plain(result) | {"error": plain(error)})
    else:
        show(result, words, as_json=False)
    error.found = None  # the result says it
    show_error(error, as_json=False)


def plain(content: object) -> Any:
    """A result as JSON knows it: dataclasses as objects, paths as text, Enums as their values."""
    if isinstance(content, BrainfedError):
        kind, code = type(content).__name__, content.exit_code
        return {"kind": kind, "exit_code": code, "message": content.message} | content.details()
    if isinstance(content, enum.Enum):
        return content.value
    if isinstance(content, Path):
        return str(content)
    if dataclasses.is_dataclass(content) and not isinstance(content, type):
        names = [field.name for field in dataclasses.fields(content)]
        return {name: plain(getattr(content, name)) for name in names}
    if hasattr(content, "model_dump"):
        return content.model_dump(mode="json")
    if isinstance(content, float) and not math.isfinite(content):
        return None  # JSON has no word for it
    if isinstance(content, dict):
        return {str(plain(key)): plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple | set | frozenset):
        return [plain(item) for item in content]
    return content


def visible(text: object) -> str:
    """Text with its control characters spelled out; line ends stay."""
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode("ascii")
        for c in str(text)
    )


def wrapped(text: str, *, indent: int | None = None) -> str:
    """Text within the width of the terminal; long words, such as paths, stay whole.

    Args:
        text: Lines; a list item ("- ", "1. ") hangs under its first word, and a line that begins
            with "  $ " is a command to be copied, which stays one line, without the sign.
        indent: Of the second and later lines; where None, that of the list item.
    """
    lines = []
    for line in visible(text).split("\n"):
        if line.startswith(COMMAND):
            lines.append("  " + line.removeprefix(COMMAND))
            continue
        words = line.lstrip()
        item = words.startswith("- ") or (words[:1].isdigit() and words[1:3] == ". ")
        hang = len(line) - len(words) + (words.index(" ") + 1 if item else 0)
        lines.append(
            textwrap.fill(
                line,
                _width(),
                subsequent_indent=" " * (hang if indent is None else indent),
                break_long_words=False,
                break_on_hyphens=False,
            )
        )
    return "\n".join(lines)


def _width() -> int:
    return min(shutil.get_terminal_size().columns, MAX_WIDTH)


def _draw(table: Table, stream: TextIO) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable

    draws = can_draw(stream)
    drawn = RichTable(
        box=box.SIMPLE_HEAD if draws else None,
        padding=(0, 1) if draws else (0, 2, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    for index, name in enumerate(table.columns):
        cells = [row[index] for row in table.rows]
        numeric = any(isinstance(cell, int | float) for cell in cells)
        drawn.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in table.rows:
        drawn.add_row(*(_cell(value) for value in row))
    console = Console(
        file=stream,
        width=_width(),
        force_terminal=draws,
        color_system="auto" if draws else None,
        markup=False,
        highlight=False,
        emoji=False,
    )
    with console.capture() as captured:
        console.print(drawn)
    stream.write("".join(line.rstrip() + "\n" for line in captured.get().splitlines()))


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3f}" if isinstance(value, float) else visible(value)


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun: 1 file, 2 files."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def size_words(n_bytes: int) -> str:
    """A size for people, in decimal units."""
    if n_bytes < 1000:
        return f"{n_bytes} bytes"
    if n_bytes < 1_000_000:
        return f"{n_bytes / 1000:.1f} kB"
    return f"{n_bytes / 1_000_000:.1f} MB"


def confirm(question: str, *, flag: str) -> bool:
    """Ask a person a yes-or-no question on stderr; anything but yes is no.

    Args:
        question: The question.
        flag: The option that answers it in scripts.

    Raises:
        UsageError: There is nobody to ask.
    """
    nobody = UsageError(
        "This needs an answer, and there is no terminal to ask on",
        expected=flag,
        where=question,
        hint=f"run it in a terminal, or give {flag}",
    )
    if not sys.stdin.isatty():
        raise nobody
    sys.stderr.write(wrapped(question) + " [y/N] ")
    sys.stderr.flush()
    answer = sys.stdin.readline()
    if not answer:
        sys.stderr.write("\n")
        raise nobody
    return answer.strip().lower() in {"y", "yes"}


@contextlib.contextmanager
def progress() -> "Iterator[Bar]":
    """A bar for the length of the block; nothing of it stays on the screen."""
    from brainfed.cli.bar import Bar

    bar = Bar()
    try:
        yield bar
    finally:
        bar.hide()
