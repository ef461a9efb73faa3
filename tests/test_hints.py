"""Every error says what to do next, and every command that a text names exists as it is named."""

import ast
import difflib
import functools
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from brainfed import errors
from brainfed.cli.app import app
from brainfed.cli.simulate import PlanFirst

SOURCE = Path(errors.__file__).parent
KINDS = {
    name: kind
    for name, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, errors.BrainfedError)
}


def trees() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(SOURCE.rglob("*.py")):
        yield path.relative_to(SOURCE).as_posix(), ast.parse(path.read_text("utf-8"))


def name_of(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")


def without_a_hint(tree: ast.Module) -> list[int]:
    """Lines where an error of ours is made that will say nothing of what comes next."""
    return [
        call.lineno
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and name_of(call.func) in KINDS
        and not KINDS[name_of(call.func)].usual_hint
        and "hint" not in {keyword.arg for keyword in call.keywords}
    ]


def test_every_error_that_is_made_has_a_hint() -> None:
    assert {name: lines for name, tree in trees() if (lines := without_a_hint(tree))} == {}


def test_an_error_without_a_hint_would_be_noticed() -> None:
    assert without_a_hint(ast.parse('raise errors.BrainfedError("Wrong", found=1)')) == [1]
    assert without_a_hint(ast.parse('BrainfedError("Wrong", hint="do this")')) == []


@pytest.mark.parametrize("name", sorted(set(KINDS) - {"BrainfedError"}))
def test_an_error_without_a_hint_of_its_own_takes_that_of_its_class(name: str) -> None:
    assert KINDS[name]("Wrong").details()["next"] == KINDS[name].usual_hint
    assert KINDS[name]("Wrong", hint="do this").details()["next"] == "do this"


def texts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The texts of a module, f-strings with a word for what they fill in; no docstrings."""
    docstrings = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    parts = {
        id(value) for n in ast.walk(tree) if isinstance(n, ast.JoinedStr) for value in n.values
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            pieces = [str(v.value) if isinstance(v, ast.Constant) else "WORD" for v in node.values]
            yield node.lineno, "".join(pieces)
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in docstrings | parts
        ):
            yield node.lineno, node.value


@functools.cache
def the_app() -> Any:
    return typer.main.get_command(app)


def wrong_commands(text: str) -> list[str]:
    """What a text calls a command of brainfed, or an option of one, and isn't.

    "brainfed checks" is a sentence: a word that is no command counts where it stands in backticks,
    or is one misspelt.
    """
    found = []
    for told in re.finditer(r"(`)?brainfed ([a-z][^`,;()<”\n]*)", text):
        said = re.split(r"[.:](?: |$)", told[2])[0].rstrip()
        command, rest = the_app(), said.split()
        near = difflib.get_close_matches(rest[0], command.commands, 1, 0.8)
        if told[1] is None and (not near or rest[0] == f"{near[0]}s"):
            continue
        while hasattr(command, "commands") and rest:
            if isinstance(command, PlanFirst) and rest[0] not in command.commands:
                rest.insert(0, "run")
            if rest[0] not in command.commands:
                found.append(said)
                break
            command = command.commands[rest.pop(0)]
        options = {option for p in command.params for option in (*p.opts, *p.secondary_opts)}
        named = [word for word in rest if word.startswith("--")]
        found += [f"{said}: {word}" for word in named if word not in {*options, "--help"}]
    return found


def test_every_command_and_option_that_a_text_names_exists() -> None:
    wrong = {
        f"{name}:{line}": bad
        for name, tree in trees()
        for line, text in texts(tree)
        if (bad := wrong_commands(text))
    }
    assert wrong == {}


@pytest.mark.parametrize(
    "text",
    [
        "run `brainfed forget a`",
        "brainfed export --as FOLDER",
        "brainfed key turn",
        "`brainfed ini`",
    ],
)
def test_a_command_that_does_not_exist_would_be_noticed(text: str) -> None:
    assert wrong_commands(text)


@pytest.mark.parametrize(
    "text",
    [
        "brainfed import FOLDER, then brainfed train-round.",
        "`brainfed key rotate` makes one",
        "brainfed release --approve --key FILE --who NAME",
        "brainfed simulate PLAN --data FOLDER",
        "only files written by brainfed are exchanged",
        "the sender's brainfed may be newer",
    ],
)
def test_a_command_that_exists_is_recognised(text: str) -> None:
    assert wrong_commands(text) == []
