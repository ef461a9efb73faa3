"""Every bad input of `tests.bad_scans` in one cohort: each refused by name, all others made."""

import csv
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from brainfed.cli.app import run
from brainfed.core.labels import LabelProtocol
from brainfed.formats import dataset, quality_page
from brainfed.formats.review import Verdict
from brainfed.plan import Modality
from brainfed.steps import check as check_step
from brainfed.steps.case_rows import CaseRow, CaseStatus, PreprocessResult, RefusedCasesError
from brainfed.steps.check import check
from brainfed.steps.check_rows import BadCasesError
from brainfed.steps.preprocess import Wish, preprocess_folder
from tests import bad_scans, simulator
from tests.bad_scans import Bad
from tests.builders import a_plan, write_case_folder
from tests.dicom_series import write_series

PLAN = a_plan(
    grid={"size": (64, 64)},
    preparation={"brain": "given"},
    cohort={"treatment": "any", "minimum_age_years": 0},
)
WISH = Wish(protocol=LabelProtocol.BRATS2017)
GOOD = ("good one", "good two")


def a_cohort(folder: Path) -> Path:
    """A table of two good cases, and one for each bad image, label and mask."""
    folder.mkdir()
    rows = [_row(folder, name, seed=number) for number, name in enumerate(GOOD)]
    kinds: Mapping[str, Mapping[str, Bad]] = {
        "T2FLAIR": bad_scans.IMAGES,
        "Label": bad_scans.LABELS,
        "BrainMask": bad_scans.MASKS,
    }
    for column, bad in kinds.items():
        for number, (name, how) in enumerate(bad.items(), start=len(rows)):
            row = _row(folder, f"{column} {number}", seed=number)
            path = how.write(folder / f"bad-{column}-{number}")
            row |= {column: path.name, "Case": name}
            rows.append(row)
    table = folder / "cohort.csv"
    with table.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return table


def _row(folder: Path, name: str, seed: int) -> dict[str, str]:
    image = bad_scans.good(folder / f"{name}-flair", seed=seed)
    # No two labels alike, else the cases would count as one patient's.
    values = bad_scans.label()
    values[0, 0, : 1 + seed] = 2
    label = folder / f"{name}-seg.nii"
    label.write_bytes(bad_scans.nifti(values))
    mask = folder / f"{name}-mask.nii"
    mask.write_bytes(bad_scans.nifti((bad_scans.voxels() > 100).astype(np.uint8)))
    return {
        "PatientID": name,
        "Case": name,
        "T2FLAIR": image.name,
        "Label": label.name,
        "BrainMask": mask.name,
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PreprocessResult]:
    folder = tmp_path_factory.mktemp("bad")
    table = a_cohort(folder / "scans")
    with pytest.raises(RefusedCasesError) as caught:
        preprocess_folder(folder / "data", table, PLAN, WISH)
    assert caught.value.exit_code == 5
    return folder, caught.value.result


def rows_of(result: PreprocessResult) -> dict[str, CaseRow]:
    return {row.name: row for row in result.rows}


@pytest.mark.parametrize("name", [*bad_scans.IMAGES, *bad_scans.LABELS, *bad_scans.MASKS])
def test_a_bad_scan_refuses_its_case_or_holds_it(
    made: tuple[Path, PreprocessResult], name: str
) -> None:
    row = rows_of(made[1])[name]
    assert row.status is CaseStatus.REFUSED
    assert row.reason


@pytest.mark.parametrize("name", GOOD)
def test_the_good_cases_are_made_all_the_same(
    made: tuple[Path, PreprocessResult], name: str
) -> None:
    assert rows_of(made[1])[name].status is CaseStatus.MADE


def test_only_the_good_ones_are_in_the_index_and_all_are_on_the_page(
    made: tuple[Path, PreprocessResult],
) -> None:
    folder, result = made
    assert len(dataset.read_index(folder / "data")) == len(GOOD)
    assert len(list((folder / "data" / "cases").glob("*.h5"))) == len(GOOD)
    verdicts = {entry.name: entry.verdict for entry in quality_page.read_entries(folder / "data")}
    assert set(verdicts) == {row.name for row in result.rows}
    refused = {name for name, verdict in verdicts.items() if verdict is Verdict.REFUSED}
    assert refused == {row.name for row in result.rows if row.status is CaseStatus.REFUSED}


def test_check_says_the_same_without_a_case_or_a_plan(
    made: tuple[Path, PreprocessResult], tmp_path: Path
) -> None:
    folder, result = made
    with pytest.raises(BadCasesError) as caught:
        check(tmp_path / "out", folder / "scans" / "cohort.csv", None, WISH)
    found = caught.value.result
    refused = {row.name for row in found.rows if row.reason}
    assert refused == {row.name for row in result.rows if row.status is CaseStatus.REFUSED}
    assert found.page is not None
    page = found.page.read_text("utf-8")
    assert "must not leave the site" in page
    assert page.count("<section") == len(result.rows)
    assert not list((tmp_path / "out").rglob("*.h5"))


def test_the_command_ends_with_exit_code_5_and_prints_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_case_folder(tmp_path / "scans", "good", seed=1)
    folder = write_case_folder(tmp_path / "scans", "spoilt", seed=2)
    scan = next(folder.glob("*flair*"))
    scan.write_bytes(scan.read_bytes()[:-50])
    assert run(["check", "scans", "--labels", "brats2017"]) == 5
    said = capsys.readouterr()
    assert "spoilt" in said.out
    assert "truncated" in said.out
    assert "1 of 2 cases" in said.err
    assert (tmp_path / "brainfed-check" / "cases.csv").is_file()


def test_a_table_of_cases_is_added_to_and_never_written_over(tmp_path: Path) -> None:
    write_case_folder(tmp_path / "scans", "one", seed=1)
    first = check(tmp_path / "out", tmp_path / "scans", None, WISH)
    corrected = first.table.read_text().replace("one,one,1", "one,Smith,1")
    assert "Smith" in corrected
    first.table.write_text(corrected)
    write_case_folder(tmp_path / "scans", "two", seed=2)
    second = check(tmp_path / "out", tmp_path / "scans", None, WISH)
    assert (first.n_rows_added, second.n_rows_added) == (1, 1)
    text = second.table.read_text()
    assert "one,Smith,1" in text
    assert "two,two,1" in text
    from_table = check(tmp_path / "out", second.table, None, WISH)
    assert {row.name: row.patient for row in from_table.rows} == {"one": "Smith", "two": "two"}


def test_check_lists_what_nobody_has_answered(tmp_path: Path) -> None:
    write_case_folder(tmp_path / "scans", "one", seed=1)
    plan = a_plan(cohort={"treatment": "pre-operative", "minimum_age_years": 18})
    (row,) = check(tmp_path / "out", tmp_path / "scans", plan, WISH).rows
    assert row.unanswered == ("Treatment", "AgeYears")
    table = tmp_path / "out" / "cases.csv"
    head, line = table.read_text().splitlines()
    cells = dict(zip(head.split(","), line.split(","), strict=True))
    cells |= {"Treatment": "pre-operative", "AgeYears": "61"}
    table.write_text("\n".join([",".join(cells), ",".join(cells.values())]) + "\n")
    (row,) = check(tmp_path / "out", table, plan, WISH).rows
    assert row.unanswered == ()
    result = preprocess_folder(tmp_path / "data", table, plan, WISH)
    assert result.count(CaseStatus.MADE) == 1
    assert result.unanswered == ()


def test_a_child_is_no_part_of_a_cohort_of_adults(tmp_path: Path) -> None:
    write_case_folder(tmp_path / "scans", "one", seed=1)
    plan = a_plan(cohort={"treatment": "any", "minimum_age_years": 18})
    table = check(tmp_path / "out", tmp_path / "scans", plan, WISH).table
    head, line = table.read_text().splitlines()
    cells = dict(zip(head.split(","), line.split(","), strict=True)) | {"AgeYears": "9"}
    table.write_text("\n".join([",".join(cells), ",".join(cells.values())]) + "\n")
    result = preprocess_folder(tmp_path / "data", table, plan, WISH)
    (row,) = result.rows
    assert row.status is CaseStatus.SKIPPED
    assert "9 years old" in (row.reason or "")


def test_a_dry_run_reads_no_scan_and_writes_the_table_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("read a scan")

    monkeypatch.setattr(check_step.read_scans, "read_scans", never)
    write_case_folder(tmp_path / "scans", "one", seed=1)
    result = check_step.survey(tmp_path / "out", tmp_path / "scans", None, WISH)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["cases.csv"]
    assert set(result.rows[0].files) == {"flair", "t1ce", "t1", "t2", "seg"}


def test_dicom_of_a_hospital_becomes_a_case_with_a_label_from_a_table(tmp_path: Path) -> None:
    pytest.importorskip("pydicom", reason="needs pydicom")
    pytest.importorskip("dcm2niix", reason="needs dcm2niix")
    head = simulator.a_phantom_head(5, spacing_mm=2.5)
    native = simulator.scan(
        head,
        np.random.default_rng(8),
        cut=False,
        modalities=(Modality.T1CE, Modality.FLAIR),
        spacings=((1.4, 1.4, 3.0), (1.8, 1.8, 1.8)),
    )
    about = {
        Modality.T1CE: ("t1 mprage post gad", {"ContrastBolusAgent": "Gadovist"}),
        Modality.FLAIR: (
            "t2 tirm dark-fluid",
            {"EchoTime": 90, "RepetitionTime": 9000, "InversionTime": 2500},
        ),
    }
    import SimpleITK as sitk  # noqa: N813

    from brainfed.core.volume import geometry_of

    for number, (modality, image) in enumerate(native.images.items(), start=1):
        description, tags = about[modality]
        write_series(
            tmp_path / "scans" / str(modality),
            sitk.GetArrayFromImage(image).astype(np.int16),
            geometry_of(image),
            patient="MEIER^ANNA",
            series=str(number),
            description=description,
            tags=tags,
        )
    plan = a_plan(
        scans={"required": ("t1ce", "flair")},
        preparation={"space": "reference"},
        grid={"in_plane_mm": 2.0, "size": (128, 128)},
        cohort={"treatment": "any", "minimum_age_years": 0},
    )
    data = tmp_path / "data"
    seen = check_step.survey(data, tmp_path / "scans", plan, WISH)
    (row,) = seen.rows
    assert {"t1ce", "flair"} <= set(row.files), row
    simulator.write(native, tmp_path / "labels", "x")
    text = seen.table.read_text()
    head_line, line = text.splitlines()
    cells = dict(zip(head_line.split(","), line.split(","), strict=True))
    cells["Label"] = str(tmp_path / "labels" / "x" / "x_seg.nii.gz")
    seen.table.write_text("\n".join([",".join(cells), ",".join(cells.values())]) + "\n")
    result = preprocess_folder(data, seen.table, plan, WISH)
    (made,) = result.rows
    assert made.status is CaseStatus.MADE, made.reason
    (entry,) = dataset.read_index(data)
    case = dataset.read_case(dataset.case_path(data, entry.id), entry.digest)
    assert np.count_nonzero(case.label)
    named = [*data.rglob("*.h5"), *data.rglob("*.nii.gz"), data / "cases.json"]
    assert len(named) == 4
    assert not any(b"MEIER" in path.read_bytes() for path in named)
    shutil.rmtree(tmp_path / "scans" / "flair")
    again = check_step.survey(tmp_path / "other", tmp_path / "scans", plan, WISH)
    assert "Missing: flair" in (again.rows[0].reason or "")
