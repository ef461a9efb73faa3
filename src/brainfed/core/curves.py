"""The curves of a round of training as one small picture: numbers in, PNG bytes out.

Above, loss and Dice over the steps; below, the learning rate. The steps are many and noisy, so
that each is a faint point and their running mean the line. The same numbers give the same bytes.
"""

import io
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from brainfed.core.charts import drawing
from brainfed.core.metrics import Measure
from brainfed.core.progress import FinishedStep
from brainfed.core.scoring import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, FAINT, LOSS, DICE = "#1c2430", "#9aa3af", "#1f6f9e", "#b4561d"
"""On white paper; told apart without colour too, since each has a panel or a mark of its own."""
_DPI = 100
_SIZE_INCHES = (9.0, 4.5)
N_MEANS = 60
"""The line is the mean over as many steps as it takes to need no more points than this."""


def training_curves(
    steps: Sequence[FinishedStep], *, incoming: Sequence[Summary], result: Sequence[Summary]
) -> bytes:
    """Loss, Dice and learning rate over the steps, with the validation Dice before and after.

    Args:
        steps: Ascending; without one the panels are empty.
        incoming: Scores of the weights that training began with; of the validation patients.
        result: The same of the weights that it ended with.

    Returns:
        A PNG file of 900 x 450 pixels.
    """
    from matplotlib.ticker import MaxNLocator

    with drawing(_colours(), _SIZE_INCHES) as figure:
        panels = figure.subplot_mosaic([["loss", "dice"], ["rate", "rate"]], height_ratios=[4, 1])
        last = steps[-1].number if steps else 1
        for axes in panels.values():
            axes.grid(axis="y")
            axes.set_xlim(0, last)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _over_steps(panels["loss"], steps, [step.loss for step in steps], LOSS)
        panels["loss"].set_title("loss of the batch", loc="left")
        _over_steps(panels["dice"], steps, [step.dice for step in steps], DICE)
        _validation(panels["dice"], last, incoming, result)
        panels["dice"].set_title("Dice of the batch", loc="left")
        panels["dice"].set_ylim(-0.02, 1.02)
        panels["rate"].plot(
            [step.number for step in steps], [step.rate for step in steps], color=INK
        )
        panels["rate"].set_title("learning rate", loc="left")
        panels["rate"].set_ylim(bottom=0)
        panels["rate"].set_xlabel("step")
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=_DPI, metadata={"Software": None})
        return stream.getvalue()


def _colours() -> dict[str, Any]:
    """The style of the page's charts, on white instead of the page's colours."""
    return {
        "axes.edgecolor": FAINT,
        "axes.labelcolor": INK,
        "axes.titlecolor": INK,
        "axes.titlesize": 10,
        "text.color": INK,
        "grid.color": "#e3e6ea",
        "grid.linewidth": 0.8,
        "figure.facecolor": "white",
        "xtick.color": INK,
        "ytick.color": INK,
        "legend.fontsize": 8,
    }


def _over_steps(
    axes: "Axes", steps: Sequence[FinishedStep], values: Sequence[float], colour: str
) -> None:
    """Every step as a faint point, the means as a line."""
    if not steps:
        return
    numbers = [step.number for step in steps]
    axes.plot(numbers, values, ".", color=colour, alpha=0.3, markersize=4, markeredgewidth=0)
    every = -(-len(steps) // N_MEANS)
    chunks = [slice(start, start + every) for start in range(0, len(steps), every)]
    middles = [statistics.fmean(numbers[chunk]) for chunk in chunks]
    means = [statistics.fmean(values[chunk]) for chunk in chunks]
    # Of few points a line alone shows little, of one nothing.
    axes.plot(middles, means, color=colour, marker="o" if len(means) < 10 else None)


def _validation(
    axes: "Axes", last: int, incoming: Sequence[Summary], result: Sequence[Summary]
) -> None:
    """Mean Dice of the validation patients over the regions, before and after training."""
    for place, summaries, mark, name in (
        (0, incoming, "o", "weights that came"),
        (last, result, "D", "after training"),
    ):
        means = [s.mean for s in summaries if s.measure is Measure.DICE and s.mean is not None]
        if means:
            dice = statistics.fmean(means)
            label = f"validation, {name}: {dice:.3f}"
            axes.plot([place], [dice], mark, color=INK, markersize=7, label=label, clip_on=False)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="best")
