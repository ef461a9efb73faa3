import stat
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from brainfed.errors import NotReadyError, ScanError
from brainfed.formats import dataset, identities
from brainfed.formats.dataset import Case, Index, SkippedCase, SplitFile, Subset
from brainfed.plan import SplitRule, data_digest
from tests.builders import a_case, a_plan, write_dataset


def written(tmp_path: Path, case: Case | None = None) -> tuple[Path, str]:
    path = tmp_path / "one.h5"
    return path, dataset.write_case(path, case or a_case())


def test_what_was_written_is_read(tmp_path: Path) -> None:
    plan = a_plan(scans={"required": ("t1", "flair")})
    whole = a_case(plan)
    case = replace(
        whole, present=(True, False), natives=(whole.natives[0], None), spacing_nominal=True
    )
    path, digest = written(tmp_path, case)
    read = dataset.read_case(path, digest)
    for name in Case.__slots__:
        mine, theirs = getattr(case, name), getattr(read, name)
        if isinstance(mine, np.ndarray):
            np.testing.assert_array_equal(mine, theirs)
            assert mine.dtype == theirs.dtype
        else:
            assert mine == theirs, name
    assert read.image.shape == (2, 6, 32, 32)


def test_a_case_is_for_its_owner_alone_and_laid_out_by_slices(tmp_path: Path) -> None:
    path, _ = written(tmp_path, a_case(a_plan(scans={"required": ("t1", "flair")})))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with h5py.File(path) as file:
        assert file["image"].chunks == (2, 1, 32, 32)
        assert file["image"].compression == "lzf"


def test_the_same_case_gives_the_same_bytes(tmp_path: Path) -> None:
    assert written(tmp_path)[1] == written(tmp_path)[1]


@pytest.mark.parametrize("place", [0.0, 0.3, 0.6, 0.95])
def test_a_case_that_changed_is_refused(tmp_path: Path, place: float) -> None:
    path, digest = written(tmp_path)
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1
    path.write_bytes(data)
    with pytest.raises(ScanError, match="missing or damaged"):
        dataset.read_case(path, digest)


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9])
def test_a_truncated_case_is_refused_without_a_digest_too(tmp_path: Path, share: float) -> None:
    path, _ = written(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ScanError, match="missing or damaged"):
        dataset.read_case(path)


def test_a_file_that_lacks_something_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScanError):
        dataset.read_case(tmp_path / "none.h5")
    for name in ("format", "spacing_mm", "present"):
        path, _ = written(tmp_path)
        with h5py.File(path, "r+") as file:
            del file.attrs[name]
        with pytest.raises(ScanError):
            dataset.read_case(path)
    path, _ = written(tmp_path)
    with h5py.File(path, "r+") as file:
        del file["label"]
    with pytest.raises(ScanError):
        dataset.read_case(path)


def test_parts_on_different_grids_are_refused(tmp_path: Path) -> None:
    case = a_case()
    path, _ = written(tmp_path, replace(case, label=case.label[:-1]))
    with pytest.raises(ScanError, match="missing or damaged"):
        dataset.read_case(path)


def test_the_index_comes_back(tmp_path: Path) -> None:
    entries = write_dataset(tmp_path / "data")
    assert dataset.read_index(tmp_path / "data") == entries
    whole = Index(
        data_digest="0" * 64, cases=entries, skipped=(SkippedCase("1" * 16, "truncated"),)
    )
    dataset.write_index(tmp_path, whole)
    assert dataset.read_whole_index(tmp_path) == whole


def test_index_and_split_hold_no_name(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data")
    for path in (dataset.index_path(tmp_path / "data"), dataset.split_path(tmp_path / "data")):
        assert "patient 0" not in path.read_text()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "change",
    [
        (b'"cases"', b'"Cases"'),
        (b'"n_slices": 6', b'"n_slices": -6'),
        (b'"n_slices": 6', b'"n_slices": "6"'),
        (b'"brats2017"', b'"brats1999"'),
        (b'"n_slices": 6', b'"n_slices": 6, "name": "x"'),
        (b"brainfed-cases-0", b"brainfed-cases-1"),
        (b"{", b""),
    ],
)
def test_a_damaged_index_is_refused(tmp_path: Path, change: tuple[bytes, bytes]) -> None:
    write_dataset(tmp_path / "data")
    path = dataset.index_path(tmp_path / "data")
    assert change[0] in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(*change, 1))
    with pytest.raises(ScanError, match=r"cases\.json is damaged"):
        dataset.read_index(tmp_path / "data")


def test_a_split_comes_back(tmp_path: Path) -> None:
    split = SplitFile(
        rule=SplitRule.CEIL, seed=2**52, assignments={"a" * 16: Subset.TEST, "b" * 16: Subset.TRAIN}
    )
    dataset.write_split(tmp_path, split)
    assert dataset.read_split(tmp_path) == split


def test_what_is_not_there_yet_names_its_command(tmp_path: Path) -> None:
    with pytest.raises(NotReadyError) as caught:
        dataset.read_index(tmp_path)
    assert "brainfed preprocess" in (caught.value.hint or "")
    write_dataset(tmp_path / "data")
    dataset.split_path(tmp_path / "data").unlink()
    with pytest.raises(NotReadyError) as caught:
        dataset.read_split(tmp_path / "data")
    assert "brainfed split" in (caught.value.hint or "")


def test_the_subsets_are_disjoint_and_exhaustive(tmp_path: Path) -> None:
    entries = write_dataset(tmp_path / "data", n_train=4, n_validation=2, n_test=1)
    parts = {subset: dataset.cases_of(tmp_path / "data", subset) for subset in Subset}
    assert [len(part) for part in parts.values()] == [4, 2, 1]
    together = [entry for part in parts.values() for entry in part]
    assert sorted(entry.id for entry in together) == [entry.id for entry in entries]


def test_a_patient_without_a_subset_asks_for_a_split(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_dataset(data)
    split = dataset.read_split(data)
    fewer = dict(list(split.assignments.items())[1:])
    dataset.write_split(data, replace(split, assignments=fewer))
    with pytest.raises(NotReadyError, match="joined"):
        dataset.cases_of(data, Subset.TRAIN)


def test_the_dataset_digest_depends_on_the_cases_not_on_their_order(tmp_path: Path) -> None:
    entries = write_dataset(tmp_path / "data")
    digest = dataset.dataset_digest(entries)
    assert dataset.dataset_digest(reversed(entries)) == digest
    assert dataset.dataset_digest(entries[1:]) != digest
    changed = (replace(entries[0], digest="f" * 64), *entries[1:])
    assert dataset.dataset_digest(changed) != digest


def test_the_split_digest_depends_on_the_assignments_and_the_key(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    digest = dataset.split_digest(tmp_path)
    split = dataset.read_split(tmp_path)
    backwards = dict(reversed(split.assignments.items()))
    dataset.write_split(tmp_path, replace(split, assignments=backwards))
    assert dataset.split_digest(tmp_path) == digest
    everyone_trains = dict.fromkeys(split.assignments, Subset.TRAIN)
    dataset.write_split(tmp_path, replace(split, assignments=everyone_trains))
    assert dataset.split_digest(tmp_path) != digest
    dataset.write_split(tmp_path, split)
    identities.write(tmp_path, identities.Identities(key=b"\1" * 32))
    assert dataset.split_digest(tmp_path) != digest


def test_cases_name_the_plans_data_digest(tmp_path: Path) -> None:
    plan = a_plan()
    write_dataset(tmp_path / "data", plan)
    assert dataset.read_whole_index(tmp_path / "data").data_digest == data_digest(plan)
