"""What a site alone may see: its worst patients by id, and outlines over their scans."""

from collections.abc import Iterator

from brainfed.core.metrics import Measure
from brainfed.core.scoring import patient_scores
from brainfed.formats.report_page import Block, Cell, Picture, Section, Table, Text
from brainfed.plan import Region
from brainfed.steps.own_results import OwnResult
from brainfed.steps.report_facts import Report
from brainfed.steps.report_tables import REGIONS, figure, regions_of, round_name

N_WORST = 5
"""Patients that are named."""


def own_patients(report: Report) -> Section | None:
    """The worst patients and the pictures of the newest table of each subset."""
    newest = {result.subset: result for result in report.own}
    if not newest:
        return None
    blocks: list[Block] = []
    for result in newest.values():
        where = f"round {round_name((result.round, result.edition))}, {result.subset} patients"
        blocks += [_worst(result, region, where) for region in regions_of(report)]
        blocks += _pictures(result, regions_of(report)[0], where)
    how = (
        "Patients and cases are named by this site's keyed ids; its data/quality.html shows each "
        "case with its id and its name. The worst teach most: is the outline wrong, the label, or "
        "the scan?"
    )
    return Section("Patients of this site", [Text(how), *blocks])


def _worst(result: OwnResult, region: Region, where: str) -> Table:
    means = patient_scores(result.rows, region, Measure.DICE)
    ranked = sorted(means, key=lambda patient: (means[patient], patient))[:N_WORST]
    distances = patient_scores(result.rows, region, Measure.HD95_SURFACE)
    rows: list[tuple[Cell | str, ...]] = []
    for patient in ranked:
        cases = [r for r in result.rows if r.patient == patient and r.region is region]
        rows.append(
            (
                patient,
                ", ".join(row.case for row in cases),
                Cell(figure(means[patient]), share=means[patient]),
                figure(distances.get(patient)),
                ", ".join(f"{row.n_voxels} / {row.n_voxels_predicted}" for row in cases),
            )
        )
    return Table(
        caption=f"Lowest Dice, {REGIONS[region]} ({region}), {where}",
        columns=("patient", "cases", "Dice", "HD95, mm", "voxels true / predicted"),
        rows=tuple(rows),
    )


def _pictures(result: OwnResult, region: Region, where: str) -> Iterator[Picture]:
    """The pictures that `evaluate` drew, the best case first."""
    dice = {row.case: row.dice for row in result.rows if row.region is region}
    shown = sorted(result.pictures, key=lambda picture: -dice[picture.case])
    names = {2: ("Best", "Worst"), 3: ("Best", "Median", "Worst")}.get(len(shown))
    names = names or ("",) * len(shown)
    for name, picture in zip(names, shown, strict=True):
        what = f"{name} case".strip().capitalize()
        told = f"{what} {picture.case}, Dice {region} {figure(dice[picture.case])}, {where}"
        alt = f"{told}: outlines of the label and of the network over the scan."
        yield Picture(picture.png, alt, told)
