"""The figures of a report: what each site measured, as charts and tables of a page."""

from brainfed.core import charts
from brainfed.core.charts import Line, Spread
from brainfed.core.metrics import Measure
from brainfed.core.scoring import patient_scores
from brainfed.formats.dataset import Subset
from brainfed.formats.report_page import Block, Chart, Row, Section, Text
from brainfed.plan import Region
from brainfed.steps.over_sites import Overall
from brainfed.steps.report_facts import Report
from brainfed.steps.report_tables import (
    LEGEND,
    OVERALL,
    REGIONS,
    Place,
    by_completeness,
    by_round,
    figure,
    marked_worst,
    newest_figures,
    newest_with,
    overall_of,
    patients,
    regions_of,
    round_name,
    rows_of,
)
from brainfed.steps.standings import Standing


def dice_by_round(report: Report) -> Section:
    """One chart a region, and below them every number."""
    tables = by_round(report, Subset.VALIDATION, Measure.DICE, is_folded=False)
    if not tables:
        return Section("Dice by round", [Text("No site has stated a figure of any round yet.")])
    drawn = [chart for region in regions_of(report) if (chart := _lines(report, region))]
    how = "Validation patients of each site, scored with the global weights of each round."
    if len({row.site for row in report.standings}) > 1:
        how += f" “{OVERALL}” is the mean over patients, not over sites."
    return Section("Dice by round", [Text(how), Row(tuple(drawn)), Text(LEGEND), *tables])


def _lines(report: Report, region: Region) -> Chart | None:
    over = overall_of(report, Subset.VALIDATION, Measure.DICE, region)
    known = {place: row for place, row in over.items() if row.mean is not None}
    if not known:
        return None
    newest = known[max(known)]
    points: dict[str, list[tuple[int, float]]] = {}
    for row in rows_of(report, Subset.VALIDATION, Measure.DICE, region):
        if row.mean is not None:
            points.setdefault(row.site, []).append((row.round, row.mean))
    worst = marked_worst(newest)
    lines = [Line(site, tuple(at), is_worst=site == worst) for site, at in sorted(points.items())]
    if len(points) > 1:
        means = tuple((row.round, row.mean) for row in known.values() if row.mean is not None)
        lines.insert(0, Line(OVERALL, means, is_overall=True))
    alt = f"Dice of the {REGIONS[region]} by round: {_told(known, worst)}"
    svg = charts.by_round(f"by-round-{region.lower()}", lines, y_label=f"Dice, {region}", alt=alt)
    return Chart(svg, f"{REGIONS[region].capitalize()} ({region}). The numbers stand below.")


def _told(known: dict[Place, Overall], worst: str | None) -> str:
    first, last = known[min(known)], known[max(known)]
    told = f"over {last.n_sites} sites {figure(last.mean)} in round {last.round}"
    if first is not last:
        told = f"over all sites {figure(first.mean)} in round {first.round}, {told}"
    if worst is None:
        return f"{told}."
    return f"{told}; worst site {worst} with {figure(last.worst_mean)}."


def distributions(report: Report) -> Section:
    """How the newest figures of Dice lie, site by site."""
    blocks: list[Block] = []
    for subset in (Subset.VALIDATION, Subset.TEST):
        place = newest_with(report, subset)
        if place is None:
            continue
        drawn = [_spread_chart(report, subset, place, region) for region in regions_of(report)]
        if any(drawn):
            words = f"{subset.capitalize()} patients, global weights of round {round_name(place)}."
            blocks += [Text(words), Row(tuple(chart for chart in drawn if chart))]
    how = (
        "Box: quartiles and median, stated from 20 patients on. Diamond and line: mean and one "
        "standard deviation to each side, cut off at 0 and 1."
    )
    if report.own:
        how = "Box: quartiles and median. Dots: single patients, for this site's eyes."
    if not blocks:
        return Section("Distributions", [Text("No site has stated a figure yet.")])
    return Section("Distributions", [Text(how), *blocks])


def _spread_chart(report: Report, subset: Subset, place: Place, region: Region) -> Chart | None:
    over = overall_of(report, subset, Measure.DICE, region).get(place)
    rows = [
        row
        for row in rows_of(report, subset, Measure.DICE, region)
        if (row.round, row.edition) == place and row.mean is not None
    ]
    if over is None or not rows:
        return None
    spreads = [
        Spread(
            name=f"{row.site} ({patients(row.n)})",
            mean=row.mean or 0.0,
            sd=row.sd,
            quartiles=row.quartiles,
            values=_own_values(report, row),
            is_worst=row.site == marked_worst(over),
        )
        for row in rows
    ]
    told = "; ".join(f"{s.name} {_spread_words(s)}" for s in spreads)
    svg = charts.spreads(
        f"spread-{subset}-{region.lower()}",
        spreads,
        x_label=f"Dice, {region}",
        alt=f"Distribution of Dice of the {REGIONS[region]}: {told}.",
    )
    return Chart(svg, f"{REGIONS[region].capitalize()} ({region}): {told}.")


def _spread_words(spread: Spread) -> str:
    if spread.quartiles is not None:
        low, middle, high = spread.quartiles
        return f"median {middle:.2f}, quartiles {low:.2f} to {high:.2f}"
    sd = "" if spread.sd is None else f" ± {spread.sd:.2f}"
    return f"mean {spread.mean:.2f}{sd}"


def _own_values(report: Report, row: Standing) -> tuple[float, ...]:
    for result in report.own:
        if (result.round, result.subset) == (row.round, row.subset) and row.site == report.party:
            return tuple(patient_scores(result.rows, row.region, row.measure).values())
    return ()


def all_measures(report: Report) -> Section | None:
    """Every measure: the newest round in full, then the other rounds, folded."""
    blocks: list[Block] = [*newest_figures(report, Subset.VALIDATION)]
    for measure in Measure:
        if measure is not Measure.DICE:
            blocks += by_round(report, Subset.VALIDATION, measure, is_folded=True)
    return Section("All measures", [Text(LEGEND), *blocks]) if blocks else None


def with_and_without(report: Report) -> Section | None:
    """Patients with every modality beside those who lack one, where both groups may be told."""
    blocks = by_completeness(report, Subset.VALIDATION)
    return Section("With and without all modalities", [Text(LEGEND), *blocks]) if blocks else None


def test_figures(report: Report) -> Section | None:
    """What was found on the test patients."""
    blocks: list[Block] = [*newest_figures(report, Subset.TEST)]
    if not blocks:
        return None
    if len({row.round for row in report.standings if row.subset is Subset.TEST}) > 1:
        blocks += by_round(report, Subset.TEST, Measure.DICE, is_folded=False)
    how = (
        "Test patients tell how good weights are only if nothing is chosen by them. How often each "
        "site looked stands below, under “Test patients”."
    )
    return Section("On the test patients", [Text(how), Text(LEGEND), *blocks])
