"""What a command prints with --json, held against its published schema."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import typer
from jsonschema import Draft202012Validator

from brainfed.cli.app import app

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "reference" / "json"


def check_answer(words: list[str], out: str) -> None:
    """Fail where an answer doesn't fit the schema, or has a field that the schema doesn't know."""
    content = json.loads(out, parse_constant=_no_number)
    command = command_of(words)
    # A line that names no command can only be refused, and all commands refuse alike.
    validator(command or "status").validate(content)


def command_of(words: list[str]) -> str | None:
    """The command that words name, as `plan show`; `simulate PLAN` is `simulate run`."""
    group: Any = typer.main.get_command(app)
    name = next((word for word in words if not word.startswith("-")), "")
    inner = getattr(group.commands.get(name), "commands", None)
    if inner is None:
        return name if name in group.commands else None
    second = words[words.index(name) + 1]
    if second in inner:
        return f"{name} {second}"
    return f"{name} run" if "run" in inner else None


@cache
def validator(command: str) -> Draft202012Validator:
    """Of a published schema, closed: a later version may add fields, this one prints those."""
    schema = json.loads((FOLDER / f"{command.replace(' ', '-')}.json").read_text("utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(_closed(schema))


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(part) for key, part in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is not JSON")
