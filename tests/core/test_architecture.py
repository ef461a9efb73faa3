from pathlib import Path

import pytest

from brainfed import plan as plans
from brainfed.core.architecture import n_parameters, network_digest, network_table, tensor_table
from tests.builders import a_plan

PLANS = Path(__file__).resolve().parents[2] / "plans"


def test_the_papers_network_has_7_846_081_parameters() -> None:
    plan = plans.load(PLANS / "sheller2018.toml")
    assert n_parameters(tensor_table(plan)) == 7_846_081


def test_the_table_is_in_name_order() -> None:
    table = tensor_table(a_plan())
    assert list(table) == sorted(table)


def test_a_small_network_counted_by_hand() -> None:
    plan = a_plan(network={"channels": (2, 3)}, scans={"required": ("t1", "flair")})
    encoder = (2 * 2 * 9 + 2) + (2 * 2 * 9 + 2) + (2 * 3 * 9 + 3) + (3 * 3 * 9 + 3)
    decoder = ((3 + 2) * 2 * 9 + 2) + (2 * 2 * 9 + 2)
    head = 2 + 1
    assert n_parameters(tensor_table(plan)) == encoder + decoder + head


def test_the_last_convolution_has_one_output_for_each_region_and_the_first_one_input_a_modality():
    table = tensor_table(
        a_plan(scans={"required": ("t1", "t2"), "optional": ("flair",), "regions": ("WT", "ET")})
    )
    assert table["head.weight"] == (2, 4, 1, 1)
    assert table["encoder.level1.conv1.weight"] == (4, 3, 3, 3)


def test_instance_norm_adds_a_weight_and_a_bias_to_each_convolution_of_a_block() -> None:
    plain, normed = tensor_table(a_plan()), tensor_table(a_plan(network={"norm": "instance"}))
    added = set(normed) - set(plain)
    assert len(added) == 2 * sum("conv" in name and "weight" in name for name in plain)
    assert all(".norm" in name for name in added)


@pytest.mark.parametrize(
    "change",
    [
        {"network": {"channels": (4, 16)}},
        {"network": {"norm": "instance"}},
        {"network": {"activation": "leaky-relu"}},
        {"scans": {"regions": ("WT", "TC")}},
        {"scans": {"optional": ("t1",)}},
    ],
)
def test_another_network_has_another_digest(change: dict[str, object]) -> None:
    assert network_digest(a_plan(**change)) != network_digest(a_plan())


def test_a_plan_that_differs_elsewhere_has_the_same_network() -> None:
    assert network_digest(a_plan(rounds=7, training={"rate": 0.5})) == network_digest(a_plan())


def test_a_3d_network_has_kernels_of_27_voxels_and_a_deep_head_for_each_level_below() -> None:
    network = {"architecture": "unet-3d", "channels": (2, 3, 4, 5), "patch": (8, 16, 16)}
    flat, deep = (
        tensor_table(a_plan(network={**network, "deep_supervision": answer}))
        for answer in (False, True)
    )
    assert flat["encoder.level1.conv1.weight"] == (2, 1, 3, 3, 3)
    assert flat["head.weight"] == (1, 2, 1, 1, 1)
    added = {name: deep[name] for name in set(deep) - set(flat)}
    assert added == {
        "deep.level2.weight": (1, 3, 1, 1, 1),
        "deep.level2.bias": (1,),
        "deep.level3.weight": (1, 4, 1, 1, 1),
        "deep.level3.bias": (1,),
    }


def test_what_stays_local_is_in_the_network_and_not_in_what_travels() -> None:
    local = ("head.weight", "encoder.level1.conv2.bias")
    plan, without = a_plan(network={"local": local}), a_plan()
    assert network_table(plan) == network_table(without) == tensor_table(without)
    assert set(network_table(plan)) - set(tensor_table(plan)) == set(local)
    assert n_parameters(network_table(plan)) - n_parameters(tensor_table(plan)) == 4 + 4
    assert network_digest(plan) != network_digest(without)


def test_the_table_of_an_external_network_is_what_does_not_stay_local() -> None:
    network = {
        "architecture": "external",
        "tensors": ("b.weight F32 4 1 3 3", "a F32", "steps I64", "mine.weight F32 2"),
        "local": ("steps", "mine.weight"),
    }
    plan = a_plan(network=network)
    assert tensor_table(plan) == {"a": (), "b.weight": (4, 1, 3, 3)}
    assert n_parameters(tensor_table(plan)) == 37
    assert network_table(plan) == tensor_table(plan) | {"mine.weight": (2,), "steps": ()}
    kept_more = a_plan(network={**network, "local": ("steps", "mine.weight", "a")})
    assert network_digest(kept_more) != network_digest(plan)
