"""Random changes of a batch of training slices or patches, each sample with its own draw.

In the order of what happens to a scan: the head lies otherwise (a flip of left and right, a turn
and a scaling about the centre), its sampling is coarser, it is noisy, its intensities are bent
(gamma), scaled and shifted, a modality is not there. The image is interpolated linearly and
continued at its border; regions take their nearest voxel and end at the border, so they stay 0 or
1. A modality that the case lacks stays a channel of zeros.

What is drawn for a sample depends on its seed alone: on no other sample of the batch and on no
device. The noise itself is drawn on the device, whose bits are its own.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from brainfed.plan import Augmentation

# Each of these costs detail of the image, so most samples are spared; the shares are nnU-Net's.
CHANCE_OF_LOW_RESOLUTION = 0.25
CHANCE_OF_NOISE = 0.1
CHANCE_OF_GAMMA = 0.3

N_OF_SAMPLE = 8
N_OF_MODALITY = 6

TINY = 1e-7
"""Below this a range or standard deviation counts as none."""


class _Draws:
    """The numbers drawn for each sample, all of them whatever the plan asks for.

    So a change that is switched on leaves the others as they were.
    """

    def __init__(self, seeds: Sequence[int], n_modalities: int) -> None:
        n = N_OF_SAMPLE + N_OF_MODALITY * n_modalities
        drawn = np.array([np.random.default_rng(seed).random(n) for seed in seeds])
        drawn = drawn.reshape(len(seeds), n)
        of_sample = drawn[:, :N_OF_SAMPLE]
        self.flip, self.scale = of_sample[:, 0], _either_way(of_sample[:, 1])
        self.turns = _either_way(of_sample[:, 2:5])
        """(sample, axis z, y, x); a slice is turned about z."""
        self.is_coarse = of_sample[:, 5] < CHANCE_OF_LOW_RESOLUTION
        self.is_noisy = of_sample[:, 6] < CHANCE_OF_NOISE
        self.is_bent = of_sample[:, 7] < CHANCE_OF_GAMMA
        of_modality = drawn[:, N_OF_SAMPLE:].reshape(len(seeds), n_modalities, N_OF_MODALITY)
        self.coarseness, self.noise, self.drop = (of_modality[:, :, i] for i in range(3))
        self.gamma, self.gain, self.shift = (
            _either_way(of_modality[:, :, i]) for i in range(3, N_OF_MODALITY)
        )


@torch.no_grad()
def augment(
    image: Tensor,
    regions: Tensor,
    present: Tensor,
    settings: Augmentation,
    *,
    seeds: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """A changed copy of a batch.

    Args:
        image: float32 (sample, modality, [z,] y, x), z-scored.
        regions: float32 (sample, region, [z,] y, x), 0 or 1.
        present: bool (sample, modality), False where the case lacks the modality; best on the CPU,
            since a GPU has to be waited for.
        settings: How much of each change; zeros (and a `low_resolution` of 1) change nothing.
        seeds: One for each sample, from 0 to 2^63 - 1.

    Returns:
        image, regions: of the same shapes and types, on the same device.
    """
    draws = _Draws(seeds, image.shape[1])
    there = present.cpu().numpy()
    image, regions = image.clone(), regions.clone()
    for row in np.flatnonzero(draws.flip < settings.flip):
        image[row], regions[row] = image[row].flip(-1), regions[row].flip(-1)
    if settings.rotate_degrees > 0 or settings.scale_fraction > 0:
        image, regions = _turn_and_scale(image, regions, settings, draws)
    if settings.low_resolution > 1:
        for row in np.flatnonzero(draws.is_coarse):
            for modality in np.flatnonzero(there[row]):
                factor = 1 + draws.coarseness[row, modality] * (settings.low_resolution - 1)
                image[row, modality] = _coarser(image[row, modality], float(factor))
    if settings.noise > 0:
        for row in np.flatnonzero(draws.is_noisy):
            sigma = _to(draws.noise[row] * settings.noise, image[row])
            image[row] += sigma * _normal(image[row], seeds[int(row)])
    if settings.gamma > 0:
        exponents = (1 + settings.gamma) ** draws.gamma
        for row in np.flatnonzero(draws.is_bent):
            image[row] = _bent(image[row], exponents[row])
    if settings.intensity_scale_fraction > 0 or settings.intensity_shift > 0:
        image *= _to(1 + draws.gain * settings.intensity_scale_fraction, image)
        image += _to(draws.shift * settings.intensity_shift, image)
    kept = _kept(there, draws.drop, settings.drop_modality)
    if not kept.all():
        image *= _to(kept, image)
    return image, regions


def _turn_and_scale(
    image: Tensor, regions: Tensor, settings: Augmentation, draws: _Draws
) -> tuple[Tensor, Tensor]:
    """Turn each sample about its centre and magnify it, in voxels as if they were cubes.

    A slice turns in its plane, a patch about x, then y, then z.
    """
    shape = image.shape[2:]
    angles = draws.turns * math.radians(settings.rotate_degrees)
    matrix = _rotations(angles, len(shape)) / (
        1 + draws.scale[:, np.newaxis, np.newaxis] * settings.scale_fraction
    )
    # grid_sample counts every axis from -1 to 1, so what is not square needs the ratio of edges.
    edges = np.array(shape[::-1], np.float64)
    matrix = matrix * edges / edges[:, np.newaxis]
    along = [_centres(n, image) for n in shape[::-1]]
    # Sums of products, not a matrix product: its bits may depend on how large the batch is.
    columns = []
    for row in range(len(shape)):
        weights = _to(matrix[:, row], image)
        column: Tensor = sum(
            (
                weights[:, axis].reshape(-1, *(1,) * len(shape)) * centres.reshape(-1, *(1,) * axis)
                for axis, centres in enumerate(along)
            ),
            start=torch.zeros((), device=image.device),
        )
        columns.append(column)
    grid = torch.stack(columns, dim=-1)
    return (
        functional.grid_sample(image, grid, "bilinear", "border", align_corners=False),
        functional.grid_sample(regions, grid, "nearest", "zeros", align_corners=False),
    )


def _rotations(angles: NDArray[np.float64], n_dimensions: int) -> NDArray[np.float64]:
    """Matrices (sample, axis, axis) over x, y [, z], of angles (sample, about z, y, x)."""
    cosine, sine = np.cos(angles), np.sin(angles)
    result = np.tile(np.eye(n_dimensions), (len(angles), 1, 1))
    # The two axes, x being 0, that each turn moves.
    for number, (a, b) in enumerate(((0, 1), (0, 2), (1, 2))[: 2 * n_dimensions - 3]):
        turn = np.tile(np.eye(n_dimensions), (len(angles), 1, 1))
        turn[:, a, a] = turn[:, b, b] = cosine[:, number]
        turn[:, a, b], turn[:, b, a] = -sine[:, number], sine[:, number]
        result = result @ turn
    return result


def _centres(n: int, like: Tensor) -> Tensor:
    """Where the voxels of an axis lie from -1 to 1."""
    return (torch.arange(n, device=like.device, dtype=like.dtype) + 0.5) * (2 / n) - 1


def _coarser(image: Tensor, factor: float) -> Tensor:
    """One modality, ([z,] y, x), as if its voxels had been larger: means of them, then linear."""
    small = [max(1, round(n / factor)) for n in image.shape]
    found = functional.interpolate(image[None, None], size=small, mode="area")
    mode = "trilinear" if image.ndim == 3 else "bilinear"
    return functional.interpolate(found, size=image.shape, mode=mode, align_corners=False)[0, 0]


def _normal(like: Tensor, seed: int) -> Tensor:
    generator = torch.Generator(like.device).manual_seed(seed)
    return torch.randn(like.shape, generator=generator, device=like.device)


def _bent(image: Tensor, exponents: NDArray[np.float64]) -> Tensor:
    """A sample, (modality, [z,] y, x), with each modality raised to a power within its own range.

    Mean and standard deviation stay, as nnU-Net keeps them, so that only the contrast changes.
    """
    flat = image.flatten(1)
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    within = (flat - low) / (high - low).clamp(min=TINY)
    # Four times as quick as raising to a power: a logarithm of 0 comes back as 0.
    bent = torch.exp(torch.log(within) * _to(exponents, flat))
    (old_mean, old_sd), (new_mean, new_sd) = _mean_and_sd(flat), _mean_and_sd(bent)
    found = (bent - new_mean) * (old_sd / new_sd.clamp(min=TINY)) + old_mean
    return found.reshape(image.shape)


def _mean_and_sd(flat: Tensor) -> tuple[Tensor, Tensor]:
    """Of each row, as columns; many times as quick as `torch.std_mean` on a CPU."""
    mean = flat.mean(1, keepdim=True)
    return mean, (flat - mean).square().mean(1, keepdim=True).sqrt()


def _kept(there: NDArray[np.bool_], drop: NDArray[np.float64], chance: float) -> NDArray[np.bool_]:
    """Which modalities (sample, modality) are neither missing nor dropped; one always stays."""
    kept = there & (drop >= chance)
    # Where chance takes all, the one that was nearest to stay does.
    last = np.where(there, drop, -1.0).argmax(axis=1)
    rows = np.flatnonzero(~kept.any(axis=1) & there.any(axis=1))
    kept[rows, last[rows]] = True
    return kept


def _either_way(drawn: NDArray[np.float64]) -> NDArray[np.float64]:
    """From 0 to 1 to -1 to 1."""
    return 2 * drawn - 1


def _to(values: NDArray[np.generic], like: Tensor) -> Tensor:
    """Numbers as a tensor that fits before the axes of another, without waiting for its device."""
    found = torch.from_numpy(np.ascontiguousarray(values)).to(like.dtype)
    found = found.reshape(*values.shape, *(1,) * (like.ndim - values.ndim))
    if like.device.type == "cuda":
        found = found.pin_memory().to(like.device, non_blocking=True)
    return found
