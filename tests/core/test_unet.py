"""The network is the paper's, and its weights are those of the tensor table."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from brainfed.core.architecture import tensor_table
from brainfed.core.device import threads
from brainfed.core.unet import UNet, initial_weights
from brainfed.plan import Activation, Grid, Modality, Network, Norm, Plan, Region, Scans

THE_PAPER = Plan(
    name="sheller2018",
    grid=Grid(size=(128, 128)),
    network=Network(
        channels=(32, 64, 128, 256, 512),
        norm=Norm.NONE,
        activation=Activation.RELU,
        dropout=0.2,
        dropout_levels=(3, 4),
    ),
)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """So small a network is fastest on one, above all beside other tests."""
    with threads(1):
        yield


@st.composite
def networks(draw: st.DrawFn) -> Plan:
    n_levels = draw(st.integers(2, 4))
    channels = draw(st.lists(st.integers(1, 5), min_size=n_levels, max_size=n_levels))
    modalities = draw(st.lists(st.sampled_from(Modality), min_size=1, max_size=4, unique=True))
    regions = draw(st.lists(st.sampled_from(Region), min_size=1, max_size=3, unique=True))
    return Plan(
        name="any",
        scans=Scans(required=tuple(modalities), regions=tuple(regions)),
        grid=Grid(size=(16, 24)),
        network=Network(
            channels=tuple(channels),
            norm=draw(st.sampled_from(Norm)),
            activation=draw(st.sampled_from(Activation)),
        ),
    )


def test_the_paper_s_network_has_its_7_846_081_parameters() -> None:
    assert sum(parameter.numel() for parameter in UNet(THE_PAPER).parameters()) == 7_846_081


@given(networks())
@settings(max_examples=25, deadline=None)
def test_names_and_shapes_are_those_of_the_tensor_table(plan: Plan) -> None:
    state = {name: tuple(tensor.shape) for name, tensor in UNet(plan).state_dict().items()}
    assert dict(sorted(state.items())) == tensor_table(plan)


@given(networks())
@settings(max_examples=15, deadline=None)
def test_each_pixel_gets_one_logit_per_region(plan: Plan) -> None:
    image = torch.randn(2, len(plan.scans.modalities), *plan.grid.size)
    logits = UNet(plan).eval()(image)
    assert logits.shape == (2, len(plan.scans.regions), *plan.grid.size)


def test_the_answer_is_a_logit_without_a_sigmoid() -> None:
    model = UNet(Plan(name="a", network=Network(channels=(2, 2))))
    nn.init.constant_(model.head.bias, -7.0)
    nn.init.zeros_(model.head.weight)
    assert (model(torch.randn(1, 1, 8, 8)) == -7).all()


def test_the_initial_weights_load_and_are_the_same_each_time() -> None:
    plan = THE_PAPER.model_copy(update={"network": Network(channels=(3, 4), norm=Norm.INSTANCE)})
    first, second = initial_weights(plan), initial_weights(plan)
    UNet(plan).load_state_dict({name: torch.tensor(array) for name, array in first.items()})
    assert list(first) == list(tensor_table(plan))
    for name, array in first.items():
        assert array.dtype == np.float32
        assert array.tobytes() == second[name].tobytes()


def test_the_initial_weights_depend_on_the_seed_and_on_nothing_else() -> None:
    plan = Plan(name="a", network=Network(channels=(3, 4)))
    other_name = plan.model_copy(update={"name": "b", "rounds": 7})
    other_seed = plan.model_copy(update={"seed": plan.seed + 1})
    name = "encoder.level2.conv1.weight"
    assert np.array_equal(initial_weights(plan)[name], initial_weights(other_name)[name])
    assert not np.array_equal(initial_weights(plan)[name], initial_weights(other_seed)[name])


def test_convolutions_start_he_uniform_biases_at_0_and_norms_at_1() -> None:
    plan = Plan(name="a", network=Network(channels=(32, 64), norm=Norm.INSTANCE))
    weights = initial_weights(plan)
    limit = np.sqrt(6 / (9 * 32))
    conv = weights["encoder.level2.conv1.weight"]
    assert np.abs(conv).max() <= limit * 1.000001
    assert conv.std() == pytest.approx(limit / np.sqrt(3), rel=0.02)
    assert abs(conv.mean()) < 0.02 * limit
    assert not weights["encoder.level2.conv1.bias"].any()
    assert (weights["encoder.level1.norm1.weight"] == 1).all()
    assert not weights["encoder.level1.norm1.bias"].any()


def test_dropout_stands_in_the_named_encoder_levels_only() -> None:
    rates = {
        name: module.p
        for name, module in UNet(THE_PAPER).named_modules()
        if isinstance(module, nn.Dropout)
    }
    assert {name for name, rate in rates.items() if rate > 0} == {
        "encoder.level3.dropout",
        "encoder.level4.dropout",
    }
    assert rates["encoder.level3.dropout"] == 0.2


def test_dropout_changes_the_answer_in_training_and_not_in_evaluation() -> None:
    plan = Plan(name="a", network=Network(channels=(8, 16), dropout=0.5, dropout_levels=(1, 2)))
    model = UNet(plan)
    model.load_state_dict({n: torch.tensor(a) for n, a in initial_weights(plan).items()})
    image = torch.linspace(-2, 2, 256).reshape(1, 1, 16, 16)
    assert not torch.equal(model.train()(image), model(image))
    assert torch.equal(model.eval()(image), model(image))


def test_no_activation_works_in_place() -> None:
    model = UNet(THE_PAPER)
    activations = [m for m in model.modules() if isinstance(m, nn.ReLU | nn.LeakyReLU)]
    assert activations
    assert not any(module.inplace for module in activations)


def test_leaky_relu_has_the_slope_of_one_hundredth() -> None:
    plan = Plan(name="a", network=Network(channels=(2, 2), activation=Activation.LEAKY_RELU))
    slopes = [m.negative_slope for m in UNet(plan).modules() if isinstance(m, nn.LeakyReLU)]
    assert slopes
    assert set(slopes) == {0.01}
