"""Results as JSON and in words, questions, and the bar."""

import io
import json
import math
import sys
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainfed.cli import bar as bars
from brainfed.cli import console
from brainfed.cli.bar import Bar
from brainfed.cli.console import Table
from brainfed.errors import PlanError, UsageError
from tests.builders import a_plan
from tests.cli.typed import too_wide


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True)
class Thing:
    path: Path
    parts: tuple[object, ...]
    by_colour: dict[Colour, int]


def drawn(*parts: str | Table) -> str:
    stream = io.StringIO()
    console.show_words(parts, stream)
    return stream.getvalue()


def test_a_result_becomes_plain_data() -> None:
    inner = Thing(Path("a"), (), {})
    thing = Thing(Path("/x"), (1, 2.5, None, Colour.RED, inner), {Colour.RED: 3})
    assert json.loads(json.dumps(console.plain(thing))) == {
        "path": "/x",
        "parts": [1, 2.5, None, "red", {"path": "a", "parts": [], "by_colour": {}}],
        "by_colour": {"red": 3},
    }


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_has_no_word_for_becomes_null(number: float) -> None:
    assert console.plain(Thing(Path("a"), (number, 1.5), {}))["parts"] == [None, 1.5]


def test_a_plan_and_an_error_become_plain_data() -> None:
    assert console.plain(a_plan(rounds=3))["rounds"] == 3
    error = PlanError("Wrong", expected="1", hint="mend it")
    assert console.plain(error) == {
        "kind": "PlanError",
        "exit_code": 4,
        "message": "Wrong",
        "expected": "1",
        "next": "mend it",
    }


@given(st.text(max_size=400))
def test_no_text_can_paint_on_the_terminal(text: str) -> None:
    assert all(c.isprintable() or c == "\n" for c in drawn(text))


@given(st.lists(st.text(alphabet="abc-", min_size=1, max_size=30), max_size=40))
def test_words_fit_the_width_and_none_is_lost(words: list[str]) -> None:
    text = console.wrapped(" ".join(words))
    assert too_wide(text) == []
    assert text.split() == words


def test_a_long_path_stays_whole() -> None:
    path = "/" + "folder/" * 20 + "file"
    assert path in drawn(f"The update: {path}").split()


def test_a_list_item_hangs_under_its_first_word() -> None:
    lines = drawn("- " + "word " * 30).splitlines()
    assert lines[0].startswith("- word")
    assert all(line.startswith("  word") for line in lines[1:])


def test_a_table_fits_80_columns_without_colour_codes() -> None:
    row = ("a-very-long-name-" * 6, 3, 0.25, None, True, "\x1b[31mred")
    text = drawn(Table(("name", "n", "share", "missing", "known", "remark"), [row]))
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "\x1b" not in text
    assert {"0.250", "-", "yes"} <= set(text.split())


def test_numbers_stand_to_the_right() -> None:
    lines = drawn(Table(("n",), [(5,), (1000,)])).splitlines()
    assert lines[-2:] == ["   5", "1000"]


@pytest.mark.parametrize(
    ("n", "words"), [(7, "7 bytes"), (1500, "1.5 kB"), (31_384_324, "31.4 MB")]
)
def test_a_size_is_said_in_decimal_units(n: int, words: str) -> None:
    assert console.size_words(n) == words


def test_a_question_without_a_terminal_names_its_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    with pytest.raises(UsageError, match="give --yes"):
        console.confirm("Go on?", flag="--yes")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("typed", "is_yes"), [("y\n", True), ("YES\n", True), ("n\n", False), ("\n", False)]
)
def test_anything_but_yes_is_no(monkeypatch: pytest.MonkeyPatch, typed: str, is_yes: bool) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    assert console.confirm("Go on?", flag="--yes") is is_yes


def test_an_end_of_input_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(""))
    with pytest.raises(UsageError, match="no terminal"):
        console.confirm("Go on?", flag="--yes")


def at_a_terminal(monkeypatch: pytest.MonkeyPatch, *, after_seconds: float) -> Terminal:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(bars, "PATIENCE_SECONDS", -after_seconds)
    return screen


def test_short_work_shows_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = at_a_terminal(monkeypatch, after_seconds=-60)
    with console.progress() as bar:
        bar("training", 1, 10)
    assert screen.getvalue() == ""


def test_long_work_shows_a_bar_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = at_a_terminal(monkeypatch, after_seconds=0)
    with console.progress() as bar:
        bar("reading cases", 2, 2)
        bar("training", 3, 10, "loss 0.5 \x07")
        time.sleep(0.15)
        bar("training", 4, 10, "loss 0.4")
    shown = screen.getvalue()
    assert "training" in shown
    assert "loss 0.4" in shown
    assert "\x07" not in shown


def test_nothing_is_drawn_into_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bars, "PATIENCE_SECONDS", 0)
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stderr", pipe)
    bar = Bar()
    bar("training", 1, 10)
    bar.hide()
    assert pipe.getvalue() == ""


def test_a_command_to_be_copied_stays_one_line() -> None:
    command = "ssh-keygen -Y verify " + "-s a-long-file-name.sig " * 20

    assert console.wrapped(f"Check it:\n{console.COMMAND}{command}") == f"Check it:\n  {command}"
