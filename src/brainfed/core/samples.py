"""The training set as an endless row of batches: slices in 2-D, patches in 3-D.

A batch is a function of the seed and of the number of its step alone, never of what was asked
before: training goes on anywhere without a memory, and several processes agree without talking.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brainfed.core.draws import Shuffled, Stream, random_of, sample_seed
from brainfed.errors import ScanError
from brainfed.plan import Plan

MOST_COORDINATES = 4096
"""Tumour voxels kept of each case to put patches on: enough, and small beside any case."""

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Volume:
    """One case as the network sees it.

    Attributes:
        image: float16 (modality, z, y, x), z-scored.
        regions: bool (region, z, y, x).
        present: Per modality, whether the case has it; a missing one is zero in `image`.
        case: Its id, for messages.
    """

    image: NDArray[np.float16]
    regions: NDArray[np.bool_]
    present: tuple[bool, ...]
    case: str = ""


class Readable(Protocol):
    """Values that lie anywhere and give an array or a tensor when indexed as arrays are."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""

    def __getitem__(self, index: Any) -> Any:
        """A part of it."""


@dataclass(frozen=True, slots=True)
class Held:
    """A `Volume` whose values lie on a device or in a file; its fields are those of a volume."""

    image: Readable
    regions: Readable
    present: tuple[bool, ...]
    case: str = ""


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples of one step, on the device.

    Attributes:
        image: float32 (sample, modality, [z,] y, x), z-scored.
        regions: float32 (sample, region, [z,] y, x), 0 or 1.
        present: bool (sample, modality), on the CPU; a missing modality is a channel of zeros.
        seeds: Of whatever is drawn for each sample, from 0 to 2^63 - 1.
    """

    image: Tensor
    regions: Tensor
    present: Tensor
    seeds: tuple[int, ...]


Place = tuple[int, tuple[Any, ...]]
"""Number of a volume, and the index `[z,] y, x` into it."""


class Samples(ABC):
    """The training set, in the order of the volumes; made by `samples_of`."""

    def __init__(
        self, volumes: Sequence[Volume | Held], plan: Plan, *, seed: int, device: torch.device
    ) -> None:
        self._volumes, self._seed, self._device = volumes, seed, device
        self._size, self._share = plan.training.batch, plan.training.foreground_fraction
        self._shape = plan.network.patch or plan.grid.size
        self._n_channels = len(plan.scans.modalities), len(plan.scans.regions)
        self.n_cases = len(volumes)
        self.n_slices = sum(volume.image.shape[1] for volume in volumes)
        self.n_samples = self.n_slices
        """Samples of an epoch."""
        self.has_foreground = False
        """Whether any region has a voxel anywhere."""

    def batch(self, step: int, *, rank: int = 0, n_ranks: int = 1) -> Batch:
        """The batch of a step, or one process's rows of it.

        Args:
            step: From 0.
            rank: Which process asks; it gets the rows `rank`, `rank + n_ranks` and so on, of a
                small batch maybe none.
            n_ranks: How many processes share each batch.

        Raises:
            ScanError: A case was changed since it was checked.
            ResourceError: A case can't be read.
        """
        places = self._places(step)[rank::n_ranks]
        volumes = [self._volumes[number] for number, _ in places]
        image = [v.image[:, *index] for v, (_, index) in zip(volumes, places, strict=True)]
        regions = [v.regions[:, *index] for v, (_, index) in zip(volumes, places, strict=True)]
        present = [volume.present for volume in volumes]
        return Batch(
            image=self._together(image, self._n_channels[0]),
            regions=self._together(regions, self._n_channels[1]),
            present=torch.tensor(present, dtype=torch.bool).reshape(-1, self._n_channels[0]),
            seeds=tuple(
                sample_seed(self._seed, step, rank + n_ranks * row) for row in range(len(places))
            ),
        )

    @abstractmethod
    def _places(self, step: int) -> list[Place]:
        """Where each sample of a step comes from."""

    def _together(self, parts: list[Any], n_channels: int) -> Tensor:
        """Parts as float32 on the device; they travel as they are stored, which is less."""
        if not parts:
            return torch.empty((0, n_channels, *self._shape), device=self._device)
        if isinstance(parts[0], Tensor):
            return torch.stack(parts).to(self._device).float()
        found = torch.from_numpy(np.stack(parts))
        if self._device.type == "cuda":
            # From pinned memory the copy runs beside whatever the device computes.
            found = found.pin_memory().to(self._device, non_blocking=True)
        return found.float()


class _Slices(Samples):
    """Samples of a 2-D network.

    With a foreground share of 0 every slice comes once before any comes again, and the last batch
    of such a pass may be smaller. With a share, each batch has that many slices with tumour and
    the rest without, each kind shuffled and used up before it is shuffled again; where one kind is
    missing the other fills the batch. A batch is never larger than the training set.
    """

    def __init__(
        self, volumes: Sequence[Volume | Held], plan: Plan, *, seed: int, device: torch.device
    ) -> None:
        super().__init__(volumes, plan, seed=seed, device=device)
        self._index = [(v, z) for v, volume in enumerate(volumes) for z in range(_n_slices(volume))]
        found = [_tumour(volume).any(axis=(1, 2)) for volume in volumes]
        foreground = np.concatenate(found) if found else np.zeros(0, np.bool_)
        self.has_foreground = bool(foreground.any())
        self._size = min(self._size, len(foreground))
        self._n_foreground = _n_foreground(self._share, self._size)
        if foreground.all():
            self._n_foreground = self._size
        self._all = Shuffled(np.arange(len(foreground)), seed, Stream.ALL)
        self._with = Shuffled(np.flatnonzero(foreground), seed, Stream.WITH_TUMOUR)
        self._without = Shuffled(np.flatnonzero(~foreground), seed, Stream.WITHOUT)

    def _places(self, step: int) -> list[Place]:
        if self._share == 0:
            epoch, number = divmod(step, math.ceil(self.n_samples / self._size))
            first = epoch * self.n_samples + number * self._size
            numbers = self._all.take(first, min(self._size, (epoch + 1) * self.n_samples - first))
        else:
            n_with = self._n_foreground if self.has_foreground else 0
            n_without = self._size - n_with
            numbers = self._with.take(step * n_with, n_with)
            numbers += self._without.take(step * n_without, n_without)
        return [(volume, (z,)) for volume, z in (self._index[number] for number in numbers)]


class _Patches(Samples):
    """Samples of a 3-D network: patches that lie within their case.

    The plan's share of a batch shows tumour: a tumour voxel drawn of a case with tumour lies in
    the middle half of each edge, as far as the border of the case allows. The rest lie anywhere.
    Cases come in shuffled order, each once before any comes again.
    """

    def __init__(
        self, volumes: Sequence[Volume | Held], plan: Plan, *, seed: int, device: torch.device
    ) -> None:
        super().__init__(volumes, plan, seed=seed, device=device)
        for volume in volumes:
            check_patch(volume.case, volume.image.shape[1:], plan)
        n_voxels = sum(math.prod(volume.image.shape[1:]) for volume in volumes)
        self.n_samples = math.ceil(n_voxels / math.prod(self._shape))
        self._tumours = [self._coordinates(number) for number in range(len(volumes))]
        with_tumour = np.array([len(found) > 0 for found in self._tumours], dtype=np.bool_)
        self.has_foreground = bool(with_tumour.any())
        self._n_foreground = _n_foreground(self._share, self._size) if self.has_foreground else 0
        self._all = Shuffled(np.arange(len(volumes)), seed, Stream.ALL)
        self._with = Shuffled(np.flatnonzero(with_tumour), seed, Stream.WITH_TUMOUR)

    def _coordinates(self, number: int) -> NDArray[np.int32]:
        """Some tumour voxels of a case, (voxel, axis): all of them would be as large as a case."""
        found = np.argwhere(_tumour(self._volumes[number]))
        if len(found) > MOST_COORDINATES:
            random = random_of(self._seed, Stream.COORDINATES, number, 0)
            found = found[random.choice(len(found), MOST_COORDINATES, replace=False)]
        return found.astype(np.int32)

    def _places(self, step: int) -> list[Place]:
        n_without = self._size - self._n_foreground
        numbers = self._with.take(step * self._n_foreground, self._n_foreground)
        numbers += self._all.take(step * n_without, n_without)
        return [(number, self._window(number, step, row)) for row, number in enumerate(numbers)]

    def _window(self, number: int, step: int, row: int) -> tuple[slice, ...]:
        random = random_of(self._seed, Stream.PLACE, step, row)
        edges = np.array(self._shape)
        last = np.array(self._volumes[number].image.shape[1:]) - edges
        if row < self._n_foreground:
            voxel = self._tumours[number][random.integers(len(self._tumours[number]))]
            start = voxel - edges // 4 - random.integers(0, edges // 2, endpoint=True)
            start = np.clip(start, 0, last)
        else:
            start = random.integers(0, last, endpoint=True)
        return tuple(slice(int(a), int(a + n)) for a, n in zip(start, edges, strict=True))


def samples_of(
    volumes: Sequence[Volume | Held], plan: Plan, *, seed: int, device: torch.device = CPU
) -> Samples:
    """Slices or patches of cases, by the plan's network.

    Args:
        volumes: The cases; their order counts.
        plan: Its `network`, and `batch` and `foreground_fraction` of `training`.
        seed: Where all that is random comes from, at least 0.
        device: Where the batches are wanted.

    Raises:
        ScanError: A patch doesn't fit into a case.
    """
    kind = _Patches if plan.network.n_dimensions == 3 else _Slices
    return kind(volumes, plan, seed=seed, device=device)


def check_patch(case: str, shape: tuple[int, ...], plan: Plan) -> None:
    """Refuse a case, (z, y, x), that is smaller than the plan's patch along any axis.

    Raises:
        ScanError: It is.
    """
    if any(n < edge for n, edge in zip(shape, plan.network.patch, strict=True)):
        raise ScanError(
            "A case is smaller than the patches that the plan's network is trained on",
            expected=f"at least {_product(plan.network.patch)} slices, rows and columns",
            found=_product(shape),
            where=f"case {case}",
            hint="reject the case in data/review.csv and run `brainfed split`, or ask the "
            "coordinator for a plan with a smaller network.patch",
        )


def _n_foreground(share: float, size: int) -> int:
    """Samples of a batch that show tumour: the share, rounded, and one where there is a share."""
    return max(1, math.floor(share * size + 0.5)) if share > 0 else 0


def _n_slices(volume: Volume | Held) -> int:
    return volume.image.shape[1]


def _tumour(volume: Volume | Held) -> NDArray[np.bool_]:
    """Where any region is, (z, y, x)."""
    found: NDArray[np.bool_] = torch.as_tensor(volume.regions[:]).any(0).cpu().numpy()
    return found


def _product(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in shape)
