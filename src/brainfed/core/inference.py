"""From a case's image to the probability of each region, slice by slice, and its scores."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from brainfed.core.device import memory_errors
from brainfed.core.metrics import Measure, dice, soft_slice_dice
from brainfed.core.scoring import CaseScore
from brainfed.core.slices import Volume
from brainfed.core.unet import UNet
from brainfed.plan import Plan

THRESHOLD = 0.5
"""Probability above which a voxel belongs to the region."""


def network_with(
    weights: Mapping[str, NDArray[np.float32]], plan: Plan, device: torch.device
) -> UNet:
    """The plan's network holding these weights, on the device.

    Args:
        weights: float32 arrays by name, those of `core.architecture.tensor_table(plan)`.
        plan: The plan.
        device: Where to compute; channels come last in memory on CUDA, where it is faster.

    Raises:
        ResourceError: The device's memory is too small.
    """
    with memory_errors(plan):
        model = UNet(plan)
        # A copy: training must not write into the caller's arrays.
        model.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
        layout = torch.channels_last if device.type == "cuda" else torch.contiguous_format
        return model.to(device=device, memory_format=layout)  # type: ignore[call-overload,no-any-return]


def probabilities(
    model: UNet, image: NDArray[np.floating], device: torch.device, batch: int = 16
) -> NDArray[np.float32]:
    """The network's answer for one case.

    Args:
        model: On the device; it is left in evaluation mode.
        image: float16 or float32 (modality, z, y, x), z-scored.
        device: Where to compute.
        batch: Slices at a time; the answer hardly depends on it (last bits).

    Returns:
        float32 (region, z, y, x), from 0 to 1.
    """
    model.eval()
    parts: list[NDArray[np.float32]] = []
    with torch.inference_mode():
        for start in range(0, image.shape[1], batch):
            slices = image[:, start : start + batch].swapaxes(0, 1).astype(np.float32)
            x = torch.from_numpy(np.ascontiguousarray(slices)).to(device)
            parts.append(torch.sigmoid(model(x)).cpu().numpy())
    return np.ascontiguousarray(np.concatenate(parts).swapaxes(0, 1))


def score_volume(
    model: UNet, volume: Volume, plan: Plan, device: torch.device, *, case: str, patient: str
) -> list[CaseScore]:
    """Score one case, in the order of the plan's regions.

    Raises:
        ResourceError: The memory is too small.
    """
    with memory_errors(plan):
        probability = probabilities(model, volume.image, device)
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
