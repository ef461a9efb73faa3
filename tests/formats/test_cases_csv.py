import re
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainfed.core.labels import LabelProtocol
from brainfed.errors import ScanError
from brainfed.formats import cases_csv
from brainfed.formats.cases_csv import erase, parse, read, render, write
from brainfed.formats.columns import IMAGE_COLUMNS, KNOWN, Column
from brainfed.formats.found_case import LABEL, WHOLE_CASE, FoundCase, LabelOrigin, ScanFile
from brainfed.plan import Modality, Treatment

TABLE = Path("/site/cases.csv")


def parsed(text: str | bytes, where: Path = TABLE) -> tuple[FoundCase, ...]:
    data = text.encode() if isinstance(text, str) else text
    return parse(data, where, is_there=lambda scan: True)


def only(text: str) -> FoundCase:
    (case,) = parsed(text)
    return case


# --- a table that is right ----------------------------------------------------------------------


def test_a_table_of_the_fets_tool_is_read_as_it_is() -> None:
    case = only("PatientID,T1,T1GD,T2,T2FLAIR\r\nP1,/a/1.nii,/a/c.nii.gz,/a/2.nii,/a/f.nii.gz\r\n")
    assert (case.name, case.patient, case.visit) == ("P1", "P1", "1")
    files = [case.images[m].path.name for m in Modality]
    assert files == ["1.nii", "c.nii.gz", "2.nii", "f.nii.gz"]
    assert (case.label, case.doubts, case.folder) == (None, {}, TABLE)


def test_subject_and_timepoint_make_the_name() -> None:
    first, second = parsed("SubjectID,Timepoint,T1\nP1,2008.03.30,a.nii\nP1,2008.07.02,b.nii\n")
    assert (first.name, first.patient, first.visit) == ("P1_2008.03.30", "P1", "2008.03.30")
    assert (second.patient, second.visit) == ("P1", "2008.07.02")


@pytest.mark.parametrize(
    ("patient_cell", "patient", "visit"),
    [
        ("BraTS-GLI-00005-100", "BraTS-GLI-00005", "100"),
        ("Brats18_TCIA02_606_1", "Brats18_TCIA02_606", "1"),
        ("sub-004_ses-02", "sub-004", "2"),
        ("FeTS2022_01341", "FeTS2022_01341", "1"),
    ],
)
def test_a_name_of_a_challenge_tells_patient_and_visit_where_the_table_does_not(
    patient_cell: str, patient: str, visit: str
) -> None:
    case = only(f"PatientID,Visit,T1\n{patient_cell},,a.nii\n")
    assert (case.name, case.patient, case.visit) == (patient_cell, patient, visit)
    told = only(f"Case,PatientID,Visit,T1\nx,{patient_cell},7,a.nii\n")
    assert (told.name, told.patient, told.visit) == ("x", patient_cell, "7")


def test_every_column_has_its_meaning() -> None:
    case = only(
        "Case,PatientID,Visit,T1,Label,BrainMask,LabelProtocol,LabelOrigin,Treatment,AgeYears,"
        "SpacingNominal,Remark\n"
        "c,p,v,t.nii,s.nii,b.nii,brats2023,by-hand,Post-operative,63,yes,looks odd\n"
    )
    assert case == FoundCase(
        name="c",
        patient="p",
        visit="v",
        folder=TABLE,
        images={Modality.T1: ScanFile(Path("/site/t.nii"))},
        label=ScanFile(Path("/site/s.nii")),
        brain_mask=ScanFile(Path("/site/b.nii")),
        protocol=LabelProtocol.BRATS2023,
        label_origin=LabelOrigin.BY_HAND,
        treatment=Treatment.POST_OPERATIVE,
        age_years=63,
        spacing_nominal=True,
    )


@pytest.mark.parametrize("name", ["T1CE", "t1gd", "T1C", "T1-Gd", "t1_ce"])
def test_a_column_is_known_by_any_usual_name(name: str) -> None:
    assert list(only(f"Subject_ID,{name}\np,a.nii\n").images) == [Modality.T1CE]


def test_no_name_means_two_columns() -> None:
    assert set(KNOWN.values()) == set(Column)
    assert set(IMAGE_COLUMNS) == set(Modality)


@pytest.mark.parametrize(
    "text",
    [
        "PatientID;T1;Label\r\np;a.nii;s.nii\r\n",
        "PatientID\tT1\tLabel\np\ta.nii\ts.nii\n",
        "\ufeffPatientID,T1,Label\np,a.nii,s.nii\n",
        'PatientID,T1,Label\n"p","a.nii","s.nii"',
        "PatientID,T1,Label,,\np,a.nii,s.nii,,\n,,,,\n\n",
        " PatientID , T1,Label\n p ,a.nii , s.nii\n",
    ],
    ids=["semicolons", "tabs", "mark", "quoted", "empty cells behind", "spaces"],
)
def test_a_table_may_be_written_as_spreadsheets_write_it(text: str) -> None:
    case = only(text)
    assert case.patient == "p"
    assert case.images == {Modality.T1: ScanFile(Path("/site/a.nii"))}
    assert case.label == ScanFile(Path("/site/s.nii"))


@pytest.mark.parametrize(
    ("cell", "scan"),
    [
        ("x.nii.gz", ScanFile(Path("/site/x.nii.gz"))),
        ("../x.nii", ScanFile(Path("/site/../x.nii"))),
        ("/a/x.nii.gz#3", ScanFile(Path("/a/x.nii.gz"), volume=3)),
        ("/a/b#2/x.nii", ScanFile(Path("/a/b#2/x.nii"))),
        ("/a/b#1.2/x.nii#0", ScanFile(Path("/a/b#1.2/x.nii"), volume=0)),
        ("/dicom#1.2.840.113", ScanFile(Path("/dicom"), series="1.2.840.113")),
    ],
)
def test_a_scan_is_a_file_a_volume_of_it_or_a_series_of_a_folder(cell: str, scan: ScanFile) -> None:
    assert only(f"PatientID,T1\np,{cell}\n").images[Modality.T1] == scan


# --- a cell that is wrong -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "cell", "key", "words"),
    [
        ("T1", "a.mhd", "t1", "expected a .nii or .nii.gz file, or folder#SeriesInstanceUID"),
        ("T1", "a.nrrd", "t1", "found a .nrrd file"),
        ("T1", "/a/folder", "t1", "found another name"),
        ("T1", "a.nii#x", "t1", "found another name"),
        ("Label", "s.hdr", LABEL, "found a .hdr file"),
        ("BrainMask", "s.png", WHOLE_CASE, "found a .png file"),
        ("LabelProtocol", "brats2018", LABEL, "brats2012 or brats2017"),
        ("LabelOrigin", "me", LABEL, "expected by-hand or corrected or by-model, found me"),
        ("Treatment", "any", WHOLE_CASE, "expected pre-operative or post-operative, found any"),
        ("AgeYears", "62,5", WHOLE_CASE, "expected whole years, 0 to 120, found 62,5"),
        ("AgeYears", "621", WHOLE_CASE, "found 621"),
        ("AgeYears", "-3", WHOLE_CASE, "found -3"),
        ("SpacingNominal", "2", WHOLE_CASE, "expected yes or no, found 2"),
        ("Visit", "1.23E+15", WHOLE_CASE, "as a spreadsheet rewrites another"),
        ("Case", "#NAME?", WHOLE_CASE, "as a spreadsheet rewrites another"),
    ],
)
def test_a_wrong_cell_is_a_doubt_of_its_case_and_the_others_go_on(
    column: str, cell: str, key: str, words: str
) -> None:
    columns = ["PatientID", *({"T1", column} - {"PatientID"})]
    cells = {"T1": "a.nii", column: f'"{cell}"'}
    wrong = ",".join(["p", *(cells[c] for c in columns[1:])])
    right = ",".join(["q", *("b.nii" if c == "T1" else "" for c in columns[1:])])
    case, other = parsed(f"{','.join(columns)}\n{wrong}\n{right}\n")
    assert list(case.doubts) == [key]
    assert case.doubts[key].startswith(f"Row 2, column {column}: expected ")
    assert words in case.doubts[key]
    assert other.doubts == {}


def test_two_wrong_cells_of_a_label_are_both_named() -> None:
    case = only("PatientID,T1,Label,LabelProtocol\np,a.nii,s.mhd,none\n")
    assert case.doubts[LABEL].count("Row 2, column ") == 2


def test_a_scan_that_is_not_there_is_a_doubt_and_keeps_its_path(tmp_path: Path) -> None:
    table = tmp_path / "cases.csv"
    (tmp_path / "series").mkdir()
    (tmp_path / "there.nii").touch()
    table.write_text(
        "PatientID,T1,T1GD,T2,T2FLAIR,Label\n"
        f"p,there.nii,gone.nii,series#1.2,gone#1.2,{'x' * 300}.nii\n"
    )
    (case,) = read(table)
    assert set(case.doubts) == {Modality.T1CE, Modality.FLAIR, LABEL}
    assert "gone" not in case.doubts[Modality.T1CE]  # a path may hold a name
    assert case.images[Modality.T1CE] == ScanFile(tmp_path / "gone.nii")


# --- a table that is wrong ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "lacks a column"),
        ("PatientID,Label\np,s.nii\n", "lacks a column"),
        ("Case,T1\np,a.nii\n", "lacks a column"),
        ("PatientID,T1,T1GDD\np,a.nii,b.nii\n", "expected: `T1GD`?"),
        ("PatientID,T1,Labels\np,a.nii,b.nii\n", "expected: `Label`?"),
        ("PatientID,T1,Mother\np,a.nii,b\n", "unknown column"),
        ("PatientID,T1,\np,a.nii,b\n", "a column without a name"),
        ("PatientID,T1CE,T1GD\np,a.nii,b.nii\n", "T1CE and T1GD"),
        ("PatientID,T1\np,a.nii\n,b.nii\n", "Row 3 of the table names no patient"),
        ("PatientID,T1\np,a.nii\np,b.nii\n", "Rows 2 and 3 of the table name one case"),
        ("Case,PatientID,T1\nx,p,a.nii\nx,q,b.nii\n", "Rows 2 and 3 of the table name one case"),
        ("PatientID,T1\np,a.nii\nq,b,c.nii\n", "Row 3 of the table has too many cells"),
        ("PatientID,T1,Label\np,a.nii\n", "Row 2 of the table has too few cells"),
        ('PatientID,T1\np,"a.nii\n', "not a CSV file"),
        (f"PatientID,T1\np,{'a' * 200_000}.nii\n", "not a CSV file"),
        ("PatientID,T1\nM\xfcller,a.nii\n".encode("latin-1"), "byte 0xfc in line 2"),
        ("PatientID,T1\np,a.nii\n".encode("utf-16"), "not UTF-8"),
        (b"\0" * 100, "unknown column"),
        (b"a" * (cases_csv.MAX_BYTES + 1), "at most 16 MiB"),
    ],
)
def test_a_table_that_cannot_be_understood_is_refused(text: str | bytes, words: str) -> None:
    with pytest.raises(ScanError) as caught:
        parsed(text)
    assert words in str(caught.value)
    assert caught.value.where == str(TABLE)


def test_a_table_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="can't be read"):
        read(tmp_path / "cases.csv")


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda t: f"PatientID,T1\n{t}".encode()))
def test_whatever_a_table_holds_it_is_read_or_refused(data: bytes) -> None:
    try:
        cases = parsed(data)
    except ScanError:
        return
    assert all(case.name and case.patient and case.visit for case in cases)


# --- there and back -----------------------------------------------------------------------------

NAMES = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20
) | st.sampled_from(["1E+5", "#NAME?", "=1", "007", "'"])
PARTS = NAMES.filter(lambda text: "/" not in text and text not in (".", ".."))
FOLDERS = st.lists(PARTS, max_size=3).map(lambda parts: Path("/", *parts))
FILES = st.builds(lambda folder, name: folder / f"{name}.nii.gz", FOLDERS, PARTS)
UIDS = st.from_regex(r"[0-2](\.[0-9]{1,9}){1,5}", fullmatch=True)
SCANS = st.one_of(
    st.builds(ScanFile, FILES),
    st.builds(ScanFile, FILES, volume=st.integers(0, 9999)),
    st.builds(ScanFile, FOLDERS, series=UIDS),
)
SENTENCES = st.text(
    st.characters(categories=["L", "N", "P", "S"], include_characters=" "), min_size=1
).filter(lambda text: text.strip() != "")
CASES = st.builds(
    FoundCase,
    name=NAMES,
    patient=NAMES,
    visit=NAMES,
    folder=st.just(TABLE),
    images=st.dictionaries(st.sampled_from(Modality), SCANS),
    label=st.none() | SCANS,
    brain_mask=st.none() | SCANS,
    protocol=st.none() | st.sampled_from(LabelProtocol),
    label_origin=st.none() | st.sampled_from(LabelOrigin),
    treatment=st.sampled_from([None, Treatment.PRE_OPERATIVE, Treatment.POST_OPERATIVE]),
    age_years=st.none() | st.integers(0, 120),
    spacing_nominal=st.none() | st.booleans(),
    doubts=st.dictionaries(st.sampled_from([*map(str, Modality), LABEL, WHOLE_CASE]), SENTENCES),
    remarks=st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=2).map(tuple),
)


@given(st.lists(CASES, max_size=4, unique_by=lambda case: case.name))
def test_cases_that_were_written_are_read_as_they_were(cases: list[FoundCase]) -> None:
    assert list(parsed(render(cases))) == [replace(case, remarks=()) for case in cases]


@given(st.lists(CASES, max_size=3, unique_by=lambda case: case.name))
def test_no_cell_that_is_written_is_a_formula_for_a_spreadsheet(cases: list[FoundCase]) -> None:
    table = cases_csv._table(render(cases).decode("utf-8-sig"), TABLE)
    for row in table:
        assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) for cell in row)


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("007", "'007"),
        ("2008-03-30", "'2008-03-30"),
        ("=1+1", "'=1+1"),
        ("'s-Gravenhage", "''s-Gravenhage"),
        ("123456789012345", "'123456789012345"),
        ("12", "12"),
        ("Müller", "Müller"),
    ],
)
def test_a_name_that_a_spreadsheet_would_change_bears_an_apostrophe(name: str, cell: str) -> None:
    data = render([FoundCase(name, name, "1", TABLE, {})])
    assert cases_csv._table(data.decode("utf-8-sig"), TABLE)[1][0] == cell


def test_the_file_is_the_owners_alone_and_replaces_an_older_one(tmp_path: Path) -> None:
    scan = tmp_path / "a.nii"
    scan.touch()
    case = FoundCase("c", "p", "1", tmp_path / "cases.csv", {Modality.T1: ScanFile(scan)})
    for _ in range(2):
        write(tmp_path / "cases.csv", [case])
    assert stat.S_IMODE((tmp_path / "cases.csv").stat().st_mode) == 0o600
    assert read(tmp_path / "cases.csv") == (case,)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.nii", "cases.csv"]


def test_a_relative_path_is_written_from_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    case = FoundCase("c", "p", "1", TABLE, {Modality.T1: ScanFile(Path("a.nii"))})
    assert only(render([case]).decode()).images == {Modality.T1: ScanFile(tmp_path / "a.nii")}


def test_a_name_that_is_not_valid_text_does_not_spoil_the_table() -> None:
    bad = FoundCase("c\udcff", "p", "1", TABLE, {Modality.T1: ScanFile(Path("/c\udcff/t.nii"))})
    good = FoundCase("d", "d", "1", TABLE, {})
    assert [case.name for case in parsed(render([bad, good]))] == ["c\\udcff", "d"]


def test_a_doubt_counts_until_a_person_empties_its_cell() -> None:
    case = FoundCase("c", "p", "1", TABLE, {}, doubts={"t1": "T1 or T1ce?", "case": "whose?"})
    text = render([case]).decode("utf-8-sig")
    assert only(text).doubts == case.doubts
    assert only(text.replace('"t1: T1 or T1ce?\ncase: whose?"', "")).doubts == {}


def test_a_doubt_that_a_person_writes_is_about_the_case() -> None:
    case = only("PatientID,T1,Doubt\np,a.nii,is this the right patient?\n")
    assert case.doubts == {WHOLE_CASE: "is this the right patient?"}


def test_rows_are_erased_and_the_others_stay_as_they_are(tmp_path: Path) -> None:
    table = tmp_path / "cases.csv"
    table.write_text("SubjectID,T1\nBraTS-GLI-00005-100,a.mhd\nq,b.nii\nr,c.nii\n")
    erase(table, lambda name, patient: name == "q" or patient == "BraTS-GLI-00005")
    assert table.read_text("utf-8-sig").split() == ["SubjectID,T1", "r,c.nii"]


# --- the page -----------------------------------------------------------------------------------

PAGE = Path(__file__).resolve().parents[2] / "docs" / "formats" / "cases-csv.md"


def test_the_page_names_every_column_and_every_other_name_of_it() -> None:
    rows = PAGE.read_text("utf-8").split("<!-- columns -->\n")[1].split("\n\n")[0].splitlines()[2:]
    names = [re.findall(r"`([^`]+)`", "|".join(row.split("|")[1:3])) for row in rows]
    assert [first for first, *_ in names] == list(Column)
    assert {cases_csv.plain_word(name): Column(row[0]) for row in names for name in row} == KNOWN
    words = {row[0]: "|".join(line.split("|")[3:4]) for row, line in zip(names, rows, strict=True)}
    for column, kind in (("LabelProtocol", LabelProtocol), ("LabelOrigin", LabelOrigin)):
        assert re.findall(r"`([^`]+)`", words[column]) == list(kind)


def test_the_example_on_the_page_is_read() -> None:
    text = PAGE.read_text("utf-8").split("```csv\n")[1].split("```")[0]
    first, second, third = parsed(text)
    assert (first.name, first.visit, first.doubts, len(first.images)) == ("P-017_1", "1", {}, 4)
    assert second.images[Modality.FLAIR].series == "1.2.840.1.9"
    assert list(second.doubts) == [Modality.T1CE]
    assert third.images[Modality.T1CE].volume == 2
