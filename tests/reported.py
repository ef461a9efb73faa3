"""A federation whose sites have scored its global weights, without torch: what a report is of."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from brainfed.core.metrics import Measure
from brainfed.core.png import encode
from brainfed.core.scoring import CaseScore
from brainfed.formats import dataset, federation, floor, identities, rounds, score_table
from brainfed.formats.dataset import SplitFile, Subset
from brainfed.formats.ledger import Event
from brainfed.formats.manifest import ScoredWeights
from brainfed.formats.score_table import About, ScoredSpace
from brainfed.formats.workspace import Workspace
from brainfed.plan import Plan
from brainfed.steps.aggregate import aggregate
from brainfed.steps.score_file import put_scores
from tests.builders import a_plan
from tests.federation import TODAY, Small, a_federation, carry, train

FLOOR = 5
VALIDATION = {"hospital-a": 24, "hospital-b": 12, "hospital-c": 4}
"""Patients of each site; the last is below the floor."""
TEST = {"hospital-a": 11, "hospital-b": 6, "hospital-c": 3}
TRAINED = {"hospital-a": 72, "hospital-b": 36, "hospital-c": 4}
BASE = {"hospital-a": 0.86, "hospital-b": 0.74, "hospital-c": 0.5}
"""What each site's Dice of the whole tumour goes to."""


def a_reported_plan() -> Plan:
    return a_plan(
        rounds=5,
        scans={"required": ("t1", "t1ce", "t2"), "optional": ("flair",), "regions": ("WT", "ET")},
        participation={"floor": FLOOR, "quorum_sites": 2},
        terms={"weights_licence": "CC-BY-4.0"},
    )


def patient_ids(site: str, subset: Subset) -> list[str]:
    n = (VALIDATION if subset is Subset.VALIDATION else TEST)[site]
    return [hashlib.sha256(f"{site} {subset} {i}".encode()).hexdigest()[:16] for i in range(n)]


def case_id(patient: str) -> str:
    return hashlib.sha256(f"case of {patient}".encode()).hexdigest()[:16]


def rows_of(site: str, number: int, subset: Subset = Subset.VALIDATION) -> list[CaseScore]:
    """One case a patient, better from round to round, every third without a modality."""
    plan = a_reported_plan()
    rows = []
    for index, patient in enumerate(patient_ids(site, subset)):
        random = np.random.default_rng([index, len(site), sum(site.encode())])
        for place, region in enumerate(plan.scans.regions):
            limit = BASE[site] - 0.12 * place + random.normal(0, 0.06)
            dice = float(np.clip(limit * (1 - 0.7 * 0.45**number), 0.01, 0.99))
            rows.append(
                CaseScore(
                    case=case_id(patient),
                    patient=patient,
                    region=region,
                    n_voxels=1000 + 37 * index,
                    n_voxels_predicted=900 + 41 * index,
                    values=_values(dice),
                    is_complete=index % 3 != 0,
                )
            )
    return rows


def _values(dice: float) -> dict[Measure, float]:
    return {
        Measure.DICE: dice,
        Measure.SOFT_SLICE_DICE: dice * 0.97,
        Measure.HD95_SURFACE: 40 * (1 - dice),
        Measure.HD95_POOLED: 36 * (1 - dice),
        Measure.NSD: dice * 0.9,
        Measure.SENSITIVITY: min(1.0, dice * 1.02),
        Measure.SPECIFICITY: 0.998,
        Measure.VOLUME_DIFFERENCE: 12 * (dice - 0.8),
        Measure.LESION_DICE: dice * 0.8,
        Measure.LESION_HD95: 90 * (1 - dice),
    }


def a_reported_federation(
    root: Path,
    n_rounds: int = 3,
    *,
    sites: Iterable[str] = tuple(VALIDATION),
    absent: tuple[tuple[str, int], ...] = (("hospital-c", 2),),
) -> Small:
    """Closed rounds, updates with figures of what came, and score files of the last round."""
    small = a_federation(root, sites=tuple(sites), plan=a_reported_plan())
    for site in small.sites.values():
        _with_a_split(site)
    for number in range(1, n_rounds + 1):
        for name, site in small.sites.items():
            if (name, number) not in absent:
                train(site, scores=_in_manifest(name, number - 1), n_patients=TRAINED[name])
                carry(site, small.coordinator, small.medium(f"r{number}-{name}"))
        aggregate(small.coordinator, today=TODAY)
        for site in small.sites.values():
            carry(small.coordinator, site, small.medium(f"r{number}-back"))
    for name, site in small.sites.items():
        evaluated(site, n_rounds, Subset.VALIDATION)
        evaluated(site, n_rounds, Subset.TEST)
        carry(site, small.coordinator, small.medium(f"scores-{name}"))
    return small


def evaluated(site: Workspace, number: int, subset: Subset, *, pictures: bool = False) -> Path:
    """What `evaluate` leaves of a round's global weights; gives the table."""
    known = federation.load(site)
    path = rounds.global_path(site, number)
    assert path is not None
    scored = rounds.verify_weights(path, known)
    rows = rows_of(site.name, number, subset)
    if subset is Subset.TEST:
        site.note(Event.OPENED_TEST, weights=scored.digest, round=number, n_cases=len(rows))
    about = About(
        space=ScoredSpace.PLAN,
        subset=subset.value,
        weights=scored.digest,
        kind="global",
        round=number,
        edition=1,
        sender=scored.manifest.sender,
        plan=known.in_force(number).version.digest,
        regions=known.first_plan.scans.regions,
        tolerance_mm=1.0,
        lesions=known.first_plan.evaluation.lesions,
        n_patients=len({row.patient for row in rows}),
        n_cases=len({row.case for row in rows}),
        n_nominal=0,
    )
    table = site.reports / f"evaluate.{scored.digest[:8]}.{subset}.csv"
    score_table.write_table(table, rows, about)
    put_scores(site, known, scored, subset, rows, today=TODAY)
    if pictures:
        ranked = sorted(rows[:: len(known.first_plan.scans.regions)], key=lambda row: row.dice)
        for row in (ranked[0], ranked[len(ranked) // 2], ranked[-1]):
            pixels = np.full((60, 180, 3), 40, np.uint8)
            pixels[20:40, 30 : 30 + int(100 * row.dice)] = (240, 228, 66)
            score_table.picture_path(table, row.case).write_bytes(encode(pixels))
    return table


def _in_manifest(site: str, number: int) -> tuple[dict[str, object], ...]:
    found = floor.scores(
        rows_of(site, number),
        a_reported_plan(),
        weights=ScoredWeights.INCOMING,
        subset="validation",
        floor=FLOOR,
    )
    return tuple(score.model_dump(mode="json") for score in found)


def _with_a_split(site: Workspace) -> None:
    site.data.mkdir(mode=0o700)
    identities.write(site.data, identities.Identities(key=bytes(32)))
    subsets = (Subset.VALIDATION, Subset.TEST)
    assignments = {p: subset for subset in subsets for p in patient_ids(site.name, subset)}
    rule = federation.load(site).first_plan.split.rule
    dataset.write_split(site.data, SplitFile(rule=rule, seed=1, assignments=assignments))
