"""The paper's claim on phantoms: with scanners that differ strongly, averaging beats taking turns.

Chosen on the seed 1: four hospitals of eight patients whose FLAIR looks plain, like T2 (fluid
brighter than tumour), flat and without suppressed fluid, and steep and shaded; twelve passes.
"""

import statistics
from pathlib import Path

from brainfed.core.contenders import Contender
from brainfed.core.phantom import Scanner
from brainfed.formats.simulation import Outcome
from brainfed.plan import Modality
from tests.small_simulation import (
    a_request,
    a_simulated_plan,
    simulated_here,
    with_known_ids,
    write_scans,
)

LOOKS = {
    "hospital-a": (Scanner(noise=0.02, bias=0.05), Modality.FLAIR),
    "hospital-b": (Scanner(noise=0.03, bias=0.1), Modality.T2),
    "hospital-c": (
        Scanner(noise=0.04, gamma=0.3, fluid_suppression=0.0, bias=0.2),
        Modality.FLAIR,
    ),
    "hospital-d": (Scanner(noise=0.03, gamma=2.5, bias=0.3), Modality.FLAIR),
}


def test_fl_beats_ciil_and_every_single_site_where_scanners_differ(tmp_path: Path) -> None:
    scans = write_scans(tmp_path / "scans", dict.fromkeys(LOOKS, 8), looks=LOOKS, n_slices=8)
    plan = a_simulated_plan(
        seed=1,
        rounds=12,
        split={"validation": 0.2, "test": 0.2},
        network={"norm": "instance"},
        training={"foreground_fraction": 0.5},
    )
    contenders = (Contender.FL, Contender.CIIL, Contender.LOCAL)
    out = with_known_ids(tmp_path / "out")
    done = simulated_here(out, a_request(scans, plan=plan, contenders=contenders))
    found: dict[Contender, list[Outcome]] = {}
    for result in done.results:
        for outcome in result.outcomes:
            found.setdefault(outcome.contender, []).append(outcome)
    dice = {
        contender: [statistics.fmean(score.dice for score in outcome.test) for outcome in outcomes]
        for contender, outcomes in found.items()
    }
    ((fl,), (ciil,)) = dice[Contender.FL], dice[Contender.CIIL]
    assert fl > 0.5
    assert fl > ciil + 0.01
    assert fl > max(dice[Contender.LOCAL]) + 0.02
