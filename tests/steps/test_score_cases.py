"""Cases are predicted and scored alike with a 2-D and a 3-D network, region by region."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from brainfed.core.device import threads
from brainfed.core.inference import network_with
from brainfed.core.labels import region_mask
from brainfed.core.unet import initial_weights
from brainfed.formats.dataset import Subset
from brainfed.plan import Plan, Region
from brainfed.steps.measure_outlines import measure
from brainfed.steps.one_round import train_from
from brainfed.steps.score_cases import Scorer, entries_of, read_cases, scores_of
from tests.builders import a_case, a_plan, write_dataset

CPU = torch.device("cpu")
IN_2D: dict[str, Any] = {}
IN_3D: dict[str, Any] = {"architecture": "unet-3d", "patch": (8, 16, 16)}


EAGER = {
    "rate": 0.01,
    "schedule": "constant",
    "batch": 2,
    "epochs_per_round": 0,
    "steps_per_round": 60,
    "foreground_fraction": 0.5,
}
CHANGES = {"flip": 0.5, "rotate_degrees": 5.0, "noise": 0.1}


def a_plan_of_three_regions(network: dict[str, Any]) -> Plan:
    regions = {"required": ("flair", "t1ce"), "regions": ("WT", "TC", "ET")}
    return a_plan(scans=regions, network={**network, "norm": "instance"})


@pytest.mark.parametrize("network", [IN_2D, IN_3D], ids=["2d", "3d"])
@pytest.mark.parametrize("n_slices", [5, 11])  # fewer and more than a patch has, and odd
def test_each_region_of_each_case_is_scored_and_outlined(
    tmp_path: Path, network: dict[str, Any], n_slices: int
) -> None:
    plan = a_plan_of_three_regions(network)
    write_dataset(tmp_path, plan, n_slices=n_slices)
    entries = entries_of(tmp_path, plan, Subset.VALIDATION)
    weights = initial_weights(plan)
    with threads(1):
        scores = scores_of(weights, plan, read_cases(tmp_path, entries, plan), device=CPU)
        scorer = Scorer(network_with(weights, plan, CPU), plan, CPU, tmp_path)
        measured = [measure(scorer.outlines(entry)) for entry in entries]
    assert [(s.case, s.region) for s in scores] == [(e.id, r) for e in entries for r in Region]
    detailed = [score for case in measured for score in case.rows]
    assert [s.region for s in detailed] == list(Region) * len(entries)
    for quick, full in zip(scores, detailed, strict=True):
        assert quick.n_voxels == full.n_voxels > 0
        assert quick.n_voxels_predicted == full.n_voxels_predicted
        assert quick.dice == full.dice


def test_the_3d_network_learns_to_outline_three_regions() -> None:
    plan = a_plan_of_three_regions(IN_3D).model_copy(
        update={"training": a_plan(training=EAGER).training}
    )
    cases = [a_case(plan, name=str(n), n_slices=16, seed=n) for n in range(2)]
    unseen = a_case(plan, name="unseen", n_slices=16, seed=9, tumour_radius_mm=14)
    trained = train_from(
        initial_weights(plan), plan, training=cases, validation=[unseen], device="cpu", threads=1
    )
    found = {score.region: score for score in trained.result}
    truth = region_mask(unseen.label, unseen.protocol, Region.WT)
    assert found[Region.WT].n_voxels == truth.sum()
    assert trained.incoming[0].dice < 0.5
    assert found[Region.WT].dice > 0.8


def test_two_rounds_in_3d_with_one_plan_give_the_same_bits() -> None:
    network = {**IN_3D, "channels": (4, 6, 8), "deep_supervision": True, "dropout": 0.2}
    plan = a_plan_of_three_regions({**network, "dropout_levels": (2, 3)}).model_copy(
        update={
            "training": a_plan(
                training={**EAGER, "steps_per_round": 5, "augmentation": CHANGES}
            ).training
        }
    )
    cases = [a_case(plan, name=str(n), n_slices=10, seed=n) for n in range(2)]

    def once(site: str) -> dict[str, np.ndarray]:
        trained = train_from(
            initial_weights(plan), plan, training=cases, site=site, device="cpu", threads=1
        )
        return dict(trained.weights)

    first, second, other = once("hospital-a"), once("hospital-a"), once("hospital-b")
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)
    assert any(first[name].tobytes() != other[name].tobytes() for name in first)
