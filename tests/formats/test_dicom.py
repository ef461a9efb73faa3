"""Folders of DICOM files: what is found in them, and a series made NIfTI and back."""

import importlib.util
import os
import shutil
import stat
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brainfed.core.flaws import Flaw, FlawedScanError
from brainfed.core.sequence_rule import default_rule
from brainfed.core.volume import geometry_of
from brainfed.errors import BrainfedError, ConflictError, NotReadyError, ScanError
from brainfed.formats import dcm2niix, dicom, dicom_header
from brainfed.formats.found_case import WHOLE_CASE, FoundCase, LeftOver, ScanFile
from brainfed.plan import Modality

HAS_PYDICOM = importlib.util.find_spec("pydicom") is not None
HAS_DCM2NIIX = (
    importlib.util.find_spec("dcm2niix") is not None or shutil.which("dcm2niix") is not None
)
pytestmark = pytest.mark.skipif(not HAS_PYDICOM, reason="pydicom (extra dicom) is not installed")
converts = pytest.mark.skipif(not HAS_DCM2NIIX, reason="dcm2niix (extra dicom) is not installed")

if HAS_PYDICOM:
    from tests.dicom_series import a_turned_geometry, save, uid, write_enhanced, write_series

SHAPE = (12, 20, 24)
T2 = {"EchoTime": "98", "RepetitionTime": "5000", "InversionTime": None}
FLAIR = {"EchoTime": "120", "RepetitionTime": "9000", "InversionTime": "2500"}
RULE = default_rule()


def some_voxels(seed: int = 0, *, low: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, 4000, SHAPE).astype(np.int32)


def found(folder: Path) -> tuple[tuple[FoundCase, ...], tuple[LeftOver, ...]]:
    return dicom.find_cases(folder, RULE)


def write(folder: Path, description: str, **changes: object) -> ScanFile:
    """One series of random voxels, straight."""
    series = write_series(
        folder,
        some_voxels(),
        a_turned_geometry(SHAPE),
        description=description,
        **changes,  # type: ignore[arg-type]
    )
    return ScanFile(folder, series=series)


def write_study(folder: Path, patient: str = "P1", study: str = "one") -> None:
    """T1, T2, FLAIR and T1 with contrast, each in its folder, and a localizer."""
    rows = {
        "t1_se_tra": {"AcquisitionTime": "100000"},
        "t2_tse_tra": {**T2, "AcquisitionTime": "100500"},
        "t2_tirm_tra_dark-fluid": {**FLAIR, "AcquisitionTime": "101000"},
        "t1_se_tra_KM": {"AcquisitionTime": "102000", "ContrastBolusAgent": "Gadovist"},
        "localizer": {"AcquisitionTime": "095900"},
    }
    for number, (name, tags) in enumerate(rows.items(), start=1):
        write(
            folder / patient / study / f"SE{number}",
            name,
            patient=patient,
            study=study,
            series=str(number),
            tags=tags,
        )


# --- what is found


def test_a_study_is_one_case_with_its_four_modalities(tmp_path: Path) -> None:
    write_study(tmp_path)
    (case,), left = found(tmp_path)
    assert (case.name, case.patient, case.visit) == ("P1_20240131", "P1", "20240131")
    assert case.folder == tmp_path / "P1" / "one"
    assert case.age_years == 60
    assert {m: scan.path.name for m, scan in case.images.items()} == {
        Modality.T1: "SE1",
        Modality.T2: "SE2",
        Modality.FLAIR: "SE3",
        Modality.T1CE: "SE4",
    }
    assert case.images[Modality.T1].series == uid("P1", "one", "1")
    assert not case.doubts
    assert case.label is None
    assert case.treatment is None
    ((where, reason),) = [(item.where, item.reason) for item in left]
    assert where == f"{tmp_path / 'P1' / 'one' / 'SE5'}#{uid('P1', 'one', '5')}"
    assert reason == 'series 5 "localizer": a localizer ("localizer" in its description)'


def test_all_series_in_one_flat_folder_without_endings_are_told_apart(tmp_path: Path) -> None:
    write_study(tmp_path / "nested")
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, path in enumerate(sorted((tmp_path / "nested").rglob("*.dcm"))):
        path.rename(flat / f"{number:08X}")
    (case,), left = found(flat)
    assert set(case.images) == set(Modality)
    assert {scan.path for scan in case.images.values()} == {flat}
    assert len(left) == 1
    assert len(dicom.files_of(case.images[Modality.T2])) == SHAPE[0]


def test_patients_and_visits_are_kept_apart(tmp_path: Path) -> None:
    for patient, study, day, time in (
        ("B", "x", "20240131", "090000"),
        ("A", "later", "20240131", "140000"),
        ("A", "first", "20240131", "080000"),
        ("A", "old", "20231224", "080000"),
    ):
        write(
            tmp_path / study,
            "t2 tra",
            patient=patient,
            study=study,
            tags={**T2, "StudyDate": day, "StudyTime": time},
        )
    cases, left = found(tmp_path)
    assert not left
    assert [(case.name, case.images[Modality.T2].path.name) for case in cases] == [
        ("A_20231224", "old"),
        ("A_20240131", "first"),
        ("A_20240131-2", "later"),
        ("B_20240131", "x"),
    ]


def test_a_series_split_over_folders_is_one_series(tmp_path: Path) -> None:
    write(tmp_path / "a", "t2 tra", tags=T2)
    (tmp_path / "b").mkdir()
    for path in sorted((tmp_path / "a").iterdir())[6:]:
        path.rename(tmp_path / "b" / path.name)
    (case,), _ = found(tmp_path)
    assert case.images[Modality.T2].path == tmp_path
    assert len(dicom.files_of(case.images[Modality.T2])) == SHAPE[0]


def test_an_image_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    write(tmp_path / "a", "t2 tra", tags=T2)
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    (case,), left = found(tmp_path)
    assert not left
    assert len(dicom.files_of(case.images[Modality.T2])) == SHAPE[0]


def test_what_is_not_dicom_is_passed_over(tmp_path: Path) -> None:
    write_study(tmp_path)
    (tmp_path / "README.txt").write_text("hello")
    (tmp_path / "empty").touch()
    (tmp_path / "zeros").write_bytes(bytes(4096))
    (tmp_path / ".hidden").write_bytes(b"\0" * 128 + b"DICM")
    directory = _a_dicomdir()
    save(directory, tmp_path / "DICOMDIR")
    (case,), left = found(tmp_path)
    assert set(case.images) == set(Modality)
    assert len(left) == 1  # the localizer


def _a_dicomdir() -> object:
    from pydicom.dataset import Dataset

    directory = Dataset()
    directory.SOPClassUID, directory.SOPInstanceUID = "1.2.840.10008.1.3.10", uid("directory")
    directory.FileSetID = "DISC"
    return directory


def test_a_folder_without_dicom_holds_none(tmp_path: Path) -> None:
    (tmp_path / "scan.txt").write_bytes(bytes(500))
    assert found(tmp_path) == ((), ())
    assert not dicom.holds_dicom(tmp_path)
    write(tmp_path / "deep" / "er", "t2")
    assert dicom.holds_dicom(tmp_path)


def test_a_label_among_dicom_files_is_left_over_with_what_to_do(tmp_path: Path) -> None:
    write(tmp_path / "P1" / "SE1", "t2 tra", tags=T2)
    (tmp_path / "P1" / "tumour.nii.gz").write_bytes(bytes(500))
    (case,), (left,) = found(tmp_path)
    assert set(case.images) == {Modality.T2}
    assert left.where == str(tmp_path / "P1" / "tumour.nii.gz")
    assert "column Label" in left.reason


def test_a_file_that_cannot_be_opened_does_not_hide_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "t2 tra", tags=T2)
    (tmp_path / "A").write_bytes(bytes(500))
    real = Path.open

    def refuse(path: Path, *how: object, **more: object) -> object:
        if path.name == "A":
            raise PermissionError(13, "Permission denied")
        return real(path, *how, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", refuse)
    assert dicom.holds_dicom(tmp_path)
    (case,), (left,) = found(tmp_path)
    assert set(case.images) == {Modality.T2}
    assert left.where == str(tmp_path / "A")


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="can't be read"):
        found(tmp_path / "none")


def test_progress_is_told_of_every_file(tmp_path: Path) -> None:
    write(tmp_path, "t2 tra", tags=T2)
    told: list[tuple[int, int]] = []
    dicom.find_cases(tmp_path, RULE, lambda _, done, total, __="": told.append((done, total)))
    assert told == [(n, SHAPE[0]) for n in range(1, SHAPE[0] + 1)]


@pytest.mark.parametrize(
    ("charset", "patient", "description"),
    [
        ("ISO_IR 100", "Müller", "T1 après gado"),
        ("ISO_IR 192", "Żółć", "T1 kontrastlı"),
        ("\\ISO 2022 IR 87", "P9", "造影後T1"),
        ("ISO_IR 144", "Ж1", "T1 с контрастом"),
    ],
)
def test_texts_of_any_character_set_are_understood(
    tmp_path: Path, charset: str, patient: str, description: str
) -> None:
    tags = {"ContrastBolusAgent": "Gd"}
    write(tmp_path, description, patient=patient, charset=charset, tags=tags)
    (case,), left = found(tmp_path)
    assert not left
    assert case.patient == patient
    assert set(case.images) == {Modality.T1CE}


def test_a_character_set_that_nobody_knows_is_no_crash(tmp_path: Path) -> None:
    write(tmp_path, "t2 tra", tags=T2)
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes().replace(b"ISO_IR 100", b"ISO_IR 999"))
    (case,), _ = found(tmp_path)
    assert set(case.images) == {Modality.T2}


def test_a_text_with_line_ends_is_one_line(tmp_path: Path) -> None:
    tags = {**T2, "PatientID": "P\x1b[31m\n1", "ProtocolName": "x\ty"}
    write(tmp_path, "t2\r\ntra\x07", tags=tags)
    (case,), _ = found(tmp_path)
    assert case.patient.isprintable()
    assert set(case.images) == {Modality.T2}


@pytest.mark.parametrize(
    ("tags", "age"),
    [
        ({"PatientAge": "045Y"}, 45),
        ({"PatientAge": "018M"}, 1),
        ({"PatientAge": "100W"}, 1),
        ({"PatientAge": "900D"}, 2),
        ({"PatientAge": None}, 60),
        ({"PatientAge": "", "PatientBirthDate": "19640201"}, 59),
        ({"PatientAge": "x", "PatientBirthDate": ""}, None),
        ({"PatientAge": None, "PatientBirthDate": "20990101"}, None),
        ({"PatientAge": None, "PatientBirthDate": "1964"}, None),
        ({"PatientAge": None, "PatientBirthDate": "19000101"}, None),
        ({"PatientAge": "999Y", "PatientBirthDate": "19640101"}, None),
    ],
)
def test_the_age_at_the_scan_is_read(
    tmp_path: Path, tags: dict[str, object], age: int | None
) -> None:
    write(tmp_path, "t2 tra", tags={**T2, **tags})
    ((case,), _) = found(tmp_path)
    assert case.age_years == age


# --- what is asked


def test_a_lone_t1_asks_whether_it_has_contrast_and_says_what_to_write(tmp_path: Path) -> None:
    scan = write(tmp_path / "SE1", "t1_mprage")
    (case,), left = found(tmp_path)
    assert not case.images
    assert not left
    assert set(case.doubts) == {"t1", "t1ce"}
    assert case.doubts["t1"] == case.doubts["t1ce"]
    assert "can't tell T1 from T1ce" in case.doubts["t1"]
    assert f"cases.csv: {scan} for " in case.doubts["t1"]


def test_two_series_as_good_as_each_other_are_asked_about(tmp_path: Path) -> None:
    one = write(tmp_path / "a", "t2 tra", series="1", tags=T2)
    other = write(tmp_path / "b", "t2 tra repeat", series="2", tags=T2)
    (case,), _ = found(tmp_path)
    assert set(case.doubts) == {"t2"}
    assert str(one) in case.doubts["t2"]
    assert str(other) in case.doubts["t2"]


def test_files_without_a_patient_are_a_case_that_asks_who_it_is(tmp_path: Path) -> None:
    for study in ("one", "two"):
        write(tmp_path / study, "t2 tra", study=study, tags={**T2, "PatientID": None})
    cases, _ = found(tmp_path)
    assert len({case.name for case in cases}) == len({case.patient for case in cases}) == 2
    for case in cases:
        assert "no PatientID" in case.doubts[WHOLE_CASE]
        assert case.visit == "20240131"


def test_two_patients_in_one_series_are_refused_and_so_is_what_else_they_have(
    tmp_path: Path,
) -> None:
    tags = {**T2, "SeriesInstanceUID": uid("shared")}
    write(tmp_path / "a", "t2 tra", patient="A", tags=tags)
    write(tmp_path / "b", "t2 tra", patient="B", tags=tags)
    write(tmp_path / "c", "flair", patient="B", series="7", tags=FLAIR)
    cases, left = found(tmp_path)
    assert [item.where for item in left] == [f"{tmp_path}#{uid('shared')}"]
    assert "two patients" in left[0].reason
    (case,) = cases
    assert case.patient == "B"
    assert set(case.images) == {Modality.FLAIR}
    assert "two patients" in case.doubts[WHOLE_CASE]
    with pytest.raises(ScanError, match="two patients"):
        dicom.convert(ScanFile(tmp_path, series=uid("shared")), tmp_path / "out.nii")


def test_an_image_of_one_uid_under_two_patients_is_two_patients(tmp_path: Path) -> None:
    shared = {"SeriesInstanceUID": uid("series"), "StudyInstanceUID": uid("study")}
    tags = {**T2, **shared, "SOPInstanceUID": uid("image")}
    for patient in ("A", "B"):
        write(tmp_path / patient, "t2 tra", patient=patient, tags=tags)
    with pytest.raises(ScanError, match="two patients"):
        dicom.convert(ScanFile(tmp_path, series=uid("series")), tmp_path / "out.nii")


def test_one_derived_image_makes_the_series_derived(tmp_path: Path) -> None:
    write(tmp_path, "t2 tra", tags=T2)
    path = tmp_path / "IM0007.dcm"
    path.write_bytes(path.read_bytes().replace(b"ORIGINAL\\PRIMARY", b"DERIVED\\PRIMARY "))
    (case,), _ = found(tmp_path)
    assert "is DERIVED" in case.remarks[0]


def test_one_study_under_two_patients_is_refused(tmp_path: Path) -> None:
    for patient in ("A", "B"):
        tags = {**T2, "StudyInstanceUID": uid("study")}
        write(tmp_path / patient, "t2 tra", patient=patient, tags=tags)
    cases, left = found(tmp_path)
    assert not cases
    assert len(left) == 2


# --- what is left over


@pytest.mark.parametrize(
    ("tags", "why"),
    [
        ({"Modality": "CT", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, "modality CT"),
        ({"Modality": "PT", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.128"}, "modality PT"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "secondary capture"),
        ({"BurnedInAnnotation": "YES"}, "burned-in"),
        ({"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, "a reformat"),
        ({"PhotometricInterpretation": "RGB"}, "not a grey image"),
    ],
)
def test_a_series_that_is_no_scan_is_left_over_and_never_converted(
    tmp_path: Path, tags: dict[str, object], why: str
) -> None:
    scan = write(tmp_path, "t2 tra", tags={**T2, **tags})
    cases, (left,) = found(tmp_path)
    assert not cases
    assert left.where == str(scan)
    assert why in left.reason
    if why != "a reformat":  # a person may take a reformat, by cases.csv
        with pytest.raises(ScanError, match="can't be used"):
            dicom.convert(scan, tmp_path / "out.nii")


def test_a_localizer_of_three_planes_is_left_over_whatever_its_name(tmp_path: Path) -> None:
    planes = ("axial", "sagittal", "coronal")
    for number, plane in enumerate(planes):
        write_series(
            tmp_path,
            some_voxels()[:5],
            a_turned_geometry((5, 20, 24), plane=plane),
            description="t2",
            tags={**T2, "SOPInstanceUID": None},
            name=f"{number}-{{}}.dcm",
        )
    cases, (left,) = found(tmp_path)
    assert not cases
    assert "its slices lie in 3 directions" in left.reason


def test_a_dual_echo_series_is_left_over(tmp_path: Path) -> None:
    for number, echo in enumerate(("98", "12")):
        tags = {**T2, "EchoTime": echo, "SOPInstanceUID": None}
        write(tmp_path, "t2 tra", tags=tags, name=f"{number}-{{}}.dcm")
    cases, (left,) = found(tmp_path)
    assert not cases
    assert "2 echo times" in left.reason


def test_images_of_several_sizes_are_left_over(tmp_path: Path) -> None:
    scan = write(tmp_path, "t2 tra", tags=T2)
    small = some_voxels()[:, :10, :10]
    write_series(
        tmp_path,
        small[:1],
        a_turned_geometry(small.shape),
        tags={**T2, "SOPInstanceUID": "1.2"},
        name="x",
    )
    cases, (left,) = found(tmp_path)
    assert not cases
    assert "several sizes" in left.reason
    with pytest.raises(ScanError, match="several sizes"):
        dicom.convert(scan, tmp_path / "out.nii")


@pytest.mark.parametrize("n_bytes", [140, 300, 700, -100, -1])
def test_a_file_that_is_cut_off_is_left_over_with_the_reason(tmp_path: Path, n_bytes: int) -> None:
    scan = write(tmp_path, "t2 tra", tags=T2)
    path = tmp_path / "IM0004.dcm"
    path.write_bytes(path.read_bytes()[:n_bytes])
    (case,), left = found(tmp_path)
    assert set(case.images) == {Modality.T2}
    assert [item.where for item in left] == [str(path)]
    assert "DICOM file" in left[0].reason
    with pytest.raises(ScanError):  # damaged, or a slice is missing
        dicom.convert(scan, tmp_path / "out.nii")


def test_a_file_that_is_packed_as_a_whole_is_never_unpacked(tmp_path: Path) -> None:
    import tracemalloc

    import pydicom

    write(tmp_path, "t2 tra", tags=T2)
    path = tmp_path / "IM0004.dcm"
    bomb = pydicom.dcmread(path)
    bomb.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    bomb.PixelData = bytes(2**26)
    bomb.save_as(path)
    assert path.stat().st_size < 2**17
    tracemalloc.start()
    try:
        with pytest.raises(ScanError, match="deflated"):
            dicom_header.read_header(path)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()
    _, (left,) = found(tmp_path)
    assert left.where == str(path)


def test_a_file_that_may_not_be_read_is_left_over(tmp_path: Path) -> None:
    write(tmp_path, "t2 tra", tags=T2)
    path = tmp_path / "IM0004.dcm"
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    _, left = found(tmp_path)
    assert [item.where for item in left] == [str(path)]


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    changes=st.lists(st.tuples(st.integers(0, 1500), st.integers(0, 255)), min_size=1, max_size=12),
    cut=st.integers(100, 3000),
)
def test_damaged_bytes_are_never_a_crash(
    tmp_path: Path, changes: list[tuple[int, int]], cut: int
) -> None:
    path = tmp_path / "one" / "IM0001.dcm"
    original = tmp_path / "original"
    if not original.exists():
        write(tmp_path / "one", "t1 造影", charset="ISO_IR 192")
        original.write_bytes(path.read_bytes())
    data = bytearray(original.read_bytes()[:cut])
    for position, value in changes:
        if position < len(data):
            data[position] = value
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            header = dicom_header.read_header(path)
        except BrainfedError as error:
            assert isinstance(error, ScanError)
        else:
            assert header is None or header.series


# --- converted


def read(path: Path) -> sitk.Image:
    return sitk.ReadImage(str(path))


def as_written(image: sitk.Image, scan: sitk.Image) -> np.ndarray:
    """Voxels of `image` on the grid of `scan`, without interpolation."""
    resampled = sitk.Resample(image, scan, sitk.Transform(), sitk.sitkNearestNeighbor, -9999.0)
    return sitk.GetArrayFromImage(resampled)


@converts
@pytest.mark.parametrize("plane", ["axial", "sagittal", "coronal"])
@pytest.mark.parametrize("degrees", [(0, 0, 0), (12, -7, 20)])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_series_comes_back_with_the_same_voxels_in_the_same_places(
    tmp_path: Path, plane: str, degrees: tuple[float, float, float], ending: str
) -> None:
    voxels = some_voxels(1)
    geometry = a_turned_geometry(SHAPE, (5.0, 0.9, 1.1), degrees=degrees, plane=plane)
    series = write_series(tmp_path / "in", voxels, geometry)
    target = tmp_path / f"scan{ending}"
    assert dicom.convert(ScanFile(tmp_path / "in", series=series), target) == ()
    made = read(target)
    wanted = sitk.GetImageFromArray(voxels)
    wanted.SetSpacing(geometry.spacing_mm)
    wanted.SetOrigin(geometry.origin_mm)
    wanted.SetDirection(geometry.direction)
    assert np.array_equal(as_written(made, wanted), voxels)
    assert sorted(made.GetSize()) == sorted(geometry.size)
    here, there = geometry_of(sitk.DICOMOrient(made, "LPS")), sitk.DICOMOrient(wanted, "LPS")
    assert here.difference(geometry_of(there)) is None


@converts
def test_values_below_zero_and_a_slope_are_kept(tmp_path: Path) -> None:
    voxels = some_voxels(2, low=-500)
    tags = {"RescaleSlope": "2", "RescaleIntercept": "-10"}
    series = write_series(tmp_path / "in", voxels, a_turned_geometry(SHAPE), tags=tags)
    dicom.convert(ScanFile(tmp_path / "in", series=series), tmp_path / "scan.nii")
    made = sitk.GetArrayFromImage(read(tmp_path / "scan.nii"))
    assert np.allclose(np.sort(made.ravel()), np.sort(2.0 * voxels.ravel() - 10))


@converts
def test_an_enhanced_file_is_found_and_converted(tmp_path: Path) -> None:
    voxels, geometry = some_voxels(3), a_turned_geometry(SHAPE, degrees=(5, 5, 5))
    series = write_enhanced(tmp_path / "in" / "enhanced.dcm", voxels, geometry, description="t1 KM")
    cases, left = found(tmp_path)
    assert not left
    assert "by its text alone" in cases[0].doubts["t1ce"]
    dicom.convert(ScanFile(tmp_path / "in", series=series), tmp_path / "scan.nii")
    made = sitk.GetArrayFromImage(read(tmp_path / "scan.nii"))
    assert np.array_equal(np.sort(made.ravel()), np.sort(voxels.ravel()))


@converts
def test_only_the_files_of_the_series_are_converted(tmp_path: Path) -> None:
    wanted = write(tmp_path / "in", "t1", series="1", name="a{}")
    write_series(tmp_path / "in", some_voxels(9), a_turned_geometry(SHAPE), series="2", name="b{}")
    dicom.convert(wanted, tmp_path / "scan.nii")
    made = sitk.GetArrayFromImage(read(tmp_path / "scan.nii"))
    assert np.array_equal(np.sort(made.ravel()), np.sort(some_voxels().ravel()))


@converts
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_nothing_that_names_a_patient_is_in_the_file(tmp_path: Path, ending: str) -> None:
    tags = {
        "PatientName": "Mustermann^Erika",
        "ImageComments": "Mustermann Erika",
        "InstitutionName": "Mustermann Klinik",
        "AcquisitionTime": "112233",
        "StudyID": "Mustermann",
        "StudyDescription": "Mustermann",
    }
    scan = write(tmp_path / "in", "Mustermann t1", patient="Mustermann", tags=tags)
    target = tmp_path / f"scan{ending}"
    dicom.convert(scan, target)
    data = target.read_bytes()
    assert b"Mustermann" not in data
    if ending == ".nii.gz":
        import gzip

        assert data[3] == 0  # no name of a file in the header of gzip
        data = gzip.decompress(data)
    assert b"Mustermann" not in data
    texts = data[4:32] + data[148:252] + data[328:344]
    assert texts == bytes(len(texts))
    assert data[348:352] == bytes(4)
    assert np.frombuffer(data[108:112], "<f4")[0] == 352
    assert stat.S_IMODE(target.stat().st_mode) == 0o600 or sys.platform == "win32"


@converts
def test_nothing_is_written_beside_the_input_and_nothing_is_left(tmp_path: Path) -> None:
    scan = write(tmp_path / "in", "t1")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "in").iterdir()}
    (tmp_path / "out").mkdir()
    dicom.convert(scan, tmp_path / "out" / "scan.nii.gz")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "in").iterdir()} == before
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["scan.nii.gz"]


@converts
def test_the_same_series_gives_the_same_bytes(tmp_path: Path) -> None:
    scan = write(tmp_path / "in", "t1")
    for name in ("a.nii.gz", "b.nii.gz"):
        dicom.convert(scan, tmp_path / name)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


@converts
def test_a_file_that_is_there_is_only_replaced_where_asked(tmp_path: Path) -> None:
    scan, target = write(tmp_path / "in", "t1"), tmp_path / "scan.nii"
    target.write_text("mine")
    with pytest.raises(ConflictError):
        dicom.convert(scan, target)
    assert target.read_text() == "mine"
    dicom.convert(scan, target, replace=True)
    assert target.stat().st_size > 1000


@converts
@pytest.mark.parametrize(
    ("missing", "words"), [((5,), "1 slice is missing"), ((5, 6), "2 slices are missing")]
)
def test_a_missing_slice_is_refused(tmp_path: Path, missing: tuple[int, ...], words: str) -> None:
    scan = write(tmp_path / "in", "t1")
    for number in missing:
        (tmp_path / "in" / f"IM{number:04d}.dcm").unlink()
    with pytest.raises(ScanError, match=words):
        dicom.convert(scan, tmp_path / "scan.nii")
    assert not (tmp_path / "scan.nii").exists()


@converts
def test_uneven_gaps_are_refused(tmp_path: Path) -> None:
    scan = write(tmp_path / "in", "t1")
    import pydicom

    path = tmp_path / "in" / "IM0005.dcm"
    file = pydicom.dcmread(path)
    x, y, z = file.ImagePositionPatient
    file.ImagePositionPatient = [x, y, f"{float(z) + 1.5:.6f}"]
    file.save_as(path)
    with pytest.raises(FlawedScanError, match="uneven") as caught:
        dicom.convert(scan, tmp_path / "scan.nii")
    assert caught.value.flaw is Flaw.UNEVEN_GAPS
    assert caught.value.where == str(scan)


@converts
def test_what_dcm2niix_says_is_in_the_error(tmp_path: Path) -> None:
    # Pixels that are said to be JPEG 2000 and are none: the headers are right, dcm2niix must fail.
    import pydicom
    from pydicom.encaps import encapsulate

    scan = write(tmp_path / "in", "t1")
    for path in (tmp_path / "in").iterdir():
        file = pydicom.dcmread(path)
        file.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.90"
        file.PixelData = encapsulate([b"no jpeg at all!!"])
        file["PixelData"].is_undefined_length = True
        file["PixelData"].VR = "OB"
        file.save_as(path)
    with pytest.raises(ScanError) as caught:
        dicom.convert(scan, tmp_path / "scan.nii")
    assert caught.value.message.startswith("dcm2niix ")
    assert str(tmp_path) not in str(caught.value.found)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@converts
def test_a_geometry_that_is_not_the_headers_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = write(tmp_path / "in", "t1")
    convert = dcm2niix.volume_of

    def shifted(folder: Path, where: str) -> tuple[bytes, tuple[str, ...]]:
        data, warned = convert(folder, where)
        changed = bytearray(data)
        value = np.frombuffer(data[292:296], "<f4")[0] + np.float32(0.2)
        changed[292:296] = value.tobytes()
        return bytes(changed), warned

    monkeypatch.setattr(dcm2niix, "volume_of", shifted)
    with pytest.raises(ScanError, match="where the DICOM headers don't") as caught:
        dicom.convert(scan, tmp_path / "scan.nii")
    assert caught.value.found == "0.200 mm"


def test_a_series_that_is_not_there_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "in", "t1")
    with pytest.raises(ScanError, match="no such DICOM series"):
        dicom.files_of(ScanFile(tmp_path / "in", series="1.2.3"))


# --- the extra


def test_without_pydicom_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "t1")
    dicom_header.pydicom.cache_clear()
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(NotReadyError) as caught:
        found(tmp_path)
    assert caught.value.hint == "pip install 'brainfed[dicom]'"
    monkeypatch.undo()
    dicom_header.pydicom.cache_clear()


def test_without_dcm2niix_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = write(tmp_path / "in", "t1")
    monkeypatch.setitem(sys.modules, "dcm2niix", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotReadyError) as caught:
        dicom.convert(scan, tmp_path / "scan.nii")
    assert "pip install 'brainfed[dicom]'" in str(caught.value.hint)


@converts
def test_the_systems_dcm2niix_is_taken_where_the_extra_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path / "dcm2niix"
    link.symlink_to(dcm2niix.find_program())
    monkeypatch.setitem(sys.modules, "dcm2niix", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert dcm2niix.find_program() == link
    dicom.convert(write(tmp_path / "in", "t1"), tmp_path / "scan.nii")


@converts
def test_the_converter_says_its_version() -> None:
    assert dicom.converter_version().startswith("v1.0.")
