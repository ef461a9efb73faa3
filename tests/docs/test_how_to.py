"""The pages for people name tests that exist, commands that exist, and options that they have."""

import ast
import re
import shlex
from pathlib import Path

import pytest
import typer

from brainfed.cli.app import app
from brainfed.cli.simulate import PlanFirst

ROOT = Path(__file__).resolve().parents[2]
HOW_TO = sorted((ROOT / "docs" / "how-to").glob("*.md"))
THREATS = ROOT / "docs" / "explanation" / "threats.md"
THREATS_OF_THE_ISSUE = (
    "Tampering",
    "Replay",
    "Rollback",
    "Impersonation",
    "Equivocation: two stories",
    "A site is left out",
    "A stolen key",
    "Hostile files",
    "Poisoned updates",
    "Self-declared counts",
    "Leakage through weights",
    "Leakage through counts and scores",
    "A lost medium, a curious courier",
)


def commands() -> list[tuple[str, str]]:
    """Every line of a shell block that calls brainfed, with its page."""
    found = []
    for page in HOW_TO:
        for block in re.findall(r"^ *```sh\n(.*?)^ *```$", page.read_text("utf-8"), re.S | re.M):
            lines = (line.strip() for line in block.splitlines())
            found += [(page.stem, line) for line in lines if line.startswith("brainfed ")]
    return found


def test_the_how_to_pages_have_commands() -> None:
    assert {page for page, _ in commands()} >= {"ceremony", "incidents"}
    assert len(commands()) > 40


@pytest.mark.parametrize(("page", "line"), sorted(set(commands())))
def test_a_command_of_a_how_to_page_is_understood_as_it_stands(page: str, line: str) -> None:
    command, words = typer.main.get_command(app), shlex.split(line)[1:]
    while hasattr(command, "commands"):
        if isinstance(command, PlanFirst) and words[0] not in command.commands:
            words.insert(0, "run")
        assert words[0] in command.commands, f"{page}: {line}"
        command = command.commands[words.pop(0)]
    # Parsed to the end, with every option and argument, and not carried out.
    with command.make_context(str(command.name), list(words)):
        pass


def test_a_command_that_does_not_exist_would_be_noticed() -> None:
    with pytest.raises(AssertionError):
        test_a_command_of_a_how_to_page_is_understood_as_it_stands("none", "brainfed forget a")
    with pytest.raises(typer.TyperException):
        test_a_command_of_a_how_to_page_is_understood_as_it_stands("none", "brainfed export --as x")


def named_tests() -> list[str]:
    return re.findall(r"`(tests/[\w/]+\.py::test_\w+)`", THREATS.read_text("utf-8"))


@pytest.mark.parametrize("name", sorted(set(named_tests())))
def test_a_test_that_the_page_on_threats_names_exists(name: str) -> None:
    path, _, function = name.partition("::")
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_threat_of_the_issue_says_its_control_its_proof_and_what_is_not_defended() -> None:
    text = THREATS.read_text("utf-8").split("\n## The threats\n")[1].split("\n## ")[0]
    parts = {part.split("\n", 1)[0]: part for part in text.split("\n### ")[1:]}
    assert set(THREATS_OF_THE_ISSUE) <= set(parts)
    for name, part in parts.items():
        for word in ("* **Control.**", "* **Proved by.**", "* **Not defended.**"):
            assert word in part, f"{name}: {word}"
        assert named_tests_in(part) or name == "Leakage through weights", name


def named_tests_in(part: str) -> list[str]:
    return re.findall(r"::(test_\w+)`", part)


def test_the_page_on_threats_says_who_reads_a_sites_own_weights() -> None:
    text = THREATS.read_text("utf-8")
    assert "**The coordinator reads each site's own weights.**" in text
    assert "**the next hospital reads the weights" in text
