"""From a case's image to probabilities on its grid."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.inferers import sliding_window_inference

from brainfed.core.device import threads
from brainfed.core.inference import network_with, probabilities, score_volume
from brainfed.core.metrics import Measure
from brainfed.core.samples import Volume
from brainfed.core.unet import initial_weights
from brainfed.plan import Plan, Region
from tests.builders import a_case, a_plan

CPU = torch.device("cpu")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """So small a network is fastest on one, above all beside other tests."""
    with threads(1):
        yield


def test_each_region_gets_a_probability_at_every_voxel() -> None:
    plan = a_plan(scans={"required": ("flair", "t1"), "regions": ("WT", "TC", "ET")})
    case = a_case(plan, n_slices=5)
    found = probabilities(network_with(initial_weights(plan), plan, CPU), case.image, CPU, 2)
    assert found.shape == (3, 5, 32, 32)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    assert found.min() >= 0
    assert found.max() <= 1


def test_slices_keep_their_order() -> None:
    plan = a_plan()
    model = network_with(initial_weights(plan), plan, CPU)
    image = a_case(plan, n_slices=5).image
    whole = probabilities(model, image, CPU, 2)
    alone = probabilities(model, image[:, 3:4], CPU)
    assert np.allclose(whole[:, 3:4], alone, atol=1e-6)


def test_dropout_is_off_and_no_gradient_is_kept() -> None:
    plan = a_plan(network={"dropout": 0.5, "dropout_levels": (1, 2)})
    model = network_with(initial_weights(plan), plan, CPU).train()
    image = a_case(plan).image
    assert np.array_equal(probabilities(model, image, CPU), probabilities(model, image, CPU))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_network_does_not_share_memory_with_the_weights_it_was_given() -> None:
    plan = a_plan()
    weights = initial_weights(plan)
    model = network_with(weights, plan, CPU)
    torch.nn.init.zeros_(model.head.weight)
    assert weights["head.weight"].any()


@settings(max_examples=5, deadline=None)
@given(st.integers(1, 7))
def test_the_answer_hardly_depends_on_how_many_slices_go_at_once(batch: int) -> None:
    plan = a_plan()
    model = network_with(initial_weights(plan), plan, CPU)
    image = a_case(plan).image
    assert np.allclose(probabilities(model, image, CPU, batch), probabilities(model, image, CPU))


def test_a_case_is_scored_per_region_at_one_half() -> None:
    plan = a_plan(scans={"regions": ("WT", "ET")})
    model = network_with(initial_weights(plan), plan, CPU)
    torch.nn.init.zeros_(model.head.weight)
    model.head.bias.data = torch.tensor([20.0, -20.0])  # all of it WT, nothing of it ET
    case = a_case(plan)
    regions = np.stack([case.label > 0, case.label == 4])
    volume = Volume(case.image, regions, case.present)
    wt, et = score_volume([model], volume, plan, CPU, case="c", patient="p")
    assert (wt.case, wt.patient, wt.region, et.region) == ("c", "p", Region.WT, Region.ET)
    assert (wt.n_voxels, wt.n_voxels_predicted) == (regions[0].sum(), case.label.size)
    assert wt.dice == 2 * wt.n_voxels / (wt.n_voxels + case.label.size)
    assert (et.n_voxels_predicted, et.dice) == (0, 0)
    assert 0 < et.values[Measure.SOFT_SLICE_DICE] < 1


def test_a_probability_of_exactly_one_half_is_outside() -> None:
    plan = a_plan()
    model = network_with(initial_weights(plan), plan, CPU)
    torch.nn.init.zeros_(model.head.weight)
    case = a_case(plan)
    volume = Volume(case.image, (case.label > 0)[None], case.present)
    assert (
        score_volume([model], volume, plan, CPU, case="c", patient="p")[0].n_voxels_predicted == 0
    )


def a_3d_plan(patch: tuple[int, int, int] = (16, 16, 16)) -> Plan:
    return a_plan(
        scans={"required": ("flair", "t1ce"), "regions": ("WT", "TC", "ET")},
        network={"architecture": "unet-3d", "patch": patch, "channels": (4, 8), "norm": "instance"},
    )


def an_image(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((2, *shape)).astype(np.float16)


@pytest.mark.parametrize(
    ("patch", "shape"),
    [
        ((16, 16, 16), (16, 16, 16)),  # one patch
        ((8, 16, 24), (21, 37, 50)),  # odd
        ((16, 16, 16), (16, 17, 31)),  # as long as the patch along one axis
        ((16, 16, 16), (5, 40, 16)),  # fewer slices than the patch: padded, an odd number
        ((16, 32, 32), (9, 20, 11)),  # smaller everywhere
        ((8, 8, 8), (1, 9, 8)),
    ],
)
def test_patches_are_put_together_as_monai_does(
    patch: tuple[int, int, int], shape: tuple[int, int, int]
) -> None:
    plan = a_3d_plan(patch)
    model = network_with(initial_weights(plan), plan, CPU)
    image = an_image(*shape)
    found = probabilities(model, image, CPU)
    with torch.inference_mode():
        expected = sliding_window_inference(
            torch.from_numpy(image.astype(np.float32))[None],
            patch,
            3,
            lambda x: torch.sigmoid(model(x)),
            overlap=0.5,
            mode="gaussian",
        )[0].numpy()
    assert found.shape == (3, *shape)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    assert expected.std() > 0.01
    assert np.abs(found - expected).max() < 1e-5


def test_a_mean_over_patches_stays_a_probability() -> None:
    plan = a_3d_plan((8, 8, 8))
    model = network_with(initial_weights(plan), plan, CPU)
    torch.nn.init.zeros_(model.head.weight)
    model.head.bias.data = torch.tensor([50.0, -200.0, 0.0])
    certain, never, unsure = probabilities(model, an_image(13, 15, 21), CPU)
    assert certain.max() <= 1
    assert np.allclose(certain, 1, atol=1e-6)
    assert not never.any()
    assert np.allclose(unsure, 0.5, atol=1e-6)


@pytest.mark.parametrize("plan", [a_plan(scans={"required": ("flair", "t1ce")}), a_3d_plan()])
def test_mirroring_is_the_mean_with_the_image_flipped_left_to_right(plan: Plan) -> None:
    model = network_with(initial_weights(plan), plan, CPU)
    image = an_image(16, 24, 24)
    plain = probabilities(model, image, CPU)
    flipped = probabilities(model, image[..., ::-1], CPU)[..., ::-1]
    mirrored = probabilities(model, image, CPU, mirror=True)
    assert np.abs(plain - flipped).max() > 0.01
    assert np.allclose(mirrored, (plain + flipped) / 2, atol=1e-6)


def test_a_3d_network_scores_each_region_of_a_case() -> None:
    plan = a_3d_plan()
    model = network_with(initial_weights(plan), plan, CPU)
    torch.nn.init.zeros_(model.head.weight)
    model.head.bias.data = torch.tensor([20.0, -20.0, 20.0])
    case = a_case(plan, n_slices=7)
    regions = np.stack([case.label > 0, case.label % 3 == 1, case.label == 4])
    volume = Volume(case.image, regions, case.present)
    wt, tc, et = score_volume([model], volume, plan, CPU, case="c", patient="p")
    assert (wt.region, tc.region, et.region) == (Region.WT, Region.TC, Region.ET)
    assert wt.dice == 2 * wt.n_voxels / (wt.n_voxels + case.label.size)
    assert (tc.n_voxels, tc.dice) == (regions[1].sum(), 0)
    assert et.n_voxels == regions[2].sum()
