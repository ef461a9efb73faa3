"""From a case's image to the probability of each region, and its scores.

A 2-D network goes slice by slice, a 3-D one patch by patch.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brainfed.core.device import layout_of, memory_errors
from brainfed.core.metrics import Measure, dice, soft_slice_dice
from brainfed.core.samples import Volume
from brainfed.core.scoring import CaseScore
from brainfed.core.unet import UNet
from brainfed.plan import Plan

THRESHOLD = 0.5
"""Probability above which a voxel belongs to the region."""


def network_with(
    weights: Mapping[str, NDArray[np.float32]], plan: Plan, device: torch.device
) -> UNet:
    """The plan's network holding these weights, on the device.

    Args:
        weights: float32 arrays by name, those of `core.architecture.network_table(plan)`.
        plan: The plan.
        device: Where to compute; channels come last in memory on CUDA, where it is faster.

    Raises:
        ResourceError: The device's memory is too small.
    """
    with memory_errors(plan):
        model = UNet(plan)
        # A copy: training must not write into the caller's arrays.
        model.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
        layout = layout_of(device, plan.network.n_dimensions)
        return model.to(device=device, memory_format=layout)  # type: ignore[call-overload,no-any-return]


def probabilities(
    model: UNet,
    image: NDArray[np.floating],
    device: torch.device,
    batch: int = 16,
    *,
    mirror: bool = False,
) -> NDArray[np.float32]:
    """The network's answer for one case.

    Args:
        model: On the device; it is left in evaluation mode.
        image: float16 or float32 (modality, z, y, x), z-scored.
        device: Where to compute.
        batch: Slices at a time in 2-D, where the answer hardly depends on it (last bits); patches
            go one at a time.
        mirror: Take the mean with the answer for the image flipped left to right, the one flip
            that training knows; it costs twice the time.

    Returns:
        float32 (region, z, y, x), from 0 to 1.
    """
    model.eval()
    with torch.inference_mode():
        if model.patch:
            return _patch_by_patch(model, image, device, mirror=mirror)
        parts: list[NDArray[np.float32]] = []
        for start in range(0, image.shape[1], batch):
            slices = image[:, start : start + batch].swapaxes(0, 1)
            parts.append(_answer(model, slices, device, mirror=mirror).numpy())
    return np.ascontiguousarray(np.concatenate(parts).swapaxes(0, 1))


def _answer(
    model: UNet, image: NDArray[np.floating], device: torch.device, *, mirror: bool
) -> Tensor:
    """Probabilities (sample, region, *space) on the CPU, of an image (sample, modality, *space)."""
    x = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32)).to(device)
    found = torch.sigmoid(model(x).float())
    if mirror:
        found = (found + torch.sigmoid(model(x.flip(-1)).float()).flip(-1)) / 2
    return found.cpu()


def _patch_by_patch(
    model: UNet, image: NDArray[np.floating], device: torch.device, *, mirror: bool
) -> NDArray[np.float32]:
    """The mean over patches that overlap by half, the middle of each counting most.

    What is smaller than a patch is padded with zeros on both sides and cut back. The sums lie in
    the CPU's memory: that of a GPU holds one patch.

    Source: MONAI's `sliding_window_inference` with `mode="gaussian"`.
    """
    patch, shape = model.patch, image.shape[1:]
    lacking = [max(edge - n, 0) for edge, n in zip(patch, shape, strict=True)]
    padding = [(more // 2, more - more // 2) for more in lacking]
    padded = np.pad(image, [(0, 0), *padding])
    total = torch.zeros((model.head.out_channels, *padded.shape[1:]))
    weight = torch.zeros(padded.shape[1:])
    importance = _importance(patch)
    places = (_starts(n, edge) for n, edge in zip(padded.shape[1:], patch, strict=True))
    for place in itertools.product(*places):
        window = tuple(slice(at, at + edge) for at, edge in zip(place, patch, strict=True))
        part = padded[(np.newaxis, slice(None), *window)]
        total[(slice(None), *window)] += _answer(model, part, device, mirror=mirror)[0] * importance
        weight[window] += importance
    # A mean of ones can be a last bit above 1.
    mean = (total / weight).clamp_(max=1.0).numpy()
    within = (slice(before, before + n) for (before, _), n in zip(padding, shape, strict=True))
    return np.ascontiguousarray(mean[(slice(None), *within)])


def _starts(length: int, edge: int) -> list[int]:
    """Where patches begin along an axis: every half patch, the last one ending with the axis."""
    step = edge // 2
    return [min(at, length - edge) for at in range(0, length - edge + step, step)]


def _importance(patch: tuple[int, ...]) -> Tensor:
    """A Gaussian about the middle of the patch, its sigma an eighth of each edge, at least 0.001.

    The floor keeps the corners, which in a corner of the volume are all there is, away from zero.
    """
    importance = torch.ones(())
    for edge in patch:
        away = torch.arange(edge) - (edge - 1) / 2
        along = torch.exp(-(away**2) / (2 * (edge / 8) ** 2))
        importance = importance.unsqueeze(-1) * along
    return importance.clamp(min=1e-3)


def score_volume(
    models: Sequence[UNet],
    volume: Volume,
    plan: Plan,
    device: torch.device,
    *,
    case: str,
    patient: str,
) -> list[CaseScore]:
    """Score one case, in the order of the plan's regions.

    Args:
        models: At least one; of several the mean of the probabilities is scored.
        volume: The case.
        plan: The plan.
        device: Where to compute.
        case: Its id.
        patient: The id of its patient.

    Raises:
        ResourceError: The memory is too small.
    """
    with memory_errors(plan):
        probability = probabilities(models[0], volume.image, device)
        for model in models[1:]:
            probability += probabilities(model, volume.image, device)
    probability /= len(models)
    scores = []
    for region, found, truth in zip(plan.scans.regions, probability, volume.regions, strict=True):
        outline = found > THRESHOLD
        scores.append(
            CaseScore(
                case=case,
                patient=patient,
                region=region,
                n_voxels=int(truth.sum()),
                n_voxels_predicted=int(outline.sum()),
                values={
                    Measure.DICE: dice(outline, truth),
                    Measure.SOFT_SLICE_DICE: soft_slice_dice(found, truth),
                },
                is_complete=all(volume.present),
            )
        )
    return scores
