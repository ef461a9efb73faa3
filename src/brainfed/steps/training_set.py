"""Make a site's training set ready, as near to the computing device as there is room.

On the GPU where it fits, in memory where that fits, else it stays in the case files and is read
slice by slice. The batches are the same bits, wherever they come from.
"""

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from brainfed.core.device import room_for_cases
from brainfed.core.labels import region_mask
from brainfed.core.progress import Progress, silent
from brainfed.core.samples import Held, Samples, Volume, check_patch, samples_of
from brainfed.errors import ScanError
from brainfed.formats import dataset
from brainfed.formats.case_file import Case
from brainfed.formats.dataset import CaseEntry
from brainfed.formats.open_case import Mark, OpenCases, StoredArray, mark_of
from brainfed.plan import Plan
from brainfed.steps.score_cases import read_cases, volume_of

SHARE_OF_MEMORY = 0.6
"""Of the memory that is free: training itself needs some, and so do other programs."""
SHARE_OF_GPU = 0.4
"""Of a GPU's free memory: most of it is for the network's activations."""


class Residence(StrEnum):
    """Where the training set lies while it is trained on."""

    DEVICE = "on the device"
    MEMORY = "in memory"
    FILES = "in the case files"


@dataclass(frozen=True, slots=True)
class StoredCases:
    """Cases of a workspace, by their lines in the index."""

    data_folder: Path
    entries: tuple[CaseEntry, ...]


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Samples to train on, and what they are made of."""

    samples: Samples
    n_patients: int
    residence: Residence
    n_bytes: int
    """Of all images and regions."""


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes that the training set may take."""

    memory: int
    device: int = 0
    """Of a GPU; 0 without one."""


def training_set(
    cases: Iterable[Case] | StoredCases,
    plan: Plan,
    *,
    seed: int,
    device: torch.device,
    n_processes: int = 1,
    room: Room | None = None,
    progress: Progress = silent,
) -> TrainingSet:
    """Check all cases and make samples of them, in the order of their ids.

    Args:
        cases: Those of a workspace (`StoredCases`), or cases that come into memory anyway.
        plan: The plan.
        seed: Where the order of the samples comes from.
        device: Where training computes; the batches come there.
        n_processes: How many on this machine train at once and share its memory.
        room: Bytes to use; what is free if None.
        progress: Told of each case.

    Raises:
        ScanError: There is no case; one is damaged, of another plan, or smaller than a patch.
        ResourceError: The memory doesn't hold even one case.
    """
    if isinstance(cases, StoredCases):
        sizes = [(entry.id, (entry.n_slices, *plan.grid.size)) for entry in cases.entries]
        patients = {entry.patient for entry in cases.entries}
    else:
        with room_for_cases():
            cases = list(cases)
        sizes = [(case.id, case.label.shape) for case in cases]
        patients = {case.patient for case in cases}
    if not sizes:
        raise ScanError(
            "There is no case to train on",
            expected="at least one patient in the training part of the split",
            hint="a site of one or two patients can only evaluate; see data/split.json",
        )
    if plan.network.patch:
        for name, shape in sizes:
            check_patch(name, shape, plan)
    n_bytes = bytes_needed(sum(math.prod(shape) for _, shape in sizes), plan)
    residence = _residence(n_bytes, room or free_room(device, n_processes))
    if not isinstance(cases, StoredCases) and residence is Residence.FILES:
        residence = Residence.MEMORY  # where they are already
    volumes = []
    with room_for_cases():
        for number, volume in enumerate(_volumes(cases, plan, residence, device), start=1):
            volumes.append(volume)
            progress("reading cases", number, len(sizes), f"kept {residence}")
        volumes.sort(key=lambda volume: volume.case)
        samples = samples_of(volumes, plan, seed=seed, device=device)
    return TrainingSet(samples, len(patients), residence, n_bytes)


def bytes_needed(n_voxels: int, plan: Plan) -> int:
    """Bytes of a training set of so many voxels: 2 a modality, 1 a region."""
    return n_voxels * (2 * len(plan.scans.modalities) + len(plan.scans.regions))


def free_room(device: torch.device, n_processes: int = 1) -> Room:
    """What may be used now of this machine's memory, by one of several alike processes."""
    # Each process has a GPU of its own.
    on_device = int(free_bytes(device) * SHARE_OF_GPU) if device.type == "cuda" else 0
    return Room(int(free_memory() * SHARE_OF_MEMORY / n_processes), on_device)


def free_bytes(device: torch.device) -> int:
    """Free memory of the device; of the machine for a CPU."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()


def free_memory(meminfo: Path = Path("/proc/meminfo")) -> int:
    """Bytes of memory that programs can have without swapping.

    Where the system doesn't tell, half of all there is.
    """
    try:
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _residence(n_bytes: int, room: Room) -> Residence:
    if n_bytes <= room.device:
        return Residence.DEVICE
    return Residence.MEMORY if n_bytes <= room.memory else Residence.FILES


def _volumes(
    cases: Sequence[Case] | StoredCases, plan: Plan, residence: Residence, device: torch.device
) -> Iterator[Volume | Held]:
    """Each case, checked, and put where it shall lie before the next one is read."""
    if isinstance(cases, StoredCases):
        files = OpenCases()
        for entry in cases.entries:
            path = dataset.case_path(cases.data_folder, entry.id)
            mark = mark_of(path)
            (case,) = read_cases(cases.data_folder, [entry], plan)
            volume = volume_of(case, plan)
            if residence is Residence.FILES and mark is not None:
                yield _in_file(case, plan, files, path, mark)
            else:
                yield _on_device(volume, device) if residence is Residence.DEVICE else volume
    else:
        for case in cases:
            volume = volume_of(case, plan)
            yield _on_device(volume, device) if residence is Residence.DEVICE else volume


def _on_device(volume: Volume, device: torch.device) -> Held:
    image, regions = torch.from_numpy(volume.image), torch.from_numpy(volume.regions)
    return Held(image.to(device), regions.to(device), volume.present, volume.case)


def _in_file(case: Case, plan: Plan, files: OpenCases, path: Path, mark: Mark) -> Held:
    image = StoredArray(files, path, mark, "image", case.image.shape)
    label = StoredArray(files, path, mark, "label", case.label.shape)
    return Held(image, _RegionsOf(label, case, plan), case.present, case.id)


class _RegionsOf:
    """The plan's regions, (region, z, y, x), of a label that is read where they are indexed."""

    def __init__(self, label: StoredArray, case: Case, plan: Plan) -> None:
        self._label = label
        values, regions = np.arange(256, dtype=np.uint8), plan.scans.regions
        self._is_in = np.stack([region_mask(values, case.protocol, region) for region in regions])
        """bool (region, label value): looking up is quicker than comparing."""
        self.shape = (len(regions), *label.shape)

    def __getitem__(self, index: Any) -> NDArray[np.bool_]:
        """Parts of all regions; the first index is `:`."""
        found: NDArray[np.bool_] = self._is_in[
            :, self._label[index[1:] if isinstance(index, tuple) else ...]
        ]
        return found
