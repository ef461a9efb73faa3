"""What `check` and `preprocess --dry-run` say of scans before any case is made."""

import gzip
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from brainfed.cli.app import run
from brainfed.core.labels import LabelProtocol
from brainfed.formats import cases_csv, dataset, quality_page
from brainfed.formats.cases_csv import FILE_NAME
from brainfed.formats.found_case import LabelOrigin
from brainfed.formats.review import Verdict
from brainfed.plan import Plan
from brainfed.steps.check import check, survey
from brainfed.steps.check_rows import BadCasesError, CheckResult, CheckRow
from brainfed.steps.preprocess import Wish, preprocess_folder
from tests import bad_scans
from tests.builders import a_plan, write_case_folder

WISH = Wish(protocol=LabelProtocol.BRATS2017)
SAME = "The same image is in another case too"


def plan_of(**cohort: object) -> Plan:
    return a_plan(cohort={"treatment": "any", "minimum_age_years": 0, **cohort})


def checked(folder: Path, plan: Plan | None = None, wish: Wish = WISH) -> CheckResult:
    """Of the scans in `folder/scans`, whether or not some are refused."""
    try:
        return check(folder / "data", folder / "scans", plan, wish)
    except BadCasesError as error:
        return error.result


def by_name(result: CheckResult) -> dict[str, CheckRow]:
    return {row.name: row for row in result.rows}


def a_case(folder: Path, name: str, seed: int = 1) -> Path:
    return write_case_folder(folder / "scans", name, seed=seed)


def corrected(table: Path, name: str, **cells: str) -> None:
    """Write cells into the row of a case, as a person would."""
    head, *lines = table.read_text("utf-8-sig").splitlines()
    columns = head.split(",")
    rows = [dict(zip(columns, line.split(","), strict=True)) for line in lines]
    for row in rows:
        if row["Case"] == name:
            row.update(cells)
    table.write_text("\n".join([head, *(",".join(row.values()) for row in rows)]) + "\n")


def on_page(result: CheckResult, name: str) -> str:
    """The part of a case on the page."""
    assert result.page is not None
    parts = result.page.read_text("utf-8").split("<section")
    return next(part for part in parts[1:] if name in part)


def test_scans_are_inspected_and_shown_though_the_label_is_missing(tmp_path: Path) -> None:
    folder = a_case(tmp_path, "one")
    next(folder.glob("*_seg*")).unlink()
    two = a_case(tmp_path, "two", 2)
    next(two.glob("*_seg*")).unlink()
    flair = next(two.glob("*_flair*"))
    flair.write_bytes(flair.read_bytes()[:-50])
    result = checked(tmp_path, a_plan())
    rows = by_name(result)
    assert "Missing: seg" in (rows["one"].reason or "")
    assert "<img" in on_page(result, "one")
    assert "Missing: seg" in (rows["two"].reason or "")
    assert any("truncated" in finding for finding in rows["two"].findings)


def test_a_label_that_nobody_has_explained_is_asked_about_and_the_scans_are_shown(
    tmp_path: Path,
) -> None:
    a_case(tmp_path, "one")
    for result in (checked(tmp_path, wish=Wish()), checked(tmp_path, a_plan(), Wish())):
        (row,) = result.rows
        assert "Nobody has said what the label's values mean" in (row.reason or "")
        assert "LabelProtocol" in (row.reason or "")
        assert "<img" in on_page(result, "one")
    (row,) = survey(tmp_path / "data", tmp_path / "scans", a_plan(), Wish()).rows
    assert "Nobody has said what the label's values mean" in (row.reason or "")


def test_a_protocol_that_cannot_give_the_plans_regions_is_said_before_any_case(
    tmp_path: Path,
) -> None:
    a_case(tmp_path, "one")
    plan = a_plan(scans={"regions": ("WT", "ET")})
    wish = Wish(protocol=LabelProtocol.WHOLE_TUMOUR)
    (row,) = survey(tmp_path / "data", tmp_path / "scans", plan, wish).rows
    assert "can't give ET" in (row.reason or "")


def test_one_image_under_two_patients_is_seen_though_the_files_are_two(tmp_path: Path) -> None:
    one, two = a_case(tmp_path, "one", 1), a_case(tmp_path, "two", 2)
    a_case(tmp_path, "three", 3)
    packed = next(one.glob("*_t2.nii.gz"))
    shutil.copy(packed, next(two.glob("*_t1.nii.gz")))
    result = checked(tmp_path)
    reasons = {row.name: row.reason for row in result.rows}
    assert reasons == {"one": SAME, "two": SAME, "three": None}
    assert SAME in on_page(result, "one")


def test_an_image_of_a_case_that_was_made_before_is_seen_under_a_new_name(tmp_path: Path) -> None:
    a_case(tmp_path, "one")
    preprocess_folder(tmp_path / "data", tmp_path / "scans", plan_of(), WISH)
    assert by_name(checked(tmp_path, plan_of()))["one"].reason is None
    shutil.rmtree(tmp_path / "scans")
    a_case(tmp_path, "renamed")
    assert by_name(checked(tmp_path, plan_of()))["renamed"].reason == SAME


def test_a_later_visit_is_left_out_and_an_order_nobody_knows_is_asked_about(
    tmp_path: Path,
) -> None:
    names = ("BraTS-GLI-00005-100", "BraTS-GLI-00005-101", "sub-1_ses-pre", "sub-1_ses-post")
    for seed, name in enumerate(names):
        a_case(tmp_path, name, seed)
    plan = plan_of(first_visit_only=True)
    rows = by_name(check(tmp_path / "data", tmp_path / "scans", plan, WISH))
    assert [rows[name].left_out for name in names] == [
        None,
        "the plan takes the first visit only",
        None,
        None,
    ]
    assert [rows[name].unanswered for name in names] == [(), (), ("Visit",), ("Visit",)]
    result = preprocess_folder(tmp_path / "data", tmp_path / "scans", plan, WISH)
    assert result.unanswered == names[:1:-1]


def test_a_visit_of_an_earlier_command_counts_until_it_is_corrected_out(tmp_path: Path) -> None:
    plan = plan_of(first_visit_only=True, treatment="pre-operative")
    data = tmp_path / "data"
    a_case(tmp_path / "old", "BraTS-GLI-00005-100", 1)
    a_case(tmp_path, "BraTS-GLI-00005-101", 2)
    table = check(data, tmp_path / "old" / "scans", plan, WISH).table
    assert preprocess_folder(data, table, plan, WISH).n_cases == 1
    (row,) = check(data, tmp_path / "scans", plan, WISH).rows
    assert row.left_out == "the plan takes the first visit only"
    assert preprocess_folder(data, tmp_path / "scans", plan, WISH).n_cases == 1
    corrected(table, "BraTS-GLI-00005-100", Treatment="post-operative")
    result = preprocess_folder(data, table, plan, WISH)
    assert {row.name: row.reason for row in result.rows} == {
        "BraTS-GLI-00005-100": "post-operative, and the plan takes pre-operative scans",
        "BraTS-GLI-00005-101": None,
    }


def test_who_is_no_part_of_the_cohort_is_left_out_and_nothing_is_wrong_with_the_scans(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    a_case(tmp_path, "child")
    monkeypatch.chdir(tmp_path)
    table = check(tmp_path / "brainfed-check", tmp_path / "scans", None, WISH).table
    corrected(table, "child", AgeYears="9")
    (tmp_path / "plan.toml").write_text(
        'name = "x"\nrounds = 1\n[scans]\nrequired = ["flair"]\nregions = ["WT"]\n'
        "[grid]\nsize = [32, 32]\n[cohort]\nminimum_age_years = 18\n"
    )
    command = ["check", str(table), "--labels", "brats2017", "--plan", "plan.toml"]
    assert run(command) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "left out" in said
    assert "child: 9 years old, and the plan takes 18 and over" in said
    assert run([*command, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert "9 years old" in row["left_out"]
    assert row["reason"] is None


def test_a_table_that_was_given_is_the_one_to_correct_and_no_other_is_written(
    tmp_path: Path,
) -> None:
    folder = a_case(tmp_path, "one")
    table = tmp_path / "fets.csv"
    files = [next(folder.glob(f"*_{kind}.nii.gz")) for kind in ("t1", "t1ce", "t2", "flair", "seg")]
    table.write_text("PatientID,T1,T1GD,T2,T2FLAIR,Label\nP1," + ",".join(map(str, files)) + "\n")
    before = table.read_bytes()
    result = check(tmp_path / "data", table, None, WISH)
    assert result.table == table
    assert result.n_rows_added == 0
    assert table.read_bytes() == before
    assert not (tmp_path / "data" / FILE_NAME).exists()


def test_a_correction_that_is_not_read_is_said_by_all_three(tmp_path: Path) -> None:
    a_case(tmp_path, "one")
    a_case(tmp_path, "two", 2)
    scans, data = tmp_path / "scans", tmp_path / "data"
    first = check(data, scans, plan_of(), WISH)
    assert first.n_rows_other == 0
    corrected(first.table, "two", Treatment="post-operative")
    assert check(data, scans, plan_of(), WISH).n_rows_other == 1
    assert survey(data, scans, plan_of(), WISH).n_rows_other == 1
    assert preprocess_folder(data, scans, plan_of(), WISH).n_rows_other == 1
    assert check(data, first.table, plan_of(), WISH).n_rows_other == 0
    assert preprocess_folder(data, first.table, plan_of(), WISH).n_rows_other == 0


def test_what_is_true_of_several_cases_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(10):
        a_case(tmp_path, f"case{number}", number)
    monkeypatch.chdir(tmp_path)
    assert run(["check", "scans"]) == 5
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("Nobody has said") == 1
    assert "case7 and 2 more: Nobody has said what the label's values mean" in said


def test_who_made_the_label_goes_from_the_table_into_the_case(tmp_path: Path) -> None:
    a_case(tmp_path, "one")
    table = check(tmp_path / "data", tmp_path / "scans", None, WISH).table
    corrected(table, "one", LabelOrigin="by-model", LabelProtocol="brats2017")
    preprocess_folder(tmp_path / "data", table, plan_of(), Wish())
    (entry,) = dataset.read_index(tmp_path / "data")
    path = dataset.case_path(tmp_path / "data", entry.id)
    case = dataset.read_case(path, entry.digest)
    assert (case.label_origin, case.protocol) == (LabelOrigin.BY_MODEL, LabelProtocol.BRATS2017)
    (part,) = quality_page.read_entries(tmp_path / "data")
    assert any("by model" in value for _, value in part.facts)
    corrected(table, "one", LabelOrigin="corrected")
    preprocess_folder(tmp_path / "data", table, plan_of(), Wish())
    (entry,) = dataset.read_index(tmp_path / "data")
    assert dataset.read_case(path, entry.digest).label_origin is LabelOrigin.CORRECTED


def _with_texts(array: np.ndarray) -> bytes:
    """A NIfTI file with a name in each text of its header, and in an extension."""
    content = bytearray(bad_scans.nifti(array, changes={(108, "f"): (352 + 32,)}))
    for first, end in ((4, 32), (148, 228), (228, 252), (328, 344)):
        content[first : first + 10] = b"Mustermann"
        assert first + 10 <= end
    extension = (32).to_bytes(4, "little") + (6).to_bytes(4, "little") + b"Mustermann".ljust(24)
    return bytes(content[:348]) + b"\1\0\0\0" + extension + bytes(content[352:])


def test_no_text_of_a_nifti_header_or_sidecar_is_in_anything_that_is_written(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "scans" / "one"
    folder.mkdir(parents=True)
    for kind, array in (("flair", bad_scans.voxels()), ("seg", bad_scans.label())):
        packed = gzip.compress(_with_texts(array))
        (folder / f"one_{kind}.nii.gz").write_bytes(packed)
        (folder / f"one_{kind}.json").write_text('{"PatientName": "Mustermann"}')
    plan = a_plan(
        grid={"size": (64, 64)},
        cohort={"treatment": "any", "minimum_age_years": 0},
        preparation={"space": "reference", "brain": "head"},
    )
    checked(tmp_path, plan)
    result = preprocess_folder(tmp_path / "data", tmp_path / "scans", plan, WISH)
    assert result.n_cases == 1
    written = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert len(written) > 5
    assert not any(path.suffix == ".json" and "one_" in path.name for path in written)
    for path in written:
        data = path.read_bytes()
        data += gzip.decompress(data) if path.name.endswith(".gz") else b""
        assert b"Mustermann" not in data, path


def test_the_means_of_each_tissue_stand_beside_those_outside(tmp_path: Path) -> None:
    a_case(tmp_path, "one")
    result = checked(tmp_path)
    part = on_page(result, "one")
    for tissue in ("oedema", "enhancing"):
        assert len(re.findall(rf"{tissue}[a-z ]* [+-][0-9]", part)) == 2  # in FLAIR and in T1ce


def test_a_remark_of_the_recognition_is_not_lost_where_the_case_is_refused(
    tmp_path: Path,
) -> None:
    folder = a_case(tmp_path, "one")
    a_case(tmp_path, "two", 2)
    flair = next(folder.glob("*_flair*"))
    flair.write_bytes(flair.read_bytes()[:-50])
    table = tmp_path / "data" / FILE_NAME
    check_first = checked(tmp_path)
    corrected(check_first.table, "two", PatientID="one")
    with pytest.raises(BadCasesError) as caught:
        check(tmp_path / "data", table, None, WISH)
    row = by_name(caught.value.result)["one"]
    assert "truncated" in (row.reason or "")
    assert row.findings == ("another case of this patient bears the same visit",)
    assert row.verdict is Verdict.REFUSED


def test_rows_are_added_once_and_counted(tmp_path: Path) -> None:
    a_case(tmp_path, "one")
    table = tmp_path / FILE_NAME
    cases = check(tmp_path / "data", tmp_path / "scans", None, WISH).table
    found = cases_csv.read(cases)
    assert cases_csv.add(table, found) == 1
    assert cases_csv.add(table, found) == 0
    assert cases_csv.n_other(table, found) == 0
    assert cases_csv.n_other(tmp_path / "none.csv", found) == 0
