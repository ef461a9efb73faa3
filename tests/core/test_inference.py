"""From a case's image to probabilities on its grid."""

import numpy as np
import torch

from brainfed.core.inference import network_with, probabilities
from brainfed.core.unet import initial_weights
from tests.builders import a_case, a_plan

CPU = torch.device("cpu")


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
