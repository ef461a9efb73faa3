"""The training set in memory, and the order in which its slices come."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brainfed.plan import Training


@dataclass(frozen=True, slots=True)
class Volume:
    """One case as the network sees it.

    Attributes:
        image: float16 (modality, z, y, x), z-scored.
        regions: bool (region, z, y, x).
        present: Per modality, whether the case has it; a missing one is zero in `image`.
    """

    image: NDArray[np.float16]
    regions: NDArray[np.bool_]
    present: tuple[bool, ...]


class Slices:
    """All slices of the training cases, in memory, in the order of the cases.

    The volumes stay as they are: a batch is gathered from them slice by slice, which costs a few
    hundredths of a training step and no second copy.
    """

    def __init__(self, volumes: list[Volume]) -> None:
        self.volumes = volumes
        self._places = [(v, z) for v in volumes for z in range(v.image.shape[1])]
        with_tumour = [v.regions.any(axis=(0, 2, 3)) for v in volumes]
        self.foreground = np.concatenate(with_tumour) if with_tumour else np.zeros(0, np.bool_)
        """bool (slice,), True where any region has a pixel."""

    def __len__(self) -> int:
        return len(self._places)

    def batch(self, numbers: NDArray[np.intp]) -> tuple[Tensor, Tensor, Tensor]:
        """Image and regions as float32 (slice, channel, y, x), and present (slice, modality)."""
        first = self.volumes[0]
        shape = first.image.shape[2:]
        image = np.empty((len(numbers), len(first.image), *shape), np.float32)
        regions = np.empty((len(numbers), len(first.regions), *shape), np.float32)
        places = [self._places[number] for number in numbers]
        for row, (volume, z) in enumerate(places):
            image[row] = volume.image[:, z]
            regions[row] = volume.regions[:, z]
        present = torch.tensor([volume.present for volume, _ in places])
        return torch.from_numpy(image), torch.from_numpy(regions), present


def batch_numbers(
    foreground: NDArray[np.bool_], settings: Training, random: np.random.Generator
) -> Iterator[NDArray[np.intp]]:
    """Numbers of the slices of each batch, without end.

    With a foreground share of 0 every slice comes once before any comes again, and the last batch
    of such a pass may be smaller. With a share, each batch has that many slices with tumour and
    the rest without (each kind shuffled, and used up before it is shuffled again); where one kind
    is missing the other fills the batch. A batch is never larger than the training set.

    Args:
        foreground: bool (slice,), at least one of them.
        settings: `batch` and `foreground_fraction`.
        random: Where the order comes from.
    """
    size = min(settings.batch, len(foreground))
    if settings.foreground_fraction == 0:
        while True:
            order = random.permutation(len(foreground))
            for start in range(0, len(order), size):
                yield order[start : start + size]
    n_foreground = max(1, math.floor(settings.foreground_fraction * size + 0.5))
    if foreground.all():
        n_foreground = size
    with_tumour = _shuffled_for_ever(np.flatnonzero(foreground), random)
    without = _shuffled_for_ever(np.flatnonzero(~foreground), random)
    while True:
        kinds = [with_tumour] * n_foreground + [without] * (size - n_foreground)
        yield np.array([next(kind) for kind in kinds], dtype=np.intp)


def _shuffled_for_ever(numbers: NDArray[np.intp], random: np.random.Generator) -> Iterator[np.intp]:
    while True:
        yield from random.permutation(numbers)
