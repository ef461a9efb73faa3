"""The training set lies where there is room, and gives the same batches wherever it lies."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from brainfed.core.samples import Batch
from brainfed.errors import ScanError
from brainfed.formats import dataset
from brainfed.formats.dataset import Subset
from brainfed.plan import Plan
from brainfed.steps.score_cases import entries_of, read_cases
from brainfed.steps.training_set import (
    Residence,
    Room,
    StoredCases,
    TrainingSet,
    bytes_needed,
    free_memory,
    training_set,
)
from tests.builders import a_case, a_plan, write_dataset

CPU = torch.device("cpu")
ROOMS = {
    Residence.DEVICE: Room(memory=0, device=10**9),
    Residence.MEMORY: Room(memory=10**9),
    Residence.FILES: Room(memory=0),
}

IN_2D = a_plan(
    scans={"required": ("t1", "flair"), "regions": ("WT", "ET")},
    training={"foreground_fraction": 0.5},
)
IN_3D = a_plan(
    scans={"required": ("t1", "flair"), "regions": ("WT", "ET")},
    network={"architecture": "unet-3d", "patch": (8, 16, 16)},
    training={"foreground_fraction": 0.5},
)


def stored(folder: Path, plan: Plan, n_slices: int = 9) -> StoredCases:
    write_dataset(folder, plan, n_slices=n_slices)
    return StoredCases(folder, entries_of(folder, plan, Subset.TRAIN))


def made(cases: StoredCases, plan: Plan, residence: Residence) -> TrainingSet:
    found = training_set(cases, plan, seed=3, device=CPU, room=ROOMS[residence])
    assert found.residence is residence
    return found


def same(a: Batch, b: Batch) -> bool:
    return (
        a.image.numpy().tobytes() == b.image.numpy().tobytes()
        and a.regions.numpy().tobytes() == b.regions.numpy().tobytes()
        and torch.equal(a.present, b.present)
        and a.seeds == b.seeds
    )


@pytest.mark.parametrize("plan", [IN_2D, IN_3D], ids=["2-D", "3-D"])
def test_the_batches_are_the_same_bits_wherever_the_cases_lie(tmp_path: Path, plan: Plan) -> None:
    cases = stored(tmp_path / "data", plan)
    on_device, in_memory, in_files = (made(cases, plan, residence) for residence in Residence)
    assert on_device.n_bytes == 3 * 9 * 32 * 32 * (2 * 2 + 2)
    for step in (0, 5, 1, 11):
        expected = in_memory.samples.batch(step)
        assert same(on_device.samples.batch(step), expected)
        assert same(in_files.samples.batch(step), expected)
        assert expected.image.dtype == expected.regions.dtype == torch.float32


def test_cases_in_memory_in_any_order_give_the_batches_of_the_workspace(tmp_path: Path) -> None:
    cases = stored(tmp_path / "data", IN_2D)
    loose = list(read_cases(cases.data_folder, cases.entries, IN_2D))
    expected = made(cases, IN_2D, Residence.MEMORY)
    found = training_set(reversed(loose), IN_2D, seed=3, device=CPU, room=Room(0))
    assert found.residence is Residence.MEMORY
    assert found.n_patients == expected.n_patients == 3
    assert same(found.samples.batch(4), expected.samples.batch(4))


def test_it_says_where_the_cases_are_kept(tmp_path: Path) -> None:
    said = []
    cases = stored(tmp_path / "data", IN_2D)

    def progress(what: str, done: int, total: int, note: str = "") -> None:
        said.append((what, done, total, note))

    training_set(cases, IN_2D, seed=3, device=CPU, room=Room(0), progress=progress)
    assert said[-1] == ("reading cases", 3, 3, "kept in the case files")


def replaced(path: Path) -> None:
    dataset.write_case(path, a_case(IN_2D, seed=99))


@pytest.mark.parametrize("change", [replaced, Path.unlink])
def test_a_case_changed_in_the_middle_of_a_round_ends_it(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    cases = stored(tmp_path / "data", IN_2D)
    samples = made(cases, IN_2D, Residence.FILES).samples
    samples.batch(0)
    for entry in cases.entries:
        change(dataset.case_path(cases.data_folder, entry.id))
    with pytest.raises(ScanError, match="changed in the middle of a round"):
        samples.batch(1)


def test_a_case_that_is_not_the_index_s_is_refused_before_training(tmp_path: Path) -> None:
    cases = stored(tmp_path / "data", IN_2D)
    replaced(dataset.case_path(cases.data_folder, cases.entries[0].id))
    with pytest.raises(ScanError, match="missing or damaged"):
        made(cases, IN_2D, Residence.FILES)


def test_a_patch_larger_than_a_case_is_refused_before_any_case_is_read(tmp_path: Path) -> None:
    cases = stored(tmp_path / "data", IN_3D, n_slices=7)
    for entry in cases.entries:
        dataset.case_path(cases.data_folder, entry.id).unlink()
    with pytest.raises(ScanError, match="smaller than the patches") as caught:
        made(cases, IN_3D, Residence.MEMORY)
    assert cases.entries[0].id in (caught.value.where or "")


def test_no_case_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="no case to train on"):
        training_set(StoredCases(tmp_path, ()), IN_2D, seed=1, device=CPU)


def test_several_cases_of_a_patient_are_one_patient() -> None:
    cases = [a_case(IN_2D, name=name) for name in ("one", "two")]
    cases[1] = replace(cases[1], patient=cases[0].patient)
    found = training_set(cases, IN_2D, seed=1, device=CPU)
    assert (found.n_patients, found.samples.n_cases) == (1, 2)


def test_a_voxel_takes_two_bytes_a_modality_and_one_a_region() -> None:
    assert bytes_needed(10, IN_2D) == 10 * (2 * 2 + 2)


def test_the_free_memory_is_what_the_system_says_or_half_of_all(tmp_path: Path) -> None:
    says = tmp_path / "meminfo"
    says.write_text("MemTotal: 100 kB\nMemFree: 5 kB\nMemAvailable:     42 kB\n")
    assert free_memory(says) == 42 * 1024
    assert free_memory(tmp_path / "absent") > 2**20
    says.write_text("MemAvailable: much\n")
    assert free_memory(says) == free_memory(tmp_path / "absent")
