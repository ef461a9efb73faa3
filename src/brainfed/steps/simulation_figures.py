"""The drawings of a simulation's page; each has its numbers in a table beside it."""

import statistics
from collections.abc import Callable, Sequence

import numpy as np

from brainfed.core import charts
from brainfed.core.charts import Line, Spread
from brainfed.core.contenders import Contender
from brainfed.formats.report_page import Block, Chart, Row, Section, Table, Text
from brainfed.formats.simulation import HandOver
from brainfed.steps.report_tables import counted
from brainfed.steps.simulation_arms import Arm, Place, Protocol, curve
from brainfed.steps.simulation_claims import drops_of, watched
from brainfed.steps.simulation_results import Simulation
from brainfed.steps.simulation_tables import DASH, figure

_OVER_PASSES = (Contender.POOLED, Contender.FL, Contender.CIIL)
_HOW = (
    "Validation patients of all sites, mean over patients and over repeats; the band goes from the "
    "lowest repeat to the highest. Before any training nothing is drawn."
)


def against_hand_overs(told: Simulation) -> Section:
    """Dice against hand-overs, the figure that says what a courier buys."""
    shown, left_out = _nameable(told.shared)
    last = max((place.hand_overs for arm in shown for place in curve(arm)), default=0)
    lines = [_line(arm, lambda place: place.hand_overs, level_until=last) for arm in shown]
    ends = "; ".join(f"{arm.name} {_ending(arm)}" for arm in shown)
    svg = charts.by_round(
        "hand-overs",
        lines,
        y_label=_label(told),
        x_label="hand-overs",
        alt=f"Dice against hand-overs: {ends}.",
        is_log=True,
    )
    caption = "Logarithmic from 1 on. Pooled is a level: its scans leave once from each site."
    if left_out:
        caption += f" Not drawn: {', '.join(arm.name for arm in left_out)}; see the table."
    return Section("Dice against hand-overs", [Text(_HOW), Chart(svg, caption), _points(told)])


def against_passes(told: Simulation) -> Section | None:
    """Dice against passes over the patients, and against rounds for FL."""
    arms = [arm for arm in told.shared if arm.contender in _OVER_PASSES]
    drawn = []
    for name, words, wanted, place_of in (
        ("passes", "passes over the training patients", _OVER_PASSES, _passes),
        ("rounds", "round", (Contender.FL,), _round),
    ):
        shown, _ = _nameable([arm for arm in arms if arm.contender in wanted])
        if shown:
            lines = [_line(arm, place_of) for arm in shown]
            ends = "; ".join(f"{arm.name} {_ending(arm)}" for arm in shown)
            svg = charts.by_round(
                name,
                lines,
                y_label=_label(told),
                x_label=words,
                alt=f"Dice against {words}: {ends}.",
            )
            drawn.append(Chart(svg, f"Dice against {words}. The numbers stand above."))
    if not drawn:
        return None
    return Section("Dice against passes and rounds", [Text(_HOW), Row(tuple(drawn))])


def forgetting(told: Simulation) -> Section | None:
    """One site's training Dice at every hand-over."""
    found = [(arm, watched(arm)) for arm in told.shared]
    seen = [(arm, entries) for arm, entries in found if entries]
    if not seen:
        return None
    shown, _ = _nameable([arm for arm, _ in seen])
    lines = [
        Line(arm.name, tuple((place, entry.dice) for place, entry in enumerate(entries, start=1)))
        for arm, entries in seen
        if arm in shown
    ]
    words = "; ".join(_drops(arm, entries) for arm, entries in seen)
    svg = charts.by_round(
        "forgetting",
        lines,
        y_label=_label(told),
        x_label="weights that came, weights that were sent, in turn",
        alt=f"Training Dice of one site at every hand-over. {words}.",
    )
    longest = max(len(entries) for _, entries in seen)
    rows = [
        (str(place + 1), *(_entry(entries, place) for _, entries in seen))
        for place in range(longest)
    ]
    table = Table(
        caption="The same in numbers",
        columns=("", *(arm.name for arm, _ in seen)),
        rows=tuple(rows),
        is_folded=True,
    )
    how = (
        "The patients that one site trains on, in the first repeat: under the weights that came to "
        "it, and under those it sent. Where the line falls after what was sent, others' training "
        "has taken away what this site's had brought."
    )
    return Section("Forgetting", [Text(how), Chart(svg, f"{words}."), table])


def _drops(arm: Arm, entries: Sequence[HandOver]) -> str:
    drops = drops_of(entries)
    if not drops:
        return f"{arm.name}: nothing came back"
    return (
        f"{arm.name}: mean drop {statistics.fmean(drops):.3f} over {counted(len(drops), 'return')}"
    )


def _entry(entries: Sequence[HandOver], place: int) -> str:
    if place >= len(entries):
        return DASH
    entry = entries[place]
    return f"{figure(entry.dice)} {'sent' if entry.is_own else 'came'}"


def distributions(told: Simulation) -> Section:
    """How the patients lie under each arm."""
    protocol = told.protocols[0]
    spreads = []
    for arm in told.shared:
        values = tuple(arm.by_patient(protocol, arm.repeats).values())
        if values:
            low, middle, high = (float(v) for v in np.quantile(values, (0.25, 0.5, 0.75)))
            spreads.append(
                Spread(
                    name=arm.name,
                    mean=statistics.fmean(values),
                    quartiles=(low, middle, high),
                    values=values,
                )
            )
    words = "; ".join(f"{s.name} {_quartiles(s)}" for s in spreads)
    svg = charts.spreads(
        "patients", spreads, x_label=_label(told), alt=f"Distribution of Dice: {words}."
    )
    on = "Test" if protocol is Protocol.CLEAN else "Validation"
    how = f"{on} patients, each the mean over repeats. Box: quartiles and median. Dots: patients."
    blocks: list[Block] = [Text(how), Chart(svg, f"{words}.")]
    return Section("Patients", blocks)


def _quartiles(spread: Spread) -> str:
    low, middle, high = spread.quartiles or (0.0, 0.0, 0.0)
    return f"median {middle:.2f}, quartiles {low:.2f} to {high:.2f}"


def _points(told: Simulation) -> Table:
    rows = [
        (
            arm.name,
            str(place.round),
            f"{place.passes:.4g}",
            f"{place.hand_overs:.5g}",
            figure(place.mean),
            f"{figure(min(place.values))} to {figure(max(place.values))}",
        )
        for arm in told.shared
        for place in curve(arm)
    ]
    return Table(
        caption="Every point: Dice of validation patients",
        columns=("method", "round or turn", "passes", "hand-overs", "mean", "over repeats"),
        rows=tuple(rows),
        is_folded=True,
    )


def _nameable(arms: Sequence[Arm]) -> tuple[list[Arm], list[Arm]]:
    """As many as a chart can tell apart, and the others: of FL those with most epochs."""
    kept = list(arms)
    while sum(arm.contender is not Contender.POOLED for arm in kept) > charts.MAX_NAMED:
        kept.remove(max((a for a in kept if a.contender is Contender.FL), key=lambda a: a.epochs))
    return kept, [arm for arm in arms if arm not in kept]


def _line(arm: Arm, place_of: Callable[[Place], float], *, level_until: float = 0) -> Line:
    """The line of an arm; of pooled the level of its chosen weights, where it has no places."""
    if arm.contender is Contender.POOLED and level_until:
        values = arm.run_means(Protocol.PAPER)
        ends = (0.0, level_until)
        points = tuple((end, statistics.fmean(values)) for end in ends)
        band = tuple((min(values), max(values)) for _ in ends) if len(values) > 1 else ()
        return Line(arm.name, points, is_overall=True, band=band)
    places = curve(arm)
    points = tuple((place_of(place), place.mean) for place in places)
    band = ()
    if len(arm.runs) > 1 and len(places) > 1:
        band = tuple((min(place.values), max(place.values)) for place in places)
    return Line(arm.name, points, is_overall=arm.contender is Contender.POOLED, band=band)


def _passes(place: Place) -> float:
    return place.passes


def _round(place: Place) -> float:
    return place.round


def _ending(arm: Arm) -> str:
    end = curve(arm)[-1]
    return f"{figure(end.mean)} after {end.hand_overs:.5g}"


def _label(told: Simulation) -> str:
    regions = told.plan.scans.regions
    return f"Dice, {regions[0]}" if len(regions) == 1 else "Dice, mean over regions"
