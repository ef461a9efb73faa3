"""What `brainfed report` says in the terminal."""

import io
import sys
from pathlib import Path

import pytest

from brainfed.cli.report import _curve
from tests.cli.typed import Typed, too_wide
from tests.federation import Small, a_federation
from tests.reported import VALIDATION, a_reported_federation

N_ROUNDS = 3


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return a_reported_federation(tmp_path_factory.mktemp("reported"), N_ROUNDS)


def test_the_coordinator_reads_rounds_by_sites_and_a_curve(typed: Typed, small: Small) -> None:
    answer = typed("report", "--workspace", small.coordinator.root)
    assert answer.code == 0
    table = answer.out.split("\n\n")[0].splitlines()
    assert table[0] == "Dice, whole tumour (WT), validation patients"
    assert table[1].split() == ["round", "all", "patients", *VALIDATION]
    rows = [line.split() for line in table[2 : 2 + N_ROUNDS + 1]]
    assert [row[0] for row in rows] == ["0", "1", "2", "3"]
    assert all("worst" in row for row in rows)
    assert "fewer than 5" in answer.out
    assert "-" in rows[1]
    assert "A dash: nothing was stated" in answer.out
    assert answer.out.count("* all patients, o the worst site") == 2
    assert "Audit of this folder: re-derived." in answer.out
    assert str(small.coordinator.reports / "report.coordinator.html") in answer.out
    assert too_wide(answer.out) == []


def test_piped_it_is_plain_and_nothing_is_lost(
    typed: Typed, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow = typed("report", "--workspace", small.coordinator.root).out
    assert "\x1b" not in narrow
    monkeypatch.setenv("COLUMNS", "200")
    wide = typed("report", "--workspace", small.coordinator.root).out
    kept = [word for word in wide.split() if word.strip("─-")]
    assert [word for word in narrow.split() if word.strip("─-")] == kept


def test_many_sites_go_into_several_tables(
    typed: Typed, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brainfed.cli.report.SITE_COLUMNS", 2)
    answer = typed("report", "--workspace", small.coordinator.root)
    heads = [line.split()[3:] for line in answer.out.splitlines() if line.startswith("round ")]
    assert heads == 2 * [["hospital-a", "hospital-b"], ["hospital-c"]]


def test_the_words_can_be_printed_where_only_latin_letters_can(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for the rule under a table's head, which rich spells as the stream can."""
    from brainfed.cli.app import run

    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    assert run(["report", "--workspace", str(small.coordinator.root)]) == 0


def test_json_holds_every_figure_and_no_patient(typed: Typed, small: Small) -> None:
    place = small.sites["hospital-a"]
    found = typed("report", "--workspace", place.root, "--json").json
    assert found["reader"] == "site"
    assert Path(found["page"]).is_file()
    assert {row["region"] for row in found["standings"]} == {"WT", "ET"}
    assert {row["round"] for row in found["overall"]} == set(range(N_ROUNDS + 1))
    assert found["audit"]["verdict"] == "incomplete"
    assert "patient" not in found
    assert "own" not in found


def test_the_public_form_and_the_card_go_where_they_are_told(
    typed: Typed, small: Small, tmp_path: Path
) -> None:
    at = ("--workspace", small.coordinator.root)
    for words in (("--for", "public"), ("--model-card",)):
        out = tmp_path / f"{words[-1].strip('-')}.html"
        answer = typed("report", *words, "--out", out, *at)
        assert answer.code == 0
        assert "site 1" in answer.out
        assert "hospital-a" not in answer.out.replace(str(small.root), "")
        assert out.is_file()


def test_what_is_refused_has_its_exit_code(typed: Typed, small: Small, tmp_path: Path) -> None:
    at = ("--workspace", small.coordinator.root)
    assert typed("report", "--for", "site", *at).code == 3
    assert typed("report", "--for", "everybody", *at).code == 2
    assert typed("report", "--model-card", "--for", "coordinator", *at).code == 2
    other = tmp_path / "mine.html"
    other.write_text("mine")
    assert typed("report", "--out", other, *at).code == 6
    assert other.read_text() == "mine"
    assert typed("report", "--out", small.coordinator.outbox / "r.html", *at).code == 2


def test_before_any_round_it_says_so(typed: Typed, tmp_path: Path) -> None:
    small = a_federation(tmp_path)
    answer = typed("report", "--workspace", small.coordinator.root)
    assert answer.code == 0
    assert "No site has stated a figure of any round yet." in answer.out


def test_a_curve_is_as_wide_as_it_may_be_and_rises_where_the_values_do() -> None:
    lines = list(_curve([(n, n / 500, "*") for n in range(400)]))
    assert max(len(str(line)) for line in lines) <= 70
    marks = [str(line).rfind("*") for line in lines[:8]]
    assert marks == sorted(marks, reverse=True)
    assert "0.80" in str(lines[0])
    assert "0.00" in str(lines[7])
    assert "round 399" in str(lines[9])


def test_a_flat_curve_is_a_line() -> None:
    lines = [str(line) for line in _curve([(0, 0.5, "*"), (3, 0.5, "*")])]
    assert [("*" in line) for line in lines[:8]] == [True, *([False] * 7)]
