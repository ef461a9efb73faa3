"""`brainfed predict` as typed: words, JSON, exit codes, and whose key it is."""

import json
from pathlib import Path

import pytest

from brainfed.cli.app import run
from tests.builders import a_geometry
from tests.cli.json_answers import check_answer
from tests.predicting import Outsider, an_outsider, write_scans


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Outsider:
    monkeypatch.chdir(tmp_path)
    write_scans(tmp_path / "scans", "p1", a_geometry())
    return an_outsider(tmp_path)


def typed(given: Outsider, *more: str) -> list[str]:
    words = ["predict", str(given.weights), "scans", "out", "--labels", "whole-tumour"]
    return [*words, "--device", "cpu", *more]


def test_outside_a_workspace_it_says_what_to_compare(
    given: Outsider, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(typed(given)) == 0
    out, err = capsys.readouterr()
    assert "For research only, not for diagnosis" in out
    assert given.small.known.roster.coordinator.public_key.fingerprint in err
    assert "by telephone or in person" in " ".join(err.split())
    assert "p1" in out


def test_a_fingerprint_is_held_against_the_key(
    given: Outsider, capsys: pytest.CaptureFixture[str]
) -> None:
    right = given.small.known.roster.coordinator.public_key.fingerprint
    assert run(typed(given, "--fingerprint", "SHA256:" + "A" * 43)) == 6
    assert not Path("out").exists()
    assert run(typed(given, "--fingerprint", right)) == 0
    assert "by telephone" not in capsys.readouterr().err.split("error:")[-1].split(right)[-1]


def test_json_has_every_case(given: Outsider, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(typed(given, "--json")) == 0
    out = capsys.readouterr().out
    check_answer(["predict"], out)
    content = json.loads(out)
    assert content["warning"] == "For research only, not for diagnosis"
    assert content["rows"][0]["status"] == "predicted"
    assert content["rows"][0]["volumes_ml"]["WT"] > 0


def test_a_bad_case_ends_with_5_after_the_others(
    given: Outsider, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scans(Path("scans"), "p0", a_geometry(), seed=3, modalities=("t1",))
    assert run(typed(given)) == 5
    assert Path("out/p1.nii.gz").exists()
    assert "Missing: flair" in " ".join(capsys.readouterr().out.split())


def test_no_spacing_no_millilitres(given: Outsider, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(typed(given, "--spacing-nominal", "--json")) == 0
    assert json.loads(capsys.readouterr().out)["rows"][0]["volumes_ml"] == {"WT": None}


def test_bad_words_have_their_exit_codes(given: Outsider) -> None:
    assert run(["predict", "nothing.safetensors", "scans", "out", "--labels", "msd"]) == 2
    assert run(["predict", str(given.weights), "scans", "out", "--labels", "unknown"]) == 2
    assert run(["predict", str(given.weights), "scans", "scans/out", "--labels", "msd"]) == 2
    assert run(["predict", str(given.weights), "nowhere", "out", "--labels", "whole-tumour"]) == 5
