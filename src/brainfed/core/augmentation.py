"""Random changes of a batch of training slices, each slice with its own draw.

Order: flip, rotation and scaling about the centre, then intensity. The image is interpolated
linearly and continued at its border; regions take their nearest pixel and end at the border. A
modality that the case lacks stays a channel of zeros.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from brainfed.plan import Augmentation


def augment(
    image: Tensor,
    regions: Tensor,
    present: Tensor,
    settings: Augmentation,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """A changed copy of a batch.

    Args:
        image: float32 (slice, modality, y, x), z-scored.
        regions: float32 (slice, region, y, x), 0 or 1.
        present: bool (slice, modality), False where the case lacks the modality.
        settings: How much of each change; zeros change nothing.
        generator: Random numbers, on the CPU whatever the device, so the draws are the same there.

    Returns:
        image, regions: of the same shapes and types, on the same device.
    """
    image, regions = _flip(image, regions, settings.flip, generator)
    if settings.rotate_degrees > 0 or settings.scale_fraction > 0:
        image, regions = _rotate_and_scale(image, regions, settings, generator)
    if settings.intensity_shift > 0 or settings.intensity_scale_fraction > 0:
        image = _change_intensity(image, settings, generator)
    return image * present[:, :, None, None], regions


def _flip(
    image: Tensor, regions: Tensor, chance: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Mirror left and right (x) of each slice with this chance."""
    if chance <= 0:
        return image, regions
    flipped = torch.rand(len(image), generator=generator) < chance
    flipped = flipped.to(image.device)[:, None, None, None]
    return (
        torch.where(flipped, image.flip(-1), image),
        torch.where(flipped, regions.flip(-1), regions),
    )


def _rotate_and_scale(
    image: Tensor, regions: Tensor, settings: Augmentation, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Turn each slice about its centre and magnify it, in pixels, not in shares of the edges."""
    n, _, n_y, n_x = image.shape
    angle = _between(-1, 1, (n,), generator) * math.radians(settings.rotate_degrees)
    scale = 1 + _between(-1, 1, (n,), generator) * settings.scale_fraction
    cosine, sine = torch.cos(angle) / scale, torch.sin(angle) / scale
    # grid_sample counts both axes from -1 to 1, so a turn of a non-square slice needs their ratio.
    matrix = torch.zeros(n, 2, 3)
    matrix[:, 0, 0] = cosine
    matrix[:, 0, 1] = -sine * (n_y / n_x)
    matrix[:, 1, 0] = sine * (n_x / n_y)
    matrix[:, 1, 1] = cosine
    grid = functional.affine_grid(matrix.to(image.device), [n, 1, n_y, n_x], align_corners=False)
    return (
        functional.grid_sample(image, grid, "bilinear", "border", align_corners=False),
        functional.grid_sample(regions, grid, "nearest", "zeros", align_corners=False),
    )


def _change_intensity(image: Tensor, settings: Augmentation, generator: torch.Generator) -> Tensor:
    """Scale and shift each modality of each slice; the unit is the case's standard deviation."""
    shape = (*image.shape[:2], 1, 1)
    scale = 1 + _between(-1, 1, shape, generator) * settings.intensity_scale_fraction
    shift = _between(-1, 1, shape, generator) * settings.intensity_shift
    return image * scale.to(image.device) + shift.to(image.device)


def _between(low: float, high: float, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)
