from pathlib import Path

import pytest

from brainfed.errors import ScanError
from brainfed.formats.found_case import LABEL, WHOLE_CASE, FoundCase, LeftOver
from brainfed.formats.scan_folder import (
    add_doubt,
    find_cases,
    patient_and_visit,
    printable,
    several_files,
)
from brainfed.plan import Modality
from tests.builders import SHARED_DATA


def found_in(tmp_path: Path, name: str, files: list[str]) -> tuple[FoundCase, tuple[LeftOver, ...]]:
    (tmp_path / name).mkdir()
    for file in files:
        (tmp_path / name / file).touch()
    (case,), left = find_cases(tmp_path)
    return case, left


@pytest.mark.parametrize(
    ("name", "patient", "visit"),
    [
        ("BraTS-GLI-00005-100", "BraTS-GLI-00005", "100"),
        ("BraTS-MET-00089-000", "BraTS-MET-00089", "0"),
        ("Brats18_TCIA02_606_1", "Brats18_TCIA02_606", "1"),
        ("Brats17_CBICA_AAB_2", "Brats17_CBICA_AAB", "2"),
        ("BraTS19_2013_0_1", "BraTS19_2013_0", "1"),
        ("BraTS20_Training_001", "BraTS20_Training_001", "1"),
        ("BraTS2021_00000", "BraTS2021_00000", "1"),
        ("FeTS2022_01341", "FeTS2022_01341", "1"),
        ("TCGA_CS_4941", "TCGA_CS_4941", "1"),
        ("sub-004_ses-02", "sub-004", "2"),
        ("sub-004_ses-20080330", "sub-004", "20080330"),
        ("sub-004_ses-pre", "sub-004", "pre"),
        ("sub-004", "sub-004", "1"),
        ("BraTS-GLI-00005-100 copy", "BraTS-GLI-00005-100 copy", "1"),
        ("", "", "1"),
    ],
)
def test_patient_and_visit_follow_the_written_rule(name: str, patient: str, visit: str) -> None:
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
    case, left = found_in(tmp_path, "x", [*files, "licence.txt", "._x_t1.nii"])
    assert case.label is not None
    assert [case.images[m].path.name for m in Modality] + [case.label.path.name] == files
    assert (case.name, case.patient, case.visit) == ("x", "x", "1")
    assert (case.folder, case.doubts, left) == (tmp_path / "x", {}, ())


def test_whatever_is_there_is_found_whichever_plan_comes(tmp_path: Path) -> None:
    case, _ = found_in(tmp_path, "x", ["x_flair.nii"])
    assert list(case.images) == [Modality.FLAIR]
    assert case.label is None
    assert case.doubts == {}


@pytest.mark.parametrize(
    "name", ["y_flair.nii", "x_t1-ce.nii", "x__t1.nii", "xt1.nii", "x_t1.nii.bz2", "x_mask.nii.gz"]
)
def test_a_file_of_another_name_is_no_image(tmp_path: Path, name: str) -> None:
    case, left = found_in(tmp_path, "x", ["x_flair.nii", name])
    assert list(case.images) == [Modality.FLAIR]
    is_nifti = name.endswith((".nii", ".nii.gz"))
    assert [item.where for item in left] == ([str(tmp_path / "x" / name)] if is_nifti else [])


def test_an_image_of_another_kind_is_left_over_and_said(tmp_path: Path) -> None:
    case, (left,) = found_in(tmp_path, "x", ["x_flair.mhd", "x_seg.nii"])
    assert case.images == {}
    assert "not NIfTI" in left.reason


def test_two_files_for_one_modality_are_a_doubt_about_it_alone(tmp_path: Path) -> None:
    files = ["pat_flair.nii", "pat_flair.nii.gz", "pat_t1.nii", "pat_seg.nii", "pat-SEG.nii"]
    case, _ = found_in(tmp_path, "pat", files)
    assert list(case.images) == [Modality.T1]
    assert case.label is None
    assert case.doubts[Modality.FLAIR] == "Two files for flair: _flair.nii, _flair.nii.gz"
    assert set(case.doubts) == {Modality.FLAIR, LABEL}


def test_two_files_that_differ_in_capitals_alone_are_two(tmp_path: Path) -> None:
    case, _ = found_in(tmp_path, "x", ["x_t1.nii", "x_T1.nii"])
    if len(list((tmp_path / "x").iterdir())) < 2:
        pytest.skip("this file system takes no notice of capitals")
    assert set(case.doubts) == {Modality.T1}


def test_a_folder_without_cases_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="no case"):
        find_cases(tmp_path)
    (tmp_path / "x_flair.nii.gz").touch()
    with pytest.raises(ScanError, match="no case") as caught:
        find_cases(tmp_path)
    assert "folder above" in (caught.value.hint or "")
    with pytest.raises(ScanError, match="can't be read"):
        find_cases(tmp_path / "none")


def test_cases_are_listed_by_name_without_hidden_folders(tmp_path: Path) -> None:
    for name in ("b", "a", ".git"):
        (tmp_path / name).mkdir()
    (tmp_path / "names.csv").touch()
    assert [case.name for case in find_cases(tmp_path)[0]] == ["a", "b"]


def test_a_folder_of_folders_is_told_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "HGG" / "Brats18_2013_2_1").mkdir(parents=True)
    (case,), _ = find_cases(tmp_path)
    assert "holds folders" in case.doubts[WHOLE_CASE]


def test_a_link_that_leads_nowhere_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "x_t1.nii").symlink_to(tmp_path / "gone")
    assert find_cases(tmp_path)[0][0].images == {}


def test_a_name_cannot_move_the_cursor() -> None:
    assert printable("a\x1b[2Jb\n\udcffü") == "a\\x1b[2Jb\\n\\udcffü"


def test_more_than_two_files_are_counted() -> None:
    assert several_files("t1", ["c", "a", "b"]) == "3 files for t1: a, b, c"


def test_a_doubt_joins_those_before_it_once() -> None:
    doubts = {"t1": "one"}
    for sentence in ("two", "two"):
        add_doubt(doubts, "t1", sentence)
    add_doubt(doubts, "t2", "one")
    assert doubts == {"t1": "one; two", "t2": "one"}


@pytest.mark.real
def test_the_real_sites_are_found_whole() -> None:
    sites = SHARED_DATA / "lgg-sites"
    if not sites.is_dir():
        pytest.skip("../shared/data/lgg-sites is not here")
    counts = {site.name: len(find_cases(site)[0]) for site in sorted(sites.iterdir())}
    assert counts == {"CS": 10, "DU": 27, "EZ": 1, "FG": 9, "HT": 21}
    for site in sites.iterdir():
        cases, left = find_cases(site)
        assert left == ()
        assert all(case.label and Modality.FLAIR in case.images for case in cases)
        assert all(case.patient == case.name and not case.doubts for case in cases)
