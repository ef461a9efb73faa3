"""What `train-round` shows on a terminal while it runs, redrawn in place and gone afterwards.

The step, the time left, loss and Dice with their course, the speed, the memory, and what is known
of the round. Drawn a few times a second at most and from the training's own calls, without a
thread, so that nothing is left over when it is interrupted. A terminal that can't draw gets a line
in words now and then.
"""

import contextlib
import itertools
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from brainfed.cli.bar import PATIENCE_SECONDS, Bar, time_words
from brainfed.cli.console import can_draw, say, visible
from brainfed.core.progress import FinishedStep

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.live import Live

PAUSE_SECONDS = 0.25
"""Between two drawings."""
N_RECENT = 50
"""Steps whose mean time says how fast it goes; the first of a run are slower."""
MAX_PICTURE = 100
"""Columns."""
_BLOCKS, _SIGNS = "▁▂▃▄▅▆▇█", "_.-~=+*#"
"""From low to high; the second for terminals without the first."""


class ShownStep(FinishedStep, Protocol):
    """What is shown of a step."""

    @property
    def n_steps(self) -> int:
        """Of the round."""

    @property
    def n_samples(self) -> int:
        """Slices or patches of the batch."""


class Course:
    """How a number went, in few values however many there were: each a mean of as many."""

    def __init__(self, most: int = 2 * MAX_PICTURE) -> None:
        self._most, self._every = most, 1
        self._means: list[float] = []
        self._open: list[float] = []

    def add(self, value: float) -> None:
        """Take the next value."""
        self._open.append(value)
        if len(self._open) < self._every:
            return
        self._means.append(sum(self._open) / len(self._open))
        self._open = []
        if len(self._means) == self._most:
            pairs = zip(self._means[::2], self._means[1::2], strict=True)
            self._means = [(one + other) / 2 for one, other in pairs]
            self._every *= 2

    def drawn(self, width: int, signs: str = _BLOCKS) -> str:
        """At most this many signs, the highest for the largest value."""
        n = len(self._means)
        width = min(width, n)
        edges = [n * column // width for column in range(width + 1)] if width else [0]
        parts = [self._means[a:b] for a, b in itertools.pairwise(edges)]
        heights = [sum(part) / len(part) for part in parts]
        low, high = min(heights, default=0.0), max(heights, default=0.0)
        scale = (len(signs) - 1) / (high - low) if high > low else 0.0
        return "".join(signs[round((height - low) * scale)] for height in heights)


class TrainingView:
    """Told of all work and of each step; draws them on a terminal."""

    def __init__(self, console: "Console | None", *, quiet: bool = False) -> None:
        """Draw on this console; where it is None, say it in words, unless quiet."""
        self._console = console
        self._quiet = quiet
        self._start = time.monotonic()
        self._drawn_at = self._start
        self._bar = Bar()
        self._facts: dict[str, str] = {}
        self._loss, self._dice = Course(), Course()
        self._times: deque[tuple[float, int]] = deque(maxlen=N_RECENT + 1)
        """When each recent step ended, and its samples."""
        self._live: Live | None = None

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        """Take notice of other work (`core.progress`); a note at its end stays in sight.

        Work of a single unit is such a note alone. Of `training` each step is told.
        """
        if self._quiet or what == "training":
            return
        if done == total and note:
            self._facts[what] = visible(note)
            if self._console is None:
                say(f"{what}: {note}")
        if total > 1 or not note:
            self._hide()
            self._bar(what, done, total, note)

    def step(self, step: ShownStep) -> None:
        """Take notice of a finished step, and draw."""
        if self._quiet:
            return
        if self._console is None:
            note = f"loss {step.loss:.3f}, Dice {step.dice:.3f}"
            self._bar("step", step.number, step.n_steps, note)
            return
        now = time.monotonic()
        self._loss.add(step.loss)
        self._dice.add(step.dice)
        self._times.append((now, step.n_samples))
        if now - self._start < PATIENCE_SECONDS:
            return
        if self._live is not None and now - self._drawn_at < PAUSE_SECONDS:
            return
        self._drawn_at = now
        self._bar.hide()
        picture = self.picture(step)
        if self._live is None:
            from rich.live import Live

            self._live = Live(picture, console=self._console, auto_refresh=False, transient=True)
            self._live.start(refresh=True)
        else:
            self._live.update(picture, refresh=True)

    def close(self) -> None:
        """Take everything away and leave the cursor as it was."""
        self._bar.hide()
        self._hide()

    def _hide(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def picture(self, step: ShownStep) -> "Group":
        """What is seen after a step."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        assert self._console is not None
        width = min(self._console.width, MAX_PICTURE)
        signs = _SIGNS if self._console.options.ascii_only else _BLOCKS
        words = f"step {step.number} of {step.n_steps}", self._time_left(step)
        n_bar = width - sum(map(len, words)) - 2
        bar = ProgressBar(step.n_steps, step.number, width=min(n_bar, 40))
        head = Table.grid(padding=(0, 1))
        head.add_row(words[0], bar, words[1])
        lines = [", ".join(self._figures(step))]
        lines += [f"{what}: {note}" for what, note in self._facts.items()]
        overflow: Literal["crop", "ellipsis"] = "crop" if signs is _SIGNS else "ellipsis"
        rows = [
            Text(f"{name} {value:<7.3f} {course.drawn(width - 13, signs)}", style, no_wrap=True)
            for name, value, course, style in (
                ("loss", step.loss, self._loss, "cyan"),
                ("Dice", step.dice, self._dice, "yellow"),
            )
        ]
        rows += [Text(line, no_wrap=True, overflow=overflow) for line in lines]
        if n_bar < 5:
            return Group(Text(", ".join(filter(None, words)), no_wrap=True, overflow="crop"), *rows)
        return Group(head, *rows)

    def _figures(self, step: ShownStep) -> list[str]:
        figures = [f"rate {step.rate:.2g}"]
        if seconds := self._seconds():
            n_samples = sum(n for _, n in list(self._times)[1:])
            figures.insert(0, f"{n_samples / seconds:.1f} images/s")
        memory = _memory()
        return [*figures, memory] if memory else figures

    def _seconds(self) -> float:
        """From the end of the first recent step to that of the last."""
        return self._times[-1][0] - self._times[0][0]

    def _time_left(self, step: ShownStep) -> str:
        n_recent = len(self._times) - 1
        if n_recent < 1:
            return ""
        seconds = self._seconds() / n_recent * (step.n_steps - step.number)
        return f"{time_words(seconds)} left"


def _memory() -> str:
    """Of all GPUs that this process uses, else of the process itself; empty where it isn't told."""
    import torch

    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        devices = range(torch.cuda.device_count())
        n_bytes = sum(torch.cuda.memory_reserved(number) for number in devices)
        return f"GPU memory {n_bytes / 1e9:.1f} GB"
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    for line in lines:
        if line.startswith("VmRSS:"):
            return f"memory {int(line.split()[1]) * 1024 / 1e9:.1f} GB"
    return ""


@contextlib.contextmanager
def training_view(*, quiet: bool) -> Iterator[TrainingView]:
    """A view for the length of the block; it speaks on a terminal alone, and not where quiet."""
    console = None
    quiet = quiet or not sys.stderr.isatty()
    if not quiet and can_draw(sys.stderr):
        from rich.console import Console

        console = Console(stderr=True)
    view = TrainingView(console, quiet=quiet)
    try:
        yield view
    finally:
        view.close()
