import re
import stat
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainfed.core.cohort import Subset, subset_counts
from brainfed.core.partition import (
    DRAWN,
    N_SIZE_CLASSES,
    Assigned,
    Kind,
    Member,
    Partition,
    draw,
)
from brainfed.core.simulated_sites import ALPHA
from brainfed.errors import ConflictError, ScanError
from brainfed.formats.partition_file import COLUMNS, WORDS, Rows, dumps, held_against, read, write
from brainfed.plan import Split
from tests.builders import SHARED_DATA

FETS = SHARED_DATA / "fets-partitions"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "formats" / "partition.md"


def table(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "partition.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def members(*patients: str) -> list[Member]:
    return [Member(patient, 10 + place, 1, "") for place, patient in enumerate(patients)]


def meant(rows: Rows, *patients: str) -> Partition:
    return held_against(rows, members(*patients), split=Split(), seed=1)


# --- tables that are right ----------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.parametrize(("number", "n_sites"), [(1, 23), (2, 33)])
def test_both_tables_of_the_fets_challenge_are_read_as_they_are(number: int, n_sites: int) -> None:
    path = FETS / f"fets2022_partitioning_{number}.csv"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    rows = read(path)
    sites = Counter(row.site for row in rows.rows)
    assert (len(rows.rows), len(sites)) == (1251, n_sites)
    assert set(sites) == {f"site-{site:02d}" for site in range(1, n_sites + 1)}
    partition = meant(rows, *(row.patient for row in rows.rows))
    trained = Counter(p.site for p in partition.values() if p.subset is Subset.TRAIN)
    for site, n in sites.items():
        assert trained[site] == subset_counts(n, Split())[Subset.TRAIN]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_line_ends_and_blank_lines_do_not_matter(tmp_path: Path, end: str) -> None:
    lines = ["Partition_ID,Subject_ID,TrainOrVal", "1, a ,train", "", "CS,b,Val", "1,c,TRAIN", ""]
    rows = read(table(tmp_path, end.join(lines)))
    assert [(row.line, row.site, row.patient, row.subset) for row in rows.rows] == [
        (2, "site-01", "a", Subset.TRAIN),
        (4, "cs", "b", Subset.VALIDATION),
        (5, "site-01", "c", Subset.TRAIN),
    ]


def test_the_subsets_of_the_table_count_where_it_has_them(tmp_path: Path) -> None:
    text = "Partition_ID,Subject_ID,TrainOrVal\n1,a,train\n1,b,test\n2,c,train\n2,d,val\n"
    assert meant(read(table(tmp_path, text)), "d", "c", "b", "a") == {
        "a": Assigned("site-01", Subset.TRAIN),
        "b": Assigned("site-01", Subset.TEST),
        "c": Assigned("site-02", Subset.TRAIN),
        "d": Assigned("site-02", Subset.VALIDATION),
    }


def test_the_plans_rule_splits_each_site_where_the_table_has_no_subsets(tmp_path: Path) -> None:
    patients = [f"p{number:02d}" for number in range(20)]
    lines = [f"{'ab'[number % 2]},{patient}\n" for number, patient in enumerate(patients)]
    rows = read(table(tmp_path, "Partition_ID,Subject_ID\n" + "".join(lines)))
    partition = meant(rows, *patients)
    assert {patient: place.site for patient, place in partition.items()} == {
        patient: "ab"[number % 2] for number, patient in enumerate(patients)
    }
    for site in "ab":
        counts = Counter(p.subset for p in partition.values() if p.site == site)
        assert counts == subset_counts(10, Split())


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
PLACES = st.builds(
    Assigned, st.sampled_from(["a", "site-01", "2013-b"]), st.sampled_from(list(Subset))
)


@given(places=st.dictionaries(NAMES, PLACES, min_size=1, max_size=8))
def test_a_table_reads_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, places: Partition
) -> None:
    path = tmp_path_factory.mktemp("partition") / "p.csv"
    # Every site needs somebody to train on.
    places |= {f"train at {p.site}": Assigned(p.site, Subset.TRAIN) for p in places.values()}
    write(path, places)
    assert meant(read(path), *places) == places
    assert dumps(dict(reversed(places.items()))) == path.read_bytes()


def test_a_drawn_partition_is_written_for_the_owner_alone_and_never_over_another(
    tmp_path: Path,
) -> None:
    drawn = draw(Kind.EQUAL, members(*"abcdefghij"), n_sites=2, split=Split(), seed=1)
    path = tmp_path / "p.csv"
    write(path, drawn)
    assert path.read_bytes().startswith(b"Partition_ID,Subject_ID,TrainOrVal\r\nsite-01,")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(ConflictError):
        write(path, drawn)


def test_a_spreadsheet_takes_no_name_for_a_formula() -> None:
    assert b"\r\na,'=1+1,train\r\n" in dumps({"=1+1": Assigned("a", Subset.TRAIN)})


# --- tables that are refused --------------------------------------------------------------------

HEADER = "Partition_ID,Subject_ID\n"


@pytest.mark.parametrize(
    ("content", "message", "found"),
    [
        ("", "not its header", "an empty file"),
        ("\n\n", "not its header", "an empty file"),
        ("1,a\n2,b\n", "not its header", "1,a"),
        ("Subject_ID,Partition_ID\na,1\n", "not its header", "Subject_ID,Partition_ID"),
        ("Partition_ID;Subject_ID\n1;a\n", "not its header", "Partition_ID;Subject_ID"),
        (HEADER, "names no patient", "none"),
        (b"\xef\xbb\xbf" + HEADER.encode() + b"1,a\n", "byte-order mark", "line 1"),
        (HEADER.encode() + b"1,a\n1,M\xfcller\n", "not UTF-8", "0xfc in line 3"),
        (HEADER + '1,a\n1,"b\n', "not a CSV", "line 3"),
        (HEADER + "1,a\n1,b,train\n", "Line 3 .* too many", "3"),
        (HEADER + "1,a\n1\n", "Line 3 .* too few", "1"),
        (HEADER + "1,a\n,b\n", "Line 3 .* empty cell", "Partition_ID"),
        (HEADER + "1,a\n1, \n", "Line 3 .* empty cell", "Subject_ID"),
        (HEADER + "1,a\n2,b\n1,a\n", "names a patient twice", "a in lines 2 and 4"),
        (HEADER + "1,a\n2,b\n2,a\n", "at two sites", "lines 2 and 4, at site-01 and site-02"),
        (HEADER + "1,a\nCS,b\n01,c\n", "same name", "1 in line 2 and 01 in line 4"),
        (HEADER + "1,a\n***,b\n", "No name of a site", "*** in line 3"),
        (HEADER[:-1] + ",TrainOrVal\n1,a,train\n1,b,vall\n", "Line 3 .* no subset", "vall"),
        (HEADER[:-1] + ",TrainOrVal\n1,a,train\n1,b,\n", "Line 3 .* no subset", "nothing"),
        (b"x" * (2**24 + 1), "too large", None),
    ],
)
def test_a_wrong_table_is_refused_and_the_place_is_named(
    tmp_path: Path, content: str | bytes, message: str, found: str | None
) -> None:
    path = table(tmp_path, content)
    with pytest.raises(ScanError, match=message) as caught:
        read(path)
    assert caught.value.where == str(path)
    assert (found or "") in (caught.value.found or "")


def test_a_table_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="can't be read"):
        read(tmp_path / "none.csv")


def test_patients_without_scans_are_named_with_their_lines(tmp_path: Path) -> None:
    rows = read(table(tmp_path, HEADER + "".join(f"1,{name}\n" for name in "abcdefg")))
    with pytest.raises(ScanError, match="scans are not here") as caught:
        meant(rows, "a", "b")
    assert caught.value.found == "c (line 4), d (line 5), e (line 6) and 2 more"


def test_scans_without_a_line_are_named(tmp_path: Path) -> None:
    rows = read(table(tmp_path, HEADER + "1,a\n1,b\n1,c\n"))
    with pytest.raises(ScanError, match="lacks patients") as caught:
        meant(rows, *"fedcba")
    assert caught.value.found == "none for d, e, f"


@pytest.mark.parametrize(
    "text",
    [
        HEADER + "1,a\n1,b\n1,c\n2,d\n",
        HEADER[:-1] + ",TrainOrVal\n1,a,train\n1,b,val\n1,c,val\n2,d,val\n",
    ],
)
def test_a_table_with_a_site_that_trains_on_nobody_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ScanError, match=r"site-02 \(1\)"):
        meant(read(table(tmp_path, text)), *"abcd")


# --- the page -----------------------------------------------------------------------------------


def rows_under(mark: str) -> list[list[str]]:
    """The cells of the table below a mark of the page, without its head."""
    lines = PAGE.read_text("utf-8").split(f"<!-- {mark} -->\n")[1].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_page_names_the_columns_the_words_and_the_kinds_of_the_code() -> None:
    columns = rows_under("columns: partition")
    assert [row[0] for row in columns] == [f"`{column}`" for column in COLUMNS]
    assert re.findall("`([a-z]+)`", columns[-1][1]) == list(WORDS.values())
    named = [row[0].strip("`") for row in rows_under("kinds")]
    assert named == [f"{kind}:K" if kind in DRAWN else kind for kind in Kind]
    numbers = f"{N_SIZE_CLASSES} classes of tumour size", f"concentration {ALPHA}"
    assert all(words in PAGE.read_text("utf-8") for words in numbers)


def test_the_example_of_the_page_is_read_and_written_back(tmp_path: Path) -> None:
    text = PAGE.read_text("utf-8").split("<!-- table: partition -->\n```csv\n")[1].split("```")[0]
    rows = read(table(tmp_path, text))
    partition = meant(rows, *(row.patient for row in rows.rows))
    assert dumps(partition).decode() == text.replace("\n", "\r\n")
