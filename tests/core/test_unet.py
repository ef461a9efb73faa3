"""The network is the paper's, and its weights are those of the tensor table."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from brainfed.core.architecture import tensor_table
from brainfed.core.device import threads
from brainfed.core.unet import UNet, convolve_beside, initial_weights
from brainfed.plan import (
    Activation,
    Architecture,
    Grid,
    Modality,
    Network,
    Norm,
    Plan,
    Region,
    Scans,
)

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
    three = draw(st.booleans())
    return Plan(
        name="any",
        scans=Scans(required=tuple(modalities), regions=tuple(regions)),
        grid=Grid(size=(16, 24)),
        network=Network(
            architecture=Architecture.UNET_3D if three else Architecture.UNET_2D,
            channels=tuple(channels),
            norm=draw(st.sampled_from(Norm)),
            activation=draw(st.sampled_from(Activation)),
            patch=(8, 16, 24) if three else (),
            deep_supervision=n_levels > 2 and draw(st.booleans()),
        ),
    )


def an_image(plan: Plan) -> Tensor:
    space = plan.network.patch or plan.grid.size
    return torch.randn(2, len(plan.scans.modalities), *space)


def random_weights(plan: Plan, seed: int = 0) -> dict[str, Tensor]:
    """The scale of the initial weights, and biases that are not zero."""
    random = np.random.default_rng(seed)
    return {
        name: torch.from_numpy(
            array + (0.1 * random.standard_normal(array.shape)).astype(np.float32)
            if array.ndim == 1
            else array
        )
        for name, array in initial_weights(plan).items()
    }


def the_papers_network(w: dict[str, Tensor], image: Tensor) -> Tensor:
    """A restatement from the paper's words: five levels, two 3x3 convolutions with ReLU each."""

    def two_convolutions(x: Tensor, where: str) -> Tensor:
        x = functional.conv2d(
            x, w[f"{where}.conv1.weight"], w[f"{where}.conv1.bias"], stride=1, padding=1
        ).clamp(min=0)
        return functional.conv2d(
            x, w[f"{where}.conv2.weight"], w[f"{where}.conv2.bias"], stride=1, padding=1
        ).clamp(min=0)

    def halved(x: Tensor) -> Tensor:
        return x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).amax(dim=(3, 5))

    def doubled_beside(x: Tensor, skip: Tensor) -> Tensor:
        return torch.cat((x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3), skip), dim=1)

    down1 = two_convolutions(image, "encoder.level1")
    down2 = two_convolutions(halved(down1), "encoder.level2")
    down3 = two_convolutions(halved(down2), "encoder.level3")
    down4 = two_convolutions(halved(down3), "encoder.level4")
    bottom = two_convolutions(halved(down4), "encoder.level5")
    up4 = two_convolutions(doubled_beside(bottom, down4), "decoder.level4")
    up3 = two_convolutions(doubled_beside(up4, down3), "decoder.level3")
    up2 = two_convolutions(doubled_beside(up3, down2), "decoder.level2")
    up1 = two_convolutions(doubled_beside(up2, down1), "decoder.level1")
    return functional.conv2d(up1, w["head.weight"], w["head.bias"])


def test_the_paper_s_network_has_its_7_846_081_parameters() -> None:
    assert sum(parameter.numel() for parameter in UNet(THE_PAPER).parameters()) == 7_846_081


@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
def test_the_paper_s_network_answers_as_a_plain_restatement_of_it(
    kind: torch.dtype, tolerance: float
) -> None:
    """In float64 to the last digits: what is left in float32, of logits up to 7, is rounding."""
    weights = {name: tensor.to(kind) for name, tensor in random_weights(THE_PAPER).items()}
    model = UNet(THE_PAPER).to(kind)
    model.load_state_dict(weights)
    random = np.random.default_rng(1)
    image = torch.from_numpy(random.standard_normal((2, 1, 48, 64), np.float32)).to(kind)
    with torch.inference_mode():
        found, expected = model.eval()(image), the_papers_network(weights, image)
    assert expected.std() > 0.1
    assert (found - expected).abs().max() < tolerance


@given(networks())
@settings(max_examples=25, deadline=None)
def test_names_and_shapes_are_those_of_the_tensor_table_and_of_the_plan(plan: Plan) -> None:
    state = {name: tuple(tensor.shape) for name, tensor in UNet(plan).state_dict().items()}
    assert dict(sorted(state.items())) == tensor_table(plan)
    assert tuple(sorted(state)) == plan.network.tensor_names


@given(networks())
@settings(max_examples=15, deadline=None)
def test_each_pixel_gets_one_logit_per_region(plan: Plan) -> None:
    image = an_image(plan)
    logits = UNet(plan).eval()(image)
    assert logits.shape == (2, len(plan.scans.regions), *image.shape[2:])


@given(networks())
@settings(max_examples=15, deadline=None)
def test_deep_supervision_adds_an_outline_of_half_the_edges_per_decoder_level(plan: Plan) -> None:
    model, image = UNet(plan).eval(), an_image(plan)
    finest, *deep = model.outputs(image)
    assert torch.equal(finest, model(image))
    n_deep = len(plan.network.channels) - 2 if plan.network.deep_supervision else 0
    assert len(deep) == n_deep
    for halvings, logits in enumerate(deep, start=1):
        edges = [n // 2**halvings for n in image.shape[2:]]
        assert logits.shape == (2, len(plan.scans.regions), *edges)


def test_each_deep_head_reads_the_decoder_level_of_its_name() -> None:
    plan = Plan(name="a", network=Network(channels=(1, 2, 3, 4), deep_supervision=True))
    model = UNet(plan)
    for logits, name in zip(
        model.outputs(an_image(plan)), ("head", "deep.level2", "deep.level3"), strict=True
    ):
        model.zero_grad()
        logits.sum().backward(retain_graph=True)
        heads = {n for n, p in model.named_parameters() if p.grad is not None and "coder" not in n}
        assert heads == {f"{name}.weight", f"{name}.bias"}


@pytest.mark.parametrize(("kind", "edges"), [(nn.Conv2d, (3, 5)), (nn.Conv3d, (2, 3, 5))])
def test_the_decoder_convolves_the_doubled_level_beside_the_skip(
    kind: type[nn.Conv2d | nn.Conv3d], edges: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    conv = kind(4 + 3, 2, 3, padding=1).double()
    below = torch.randn(2, 4, *edges, dtype=torch.float64, requires_grad=True)
    skip = torch.randn(2, 3, *(2 * n for n in edges), dtype=torch.float64, requires_grad=True)
    inputs = (below, skip, conv.weight, conv.bias)
    plain = conv(torch.cat((functional.interpolate(below, scale_factor=2.0), skip), dim=1))
    found = convolve_beside(conv, below, skip)
    assert torch.allclose(found, plain, rtol=1e-12, atol=1e-12)
    expected = torch.autograd.grad((plain**2).sum(), inputs)
    for one, other in zip(torch.autograd.grad((found**2).sum(), inputs), expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("norm", Norm)
def test_in_3d_a_kernel_that_reads_one_plane_gives_the_2d_network_on_each_slice(norm: Norm) -> None:
    """An image that is the same in all slices: pooling and norm along z then change nothing."""
    flat = Plan(name="a", network=Network(channels=(3, 4, 5), norm=norm))
    deep = Network(
        architecture=Architecture.UNET_3D, channels=(3, 4, 5), norm=norm, patch=(8, 16, 16)
    )
    weights = random_weights(flat)
    in_3d = {}
    for name, tensor in weights.items():
        in_3d[name] = tensor
        if tensor.ndim == 4:
            n = tensor.shape[-1]
            in_3d[name] = torch.zeros(*tensor.shape[:2], n, n, n)
            in_3d[name][:, :, n // 2] = tensor
    model_2d, model_3d = UNet(flat), UNet(flat.model_copy(update={"network": deep}))
    model_2d.load_state_dict(weights)
    model_3d.load_state_dict(in_3d)
    slices = torch.randn(2, 1, 16, 24, generator=torch.Generator().manual_seed(0))
    expected = model_2d(slices)
    found = model_3d(slices[:, :, None].expand(-1, -1, 8, -1, -1))
    assert torch.allclose(found, expected[:, :, None].expand_as(found), rtol=1e-4, atol=1e-5)


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


def test_in_3d_a_convolution_has_27_values_per_input_channel() -> None:
    network = Network(architecture=Architecture.UNET_3D, channels=(8, 16), patch=(8, 8, 8))
    weights = initial_weights(Plan(name="a", network=network))
    conv = weights["encoder.level2.conv1.weight"]
    limit = np.sqrt(6 / (27 * 8))
    assert conv.shape == (16, 8, 3, 3, 3)
    assert 0.98 * limit < np.abs(conv).max() <= limit * 1.000001
    assert conv.std() == pytest.approx(limit / np.sqrt(3), rel=0.05)


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


@pytest.mark.parametrize("norm", Norm)
def test_activations_that_work_in_place_change_no_gradient(norm: Norm) -> None:
    plan = Plan(name="a", network=Network(channels=(4, 8, 16), norm=norm))
    image = torch.linspace(-2, 2, 2 * 256).reshape(2, 1, 16, 16)
    gradients = []
    for in_place in (True, False):
        model = UNet(plan)
        model.load_state_dict({n: torch.tensor(a) for n, a in initial_weights(plan).items()})
        for module in model.modules():
            if isinstance(module, nn.ReLU):
                assert module.inplace
                module.inplace = in_place
        model(image).square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


def test_leaky_relu_has_the_slope_of_one_hundredth() -> None:
    plan = Plan(name="a", network=Network(channels=(2, 2), activation=Activation.LEAKY_RELU))
    slopes = [m.negative_slope for m in UNet(plan).modules() if isinstance(m, nn.LeakyReLU)]
    assert slopes
    assert set(slopes) == {0.01}
