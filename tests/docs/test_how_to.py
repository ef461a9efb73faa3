"""The pages for people name tests that exist, commands that exist, and options that they have."""

import ast
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer

from brainfed.cli.app import app
from brainfed.cli.simulate import PlanFirst
from tests.docs.pages import CHANGELOG, DOCS, PAGES, ROOT, name_of, shell_blocks

THREATS = DOCS / "explanation" / "threats.md"
NAMING_TESTS = (THREATS, DOCS / "explanation" / "paper.md", DOCS / "review" / "questions.md")
BEGUN = {"evaluate --sub"}
"""What the shell is to complete, where that is measured."""
SHELL_PAGES = [page for page in PAGES if shell_blocks(page)]
BRAINFED = typer.main.get_command(app)
# Made from the code by docs/generate.py, which test_reference holds against it.
WRITTEN = [page for page in (*PAGES, CHANGELOG) if page.parent.name != "reference"]
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
    """Every line of a shell block that calls brainfed, with its page; lines that go on are one."""
    found = []
    for page in SHELL_PAGES:
        for block in shell_blocks(page):
            lines = (line.strip() for line in block.replace("\\\n", " ").splitlines())
            found += [(page.stem, line) for line in lines if line.startswith("brainfed ")]
    return found


def words_of(line: str) -> list[str]:
    """The words of the first command of a line of shell."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words = list(lexer)
    ends = (at for at, word in enumerate(words) if not word.strip("();<>|&"))
    return words[: next(ends, len(words))]


def test_the_how_to_pages_have_commands() -> None:
    assert {page for page, _ in commands()} >= {"README", "ceremony", "incidents", "tutorial"}
    assert len(commands()) > 100


@pytest.mark.parametrize(("page", "line"), sorted(set(commands())))
def test_a_command_of_a_how_to_page_is_understood_as_it_stands(page: str, line: str) -> None:
    command, words = BRAINFED, words_of(line)[1:]
    if words[0].startswith("--"):  # an option of brainfed itself, which ends it at once
        assert words[0] in {name for option in BRAINFED.params for name in option.opts}, line
        return
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


@pytest.mark.parametrize("page", SHELL_PAGES, ids=name_of)
def test_the_shell_understands_every_shell_block_of_a_page(page: Path) -> None:
    for block in shell_blocks(page):
        done = subprocess.run(
            ["bash", "-n"], input=block, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{done.stderr}\n{block}"


def test_every_make_target_that_a_page_names_exists() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    for page in WRITTEN:
        said = re.findall(r"`(?:[A-Z_]+=\S+ )*make ([\w-]+)[^`]*`", page.read_text("utf-8"))
        typed = re.findall(r"^make ([\w-]+)", "\n".join(shell_blocks(page)), re.M)
        for name in (*said, *typed):
            assert name in targets, f"{name_of(page)}: make {name}"


def test_every_command_and_option_that_stands_in_a_sentence_exists() -> None:
    found = 0
    for page in WRITTEN:
        text = re.sub(r"^ *```.*?^ *```$", "", page.read_text("utf-8"), flags=re.S | re.M)
        for line in set(re.findall(r"`brainfed ([a-z][^`]*)`", text)) - BEGUN:
            command, words = BRAINFED, line.split()
            while words and words[0] in getattr(command, "commands", {}):
                command = command.commands[words.pop(0)]
            assert command is not BRAINFED, f"{name_of(page)}: brainfed {line}"
            context = typer.Context(command)
            known = {name for option in command.get_params(context) for name in option.opts}
            if isinstance(command, PlanFirst):
                run = command.commands["run"]
                known |= {n for option in run.get_params(context) for n in option.opts}
            for word in words:
                option = word.partition("=")[0].rstrip(",.")
                if option.startswith("--"):
                    assert option in known, f"{name_of(page)}: brainfed {line}"
            found += 1
    assert found > 150


def named_tests() -> list[str]:
    text = "".join(page.read_text("utf-8") for page in NAMING_TESTS)
    return re.findall(r"`(tests/[\w/]+\.py::test_\w+)`", text)


@pytest.mark.parametrize("name", sorted(set(named_tests())))
def test_a_test_that_a_page_names_as_evidence_exists(name: str) -> None:
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
