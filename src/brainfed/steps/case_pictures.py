"""Pictures of the best, the median and the worst case of an evaluation, for the site alone."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from brainfed.core.labels import region_mask
from brainfed.core.panels import legend_of, montage
from brainfed.core.pictures import PREDICTION, TRUTH, Scene
from brainfed.core.png import encode
from brainfed.core.scoring import CaseScore
from brainfed.formats import atomic, dataset, score_table
from brainfed.formats.dataset import CaseEntry
from brainfed.plan import Modality, Plan, Region
from brainfed.steps.score_cases import Scorer

SHOWN_ON = {
    Region.WT: (Modality.FLAIR, Modality.T2, Modality.T1CE, Modality.T1),
    Region.TC: (Modality.T1CE, Modality.FLAIR, Modality.T2, Modality.T1),
    Region.ET: (Modality.T1CE, Modality.T1, Modality.FLAIR, Modality.T2),
}
"""On which modality a region is seen best; the first that there is."""


def telling_cases(rows: Iterable[CaseScore], region: Region) -> tuple[str, ...]:
    """The best, the median and the worst case by Dice of a region, without repeats."""
    ranked = sorted((row.dice, row.case) for row in rows if row.region is region)
    chosen = [ranked[-1], ranked[len(ranked) // 2], ranked[0]] if ranked else []
    return tuple(dict.fromkeys(case for _, case in chosen))


def draw(
    scorer: Scorer, entries: Iterable[CaseEntry], rows: Sequence[CaseScore], table: Path
) -> tuple[Path, ...]:
    """Draw the outlines of the telling cases, and put the pictures beside the table.

    Those of an earlier evaluation under the same name are removed.

    Raises:
        ScanError: A case can't be used any more.
        ResourceError: Disk or memory ran out.
    """
    by_id = {entry.id: entry for entry in entries}
    wanted = {
        score_table.picture_path(table, case): by_id[case]
        for case in telling_cases(rows, scorer.plan.scans.regions[0])
    }
    for old in score_table.pictures_of(table):
        if old not in wanted:
            atomic.remove(old)
    for path, entry in wanted.items():
        content = encode(_picture(scorer, entry))
        atomic.write_bytes(path, content, mode=0o600, replace=True)
    return tuple(wanted)


def _picture(scorer: Scorer, entry: CaseEntry) -> NDArray[np.uint8]:
    """A row for each region: three slices with most of the tumour, both outlines in each."""
    plan = scorer.plan
    path = dataset.case_path(scorer.data_folder, entry.id)
    case = dataset.read_case(path, entry.digest)
    predicted = scorer.predicted(case)
    rows = []
    for region, prediction in zip(plan.scans.regions, predicted, strict=True):
        truth = region_mask(case.label, case.protocol, region)
        scene = Scene(
            case.label.shape,
            case.spacing_mm,
            brain_mask=case.brain_mask,
            tumour=truth if truth.any() else prediction,
        )
        shown = _shown_on(region, plan, case.present)
        image = case.image[plan.scans.modalities.index(shown)]
        rows.append([scene.compared(f"{region} {shown}", image, truth, prediction).pixels])
    pixels = montage(rows)
    words = legend_of({"truth": TRUTH[1], "prediction": PREDICTION[1]}, pixels.shape[1])
    return np.concatenate([pixels, words])


def _shown_on(region: Region, plan: Plan, present: Sequence[bool]) -> Modality:
    there = [m for m, is_there in zip(plan.scans.modalities, present, strict=True) if is_there]
    return next((m for m in SHOWN_ON[region] if m in there), plan.scans.modalities[0])
