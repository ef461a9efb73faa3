"""Charts for a page: numbers in, SVG text out, drawn by matplotlib without a window.

The text stands inside an HTML page: it asks for nothing from elsewhere, its letters are text in
the page's font, and its colours are the page's CSS variables (`VARIABLES`), so that one drawing is
right in light, in dark and on paper. The same numbers give the same text.

matplotlib costs most of a second, so it is imported inside. It insists on a folder for its list of
fonts: `private_cache` gives it one that is gone afterwards, in place of one in the home folder.
"""

import contextlib
import io
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_NAMED = 8
"""Lines that can be told apart by colour and mark; of more, only the worst is."""
_INK, _FAINT, _WORST = "#010101", "#020202", "#030303"
_SITES = tuple(f"#0400{number:02x}" for number in range(MAX_NAMED))
_MARKS = ("o", "s", "^", "D", "v", "P", "X", "h")
VARIABLES = {_INK: "--ink", _FAINT: "--faint", _WORST: "--worst"} | {
    colour: f"--site-{number}" for number, colour in enumerate(_SITES)
}
"""Stand-ins that matplotlib draws with, and what becomes of them."""
_WIDTH_INCHES = 4.0
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "brainfed",
    "font.size": 9,
    "text.parse_math": False,
    "text.color": _INK,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "grid.color": _FAINT,
    "grid.linewidth": 0.4,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
    "lines.markersize": 4,
}


@dataclass(frozen=True, slots=True)
class Line:
    """One line over the rounds, or over whatever else the chart's axis counts."""

    name: str
    points: tuple[tuple[float, float], ...]
    """Round and value, ascending; a round without a figure is left out, and the line goes on."""
    is_overall: bool = False
    is_worst: bool = False
    band: tuple[tuple[float, float], ...] = ()
    """Lowest and highest at each point, shaded; none where it is empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How the values of one group lie."""

    name: str
    mean: float
    sd: float | None = None
    quartiles: tuple[float, float, float] | None = None
    """Lower, median, upper."""
    values: tuple[float, ...] = ()
    """Every patient's; only where the reader may see them."""
    is_worst: bool = False


@contextlib.contextmanager
def private_cache(folder: Path) -> Iterator[None]:
    """Let matplotlib, when it is first imported inside the block, keep its fonts in a folder.

    Afterwards the environment is as it was. A folder that the user has named stays the one.
    """
    name = "MPLCONFIGDIR"
    if name in os.environ:
        yield
        return
    os.environ[name] = str(folder)
    try:
        import matplotlib.font_manager  # noqa: F401 - reads or makes the list now

        yield
    finally:
        os.environ.pop(name, None)


def by_round(
    name: str,
    lines: Sequence[Line],
    *,
    y_label: str,
    alt: str,
    x_label: str = "round",
    share: bool = True,
    is_log: bool = False,
) -> str:
    """A line for each site, the worst marked, and the overall mean on top.

    Args:
        name: Sets the ids of this drawing apart from those of others on the page.
        lines: At least one, each with a point.
        y_label: What the values are, with their unit.
        alt: What the drawing shows, for those who don't see it.
        x_label: What the axis counts.
        share: Whether the values are from 0 to 1, so that the axis ends at 1.
        is_log: Whether the axis is logarithmic from 1 on; 0 has its place too.

    Returns:
        An `<svg>` element.
    """
    from matplotlib.ticker import MaxNLocator

    with _figure(2.7 + 0.2 * _n_legend_rows(lines)) as (figure, axes):
        named = len([line for line in lines if not line.is_overall]) <= MAX_NAMED
        site = 0
        for line in lines:
            style = _line_style(line, site if named else None)
            site += not line.is_overall
            rounds, values = zip(*line.points, strict=True)
            axes.plot(rounds, values, **style)
            if line.band:
                low, high = zip(*line.band, strict=True)
                axes.fill_between(rounds, low, high, color=style["color"], alpha=0.15, linewidth=0)
        lowest = min(value for line in lines for _, value in line.points)
        if share:
            axes.set_ylim(min(max(0.0, math.floor(lowest * 10 - 0.5) / 10), 0.9), 1.0)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        if is_log:
            _count_by_tens(axes, max(place for line in lines for place, _ in line.points))
        else:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(axis="y")
        columns = 1 if _are_long(lines) else 2
        figure.legend(loc="outside lower center", ncols=columns)
        return _svg(figure, name, alt)


def _count_by_tens(axes: "Axes", last: float) -> None:
    """An axis of 0, 1, 10, 100 and so on, up to what is drawn."""
    axes.set_xscale("symlog", linthresh=1, linscale=0.5)
    tens = [10**power for power in range(math.ceil(math.log10(max(last, 10))) + 1)]
    axes.set_xticks([0, *tens], ["0", *(f"{number:,}" for number in tens)])
    axes.set_xticks([], minor=True)
    axes.set_xlim(-0.25, 1.3 * max(last, 1))


def spreads(
    name: str, rows: Sequence[Spread], *, x_label: str, alt: str, share: bool = True
) -> str:
    """One row a group: every value where given, a box of the quartiles, else mean and sd.

    Args:
        name: As for `by_round`, likewise `alt` and `share`.
        rows: At least one, the first on top.
        x_label: What the values are, with their unit.
        alt: See `name`.
        share: See `name`.

    Returns:
        An `<svg>` element.
    """
    with _figure(0.75 + 0.34 * len(rows)) as (figure, axes):
        for place, row in enumerate(rows):
            _draw_spread(axes, row, len(rows) - 1 - place)
        axes.set_yticks(range(len(rows)), [_short(row.name) for row in reversed(rows)])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        if share:
            axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel(x_label)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        return _svg(figure, name, alt)


def _draw_spread(axes: "Axes", row: Spread, y: int) -> None:
    colour = _WORST if row.is_worst else _INK
    if row.values:
        # Side by side in the order of their values, so that equal ones don't hide each other.
        shifts = [0.16 * ((place % 5) - 2) / 2 for place in range(len(row.values))]
        places = [y + shift for shift in shifts]
        axes.plot(sorted(row.values), places, "o", color=_SITES[0], markersize=3, alpha=0.6)
    if row.quartiles is not None:
        low, middle, high = row.quartiles
        axes.plot([low, high, high, low, low], [y - 0.24, y - 0.24, y + 0.24, y + 0.24, y - 0.24])
        axes.lines[-1].set(color=colour, linewidth=1)
        axes.plot([middle, middle], [y - 0.24, y + 0.24], color=colour, linewidth=2.2)
        return
    if row.sd is not None:
        axes.plot([row.mean - row.sd, row.mean + row.sd], [y, y], color=colour, linewidth=1.2)
    axes.plot([row.mean], [y], "D", color=colour, markersize=5)


def _line_style(line: Line, site: int | None) -> dict[str, Any]:
    """How a line is drawn; `site` counts the sites, None where they are too many to be told."""
    if line.is_overall:
        return {"color": _INK, "linewidth": 2.2, "label": _short(line.name), "zorder": 4}
    style: dict[str, Any] = {"linewidth": 1.0, "color": _FAINT, "label": None}
    if site is not None:
        style |= {"color": _SITES[site], "marker": _MARKS[site], "label": _short(line.name)}
    if line.is_worst:
        style |= {"color": _WORST, "linewidth": 2.0, "linestyle": "--", "zorder": 3}
        style["label"] = f"{_short(line.name)}: worst"
    return style


def _are_long(lines: Sequence[Line]) -> bool:
    return any(len(line.name) > 14 for line in lines)


def _n_legend_rows(lines: Sequence[Line]) -> int:
    n_named = len(lines) if len(lines) <= MAX_NAMED + 1 else 2
    return n_named if _are_long(lines) else math.ceil(n_named / 2)


def _short(name: str) -> str:
    return name if len(name) <= 34 else f"{name[:33]}…"


@contextlib.contextmanager
def drawing(style: dict[str, Any], size_inches: tuple[float, float]) -> "Iterator[Figure]":
    """An empty figure, drawn in our style while the block lasts.

    Args:
        style: What it has otherwise than the charts of a page (`matplotlib.rcParams`).
        size_inches: Width and height.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a matplotlibrc of the user's would change the drawing
        matplotlib.rcParams.update(_STYLE | style)
        yield Figure(figsize=size_inches, layout="constrained")


@contextlib.contextmanager
def _figure(height_inches: float) -> "Iterator[tuple[Figure, Axes]]":
    """A figure of a page and its axes."""
    with drawing({}, (_WIDTH_INCHES, height_inches)) as figure:
        yield figure, figure.subplots()


def _svg(figure: "Figure", name: str, alt: str) -> str:
    """The figure as an element of an HTML page."""
    stream = io.BytesIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(stream, format="svg", metadata=nothing)
    text = stream.getvalue().decode("utf-8")
    text = text[text.index("<svg") :]
    # In HTML these say nothing; the one style rule would reach all over the page.
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.S)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    for stand_in, variable in VARIABLES.items():
        text = text.replace(stand_in, f"var({variable})")
    label = f'<svg class="chart" role="img" aria-label="{escape(alt)}"'
    return re.sub(r"<svg", lambda _: label, text, count=1).strip() + "\n"
