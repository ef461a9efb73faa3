from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from brainfed.core.labels import LabelProtocol
from brainfed.core.sequence_rule import default_rule
from brainfed.errors import ScanError
from brainfed.formats.found_case import LABEL, WHOLE_CASE, FoundCase, ScanFile
from brainfed.plan import Modality, Region, Scans
from brainfed.steps.recognise import (
    Found,
    Layout,
    check_complete,
    check_protocol,
    recognise,
)
from tests.builders import SHARED_DATA


def recognised(scans: Path) -> Found:
    return recognise(scans, rule=default_rule())


def touch(folder: Path, *files: str) -> Path:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    return folder


# --- layouts ------------------------------------------------------------------------------------


def test_a_folder_per_case_is_taken_as_it_is(tmp_path: Path) -> None:
    found = recognised(touch(tmp_path, "x/x_flair.nii", "x/x_seg.nii", "x/notes.nii"))
    assert found.layout is Layout.FOLDERS
    assert [case.name for case in found.cases] == ["x"]
    assert [Path(item.where).name for item in found.left_over] == ["notes.nii"]


def test_a_table_in_the_folder_means_the_table(tmp_path: Path) -> None:
    touch(tmp_path, "x/x_flair.nii", "x/x_seg.nii", "dataset_description.json")
    (tmp_path / "cases.csv").write_text("PatientID,T2FLAIR\np,x/x_flair.nii\n")
    for scans in (tmp_path, tmp_path / "cases.csv"):
        found = recognised(scans)
        assert found.layout is Layout.TABLE
        assert [case.name for case in found.cases] == ["p"]


def test_a_table_may_bear_any_name(tmp_path: Path) -> None:
    (tmp_path / "Mine.CSV").write_text("PatientID,T1\n")
    assert recognised(tmp_path / "Mine.CSV").cases == ()


def test_a_dataset_json_beside_its_images_is_msd_or_nnunet(tmp_path: Path) -> None:
    touch(tmp_path, "imagesTr/p_0000.nii.gz", "labelsTr/p.nii.gz")
    (tmp_path / "dataset.json").write_text('{"channel_names": {"0": "FLAIR"}}')
    found = recognised(tmp_path)
    assert found.layout is Layout.DECATHLON
    assert [case.name for case in found.cases] == ["p"]


def test_subjects_with_anat_are_bids(tmp_path: Path) -> None:
    found = recognised(touch(tmp_path, "sub-1/anat/sub-1_FLAIR.nii", "sub-1/anat/sub-1_T1w.json"))
    assert found.layout is Layout.BIDS
    assert [case.name for case in found.cases] == ["sub-1"]


def test_folders_that_only_begin_as_bids_names_do_are_folders_of_cases(tmp_path: Path) -> None:
    found = recognised(touch(tmp_path, "sub-1_ses-2/sub-1_ses-2_flair.nii"))
    assert found.layout is Layout.FOLDERS
    assert [(case.patient, case.visit) for case in found.cases] == [("sub-1", "2")]


def test_dicom_is_known_by_its_mark_in_any_depth(tmp_path: Path) -> None:
    touch(tmp_path, "a/b/readme.txt")
    (tmp_path / "a" / "b" / "IM0001").write_bytes(bytes(128) + b"DICM" + bytes(64))
    pytest.importorskip("pydicom")
    assert recognised(tmp_path).layout is Layout.DICOM


def test_dicom_beside_folders_of_cases_does_not_change_the_layout(tmp_path: Path) -> None:
    touch(tmp_path, "x/x_flair.nii")
    (tmp_path / "x" / "IM0001").write_bytes(bytes(128) + b"DICM")
    assert recognised(tmp_path).layout is Layout.FOLDERS


def test_a_label_beside_its_dicom_series_does_not_change_the_layout(tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    touch(tmp_path, "P1/tumour.nii.gz")
    (tmp_path / "P1" / "IM0001").write_bytes(bytes(128) + b"DICM" + bytes(64))
    found = recognised(tmp_path)
    assert found.layout is Layout.DICOM
    assert any("column Label" in left.reason for left in found.left_over)


def test_a_path_is_written_without_detours(tmp_path: Path) -> None:
    touch(tmp_path, "scans/x/x_flair.nii", "site/readme")
    (case,) = recognised(tmp_path / "site" / ".." / "scans").cases
    assert case.images[Modality.FLAIR].path == tmp_path / "scans" / "x" / "x_flair.nii"


@pytest.mark.parametrize("name", ["scan.nii.gz", "image.mhd", "noending"])
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ScanError, match="no table of cases"):
        recognised(touch(tmp_path, name) / name)


def test_a_folder_that_is_not_there_or_empty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="can't be read"):
        recognised(tmp_path / "none")
    with pytest.raises(ScanError, match="no case"):
        recognised(tmp_path)


def test_paths_are_whole_whatever_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "scans/x/x_flair.nii")
    monkeypatch.chdir(tmp_path)
    (case,) = recognised(Path("scans")).cases
    assert case.images[Modality.FLAIR].path == tmp_path / "scans" / "x" / "x_flair.nii"


# --- cases held against each other --------------------------------------------------------------


def from_table(tmp_path: Path, text: str) -> list[FoundCase]:
    (tmp_path / "cases.csv").write_text(text)
    return list(recognised(tmp_path / "cases.csv").cases)


def test_one_image_under_two_patients_is_a_doubt_about_both(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii", "b.nii", "c.nii")
    (tmp_path / "also-a.nii").hardlink_to(tmp_path / "a.nii")
    (tmp_path / "link-a.nii").symlink_to("a.nii")
    for again in ("a.nii", "./a.nii", "also-a.nii", "link-a.nii", "a.nii#1"):
        text = f"PatientID,T1,Label\np,a.nii,\nq,{again},b.nii\nr,c.nii,\n"
        p, q, r = from_table(tmp_path, text)
        assert list(p.doubts) == list(q.doubts) == [WHOLE_CASE]
        assert "t1 is another case's file" in p.doubts[WHOLE_CASE]
        assert r.doubts == {}


def test_one_label_under_two_cases_is_a_doubt_and_one_brain_mask_is_not(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{name}.nii" for name in "abcdsm"))
    masks = from_table(tmp_path, "PatientID,T1,BrainMask\np,a.nii,m.nii\nq,b.nii,m.nii\n")
    assert [case.doubts for case in masks] == [{}, {}]
    labels = from_table(tmp_path, "PatientID,T1,Label\np,a.nii,s.nii\nq,b.nii,s.nii\n")
    assert all("seg" in case.doubts[WHOLE_CASE] for case in labels)


def test_one_series_under_two_cases_is_a_doubt_whatever_its_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    cases = from_table(tmp_path, "PatientID,T1\np,a#1.2.3\nq,b#1.2.3\n")
    assert all(WHOLE_CASE in case.doubts for case in cases)


def test_one_file_as_two_modalities_is_a_doubt_about_these(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii", "b.nii", "v.nii")
    (case,) = from_table(tmp_path, "PatientID,T1,T1GD,T2\np,a.nii,a.nii,b.nii\n")
    assert set(case.doubts) == {Modality.T1, Modality.T1CE}
    (case,) = from_table(tmp_path, "PatientID,T1,T1GD,T2\np,v.nii#0,v.nii#1,b.nii\n")
    assert case.doubts == {}


def test_two_cases_of_one_visit_bear_a_remark(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii", "b.nii", "c.nii")
    cases = from_table(tmp_path, "Case,PatientID,T1\nx,p,a.nii\ny,p,b.nii\nz,q,c.nii\n")
    assert [len(case.remarks) for case in cases] == [1, 1, 0]
    assert all(case.doubts == {} for case in cases)


# --- what a plan asks ---------------------------------------------------------------------------

SCANS = Scans(required=(Modality.FLAIR,), optional=(Modality.T1, Modality.T1CE))


def a_case(*kinds: str, **changes: Any) -> FoundCase:
    files = {kind: ScanFile(Path(f"/x/x_{kind}.nii")) for kind in kinds}
    case = FoundCase(
        name="x",
        patient="x",
        visit="1",
        folder=Path("/x"),
        images={m: files[m] for m in Modality if m in files},
        label=files.get(LABEL),
    )
    return replace(case, **changes)


def test_a_complete_case_passes_and_an_optional_modality_may_be_missing() -> None:
    check_complete(a_case("flair", "seg"), SCANS)
    check_complete(a_case("t1", "t1ce", "t2", "flair", "seg"), SCANS)


@pytest.mark.parametrize(
    ("kinds", "missing", "found"),
    [
        ([], "flair, seg", "no file of a known name"),
        (["flair"], "seg", "flair"),
        (["seg", "t1"], "flair", "t1, seg"),
    ],
)
def test_an_incomplete_case_is_refused(kinds: list[str], missing: str, found: str) -> None:
    with pytest.raises(ScanError) as caught:
        check_complete(a_case(*kinds), SCANS)
    assert caught.value.message == f"Missing: {missing}"
    assert caught.value.found == found


@pytest.mark.parametrize("key", ["flair", "t1", LABEL, WHOLE_CASE])
def test_a_doubt_about_what_the_plan_takes_refuses_the_case(key: str) -> None:
    with pytest.raises(ScanError) as caught:
        check_complete(a_case("flair", "seg", doubts={key: "Which?"}), SCANS)
    assert caught.value.message == "Which?"


def test_a_doubt_about_another_modality_does_no_harm() -> None:
    check_complete(a_case("flair", "seg", doubts={"t2": "Two files for t2: a, b"}), SCANS)


def test_all_doubts_are_said_and_one_for_two_modalities_once() -> None:
    doubts = {"t1": "Which?", "t1ce": "Which?", "case": "Whose?"}
    with pytest.raises(ScanError) as caught:
        check_complete(a_case("flair", "seg", doubts=doubts), SCANS)
    assert caught.value.message == "Whose?; Which?"


def test_what_is_missing_is_said_beside_what_is_in_doubt() -> None:
    with pytest.raises(ScanError) as caught:
        check_complete(a_case("t1", doubts={"flair": "Which?"}), SCANS)
    assert caught.value.message == "Which?; Missing: seg"


def test_a_protocol_must_be_named_and_give_the_regions() -> None:
    with pytest.raises(ScanError, match="Nobody has said"):
        check_protocol(a_case("seg"), ())
    found = a_case("seg", protocol=LabelProtocol.WHOLE_TUMOUR)
    assert check_protocol(found, (Region.WT,)) is LabelProtocol.WHOLE_TUMOUR
    with pytest.raises(ScanError, match="can't give ET"):
        check_protocol(found, (Region.WT, Region.ET))


# --- real data ----------------------------------------------------------------------------------


@pytest.mark.real
def test_names_of_no_layout_go_in_through_a_table(tmp_path: Path) -> None:
    cases = SHARED_DATA / "deepmedic-brats2013" / "train"
    if not cases.is_dir():
        pytest.skip("../shared/data/deepmedic-brats2013 is not here")
    plain = recognised(cases)
    assert all(case.images == {} for case in plain.cases)
    assert len(plain.left_over) == 4 * len(plain.cases)
    rows = ["PatientID,T1CE,FLAIR,Seg,Brain_Mask,Label_Protocol"]
    for folder in sorted(cases.iterdir()):
        names = ("T1c_subtrMeanDivStd", "Flair_subtrMeanDivStd", "OTMultiClass", "brainmask")
        files = [str(folder / f"{name}.nii.gz") for name in names]
        rows.append(",".join([folder.name, *files, "brats2012"]))
    for case in from_table(tmp_path, "\n".join(rows)):
        check_complete(case, Scans(required=(Modality.T1CE, Modality.FLAIR)))
        assert case.brain_mask is not None
        assert case.protocol is LabelProtocol.BRATS2012
