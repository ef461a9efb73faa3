"""DICOM series that no table can make a scan: each refused by name, all others made."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pydicom", reason="needs pydicom")
pytest.importorskip("dcm2niix", reason="needs dcm2niix")

import pydicom

from brainfed.cli.app import run
from brainfed.core.labels import LabelProtocol
from brainfed.formats import dataset
from brainfed.formats.scan import write_scan
from brainfed.steps.case_rows import CaseStatus, RefusedCasesError
from brainfed.steps.preprocess import Wish, preprocess_folder
from tests import bad_scans
from tests.builders import a_plan
from tests.dicom_series import a_turned_geometry, uid, write_series

GEOMETRY = a_turned_geometry(bad_scans.SHAPE, (10.0, 3.2, 3.2))
FLAIR = {"EchoTime": "120", "RepetitionTime": "9000", "InversionTime": "2500"}
PLAN = a_plan(
    grid={"size": (64, 64)},
    preparation={"brain": "head"},
    cohort={"treatment": "any", "minimum_age_years": 0},
)
Spoil = Callable[[Path], None]


def _with(**tags: object) -> Spoil:
    def spoil(folder: Path) -> None:
        for path in folder.iterdir():
            _change(path, tags)

    return spoil


def _change(path: Path, tags: dict[str, object]) -> None:
    file = pydicom.dcmread(path)
    for name, value in tags.items():
        setattr(file, name, value)
    if "SOPClassUID" in tags:
        file.file_meta.MediaStorageSOPClassUID = tags["SOPClassUID"]
    file.save_as(path)


def _some(**tags: object) -> Spoil:
    """The last slices alone."""

    def spoil(folder: Path) -> None:
        for path in sorted(folder.iterdir())[6:]:
            _change(path, tags)

    return spoil


def _without_a_slice(folder: Path) -> None:
    sorted(folder.iterdir())[5].unlink()


def _cut_off(folder: Path) -> None:
    path = sorted(folder.iterdir())[5]
    path.write_bytes(path.read_bytes()[:-100])


def _emptied(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


BAD: dict[str, tuple[Spoil, str]] = {
    "a secondary capture": (_with(SOPClassUID="1.2.840.10008.5.1.4.1.1.7"), "secondary capture"),
    "burned-in annotation": (_with(BurnedInAnnotation="YES"), "may name the patient"),
    "one slice with annotation": (_some(BurnedInAnnotation="YES"), "may name the patient"),
    "CT": (_with(Modality="CT", SOPClassUID="1.2.840.10008.5.1.4.1.1.2"), "modality CT"),
    "PET": (_with(Modality="PT"), "modality PT"),
    "colour": (_with(PhotometricInterpretation="RGB"), "not a grey image"),
    "two patients": (_some(PatientID="another"), "two patients"),
    "two studies": (_some(StudyInstanceUID=uid("other")), "two patients or studies"),
    "a localizer": (_some(ImageOrientationPatient=[0, 1, 0, 0, 0, -1]), "several directions"),
    "two echo times": (_some(EchoTime="20"), "2 echo times"),
    "a missing slice": (_without_a_slice, "1 slice is missing"),
    "a file cut off": (_cut_off, "cut off"),
    "no such series": (_emptied, "no such DICOM series"),
}
GOOD = ("one", "two")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of two good cases, and one for each bad series."""
    folder = tmp_path_factory.mktemp("dicom")
    rows = ["PatientID,T2FLAIR,Label"]
    for number, name in enumerate([*GOOD, *BAD]):
        scans, label = folder / f"{number}", folder / f"{number}-label.nii.gz"
        values = bad_scans.label()
        values[0, 0, : 1 + number] = 2  # no two labels alike
        write_scan(label, values, GEOMETRY)
        series = write_series(
            scans,
            bad_scans.voxels(number),
            GEOMETRY,
            patient=name,
            description="t2 flair tra",
            tags=FLAIR,
        )
        if name in BAD:
            BAD[name][0](scans)
        rows.append(f"{name},{scans.name}#{series},{label.name}")
    path = folder / "table.csv"
    path.write_text("\n".join(rows))
    return path


def test_a_series_that_no_table_can_overrule_refuses_its_case_and_the_others_go_on(
    table: Path, tmp_path: Path
) -> None:
    wish = Wish(protocol=LabelProtocol.BRATS2017)
    with pytest.raises(RefusedCasesError) as caught:
        preprocess_folder(tmp_path / "data", table, PLAN, wish)
    assert caught.value.exit_code == 5
    rows = {row.name: row for row in caught.value.result.rows}
    assert {name for name, row in rows.items() if row.status is CaseStatus.MADE} == set(GOOD)
    reasons = {name: rows[name].reason or "" for name in BAD}
    assert {n: r for n, r in reasons.items() if BAD[n][1] not in r} == {}
    assert len(dataset.read_index(tmp_path / "data")) == len(GOOD)
    made = list((tmp_path / "data" / "cache").rglob("*.nii.gz"))
    assert len(made) == len(GOOD)  # of what was refused not a voxel is kept


def test_check_ends_with_exit_code_5_and_says_why_of_each(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(["check", str(table), "--labels", "brats2017", "--out", str(out)]) == 5
    said = capsys.readouterr()
    plain = " ".join(said.out.split())
    assert f"{len(BAD)} of {len(BAD) + len(GOOD)} cases can't be used" in said.err
    assert {words for _, words in BAD.values() if words not in plain} == set()
    assert np.all([name in plain for name in GOOD])
