"""Write docs/reference/ from the code: `python docs/generate.py`.

`tests/docs/test_reference.py` compares the pages with what this makes, so they can't rot.
"""

import inspect
import sys
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from brainfed import errors
from brainfed.cli.app import app
from brainfed.core.flaws import FlawedScanError
from brainfed.plan import SLUG, Plan, Section
from brainfed.steps.case_rows import RefusedCasesError
from brainfed.steps.check_rows import BadCasesError
from brainfed.steps.make_case import NotAlignedError
from brainfed.steps.predict_rows import RefusedPredictionsError

sys.path.insert(0, str(Path(__file__).resolve().parent))
import json_schemas
from json_schemas import attribute_docstrings

FOLDER = Path(__file__).resolve().parent / "reference"
NOTE = "<!-- Made by docs/generate.py; don't edit. -->"

EXIT_CODES = {
    2: "the command was typed wrongly",
    3: "the workspace",
    4: "the plan",
    5: "scans refused",
    6: "a file refused",
    7: "quorum or turn",
    8: "disk, memory or device",
    70: "a bug of brainfed; a report lies in the workspace, nothing is lost",
    130: "interrupted",
}


def main() -> None:
    """Write all pages."""
    (FOLDER / "json").mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, "utf-8")


def pages() -> dict[str, str]:
    """The text of each page, by file name."""
    return {name: make() for name, make in makers().items()}


def makers() -> dict[str, Callable[[], str]]:
    """What makes each page, by file name."""
    return {
        "commands.md": lambda: _page(_commands()),
        "plan.md": lambda: _page(_plan()),
        "errors.md": lambda: _page(_errors()),
        "json.md": lambda: _page(_json()),
        **json_schemas.makers(),
    }


def _page(lines: Iterator[str]) -> str:
    return "\n".join([NOTE, "", *lines]).rstrip() + "\n"


def _commands() -> Iterator[str]:
    yield from [
        "# Commands",
        "",
        "Every command finds its workspace by walking up from the current folder, or by",
        "`--workspace`. Results go to stdout; questions, progress and errors go to stderr. With",
        '`--json` stdout holds one JSON object: the result, or `{"error": {...}}`. Every command',
        "can be run again. Without a terminal nothing is asked: the command ends with exit code 2",
        "and names the option that answers. [Errors and exit codes](errors.md). [What `--json`",
        "prints](json.md).",
        "",
    ]
    group: Any = typer.main.get_command(app)
    panels: dict[str, list[tuple[str, Any]]] = {}
    for name, command in group.commands.items():
        inner = getattr(command, "commands", None)
        found = {f"{name} {sub}": c for sub, c in inner.items()} if inner else {name: command}
        panels.setdefault(command.rich_help_panel, []).extend(found.items())
    for panel, commands in panels.items():
        yield from [f"## {panel}", ""]
        for name, command in commands:
            yield from _command(f"brainfed {name}", command)


def _command(name: str, command: Any) -> Iterator[str]:
    yield from [f"### {name}", ""]
    context = typer.Context(command, info_name=name)
    options = [p for p in command.get_params(context) if p.opts != ["--help"]]
    words = [name, *(_in_usage(p) for p in options)]
    yield from ["```", *_filled(words), "```", "", command.help, ""]
    yield from ["| | |", "|---|---|"]
    for option in options:
        yield f"| {_code(option)} | {option.help or ''}{_default(option)} |"
    yield ""


def _in_usage(option: Any) -> str:
    if option.param_type_name == "argument":
        return str(option.metavar)
    text: str = option.opts[0] if option.is_flag else f"{option.opts[0]} {option.metavar}"
    return text if option.required else f"[{text}]"


def _filled(words: list[str]) -> Iterator[str]:
    line = words[0]
    for word in words[1:]:
        if len(line) + 1 + len(word) > 90:
            yield line
            line = "   "
        line += f" {word}"
    yield line


def _code(option: Any) -> str:
    text = option.metavar if option.param_type_name == "argument" else option.opts[0]
    if option.param_type_name == "option" and not option.is_flag:
        text += f" {option.metavar}"
    return f"`{text}`".replace("|", "\\|")


def _default(option: Any) -> str:
    if option.required:
        return " Required."
    shown = option.default is not None and not option.is_flag
    return f" Default: `{option.default}`." if shown else ""


def _plan() -> Iterator[str]:
    yield from [
        "# The plan",
        "",
        "A plan is one TOML file. Unknown keys are refused, a key that is left out has its",
        "default. `brainfed plan show FILE` prints a plan complete; `start` freezes it.",
        "",
    ]
    yield from _section(Plan, "")


def _section(section: type[Section], name: str) -> Iterator[str]:
    if name:
        yield from [f"## [{name}]", "", inspect.cleandoc(section.__doc__ or ""), ""]
    yield from ["| key | value | default | |", "|---|---|---|---|"]
    tables = []
    said = attribute_docstrings(section)
    for key, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            tables.append((kind, f"{name}.{key}" if name else key))
        else:
            text = said.get(key, "")
            default = "none; required" if field.is_required() else f"`{_toml(field.default)}`"
            yield f"| `{key}` | {_kind(_whole(field))} | {default} | {text} |"
    yield ""
    for kind, path in tables:
        yield from _section(kind, path)


def _whole(field: FieldInfo) -> Any:
    """The annotation with its bounds, which pydantic takes apart."""
    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation


def _kind(kind: Any) -> str:
    """A type in words, with its range."""
    if get_origin(kind) is Annotated:
        base, *notes = get_args(kind)
        limits = _limits([m for note in notes for m in getattr(note, "metadata", [note])])
        if base is str:
            limits = limits.replace("of them", "characters")
        return f"{_kind(base)}, {limits}" if limits else _kind(base)
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        if inner[-1] is Ellipsis:
            return f"list, each {_kind(inner[0])}"
        return f"list of {len(inner)}, each {_kind(inner[0])}"
    if get_origin(kind) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(kind))
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return " or ".join(f'`"{member}"`' for member in kind)
    return {bool: "`true` or `false`", int: "whole number", float: "number", str: "text"}[kind]


def _limits(notes: list[Any]) -> str:
    words = []
    for note in notes:
        for name, sign in (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<")):
            if hasattr(note, name):
                words.append(f"{sign} {getattr(note, name):_}")
        if hasattr(note, "min_length"):
            words.append(f"{note.min_length} or more of them")
        if hasattr(note, "max_length"):
            words.append(f"no more than {note.max_length} of them")
        if getattr(note, "pattern", None):
            words.append(
                "1 to 40 lower-case letters, digits and inner hyphens"
                if note.pattern == SLUG
                else f"matching `{note.pattern}`"
            )
    return ", ".join(words)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        return f"[{', '.join(_toml(item) for item in value)}]"
    return repr(value)


def _json() -> Iterator[str]:
    yield from [
        "# What --json prints",
        "",
        "Every command takes `--json`. It then prints one JSON object on stdout: its result, or",
        '`{"error": {...}}` where it refuses. The exit code is the same as without it. Words,',
        "questions and progress go to stderr.",
        "",
        "Each command has a JSON schema (draft 2020-12). The tests hold every output against it.",
        "",
        "- Within a major version, and while that is 0 within a minor one, no field is taken away",
        "  and none gets another meaning or type.",
        "- Fields may be added, and words to a list of choices. Read past what you don't know.",
        "- A field without a value is `null`; it isn't left out. Of an error alone, `where`,",
        "  `expected`, `found` and `next` are left out where they aren't known.",
        "- `null` in place of a number with a fraction: it can't be computed. JSON has no word",
        "  for that.",
        "- Paths are text, as the command was given them or from the root of the file system.",
        "  Sizes are bytes, times seconds, unless the name says otherwise.",
        "- The words of messages aren't part of this: a program looks at `kind` and `exit_code`.",
        "",
        f"{', '.join(f'`{name}`' for name in sorted(json_schemas.REFUSES_PARTS))} print their",
        "whole result even where they refuse a part of it; `error` then stands in the result.",
        "",
        "| command | schema |",
        "|---|---|",
    ]
    for command in json_schemas.RESULTS:
        name = json_schemas.file_of(command)
        yield f"| `brainfed {command}` | [{name}]({name}) |"


def _errors() -> Iterator[str]:
    yield from [
        "# Errors and exit codes",
        "",
        "Every error says what is wrong, where, what was expected and found, and what to do next,",
        "on stderr. With `--json` stdout holds an object `error` with `kind` (a name below),",
        "`exit_code`, `message`, and where they are known `where`, `expected`, `found`, `next`.",
        "After an error the files are as they were.",
        "",
        "| exit code | about |",
        "|---|---|",
        "| 0 | it worked |",
        *(f"| {code} | {text} |" for code, text in EXIT_CODES.items()),
        "",
    ]
    for code, about in EXIT_CODES.items():
        kinds = [kind for kind in error_classes() if kind.exit_code == code]
        yield from [f"## {code}: {about}", "", "| kind | |", "|---|---|"]
        yield from (f"| `{kind.__name__}` | {_sentence(kind)} |" for kind in kinds)
        yield ""


def error_classes() -> list[type[errors.BrainfedError]]:
    """All classes of errors, in the order of the module, then those that carry a result."""
    tree = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.BrainfedError)
    ]
    return [
        *tree,
        FlawedScanError,
        NotAlignedError,
        BadCasesError,
        RefusedCasesError,
        RefusedPredictionsError,
    ]


def _sentence(kind: type[errors.BrainfedError]) -> str:
    if kind is errors.BrainfedError:
        return "An error that brainfed didn't foresee."
    return inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0].replace("\n", " ")


if __name__ == "__main__":
    main()
