"""Case files read slice by slice: the same values, few files open, no other file than checked."""

import os
from pathlib import Path

import numpy as np
import pytest

from brainfed.errors import ScanError
from brainfed.formats.case_file import write_case
from brainfed.formats.open_case import OpenCases, StoredArray, mark_of
from tests.builders import a_case


def stored(path: Path, files: OpenCases, name: str, shape: tuple[int, ...]) -> StoredArray:
    mark = mark_of(path)
    assert mark is not None
    return StoredArray(files, path, mark, name, shape)


def test_a_part_of_a_stored_array_is_that_part_of_the_case(tmp_path: Path) -> None:
    case, path, files = a_case(), tmp_path / "one.h5", OpenCases()
    write_case(path, case)
    image = stored(path, files, "image", case.image.shape)
    label = stored(path, files, "label", case.label.shape)
    assert np.array_equal(image[:, 3], case.image[:, 3])
    assert np.array_equal(image[:, 1:4, 5:9, 2:30], case.image[:, 1:4, 5:9, 2:30])
    assert np.array_equal(label[...], case.label)
    assert image[:, 3].dtype == np.float16
    files.close()


def test_few_files_stay_open_however_many_there_are(tmp_path: Path) -> None:
    files = OpenCases(most=3)
    arrays = []
    for number in range(8):
        case, path = a_case(seed=number), tmp_path / f"{number}.h5"
        write_case(path, case)
        arrays.append((stored(path, files, "image", case.image.shape), case))
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir())) if descriptors.exists() else None
    for array, case in [*arrays, *arrays]:
        assert np.array_equal(array[:, 2], case.image[:, 2])
    if before is not None:
        assert len(list(descriptors.iterdir())) - before == 3
    files.close()
    assert np.array_equal(arrays[0][0][:, 2], arrays[0][1].image[:, 2])
    files.close()


@pytest.mark.parametrize("change", ["replaced", "gone", "touched", "grown"])
@pytest.mark.parametrize("is_open", [False, True])
def test_a_file_that_is_not_the_checked_one_is_refused(
    tmp_path: Path, change: str, is_open: bool
) -> None:
    case, path, files = a_case(), tmp_path / "one.h5", OpenCases()
    write_case(path, case)
    image = stored(path, files, "image", case.image.shape)
    if is_open:
        assert image[:, 0].shape == (1, 32, 32)
    if change == "replaced":
        write_case(path, a_case(seed=3))
    elif change == "gone":
        path.unlink()
    elif change == "touched":
        os.utime(path, ns=(0, 1))
    else:
        with path.open("ab") as file:
            file.write(b"more")
    with pytest.raises(ScanError, match="changed in the middle of a round") as caught:
        image[:, 0]
    assert str(path) in (caught.value.where or "")
    files.close()


def test_a_file_that_is_no_case_says_so_when_it_is_read(tmp_path: Path) -> None:
    path, files = tmp_path / "one.h5", OpenCases()
    path.write_bytes(b"no HDF5")
    with pytest.raises(ScanError, match="can't be read"):
        stored(path, files, "image", (1, 1, 1, 1))[:, 0]
