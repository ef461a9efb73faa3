from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from brainfed.cli.review import review as command
from brainfed.errors import UsageError
from brainfed.formats import review, workspace
from brainfed.formats.review import Decision, ReviewRow, Verdict
from brainfed.formats.roster import Role
from brainfed.formats.workspace import Workspace
from brainfed.steps import initialise


@pytest.fixture
def site(tmp_path: Path) -> Workspace:
    initialise.initialise(tmp_path / "site", Role.SITE, "hospital-a")
    place = workspace.find(tmp_path / "site")
    place.data.mkdir(exist_ok=True)
    rows = [("bad", Verdict.REFUSED), ("odd", Verdict.HELD), ("good", Verdict.OK)]
    review.merge(
        place.data,
        [
            ReviewRow(case=f"{n:016x}", name=name, verdict=verdict)
            for n, (name, verdict) in enumerate(rows)
        ],
    )
    return place


def answer(site: Workspace, *words: str) -> str:
    app = typer.Typer()
    app.command()(command)
    said = CliRunner().invoke(app, [*words, "--workspace", str(site.root)])
    if said.exception is not None and not isinstance(said.exception, SystemExit):
        raise said.exception
    return " ".join(said.output.split())


def test_without_a_case_it_lists_what_waits(site: Workspace) -> None:
    said = answer(site)
    assert "odd" in said
    assert "bad" in said
    assert "good" not in said
    assert "3 cases in all, 1 held and not decided on" in said
    assert "quality.html" in said


@pytest.mark.parametrize(
    ("word", "decision"), [("--accept", Decision.ACCEPT), ("--reject", Decision.REJECT)]
)
def test_a_decision_is_written_down_and_taken_back(
    site: Workspace, word: str, decision: Decision
) -> None:
    said = answer(site, "odd", word, "--remark", "seen with Dr. X")
    assert f"odd: {decision}" in said
    assert "brainfed split" in said
    row = review.read(site.data)[f"{1:016x}"]
    assert (row.decision, row.remark) == (decision, "seen with Dr. X")
    assert "0 held and not decided on" in answer(site)
    answer(site, "odd", "--undo")
    assert review.read(site.data)[f"{1:016x}"].decision is Decision.NONE


@pytest.mark.parametrize(
    "words",
    [("odd",), ("odd", "--accept", "--reject"), ("--accept",), ("--remark", "x")],
)
def test_half_a_decision_is_none(site: Workspace, words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="no decision"):
        answer(site, *words)
    assert all(row.decision is Decision.NONE for row in review.read(site.data).values())
