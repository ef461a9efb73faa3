import csv
import io
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainfed.errors import ScanError, UsageError
from brainfed.formats import review
from brainfed.formats.review import COLUMNS, LOST, Decision, ReviewRow, Verdict


def a_row(number: int = 1, **changes: object) -> ReviewRow:
    row = ReviewRow(
        case=f"{number:016x}", name=f"case {number}", verdict=Verdict.HELD, digest="d" * 16
    )
    return replace(row, **changes)


def edit(folder: Path, change: Callable[[str], str]) -> None:
    """What a person does in an editor."""
    path = review.path_of(folder)
    text = path.read_bytes().decode("utf-8-sig")
    path.write_bytes(change(text).encode("utf-8"))


def decided(folder: Path, word: str, remark: str = "") -> None:
    """A review of one case with a person's word in it."""
    review.merge(folder, [a_row()])
    edit(folder, lambda text: text.replace(",held,,,", f",held,{word},{remark},"))


def test_no_file_is_no_decision(tmp_path: Path) -> None:
    assert review.read(tmp_path) == {}


def test_what_was_merged_is_read_worst_first(tmp_path: Path) -> None:
    rows = [
        a_row(1, verdict=Verdict.OK),
        a_row(2, verdict=Verdict.HELD),
        a_row(3, verdict=Verdict.REFUSED, digest=""),
        a_row(4, verdict=Verdict.HELD, name="a case"),
    ]
    assert review.merge(tmp_path, rows) == ()
    assert list(review.read(tmp_path).values()) == [rows[2], rows[3], rows[1], rows[0]]


def test_the_review_is_for_its_owner_alone_and_excel_reads_it(tmp_path: Path) -> None:
    review.merge(tmp_path, [a_row(name="Jürgen")])
    path = review.path_of(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes().startswith(b"\xef\xbb\xbfcase,name,verdict,decision,remark,digest\r\n")
    assert "Jürgen".encode() in path.read_bytes()


@pytest.mark.parametrize("word", ["accept", "ACCEPT", " Accept "])
def test_a_persons_word_is_read(tmp_path: Path, word: str) -> None:
    decided(tmp_path, word, "looks fine")
    (row,) = review.read(tmp_path).values()
    assert (row.decision, row.remark) == (Decision.ACCEPT, "looks fine")
    assert row.accepts("d" * 64)
    assert not row.accepts("e" * 64)
    assert not replace(row, decision=Decision.REJECT).accepts("d" * 64)
    assert not replace(row, digest="").accepts("d" * 64)


def test_decisions_and_remarks_stay_when_the_checks_run_again(tmp_path: Path) -> None:
    decided(tmp_path, "accept", "seen")
    before = review.path_of(tmp_path).read_bytes()
    assert (
        review.merge(tmp_path, [a_row(decision=Decision.REJECT, remark="not the caller's")]) == ()
    )
    assert review.path_of(tmp_path).read_bytes().removeprefix(b"\xef\xbb\xbf") == before
    review.merge(tmp_path, [a_row(2)])
    assert review.read(tmp_path)[a_row().case].decision is Decision.ACCEPT


def test_a_case_that_changed_loses_its_acceptance_and_says_so(tmp_path: Path) -> None:
    decided(tmp_path, "accept", "seen")
    changed = a_row(digest="e" * 16)
    assert review.merge(tmp_path, [changed]) == (changed.case,)
    (row,) = review.read(tmp_path).values()
    assert row == replace(changed, remark=f"{LOST} seen")
    assert review.merge(tmp_path, [changed]) == ()
    assert review.read(tmp_path) == {row.case: row}
    again = review.decide(tmp_path, row.case, Decision.ACCEPT)
    assert (again.remark, again.accepts("e" * 64)) == ("seen", True)


def test_a_case_that_is_refused_now_loses_its_acceptance_too(tmp_path: Path) -> None:
    decided(tmp_path, "accept")
    assert review.merge(tmp_path, [a_row(verdict=Verdict.REFUSED, digest="")]) == (a_row().case,)
    assert review.read(tmp_path)[a_row().case].decision is Decision.NONE


def test_a_rejected_case_stays_rejected_whatever_becomes_of_its_file(tmp_path: Path) -> None:
    decided(tmp_path, "reject", "wrong patient")
    for changed in (a_row(digest="e" * 16), a_row(verdict=Verdict.REFUSED, digest=""), a_row()):
        assert review.merge(tmp_path, [changed]) == ()
        row = review.read(tmp_path)[a_row().case]
        assert (row.decision, row.remark) == (Decision.REJECT, "wrong patient")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\r\n", "\n"),
        lambda text: text.replace("\r\n", "\r"),
        lambda text: "\ufeff" + text,
        lambda text: text.replace(",", ";"),
        lambda text: text.replace(",", "\t"),
        lambda text: text + "\r\n,,,,,\r\n",
        lambda text: text.replace("case,name", "Case,NAME"),
        lambda text: '"' + text.replace(",", '","').replace("\r\n", '"\r\n"') + '"',
        lambda text: "\r\n".join([text.splitlines()[0], *text.splitlines()[:0:-1]]),
        lambda text: "\n".join(",".join(line.split(",")[::-1]) for line in text.splitlines()),
    ],
)
def test_what_spreadsheet_programs_do_to_a_table_does_no_harm(
    tmp_path: Path, change: Callable[[str], str]
) -> None:
    review.merge(tmp_path, [a_row(n, verdict=Verdict.OK) for n in range(3)])
    review.decide(tmp_path, "case 1", Decision.ACCEPT, remark="yes")
    before = review.read(tmp_path)
    edit(tmp_path, change)
    assert review.read(tmp_path) == before


def test_a_table_saved_in_the_systems_code_page_is_read(tmp_path: Path) -> None:
    decided(tmp_path, "accept", "schön")
    path = review.path_of(tmp_path)
    path.write_bytes(path.read_bytes().decode().encode("cp1252"))
    (row,) = review.read(tmp_path).values()
    assert (row.decision, row.remark) == (Decision.ACCEPT, "schön")


@pytest.mark.parametrize(
    ("old", "new", "column", "found"),
    [
        (",held,,", ",held,accepted,", "decision", "accepted"),
        (",held,,", ",fine,,", "verdict", "fine"),
        (",held,,", ",refused,accept,", "decision", "accept"),
        ("0000000000000001", "1E+15", "case", "1e+15"),
        ("d" * 16, "d" * 15, "digest", "d" * 15),
        (",held,,", ",held,", "any", "5 cells"),
        (",held,,", ",held,,,", "any", "7 cells"),
        ("decision", "Entscheidung", "the head", "entscheidung"),
        ("remark,", "", "the head", "decision, digest"),
    ],
)
def test_a_wrong_word_is_named_with_its_row_and_column(
    tmp_path: Path, old: str, new: str, column: str, found: str
) -> None:
    review.merge(tmp_path, [a_row()])
    edit(tmp_path, lambda text: text.replace(old, new))
    with pytest.raises(ScanError) as caught:
        review.read(tmp_path)
    line = 1 if column == "the head" else 2
    assert (caught.value.where or "").endswith(f"review.csv, line {line}, column {column}")
    assert found in (caught.value.found or "")
    assert caught.value.expected
    assert caught.value.hint
    with pytest.raises(ScanError):
        review.merge(tmp_path, [a_row()])


def test_a_case_with_two_rows_is_refused(tmp_path: Path) -> None:
    review.merge(tmp_path, [a_row()])
    edit(tmp_path, lambda text: text + text.splitlines()[1].replace("held,,", "held,accept,"))
    with pytest.raises(ScanError) as caught:
        review.read(tmp_path)
    assert "line 3, column case" in (caught.value.where or "")


@pytest.mark.parametrize("data", [b"", b"\x00\x01", b"PK\x03\x04", b'"' + b"x" * 200_000])
def test_what_is_no_such_table_is_refused(tmp_path: Path, data: bytes) -> None:
    review.path_of(tmp_path).write_bytes(data)
    with pytest.raises(ScanError):
        review.read(tmp_path)


@given(
    name=st.text(st.characters(codec="utf-8"), max_size=12),
    remark=st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zs"]), max_size=12),
    number=st.integers(0, 2**64 - 1),
)
def test_no_cell_is_a_formula_or_a_number_and_all_come_back(
    tmp_path_factory: pytest.TempPathFactory, name: str, remark: str, number: int
) -> None:
    folder = tmp_path_factory.mktemp("data")
    row = a_row(number, name=name, digest=f"{number:016d}"[:16])
    review.merge(folder, [row])
    review.decide(folder, row.case, Decision.REJECT, remark=remark)
    text = review.path_of(folder).read_bytes().decode("utf-8-sig")
    line = list(csv.reader(io.StringIO(text, newline="")))[1]
    assert not any(cell.startswith(tuple("=+-@\t\r")) for cell in line)
    ids = [line[COLUMNS.index(column)] for column in ("case", "digest")]
    assert not any(cell[0].isdecimal() for cell in ids)
    (read,) = review.read(folder).values()
    assert (read.case, read.digest, read.decision) == (row.case, row.digest, Decision.REJECT)
    assert read.remark == remark


def test_a_formula_comes_back_as_text(tmp_path: Path) -> None:
    row = a_row(name='=HYPERLINK("http://x.test")', case="1234567890123e45")
    review.merge(tmp_path, [row])
    cells = review.path_of(tmp_path).read_text("utf-8-sig").splitlines()[1]
    assert cells.startswith("'1234567890123e45,\"'=HYPERLINK(")
    assert review.read(tmp_path) == {row.case: row}


def test_a_name_that_is_no_utf8_can_be_written(tmp_path: Path) -> None:
    review.merge(tmp_path, [a_row(name="a\udcff")])
    assert review.read(tmp_path)[a_row().case].name == "a\\udcff"


@pytest.mark.parametrize("which", ["case 2", f"{2:016x}"])
def test_a_decision_is_written_down_by_name_or_id(tmp_path: Path, which: str) -> None:
    review.merge(tmp_path, [a_row(1), a_row(2)])
    row = review.decide(tmp_path, which, Decision.ACCEPT, remark="seen, fine")
    assert review.read(tmp_path) == {a_row(1).case: a_row(1), row.case: row}
    assert (row.case, row.decision, row.remark) == (f"{2:016x}", Decision.ACCEPT, "seen, fine")
    assert review.decide(tmp_path, which, Decision.NONE).remark == "seen, fine"


def test_what_cannot_be_decided_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such case"):
        review.decide(tmp_path, "case 1", Decision.ACCEPT)
    review.merge(tmp_path, [a_row(verdict=Verdict.REFUSED, digest="")])
    with pytest.raises(UsageError, match="can't be accepted"):
        review.decide(tmp_path, "case 1", Decision.ACCEPT)
    assert review.decide(tmp_path, "case 1", Decision.REJECT).decision is Decision.REJECT


def test_an_erased_case_has_no_row(tmp_path: Path) -> None:
    assert not review.erase(tmp_path, a_row().case)
    assert not review.path_of(tmp_path).exists()
    review.merge(tmp_path, [a_row(1), a_row(2)])
    assert review.erase(tmp_path, a_row(1).case)
    assert list(review.read(tmp_path)) == [a_row(2).case]
    assert "case 1" not in review.path_of(tmp_path).read_text("utf-8-sig")


def test_the_columns_are_the_fields_of_a_row() -> None:
    assert set(COLUMNS) == set(ReviewRow.__slots__)


def test_the_page_on_the_format_names_the_columns_and_shows_a_review(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "formats" / "review.md").read_text("utf-8")
    rows = page.split("<!-- columns: review -->\n")[1].split("\n\n")[0].splitlines()[2:]
    assert tuple(row.split("`")[1] for row in rows) == COLUMNS
    assert LOST in page
    review.path_of(tmp_path).write_text(page.split("```csv\n")[1].split("```")[0])
    decisions = [row.decision for row in review.read(tmp_path).values()]
    assert decisions == [Decision.ACCEPT, Decision.REJECT]
