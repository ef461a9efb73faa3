from pathlib import Path

import pytest

from brainfed.formats import enrolment, workspace
from tests.cli.typed import Typed


def test_init_makes_a_workspace_in_the_current_folder_and_prints_the_fingerprint(
    typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = typed("init", "site", "--name", "hospital-a", "--patients", "12")
    place = workspace.find(tmp_path)
    asked = enrolment.read_verified(place.outbox / "hospital-a.enrolment.json")
    assert answer.code == 0
    assert asked.n_patients == 12
    assert "SHA256:" in answer.out
    assert "outbox/hospital-a.enrolment.json" in answer.out


def test_init_prints_json(typed: Typed, tmp_path: Path) -> None:
    answer = typed(
        "init", "coordinator", "--name", "uni-lead", "--workspace", tmp_path / "new", "--json"
    )
    assert answer.json["role"] == "coordinator"
    assert answer.json["root"] == str(tmp_path / "new")
    assert answer.json["enrolment"] is None
    assert answer.err == ""


def test_init_twice_is_refused_and_keeps_the_key(typed: Typed, tmp_path: Path) -> None:
    words = ("init", "site", "--name", "hospital-a", "--workspace", tmp_path)
    typed(*words)
    key = workspace.find(tmp_path).key_path.read_bytes()
    answer = typed(*words)
    assert answer.code == 3
    assert workspace.find(tmp_path).key_path.read_bytes() == key


def test_a_name_that_no_file_system_likes_is_refused(typed: Typed, tmp_path: Path) -> None:
    answer = typed("init", "site", "--name", "Hôpital A", "--workspace", tmp_path)
    assert answer.code == 2
    assert "hospital-a" in answer.err
    assert not any(tmp_path.iterdir())
