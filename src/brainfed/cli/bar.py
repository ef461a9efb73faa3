"""How far work is: a bar where a terminal draws, words now and then where it can't."""

import sys
import time
from typing import TYPE_CHECKING

from brainfed.cli.console import can_draw, say, visible

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

PATIENCE_SECONDS = 2.0
"""Work that ends sooner shows nothing."""
WORDS_SECONDS = 20.0
"""Between two lines in words."""


class Bar:
    """How far work is, with the time left, on a terminal, for work that takes its time.

    A bar where a terminal draws, and a line in words now and then where it can't.
    """

    def __init__(self) -> None:
        self._start = self._told_at = time.monotonic()
        self._drawn: tuple[RichProgress, TaskID] | None = None
        self._what = ""
        self._done = 0
        self._began = (self._start, 0)
        """When this work was first heard of, and how much of it was done then."""

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        """Take notice of finished work (`core.progress`)."""
        now = time.monotonic()
        is_new = what != self._what or done < self._done
        self._what, self._done = what, done
        if is_new:
            self._began = (now, done)
        if not sys.stderr.isatty() or now - self._start < PATIENCE_SECONDS:
            return
        if not can_draw(sys.stderr):
            self._tell(now, total, note)
            return
        if self._drawn is None:
            self._drawn = _new_bar()
            is_new = True
        drawn, task = self._drawn
        if is_new:
            drawn.reset(task, total=total, description=what)
        drawn.update(task, completed=done, total=total, note=visible(note))

    def _tell(self, now: float, total: int, note: str) -> None:
        """Write a line, unless one was written lately."""
        if now - self._told_at < WORDS_SECONDS:
            return
        self._told_at = now
        since, done_then = self._began
        words = [f"{self._what} {self._done} of {total}"]
        if self._done > done_then:
            seconds = (now - since) / (self._done - done_then) * (total - self._done)
            words.append(f"about {time_words(seconds)} left")
        say(", ".join([*words, note] if note else words))

    def hide(self) -> None:
        """Take the bar away; the next finished work brings it back."""
        if self._drawn is not None:
            self._drawn[0].stop()
            self._drawn = None


def time_words(seconds: float) -> str:
    """A time for people."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _new_bar() -> "tuple[RichProgress, TaskID]":
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    drawn = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[note]}", markup=False),
        console=Console(stderr=True),
        transient=True,
    )
    drawn.start()
    return drawn, drawn.add_task("", total=None, note="")
