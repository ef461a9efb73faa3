"""The view of a running round: what it says, where it keeps quiet, and how it ends."""

import io
import os
import pty
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from brainfed.cli import live
from brainfed.cli.live import Course, TrainingView, training_view

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class AStep:
    number: int
    n_steps: int = 400
    loss: float = 0.5
    dice: float = 0.6
    rate: float = 0.0042
    n_samples: int = 16


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(live, "time", SimpleNamespace(monotonic=lambda: self.now))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def a_console(width: int = 80, encoding: str = "utf-8") -> Console:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    return Console(file=file, force_terminal=True, width=width, color_system=None, _environ={})


def seen(view: TrainingView, step: AStep) -> list[str]:
    """The lines of the picture, without what paints."""
    console = view._console
    assert console is not None
    with console.capture() as captured:
        console.print(view.picture(step))
    return captured.get().splitlines()


def trained(clock: Clock, *, first: int = 1, last: int = 100, width: int = 80) -> list[str]:
    """What is seen after these steps of half a second, 32 samples a second."""
    view = TrainingView(a_console(width))
    for number in range(first, last + 1):
        clock.now += 0.5
        view.step(AStep(number, loss=1 / number, dice=1 - 1 / number))
    view.close()
    return seen(view, AStep(last, loss=1 / last, dice=1 - 1 / last))


def test_it_says_step_time_loss_dice_speed_rate_and_memory(clock: Clock) -> None:
    head, loss, dice, figures, *_ = trained(clock, last=160)
    assert head.startswith("step 160 of 400")
    assert head.rstrip().endswith("2 min left")
    assert loss.startswith("loss 0.006")
    assert dice.startswith("Dice 0.994")
    assert "32.0 images/s" in figures
    assert "rate 0.0042" in figures
    assert "GB" in figures


def test_the_course_falls_with_the_loss_and_rises_with_the_dice(clock: Clock) -> None:
    _, loss, dice, *_ = trained(clock, last=40)
    assert "█" in loss.split()[-1][:2]
    assert loss.endswith("▁")
    assert dice.split()[-1].startswith("▁")
    assert dice.endswith("█")


@pytest.mark.parametrize("width", [20, 33, 60, 80, 200])
def test_it_fits_the_terminal(clock: Clock, width: int) -> None:
    lines = trained(clock, width=width)
    assert max(map(len, lines)) <= width
    assert lines[0].startswith("step 100 of 400"[:width])
    assert len(lines) < 9


def test_a_terminal_without_unicode_gets_plain_signs(clock: Clock) -> None:
    view = TrainingView(a_console(40, "ascii"))
    for number in range(1, 30):
        clock.now += 0.5
        view.step(AStep(number, loss=1 / number))
    view.close()
    assert all(line.isascii() for line in seen(view, AStep(29)))


def test_a_resumed_round_counts_its_time_from_where_it_goes_on(clock: Clock) -> None:
    head, *_ = trained(clock, first=301, last=340)
    assert head.startswith("step 340 of 400")
    assert head.rstrip().endswith("30 s left")


def test_notes_of_finished_work_stay_in_sight_without_control_characters(clock: Clock) -> None:
    view = TrainingView(a_console())
    view.progress("reading cases", 1, 2, "half way")
    view.progress("reading cases", 2, 2, "kept in memory\x1b[2J")
    view.progress("weights that came", 1, 1, "Dice 0.613")
    lines = seen(view_after_steps(view, clock), AStep(9))
    assert r"reading cases: kept in memory\x1b[2J" in lines
    assert "weights that came: Dice 0.613" in lines


def view_after_steps(view: TrainingView, clock: Clock) -> TrainingView:
    for number in range(1, 10):
        clock.now += 0.5
        view.step(AStep(number))
    view.close()
    return view


def test_it_leaves_nothing_on_the_screen_and_the_cursor_visible(clock: Clock) -> None:
    console = a_console()
    view_after_steps(TrainingView(console), clock)
    console.file.flush()
    painted = console.file.buffer.getvalue().decode()  # type: ignore[attr-defined]
    assert painted.rindex("\x1b[?25l") < painted.rindex("\x1b[?25h")
    assert painted.rstrip().endswith("\x1b[2K")


@pytest.mark.parametrize("quiet", [True, False])
def test_it_keeps_quiet_in_a_pipe_and_with_json(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, quiet: bool
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return quiet

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with training_view(quiet=quiet) as view:
        for number in range(1, 50):
            clock.now += 1
            view.progress("reading cases", number, 49)
            view.step(AStep(number))
    assert screen.getvalue() == ""


@given(st.lists(st.floats(-1e6, 1e6), max_size=700), st.integers(1, 80))
def test_a_course_takes_few_signs_however_long_it_is(values: list[float], width: int) -> None:
    course = Course(most=64)
    for value in values:
        course.add(value)
    drawn = course.drawn(width)
    assert len(drawn) <= min(width, len(values))
    assert bool(drawn) == bool(values)
    assert set(drawn) <= set("▁▂▃▄▅▆▇█")


def test_a_long_course_keeps_its_shape() -> None:
    course = Course(most=64)
    for number in range(10_000):
        course.add(-number)
    drawn = course.drawn(40)
    assert list(drawn) == sorted(drawn, reverse=True)
    assert (drawn[0], drawn[-1]) == ("█", "▁")


AT_A_TERMINAL = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests may ignore it
sys.path.insert(0, ".")
from tests.cli.test_live import AStep
from brainfed.cli import live
live.PATIENCE_SECONDS = 0
with live.training_view(quiet=False) as view:
    for number in range(1, 400):
        view.step(AStep(number))
        time.sleep(0.05)
"""


def test_ctrl_c_leaves_the_terminal_whole() -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", AT_A_TERMINAL],
        stderr=theirs,
        cwd=ROOT,
        env=os.environ | {"TERM": "xterm"},
    )
    os.close(theirs)
    painted = b""
    while b"images/s" not in painted:
        painted += os.read(ours, 4096)
    process.send_signal(signal.SIGINT)
    with pytest.raises(OSError, match="Input/output"):  # the end of a terminal
        while True:
            painted += os.read(ours, 4096)
    os.close(ours)
    assert process.wait(timeout=60) != 0
    assert painted.rindex(b"\x1b[?25h") > painted.rindex(b"\x1b[?25l")
