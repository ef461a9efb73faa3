"""What is printed can be read at 80 columns, without colour, and by a screen reader."""

import io
import json
import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from brainfed.cli import bar as bars
from brainfed.cli import live
from brainfed.cli.app import app
from brainfed.cli.bar import Bar
from brainfed.cli.help_map import EXAMPLES, LINES
from brainfed.cli.live import training_view
from tests.cli.test_help import all_commands
from tests.cli.test_live import AStep
from tests.cli.typed import Typed, too_wide
from tests.federation import Small, a_waiting_federation

DRAWN = re.compile("[\x1b\r\u2190-\u21ff\u2500-\u28ff]")
"""What moves a cursor, colours, or is a picture: arrows, lines, blocks, dots."""
LONG_COMMANDS = ("  ssh-keygen ", "  cd ")
"""Lines to be copied, which stay whole."""

RUN_ALL = """
import json, sys
from brainfed.cli.app import run
for words in json.loads(sys.argv[1]):
    print("$", *words, flush=True)
    print("exit", run(words), flush=True)
"""


def on_a_terminal(*lines: list[str], term: str, **variables: str) -> str:
    """All that appears on a terminal of 80 columns, results, words and errors."""
    ours, theirs = pty.openpty()
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LC_ALL") if name in os.environ}
    env = kept | {"TERM": term, "COLUMNS": "80", "PYTHONIOENCODING": "utf-8"} | variables
    process = subprocess.Popen(
        [sys.executable, "-c", RUN_ALL, json.dumps(lines)],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env=env,
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            seen += os.read(ours, 65536)
        except OSError:  # the end of a terminal
            break
    os.close(ours)
    assert process.wait() == 0, seen
    return seen.decode("utf-8").replace("\r\n", "\n")


def unreadable(text: str) -> list[str]:
    """Lines that are too wide or drawn."""
    wide = [line for line in too_wide(text) if not line.startswith(LONG_COMMANDS)]
    typed = [line for line in wide if not line.startswith("$ ")]
    return typed + [line for line in text.split("\n") if DRAWN.search(line)]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return a_waiting_federation(tmp_path_factory.mktemp("federation"))


@pytest.fixture(scope="module")
def outputs(small: Small) -> list[list[str]]:
    """Command lines that show tables, lists, files and errors."""
    at_coordinator = ["--workspace", str(small.coordinator.root)]
    at_site = ["--workspace", str(small.sites["hospital-a"].root)]
    update = next(small.coordinator.round_folder(1).glob("*.update.safetensors"))
    return [
        ["status", *at_coordinator],
        ["status", *at_site],
        ["inspect", str(update), *at_coordinator],
        ["aggregate", "--dry-run", *at_coordinator],
        ["aggregate", "--without", "nobody", "--reason", "late", *at_coordinator],
        ["export", *at_site],
        ["plan", "check", str(small.root / "plan.toml")],
        ["plan", "cost", str(small.root / "plan.toml")],
        ["audit", str(small.coordinator.root)],
        ["split", "--frobnicate"],
    ]


def test_every_help_and_every_output_is_plain_on_a_dumb_terminal(outputs: list[list[str]]) -> None:
    helps = [[*command, "--help"] for command in all_commands()]
    shown = on_a_terminal(*helps, *outputs, term="dumb")
    assert shown.count("\nexit ") == len(helps) + len(outputs)
    assert "exit 70" not in shown
    assert unreadable(shown) == []


def test_without_colour_nothing_is_drawn_on_any_terminal(outputs: list[list[str]]) -> None:
    table = outputs[0]
    plain = on_a_terminal(["--help"], table, term="xterm-256color", NO_COLOR="1")
    assert unreadable(plain) == []
    # The same is drawn where nothing speaks against it, and says the same.
    drawn = on_a_terminal(["--help"], table, term="xterm-256color")
    assert "\u2500" in drawn
    words = re.sub("\x1b\\[[0-9;]*m|\u2500", "", drawn).split()
    assert words == plain.split()


def test_help_fits_a_screen_and_names_every_command_on_a_line(typed: Typed) -> None:
    first = typed("--help").out.splitlines()[:40]
    group: Any = typer.main.get_command(app)
    for name in group.commands:
        [line] = [line for line in first if line.startswith(f"  {name} ")]
        assert len(line) > 30, f"{name}: give it a line in cli/help_map.py"
    assert max(map(len, first)) <= 80
    assert [line for line in first if "..." in line] == [
        "Usage: brainfed [OPTIONS] COMMAND [ARGS]..."
    ]
    panels = [line for line in first if line.endswith(":")]
    assert panels == ["Both:", "Coordinator:", "Site:", "Without a workspace:"]


def leaves() -> dict[str, Any]:
    """Every command that does something, by its whole name."""
    group: Any = typer.main.get_command(app)
    found = {}
    for name, command in group.commands.items():
        inner = getattr(command, "commands", None)
        found |= {f"{name} {sub}": c for sub, c in inner.items()} if inner else {name: command}
    return found


def test_every_command_has_an_example_that_can_be_typed() -> None:
    found = leaves()
    assert set(EXAMPLES) == set(found)
    assert set(LINES) == {name.partition(" ")[0] for name in found}
    for name, command in found.items():
        assert EXAMPLES[name].startswith(f"brainfed {name.removesuffix(' run')}")
        words = shlex.split(EXAMPLES[name])[1:]
        rest = words[1:] if name == "simulate run" else words[len(name.split()) :]
        context = command.make_context(name, rest)  # refuses what it doesn't know
        assert EXAMPLES[name] in command.get_help(context)


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        for module in (bars, live):
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def a_dumb_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "dumb")
    return screen


def test_a_dumb_terminal_is_told_in_words_now_and_then_how_far_work_is(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    dumb = a_dumb_terminal(monkeypatch)
    bar = Bar()
    for case in range(200):
        bar("cases", case, 200, "patient \x07" if case == 22 else "")
        clock.now += 1
    bar.hide()
    lines = dumb.getvalue().splitlines()
    assert lines[0] == "cases 20 of 200, about 3 min left"
    assert lines[1:3] == ["cases 40 of 200, about 3 min left", "cases 60 of 200, about 2 min left"]
    assert lines[-1] == "cases 180 of 200, about 20 s left"
    assert len(lines) == 9


def test_short_work_says_nothing_on_a_dumb_terminal(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    dumb = a_dumb_terminal(monkeypatch)
    bar = Bar()
    for case in range(5):
        bar("cases", case, 5)
        clock.now += 3
    assert dumb.getvalue() == ""


def test_a_new_piece_of_work_counts_its_own_time(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    dumb = a_dumb_terminal(monkeypatch)
    bar = Bar()
    bar("reading", 1, 2)
    clock.now += 100
    for case in range(1, 31):
        bar("training", case, 31)
        clock.now += 1
    assert dumb.getvalue().splitlines() == [
        "training 1 of 31",
        "training 21 of 31, about 10 s left",
    ]


def test_a_dumb_terminal_is_told_how_training_goes(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    dumb = a_dumb_terminal(monkeypatch)
    with training_view(quiet=False) as view:
        view.progress("weights that came", 1, 1, "Dice 0.613")
        for number in range(1, 101):
            clock.now += 1
            view.step(AStep(number))
    assert dumb.getvalue().splitlines()[:2] == [
        "weights that came: Dice 0.613",
        "step 20 of 400, about 6 min left, loss 0.500, Dice 0.600",
    ]
    assert len(dumb.getvalue().splitlines()) == 6


@pytest.mark.parametrize("quiet", [True, False])
def test_a_pipe_is_told_nothing_of_progress(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, quiet: bool
) -> None:
    screen = Terminal() if quiet else io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "dumb")
    with training_view(quiet=quiet) as view:
        for number in range(1, 100):
            clock.now += 1
            view.progress("reading", number, 99, "note")
            view.step(AStep(number))
    assert screen.getvalue() == ""


def test_no_text_of_the_command_line_means_something_by_colour_or_sign_alone() -> None:
    folder = Path(live.__file__).parent
    for path in folder.glob("*.py"):
        signs = set(DRAWN.findall(path.read_text("utf-8")))
        assert signs <= (set(live._BLOCKS) if path.name == "live.py" else set()), path.name
