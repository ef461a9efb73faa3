from pathlib import Path

import pytest

from brainfed.errors import ScanError
from brainfed.formats.scan_folder import (
    CaseFolder,
    find_scans,
    list_case_folders,
    patient_and_visit,
    printable,
)
from brainfed.plan import Modality, Scans

ALL = Scans(required=(Modality.FLAIR,), optional=(Modality.T1, Modality.T1CE, Modality.T2))


def a_folder(tmp_path: Path, name: str, files: list[str]) -> CaseFolder:
    (tmp_path / name).mkdir()
    for file in files:
        (tmp_path / name / file).touch()
    return CaseFolder(tmp_path / name, name, 1)


@pytest.mark.parametrize(
    ("name", "patient", "visit"),
    [
        ("BraTS-GLI-00005-100", "BraTS-GLI-00005", 100),
        ("BraTS-MET-00089-000", "BraTS-MET-00089", 0),
        ("Brats18_TCIA02_606_1", "Brats18_TCIA02_606", 1),
        ("Brats17_CBICA_AAB_2", "Brats17_CBICA_AAB", 2),
        ("BraTS19_2013_0_1", "BraTS19_2013_0", 1),
        ("BraTS20_Training_001", "BraTS20_Training_001", 1),
        ("BraTS2021_00000", "BraTS2021_00000", 1),
        ("TCGA_CS_4941", "TCGA_CS_4941", 1),
        ("BraTS-GLI-00005-100 copy", "BraTS-GLI-00005-100 copy", 1),
        ("", "", 1),
    ],
)
def test_patient_and_visit_follow_the_written_rule(name: str, patient: str, visit: int) -> None:
    assert patient_and_visit(name) == (patient, visit)


@pytest.mark.parametrize(
    "files",
    [
        ["x_t1.nii.gz", "x_t1ce.nii.gz", "x_t2.nii.gz", "x_flair.nii.gz", "x_seg.nii.gz"],
        ["x_t1.nii", "x_t1gd.nii", "x_t2.nii", "x_flair.nii", "x_seg.nii"],
        ["x-t1n.nii.gz", "x-t1c.nii.gz", "x-t2w.nii.gz", "x-t2f.nii.gz", "x-seg.nii.gz"],
        ["x_T1.nii.gz", "x_T1CE.nii.gz", "x_T2.nii.gz", "x_FLAIR.nii.gz", "x_seg.NII.GZ"],
    ],
)
def test_names_of_all_years_are_known(tmp_path: Path, files: list[str]) -> None:
    found = find_scans(a_folder(tmp_path, "x", [*files, "x_mask.nii.gz", "._x_t1.nii"]), ALL)
    names = [found.images[m].name for m in (Modality.T1, Modality.T1CE, Modality.T2)]
    assert [*names, found.images[Modality.FLAIR].name, found.label.name] == files


def test_an_optional_modality_may_be_missing(tmp_path: Path) -> None:
    folder = a_folder(tmp_path, "x", ["x_flair.nii", "x_seg.nii"])
    assert list(find_scans(folder, ALL).images) == [Modality.FLAIR]


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        ([], "flair, seg"),
        (["x_flair.nii"], "seg"),
        (["x_seg.nii", "x_t1.nii"], "flair"),
        (["y_flair.nii", "y_seg.nii"], "flair, seg"),
    ],
)
def test_an_incomplete_case_is_refused(tmp_path: Path, files: list[str], missing: str) -> None:
    with pytest.raises(ScanError) as caught:
        find_scans(a_folder(tmp_path, "x", files), ALL)
    assert caught.value.message == f"Missing: {missing}"


def test_two_files_for_one_modality_are_refused(tmp_path: Path) -> None:
    files = ["x_flair.nii", "x_flair.nii.gz", "x_seg.nii"]
    with pytest.raises(ScanError, match="Two files for flair"):
        find_scans(a_folder(tmp_path, "x", files), ALL)


def test_a_folder_without_cases_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="no case"):
        list_case_folders(tmp_path)
    (tmp_path / "x_flair.nii.gz").touch()
    with pytest.raises(ScanError, match="no case") as caught:
        list_case_folders(tmp_path)
    assert "folder above" in (caught.value.hint or "")
    with pytest.raises(ScanError, match="can't be read"):
        list_case_folders(tmp_path / "none")


def test_case_folders_are_listed_by_name_without_hidden_ones(tmp_path: Path) -> None:
    for name in ("b", "a", ".git"):
        (tmp_path / name).mkdir()
    (tmp_path / "names.csv").touch()
    assert [folder.name for folder in list_case_folders(tmp_path)] == ["a", "b"]


def test_a_folder_of_folders_is_told_what_to_do(tmp_path: Path) -> None:
    folder = a_folder(tmp_path, "HGG", [])
    (folder.path / "Brats18_2013_2_1").mkdir()
    with pytest.raises(ScanError) as caught:
        find_scans(folder, ALL)
    assert "holds folders" in (caught.value.hint or "")


def test_a_name_cannot_move_the_cursor() -> None:
    assert printable("a\x1b[2Jb\n\udcffü") == "a\\x1b[2Jb\\n\\udcffü"
