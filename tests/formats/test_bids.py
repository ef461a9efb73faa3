import json
from pathlib import Path

import pytest

from brainfed.errors import ScanError
from brainfed.formats.bids import find_cases, is_here
from brainfed.formats.found_case import LABEL, WHOLE_CASE, FoundCase, LeftOver
from brainfed.plan import Modality


def a_dataset(folder: Path, *files: str) -> Path:
    """A BIDS folder; a name without a slash goes where its entities say."""
    (folder / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    for name in files:
        parts = name.split("_")
        inside = "/".join([p for p in parts if p.startswith(("sub-", "ses-"))] + ["anat"])
        path = folder / (name if "/" in name else f"{inside}/{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def only(folder: Path, *files: str) -> tuple[FoundCase, tuple[LeftOver, ...]]:
    (case,), left = find_cases(a_dataset(folder, *files))
    return case, left


def names(case: FoundCase) -> dict[str, str]:
    return {str(modality): scan.path.name for modality, scan in case.images.items()}


def test_a_session_is_a_case_of_its_subject(tmp_path: Path) -> None:
    files = ["sub-02_ses-01_T1w.nii.gz", "sub-02_ses-10_T1w.nii.gz", "sub-1_T1w.nii"]
    cases, left = find_cases(a_dataset(tmp_path, *files))
    assert [(case.name, case.patient, case.visit) for case in cases] == [
        ("sub-02_ses-01", "sub-02", "1"),
        ("sub-02_ses-10", "sub-02", "10"),
        ("sub-1", "sub-1", "1"),
    ]
    assert cases[0].folder == tmp_path / "sub-02" / "ses-01" / "anat"
    assert left == ()


def test_the_suffix_and_the_agent_name_the_modality(tmp_path: Path) -> None:
    case, _ = only(
        tmp_path,
        "sub-1_T1w.nii.gz",
        "sub-1_T1w.json",
        "sub-1_ce-gadavist_T1w.nii.gz",
        "sub-1_acq-tse_T2w.nii.gz",
        "sub-1_run-1_FLAIR.nii",
    )
    assert names(case) == {
        "t1": "sub-1_T1w.nii.gz",
        "t1ce": "sub-1_ce-gadavist_T1w.nii.gz",
        "t2": "sub-1_acq-tse_T2w.nii.gz",
        "flair": "sub-1_run-1_FLAIR.nii",
    }
    assert (case.doubts, case.protocol, case.label) == ({}, None, None)


@pytest.mark.parametrize("agent", ["gad", "GADOLINIUM", "gd", "dotarem", "post", "1"])
def test_a_t1w_with_any_agent_is_t1ce(tmp_path: Path, agent: str) -> None:
    case, _ = only(tmp_path, f"sub-1_ce-{agent}_T1w.nii")
    assert list(case.images) == [Modality.T1CE]


@pytest.mark.parametrize(
    "name", ["acq-postgad", "acq-gd", "acq-T1ce", "acq-contrast", "ce-none", "ce-pre", "ce-NO"]
)
def test_a_t1w_that_contradicts_itself_is_a_doubt_about_both(tmp_path: Path, name: str) -> None:
    case, _ = only(tmp_path, f"sub-1_{name}_T1w.nii", "sub-1_FLAIR.nii")
    assert list(case.images) == [Modality.FLAIR]
    assert set(case.doubts) == {Modality.T1, Modality.T1CE}
    assert name in case.doubts[Modality.T1]


@pytest.mark.parametrize("name", ["acq-mprage", "acq-ax", "acq-sag3d", "acq-10mm", "rec-norm"])
def test_other_words_say_nothing_of_contrast(tmp_path: Path, name: str) -> None:
    case, _ = only(tmp_path, f"sub-1_{name}_T1w.nii")
    assert list(case.images) == [Modality.T1]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("run-1_T2w.nii", "run-2_T2w.nii"),
        ("acq-cor_T2w.nii", "acq-tra_T2w.nii"),
        ("T2w.nii", "acq-tra_T2w.nii"),
        ("rec-dis_T2w.nii", "rec-nd_T2w.nii"),
        ("ce-gad_T2w.nii", "T2w.nii"),
        ("T2w.nii", "T2w.nii.gz"),
    ],
)
def test_two_images_of_one_modality_are_a_doubt_naming_both(
    tmp_path: Path, first: str, second: str
) -> None:
    case, _ = only(tmp_path, f"sub-1_{first}", f"sub-1_{second}", "sub-1_T1w.nii")
    assert list(case.images) == [Modality.T1]
    both = ", ".join(sorted([first, second]))
    assert case.doubts == {Modality.T2: f"Two files for t2: {both}"}


@pytest.mark.parametrize(
    "name",
    ["PDw", "T2star", "inv-1_MP2RAGE", "part-phase_T1w", "desc-preproc_T1w", "space-MNI_T1w"],
)
def test_an_image_that_is_not_ours_is_left_over(tmp_path: Path, name: str) -> None:
    case, left = only(tmp_path, f"sub-1_{name}.nii", "sub-1_T1w.nii", "sub-1/anat/brain.nii.gz")
    assert names(case) == {"t1": "sub-1_T1w.nii"}
    assert [Path(item.where).name for item in left] == ["brain.nii.gz", f"sub-1_{name}.nii"]


def test_other_folders_are_not_looked_into(tmp_path: Path) -> None:
    others = ["sub-1/func/sub-1_task-x_bold.nii", "sourcedata/sub-1/anat/sub-1_T2w.nii"]
    case, left = only(tmp_path, "sub-1_T1w.nii", *others, "sub-1/dwi/sub-1_dwi.nii")
    assert (list(case.images), left) == ([Modality.T1], ())


def test_a_subject_without_anat_is_left_over(tmp_path: Path) -> None:
    _, (left,) = only(tmp_path, "sub-1_T1w.nii", "sub-2/func/sub-2_bold.nii")
    assert left == LeftOver(str(tmp_path / "sub-2"), "no folder anat")


def test_a_file_of_another_subject_is_a_doubt_about_the_case(tmp_path: Path) -> None:
    case, _ = only(tmp_path, "sub-1_T1w.nii", "sub-1/anat/sub-2_T2w.nii")
    assert list(case.doubts) == [WHOLE_CASE]
    assert "sub-2" not in case.doubts[WHOLE_CASE]


def test_images_beside_the_sessions_are_of_no_known_visit(tmp_path: Path) -> None:
    cases, _ = find_cases(a_dataset(tmp_path, "sub-1_T1w.nii", "sub-1_ses-a_T1w.nii"))
    assert [list(case.doubts) for case in cases] == [[WHOLE_CASE], []]


def test_a_file_that_was_not_fetched_is_a_doubt(tmp_path: Path) -> None:
    a_dataset(tmp_path, "sub-1_T1w.nii")
    (tmp_path / "sub-1" / "anat" / "sub-1_FLAIR.nii.gz").symlink_to(".git/annex/objects/x")
    (case,), _ = find_cases(tmp_path)
    assert list(case.doubts) == [Modality.FLAIR]
    assert "datalad" in case.doubts[Modality.FLAIR]


# --- labels -------------------------------------------------------------------------------------

SEG = "derivatives/seg/sub-1/anat/sub-1"


@pytest.mark.parametrize(
    "label",
    [
        f"{SEG}_label-tumor_mask.nii.gz",
        f"{SEG}_desc-tumour_dseg.nii.gz",
        f"{SEG}_space-T1w_desc-lesion_mask.nii",
        "derivatives/tumor-masks/sub-1/anat/sub-1_dseg.nii.gz",
        "derivatives/sub-1/anat/sub-1_label-tumor_dseg.nii.gz",
    ],
)
def test_a_segmentation_that_says_tumour_is_the_label(tmp_path: Path, label: str) -> None:
    case, _ = only(tmp_path, "sub-1_T1w.nii", label, f"{SEG}_label-brain_mask.nii.gz")
    assert case.label is not None
    assert case.label.path == tmp_path / label
    assert case.brain_mask is not None
    assert case.brain_mask.path.name == "sub-1_label-brain_mask.nii.gz"
    assert case.doubts == {}


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([f"{SEG}_dseg.nii.gz"], "seg/dseg.nii.gz doesn't say that it outlines the tumour"),
        ([f"{SEG}_space-MNI152_label-tumor_mask.nii"], "lies in another space"),
        ([f"{SEG}_label-tumorA_mask.nii", f"{SEG}_label-tumorB_mask.nii"], "Two files for seg"),
        (
            [f"{SEG}_label-tumor_mask.nii", f"{SEG.replace('seg', 'b')}_label-tumor_mask.nii"],
            "b/label-tumor_mask.nii, seg/label-tumor_mask.nii",
        ),
    ],
)
def test_a_label_that_cannot_be_told_is_a_doubt(
    tmp_path: Path, labels: list[str], words: str
) -> None:
    case, _ = only(tmp_path, "sub-1_T1w.nii", *labels)
    assert case.label is None
    assert words in case.doubts[LABEL]


def test_a_label_in_a_folder_named_after_the_patient_takes_no_hint_from_it(tmp_path: Path) -> None:
    case, _ = only(
        tmp_path, "sub-glioma1_T1w.nii", "derivatives/sub-glioma1/anat/sub-glioma1_dseg.nii"
    )
    assert case.label is None
    assert "glioma1" not in case.doubts[LABEL]


def test_a_label_belongs_to_its_session_alone(tmp_path: Path) -> None:
    label = "derivatives/seg/sub-1/ses-b/anat/sub-1_ses-b_label-tumor_mask.nii"
    files = ["sub-1_ses-a_T1w.nii", "sub-1_ses-b_T1w.nii", label]
    first, second = find_cases(a_dataset(tmp_path, *files))[0]
    assert first.label is None
    assert second.label is not None


def test_derivatives_are_never_images(tmp_path: Path) -> None:
    derived = "derivatives/fmriprep/sub-1/anat/sub-1_desc-preproc_T1w.nii.gz"
    case, _ = only(tmp_path, "sub-1_FLAIR.nii", derived, derived.replace("_desc-preproc", ""))
    assert list(case.images) == [Modality.FLAIR]


def test_several_brain_masks_are_none(tmp_path: Path) -> None:
    masks = [f"derivatives/{n}/sub-1/anat/sub-1_desc-brain_mask.nii" for n in "ab"]
    case, _ = only(tmp_path, "sub-1_T1w.nii", *masks)
    assert case.brain_mask is None
    assert case.label is None


# --- tables -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "age"),
    [("62", 62), ("62.9", 62), ("89+", 89), ("n/a", None), ("", None), ("-1", None), ("900", None)],
)
def test_the_age_is_that_of_the_participants(tmp_path: Path, cell: str, age: int | None) -> None:
    a_dataset(tmp_path, "sub-1_T1w.nii")
    (tmp_path / "participants.tsv").write_text(f"participant_id\tsex\tage\nsub-1\tF\t{cell}\n")
    (case,), left = find_cases(tmp_path)
    assert (case.age_years, left) == (age, ())


@pytest.mark.parametrize("data", [b"participant_id\tage\nsub-1\t\xff\n", b"\0", b""])
def test_a_table_of_participants_that_cannot_be_read_answers_nothing(
    tmp_path: Path, data: bytes
) -> None:
    a_dataset(tmp_path, "sub-1_T1w.nii")
    (tmp_path / "participants.tsv").write_bytes(data)
    (case,), left = find_cases(tmp_path)
    assert case.age_years is None
    assert len(left) == (b"\xff" in data)


def test_a_folder_of_derived_images_is_refused(tmp_path: Path) -> None:
    a_dataset(tmp_path, "sub-1_T1w.nii")
    content = {"BIDSVersion": "1.10.0", "DatasetType": "derivative"}
    (tmp_path / "dataset_description.json").write_text(json.dumps(content))
    with pytest.raises(ScanError, match="derived images"):
        find_cases(tmp_path)


def test_a_folder_without_subject_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="no case"):
        find_cases(a_dataset(tmp_path))


def test_the_layout_is_known_with_and_without_its_description(tmp_path: Path) -> None:
    (tmp_path / "sub-1").mkdir()
    assert not is_here(tmp_path)
    (tmp_path / "sub-1" / "ses-a" / "anat").mkdir(parents=True)
    assert is_here(tmp_path)
