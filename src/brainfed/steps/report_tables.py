"""The tables of a report: rounds, measures or groups of patients by sites."""

from collections.abc import Iterable, Mapping

from brainfed.core.metrics import Measure
from brainfed.formats.dataset import Subset
from brainfed.formats.report_page import Cell, Table
from brainfed.formats.scores import Group
from brainfed.plan import Region
from brainfed.steps.over_sites import Overall
from brainfed.steps.report_facts import Report
from brainfed.steps.standings import Standing, What

NAMES = {
    Measure.DICE: "Dice",
    Measure.SOFT_SLICE_DICE: "soft slice Dice (the paper's)",
    Measure.HD95_SURFACE: "HD95 by surface, mm",
    Measure.HD95_POOLED: "HD95 pooled, mm",
    Measure.NSD: "surface Dice (NSD)",
    Measure.SENSITIVITY: "sensitivity",
    Measure.SPECIFICITY: "specificity",
    Measure.VOLUME_DIFFERENCE: "volume difference, ml",
    Measure.LESION_DICE: "lesion-wise Dice",
    Measure.LESION_HD95: "lesion-wise HD95, mm",
}
"""The measures in words, with their units."""
REGIONS = {Region.WT: "whole tumour", Region.TC: "tumour core", Region.ET: "enhancing tumour"}
OVERALL = "all sites"
LEGEND = (
    "Mean, ± standard deviation, and n: number of patients. Spread: from the worst to the best "
    "site's mean. A dash: nothing was stated, and the mean of that row is over the others' "
    "patients alone. The stronger the tint, the better."
)
"""How to read every table of figures."""
Place = tuple[int, int]
"""Round and edition."""


def counted(number: int, one: str) -> str:
    """A number with its noun: 1 site, 2 sites."""
    return f"{number} {one if number == 1 else one + 's'}"


def figure(value: float | None) -> str:
    """A mean in words; a dash where there is none."""
    return "–" if value is None else f"{value:.2f}"


def patients(n: int | str) -> str:
    """How many patients, as they may be told."""
    return f"n {n}" if isinstance(n, int) else n


def rows_of(
    report: Report, subset: Subset, measure: Measure, region: Region, group: Group = Group.ALL
) -> list[Standing]:
    """All standings of one measure."""
    wanted = (subset, group, measure, region)
    return [row for row in report.standings if row.what[2:] == wanted]


def overall_of(
    report: Report, subset: Subset, measure: Measure, region: Region, group: Group = Group.ALL
) -> dict[Place, Overall]:
    """The same over sites, by round and edition."""
    wanted = (subset, group, measure, region)
    return {
        (row.round, row.edition): row
        for row in report.overall
        if (row.subset, row.group, row.measure, row.region) == wanted
    }


def regions_of(report: Report) -> tuple[Region, ...]:
    """The plan's regions."""
    return report.known.first_plan.scans.regions


def newest_with(report: Report, subset: Subset) -> Place | None:
    """The newest round and edition that anything of a subset is known of."""
    return max(((r.round, r.edition) for r in report.standings if r.subset is subset), default=None)


Grid = Mapping[str, Mapping[Region, Overall]]
"""By the header of the row, then by region."""


def by_round(report: Report, subset: Subset, measure: Measure, *, is_folded: bool) -> list[Table]:
    """Every number of one measure, rounds by sites."""
    grid: dict[str, dict[Region, Overall]] = {}
    for row in _found(report, subset, Group.ALL):
        if row.measure is measure:
            grid.setdefault(round_name((row.round, row.edition)), {})[row.region] = row
    name = NAMES[measure]
    caption = f"{name[0].upper()}{name[1:]}, {subset} patients"
    return _tables(report, ("round", caption), grid, is_folded=is_folded)


def newest_figures(report: Report, subset: Subset) -> list[Table]:
    """Every measure of the newest round that is known, by sites."""
    place = newest_with(report, subset)
    grid: dict[str, dict[Region, Overall]] = {}
    for row in _found(report, subset, Group.ALL):
        if (row.round, row.edition) == place:
            grid.setdefault(NAMES[row.measure], {})[row.region] = row
    caption = f"Round {round_name(place or (0, 1))}, {subset} patients"
    return _tables(report, ("measure", caption), grid)


def by_completeness(report: Report, subset: Subset) -> list[Table]:
    """Dice with and without all modalities, in the newest round that tells of it."""
    rows = [row for group in GROUPS for row in _found(report, subset, group)]
    place = max(((row.round, row.edition) for row in rows), default=(0, 1))
    grid: dict[str, dict[Region, Overall]] = {}
    for row in rows:
        if (row.round, row.edition) == place and row.measure is Measure.DICE:
            grid.setdefault(GROUPS[row.group], {})[row.region] = row
    caption = f"Dice, round {round_name(place)}, {subset} patients"
    return _tables(report, ("patients with", caption), grid)


def _found(report: Report, subset: Subset, group: Group) -> Iterable[Overall]:
    return (row for row in report.overall if row.subset is subset and row.group is group)


GROUPS = {Group.COMPLETE: "every modality", Group.INCOMPLETE: "a modality missing"}
"""The groups of patients that are told apart."""


def round_name(place: Place) -> str:
    """A round in a word; its edition where it was closed again."""
    number, edition = place
    return str(number) if edition == 1 else f"{number} (edition {edition})"


def _tables(
    report: Report, titles: tuple[str, str], grid: Grid, *, is_folded: bool = False
) -> list[Table]:
    """A table a region, its columns the sites; of one site a table alone, its columns the regions.

    Args:
        report: Gives the figures of each site.
        titles: Of the first column, and what the caption begins with.
        grid: The rows.
        is_folded: Whether the tables are closed at first.
    """
    first, caption = titles
    whats = {overall.what for line in grid.values() for overall in line.values()}
    cells = {(row.site, row.what): row for row in report.standings if row.what in whats}
    sites = [site for site in report.sites if any(site == name for name, _ in cells)]
    regions = [region for region in regions_of(report) if any(region in g for g in grid.values())]
    if len(sites) == 1:
        rows: list[tuple[Cell | str, ...]] = [
            (head, *(_site_cell(cells, sites[0], line.get(region)) for region in regions))
            for head, line in grid.items()
        ]
        names = tuple(f"{REGIONS[region]} ({region})" for region in regions)
        title = f"{caption}: {sites[0]}"
        return [_table(title, (first, *names), rows, is_folded=is_folded)]
    tables = []
    for region in regions:
        lines = [(head, line[region]) for head, line in grid.items() if region in line]
        rows = [
            (
                head,
                _overall_cell(mean),
                "–" if mean.spread is None or mean.n_sites < 2 else f"{mean.spread:.2f}",
                *(_site_cell(cells, site, mean) for site in sites),
            )
            for head, mean in lines
        ]
        title = f"{caption}: {REGIONS[region]} ({region})"
        columns = (first, OVERALL, "spread", *sites)
        note = _unseen(lines[-1][1])
        tables.append(_table(title, columns, rows, note=note, is_folded=is_folded))
    return tables


def _table(
    caption: str,
    columns: tuple[str, ...],
    rows: list[tuple[Cell | str, ...]],
    *,
    note: str = "",
    is_folded: bool,
) -> Table:
    return Table(caption=caption, columns=columns, rows=tuple(rows), note=note, is_folded=is_folded)


def _overall_cell(mean: Overall) -> Cell:
    if mean.mean is None:
        return Cell("–")
    sd = "" if mean.sd is None else f"± {mean.sd:.2f}, "
    return Cell(figure(mean.mean), f"{sd}n {mean.n}", share=_share(mean.mean, mean.measure))


def _site_cell(cells: Mapping[tuple[str, What], Standing], site: str, mean: Overall | None) -> Cell:
    row = None if mean is None else cells.get((site, mean.what))
    if row is None or mean is None:
        return Cell("–")
    if row.mean is None:
        return Cell(patients(row.n))
    sd = "" if row.sd is None else f"± {row.sd:.2f}, "
    return Cell(
        figure(row.mean),
        f"{sd}{patients(row.n)}",
        share=_share(row.mean, row.measure),
        is_worst=site == marked_worst(mean),
    )


def marked_worst(mean: Overall) -> str | None:
    """The worst site, where there is another and the two differ in the figures that are shown."""
    return mean.worst_site if mean.spread is not None and mean.spread >= 0.005 else None


def _share(value: float, measure: Measure) -> float | None:
    return None if measure.unit else max(0.0, min(value, 1.0))


def _unseen(mean: Overall) -> str:
    if not mean.unseen:
        return ""
    told = ", ".join(f"{u.site} (fewer than {u.n_at_most + 1})" for u in mean.unseen)
    total = sum(entry.n_at_most for entry in mean.unseen)
    return f"The mean doesn't see the patients of {told}: together at most {total}."
