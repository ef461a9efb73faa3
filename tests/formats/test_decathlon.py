import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brainfed.core.labels import LabelProtocol
from brainfed.errors import ScanError
from brainfed.formats.decathlon import find_cases, is_here
from brainfed.formats.found_case import LABEL, WHOLE_CASE, ScanFile
from brainfed.plan import Modality

MSD_LABELS = {
    "0": "background",
    "1": "edema",
    "2": "non-enhancing tumor",
    "3": "enhancing tumour",
}
"""As Task01_BrainTumour spells them."""


def an_msd_folder(tmp_path: Path, **changes: Any) -> Path:
    """Two training cases as the Decathlon hands them out."""
    content = {
        "name": "BRATS",
        "tensorImageSize": "4D",
        "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
        "labels": MSD_LABELS,
        "training": [
            {"image": f"./imagesTr/BRATS_{n}.nii.gz", "label": f"./labelsTr/BRATS_{n}.nii.gz"}
            for n in ("457", "001")
        ],
        "test": ["./imagesTs/BRATS_485.nii.gz"],
    }
    files = [f"{f}/BRATS_{n}.nii.gz" for f in ("imagesTr", "labelsTr") for n in ("457", "001")]
    return a_folder(tmp_path, content | changes, [*files, "imagesTr/._BRATS_457.nii.gz"])


def an_nnunet_folder(tmp_path: Path, **changes: Any) -> Path:
    """One training case as nnU-Net 2 wants it."""
    content = {
        "channel_names": {"0": "T1", "1": "T2-FLAIR"},
        "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3]},
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    files = ["imagesTr/p_0000.nii.gz", "imagesTr/p_0001.nii.gz", "labelsTr/p.nii.gz"]
    return a_folder(tmp_path, content | changes, files)


def a_folder(folder: Path, content: object, files: Iterable[str]) -> Path:
    for file in files:
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).touch()
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


# --- MSD ----------------------------------------------------------------------------------------


def test_a_volume_is_the_modality_that_the_file_names(tmp_path: Path) -> None:
    (first, second), left = find_cases(an_msd_folder(tmp_path))
    assert (first.name, first.patient, first.visit) == ("BRATS_001", "BRATS_001", "1")
    file = tmp_path / "imagesTr" / "BRATS_001.nii.gz"
    assert first.images == {
        Modality.FLAIR: ScanFile(file, volume=0),
        Modality.T1: ScanFile(file, volume=1),
        Modality.T1CE: ScanFile(file, volume=2),
        Modality.T2: ScanFile(file, volume=3),
    }
    assert list(first.images) == list(Modality)
    assert first.label == ScanFile(tmp_path / "labelsTr" / "BRATS_001.nii.gz")
    assert second.name == "BRATS_457"
    assert left == ()


def test_the_order_of_the_volumes_is_not_assumed(tmp_path: Path) -> None:
    order = {"0": "T2w", "1": "FLAIR", "3": "T1w", "2": "ADC"}
    cases, _ = find_cases(an_msd_folder(tmp_path, modality=order))
    volumes = {modality: scan.volume for modality, scan in cases[0].images.items()}
    assert volumes == {Modality.T2: 0, Modality.FLAIR: 1, Modality.T1: 3}


def test_a_single_modality_is_a_file_of_three_dimensions(tmp_path: Path) -> None:
    cases, _ = find_cases(an_msd_folder(tmp_path, modality={"0": "FLAIR"}))
    assert cases[0].images[Modality.FLAIR].volume is None


@pytest.mark.parametrize(
    ("labels", "protocol"),
    [
        (MSD_LABELS, LabelProtocol.MSD),
        ({**MSD_LABELS, "1": "oedema"}, LabelProtocol.MSD),
        ({**MSD_LABELS, "1": "non-enhancing tumor", "2": "edema"}, None),
        ({**MSD_LABELS, "4": "cavity"}, None),
        ({"0": "background", "1": "tumour"}, None),
        ({"background": 0, "edema": 1, "non-enhancing tumor": 2, "enhancing": 3}, "msd"),
        ({"0": "background", "1": ["edema"], "2": None, "3": 7}, None),
        (["edema"], None),
        (None, None),
    ],
)
def test_the_protocol_is_msd_only_where_the_labels_say_what_msd_says(
    tmp_path: Path, labels: object, protocol: LabelProtocol | None
) -> None:
    cases, _ = find_cases(an_msd_folder(tmp_path, labels=labels))
    assert cases[0].protocol == protocol


def test_a_file_that_is_listed_and_not_there_is_a_doubt_of_its_case(tmp_path: Path) -> None:
    folder = an_msd_folder(tmp_path)
    (folder / "imagesTr" / "BRATS_001.nii.gz").unlink()
    (folder / "labelsTr" / "BRATS_457.nii.gz").unlink()
    (first, second), _ = find_cases(folder)
    assert list(first.doubts) == [WHOLE_CASE]
    assert list(second.doubts) == [LABEL]


def test_images_without_label_are_left_over(tmp_path: Path) -> None:
    folder = an_msd_folder(tmp_path)
    (folder / "imagesTs").mkdir()
    (folder / "imagesTr" / "BRATS_500.nii.gz").touch()
    _, left = find_cases(folder)
    assert [Path(item.where).name for item in left] == ["BRATS_500.nii.gz", "imagesTs"]


def test_a_list_that_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    for name in ("../x.nii.gz", "/etc/x.nii.gz", "", 7, "imagesTr/\ud800.nii.gz", "a\0b.nii"):
        pairs = [{"image": name, "label": "./labelsTr/BRATS_001.nii.gz"}]
        with pytest.raises(ScanError, match="can't be understood"):
            find_cases(an_msd_folder(tmp_path, training=pairs))


@pytest.mark.parametrize(
    "pairs", ["x", [], ["./imagesTr/BRATS_001.nii.gz"], [{"image": "imagesTr/BRATS_001.nii.gz"}]]
)
def test_a_list_of_another_form_is_refused(tmp_path: Path, pairs: object) -> None:
    with pytest.raises(ScanError):
        find_cases(an_msd_folder(tmp_path, training=pairs))


def test_a_case_that_is_listed_twice_is_refused(tmp_path: Path) -> None:
    pair = {"image": "imagesTr/BRATS_001.nii.gz", "label": "labelsTr/BRATS_001.nii.gz"}
    with pytest.raises(ScanError, match="can't be understood"):
        find_cases(an_msd_folder(tmp_path, training=[pair, pair]))


# --- nnU-Net ------------------------------------------------------------------------------------


def test_a_channel_is_a_file_and_its_name_says_the_modality(tmp_path: Path) -> None:
    (case,), left = find_cases(an_nnunet_folder(tmp_path))
    assert case.images == {
        Modality.T1: ScanFile(tmp_path / "imagesTr" / "p_0000.nii.gz"),
        Modality.FLAIR: ScanFile(tmp_path / "imagesTr" / "p_0001.nii.gz"),
    }
    assert case.label == ScanFile(tmp_path / "labelsTr" / "p.nii.gz")
    assert (case.name, case.protocol, case.doubts, left) == ("p", None, {}, ())


def test_nnunet_before_version_2_is_known_by_its_files(tmp_path: Path) -> None:
    folder = an_msd_folder(tmp_path)  # its dataset.json lists the cases as MSD's does
    for image in folder.glob("imagesTr/BRATS*"):
        for channel in range(4):
            image.with_name(f"{image.name[:-7]}_{channel:04}.nii.gz").touch()
        image.unlink()
    (first, _), _ = find_cases(folder)
    assert first.images[Modality.T1CE] == ScanFile(folder / "imagesTr" / "BRATS_001_0002.nii.gz")
    assert first.protocol is LabelProtocol.MSD


def test_an_msd_case_with_a_number_of_four_digits_stays_msd(tmp_path: Path) -> None:
    folder = an_msd_folder(tmp_path)
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind / "c_0001.nii.gz").touch()
    pairs = [{"image": "imagesTr/c_0001.nii.gz", "label": "labelsTr/c_0001.nii.gz"}]
    (case,), _ = find_cases(an_msd_folder(tmp_path, training=pairs))
    assert (case.name, len(case.images)) == ("c_0001", 4)


def test_a_channel_that_is_missing_or_unknown_is_no_image(tmp_path: Path) -> None:
    names = {"0": "T1", "1": "ADC", "2": "T2"}
    (case,), left = find_cases(an_nnunet_folder(tmp_path, channel_names=names))
    assert list(case.images) == [Modality.T1]
    assert [Path(item.where).name for item in left] == ["p_0001.nii.gz"]


def test_two_files_for_a_channel_or_label_are_a_doubt(tmp_path: Path) -> None:
    folder = an_nnunet_folder(tmp_path)
    (folder / "imagesTr" / "p_0000.nii").touch()
    (folder / "labelsTr" / "p.nii").touch()
    (case,), left = find_cases(folder)
    assert case.doubts[Modality.T1] == "Two files for t1: _0000.nii, _0000.nii.gz"
    assert set(case.doubts) == {Modality.T1, LABEL}
    assert left == ()


def test_patient_and_visit_follow_from_the_name(tmp_path: Path) -> None:
    folder = a_folder(
        tmp_path, {"channel_names": {"0": "T1"}}, ["imagesTr/BraTS-GLI-00005-100_0000.nii.gz"]
    )
    (case,), _ = find_cases(folder)
    assert (case.patient, case.visit) == ("BraTS-GLI-00005", "100")


# --- both ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        {"channel_names": {}},
        {"channel_names": ["T1"]},
        {"channel_names": {"0": "zscore"}},
        {"channel_names": {"0": "T1", "1": "t1w"}},
        {"channel_names": {"T1": 0}},
        {"modality": {"0": "CT"}},
    ],
)
def test_a_file_that_names_no_modality_is_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(ScanError, match="can't be understood") as caught:
        find_cases(a_folder(tmp_path, content, ["imagesTr/p_0000.nii.gz"]))
    assert "cases.csv" in (caught.value.hint or "")


def test_a_file_that_is_no_json_is_refused(tmp_path: Path) -> None:
    folder = an_nnunet_folder(tmp_path)
    for data in (b"{", b"\xff", b"[" * 100_000):
        (folder / "dataset.json").write_bytes(data)
        with pytest.raises(ScanError, match="can't be understood"):
            find_cases(folder)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    folder = a_folder(tmp_path, {"channel_names": {"0": "T1"}}, ["imagesTr/p.txt"])
    with pytest.raises(ScanError, match="no training case"):
        find_cases(folder)


def test_the_layout_is_known_by_its_file_and_its_folder(tmp_path: Path) -> None:
    assert not is_here(tmp_path)
    (tmp_path / "dataset.json").touch()
    assert not is_here(tmp_path)
    (tmp_path / "imagesTr").mkdir()
    assert is_here(tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
PATHS = st.sampled_from(["imagesTr/BRATS_001.nii.gz", "x" * 300, "a/\0", "..", "/"]) | JSON
PAIRS = st.fixed_dictionaries({"image": PATHS, "label": PATHS})


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "modality": st.just({"0": "FLAIR", "1": "T1w"}) | JSON,
            "channel_names": st.just({"0": "FLAIR"}) | JSON,
            "labels": st.just(MSD_LABELS) | JSON,
            "training": st.lists(PAIRS | JSON, max_size=3) | JSON,
        },
    )
)
def test_whatever_the_file_says_it_is_read_or_refused(tmp_path: Path, content: Any) -> None:
    folder = an_msd_folder(tmp_path)
    (folder / "dataset.json").write_text(json.dumps(content))
    try:
        cases, _ = find_cases(folder)
    except ScanError:
        return
    assert cases
    assert all(folder in scan.path.parents for case in cases for scan in case.images.values())
