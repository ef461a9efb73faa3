"""The table of scores, its description and its journal: written, read, erased, damaged."""

import csv
import json
from pathlib import Path

import pytest

from brainfed.core.metrics import Measure
from brainfed.core.scoring import CaseScore
from brainfed.errors import ScanError
from brainfed.formats import score_journal, score_table
from brainfed.formats.score_journal import MeasuredCase
from brainfed.formats.score_table import About, ScoredSpace
from brainfed.plan import LesionPreset, Region

ALL = {measure: 0.5 + n / 7 for n, measure in enumerate(Measure)}


def a_row(case: str = "0123456789abcdef", **changes: object) -> CaseScore:
    content: dict[str, object] = {
        "case": case,
        "patient": f"patient of {case}",
        "region": Region.WT,
        "n_voxels": 10,
        "n_voxels_predicted": 12,
        "values": ALL,
    }
    return CaseScore(**(content | changes))  # type: ignore[arg-type]


def about() -> About:
    return About(
        space=ScoredSpace.PLAN,
        subset="test",
        weights="a" * 64,
        kind="global",
        round=3,
        edition=1,
        sender="uni-lead",
        plan="b" * 64,
        regions=(Region.WT,),
        tolerance_mm=1.0,
        lesions=LesionPreset.GLI,
        n_patients=2,
        n_cases=2,
        n_nominal=1,
    )


def a_table(folder: Path, *rows: CaseScore) -> Path:
    path = folder / "reports" / "evaluate.aaaaaaaa.test.csv"
    score_table.write_table(path, rows, about())
    return path


def test_a_table_is_read_as_it_was_written_to_six_decimals(tmp_path: Path) -> None:
    nominal = {m: v for m, v in ALL.items() if not m.unit and m is not Measure.NSD}
    rows = (a_row(), a_row("f" * 16, values=nominal, is_complete=False))
    read = score_table.read_table(a_table(tmp_path, *rows))
    assert [row.case for row in read] == [row.case for row in rows]
    assert [row.is_complete for row in read] == [True, False]
    assert read[1].values.keys() == nominal.keys()
    assert dict(read[0].values) == pytest.approx(ALL, abs=1e-6)


def test_every_measure_has_a_column_that_names_its_unit(tmp_path: Path) -> None:
    with a_table(tmp_path, a_row()).open(newline="") as stream:
        columns = next(csv.reader(stream))
    assert columns[:6] == [
        *("patient", "case", "region", "complete", "n_voxels", "n_voxels_predicted"),
    ]
    assert columns[6:] == [
        *("dice", "soft_slice_dice", "hd95_surface_mm", "hd95_pooled_mm", "nsd", "sensitivity"),
        *("specificity", "volume_difference_ml", "lesion_dice", "lesion_hd95_mm"),
    ]


def test_table_and_description_are_for_the_owner_alone(tmp_path: Path) -> None:
    path = a_table(tmp_path, a_row())
    assert path.stat().st_mode & 0o777 == 0o600
    assert score_table.about_path(path).stat().st_mode & 0o777 == 0o600
    assert score_table.read_about(path) == about()


def test_a_name_that_a_spreadsheet_would_take_for_a_formula_is_guarded(tmp_path: Path) -> None:
    path = a_table(tmp_path, a_row('=HYPERLINK("x")'))
    assert '"\'=HYPERLINK(""x"")"' in path.read_text()
    assert score_table.read_table(path)[0].case == '=HYPERLINK("x")'


@pytest.mark.parametrize(
    "content",
    [b"", b"case,dice\n", b"\xff\xfe", b"\n"],
    ids=["empty", "other columns", "binary", "a blank line"],
)
def test_a_damaged_table_is_said_to_be(tmp_path: Path, content: bytes) -> None:
    path = a_table(tmp_path, a_row())
    path.write_bytes(content)
    with pytest.raises(ScanError, match="missing or damaged"):
        score_table.read_table(path)


def test_a_row_that_is_cut_off_is_noticed(tmp_path: Path) -> None:
    path = a_table(tmp_path, a_row())
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ScanError, match="missing or damaged"):
        score_table.read_table(path)


def test_a_description_with_an_unknown_field_is_refused(tmp_path: Path) -> None:
    path = a_table(tmp_path, a_row())
    where = score_table.about_path(path)
    where.write_text(json.dumps(json.loads(where.read_text()) | {"hospital": "x"}))
    with pytest.raises(ScanError, match="missing or damaged"):
        score_table.read_about(path)
    where.unlink()
    with pytest.raises(ScanError, match="missing or damaged"):
        score_table.read_about(path)


def test_rows_of_a_case_are_erased_and_the_others_stay(tmp_path: Path) -> None:
    path = a_table(tmp_path, a_row("a" * 16), a_row("b" * 16), a_row("a" * 16, region=Region.ET))
    lines = path.read_text().splitlines()
    score_table.erase(path, {"a" * 16})
    assert path.read_text().splitlines() == [lines[0], lines[2]]


def measured(case: str) -> MeasuredCase:
    return MeasuredCase(case, f"digest of {case}", (a_row(case),), is_nominal=True)


def test_a_journal_gives_back_exactly_what_was_written_down(tmp_path: Path) -> None:
    table = tmp_path / "reports" / "evaluate.csv"
    journal = score_journal.open_journal(table, "key")
    assert not journal.done
    journal.add(measured("one"))
    again = score_journal.open_journal(table, "key")
    assert again.kept("one", "digest of one") == measured("one")
    assert again.kept("one", "another digest") is None
    assert again.kept("two", "digest of two") is None
    assert journal.path.stat().st_mode & 0o777 == 0o600
    again.close()
    assert list(table.parent.iterdir()) == []


def test_a_journal_of_another_evaluation_is_begun_anew(tmp_path: Path) -> None:
    table = tmp_path / "evaluate.csv"
    score_journal.open_journal(table, "key").add(measured("one"))
    assert not score_journal.open_journal(table, "another").done
    assert not score_journal.open_journal(table, "key").done


@pytest.mark.parametrize("n_bytes", [1, 40, 200])
def test_a_line_that_a_kill_cut_off_costs_only_its_case(tmp_path: Path, n_bytes: int) -> None:
    table = tmp_path / "evaluate.csv"
    journal = score_journal.open_journal(table, "key")
    journal.add(measured("one"))
    journal.add(measured("two"))
    journal.path.write_bytes(journal.path.read_bytes()[:-n_bytes])
    cut = score_journal.open_journal(table, "key")
    n_whole = 2 if n_bytes == 1 else 1  # without its line end alone a line is whole
    assert len(cut.done) == n_whole
    cut.add(measured("three"))
    again = score_journal.open_journal(table, "key")
    assert again.kept("three", "digest of three") == measured("three")
    assert len(again.done) == n_whole + 1


def test_lines_of_a_case_are_erased_from_a_journal(tmp_path: Path) -> None:
    journal = score_journal.open_journal(tmp_path / "evaluate.csv", "key")
    journal.add(measured("one"))
    journal.add(measured("two"))
    score_journal.erase(journal.path, {"one"})
    assert "one" not in journal.path.read_text()
    assert set(score_journal.open_journal(tmp_path / "evaluate.csv", "key").done) == {"two"}
