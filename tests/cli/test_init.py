from pathlib import Path

import pytest

from brainfed.core import sshsig
from brainfed.formats import enrolment, signature, workspace
from tests.cli.typed import Typed, too_wide
from tests.federation import a_key


@pytest.fixture
def passphrases(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is typed at questions for a passphrase, in this order."""
    waiting: list[str] = []
    monkeypatch.setattr("getpass.getpass", lambda question: waiting.pop(0))
    return waiting


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


def test_a_site_may_have_a_higher_floor_than_the_plan(typed: Typed, tmp_path: Path) -> None:
    words = ("init", "site", "--name", "hospital-a", "--floor", "10", "--workspace", tmp_path)
    assert typed(*words).code == 0
    assert workspace.find(tmp_path).floor == 10
    assert "floor = 10\n" in (tmp_path / workspace.MARKER).read_text()
    assert typed("key", "rotate", "--workspace", tmp_path).code == 0
    assert workspace.find(tmp_path).floor == 10


def test_a_floor_is_for_those_who_have_patients(typed: Typed, tmp_path: Path) -> None:
    answer = typed(
        "init", "coordinator", "--name", "uni-lead", "--floor", "10", "--workspace", tmp_path
    )
    assert answer.code == 2
    assert "participation.floor" in answer.err
    assert not any(tmp_path.iterdir())


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


def test_a_coordinator_is_told_to_move_the_recovery_key(typed: Typed, tmp_path: Path) -> None:
    answer = typed("init", "coordinator", "--name", "uni-lead", "--workspace", tmp_path)
    assert answer.code == 0
    assert "Move key/recovery_ed25519 to another place" in answer.out
    assert not too_wide(answer.out)


@pytest.mark.parametrize(
    ("role", "name"),
    [("evaluator", "clinic"), ("approver", "hospital-a.release"), ("auditor", "agency")],
)
def test_every_other_role_enrols(typed: Typed, tmp_path: Path, role: str, name: str) -> None:
    answer = typed("init", role, "--name", name, "--workspace", tmp_path, "--json")
    assert answer.json["role"] == role
    assert enrolment.read_verified(Path(answer.json["enrolment"])).role == role


def test_a_passphrase_is_typed_twice(typed: Typed, tmp_path: Path, passphrases: list[str]) -> None:
    passphrases += ["open sesame", "open sesame"]
    words = ("init", "site", "--name", "hospital-a", "--passphrase", "--workspace", tmp_path)
    answer = typed(*words, answers="")
    assert answer.code == 0
    assert passphrases == []
    assert "sesame" not in answer.out + answer.err
    signature.load_key(workspace.find(tmp_path).key_path, b"open sesame")


@pytest.mark.parametrize("lines", [["", ""], ["open sesame", "open sesamy"], ["open sesame", ""]])
def test_passphrases_that_are_empty_or_differ_make_nothing(
    typed: Typed, tmp_path: Path, passphrases: list[str], lines: list[str]
) -> None:
    passphrases += lines
    words = ("init", "site", "--name", "hospital-a", "--passphrase", "--workspace", tmp_path / "a")
    assert typed(*words, answers="").code == 2
    assert not (tmp_path / "a").exists()


def test_a_passphrase_needs_a_terminal(typed: Typed, tmp_path: Path) -> None:
    words = ("init", "site", "--name", "hospital-a", "--passphrase", "--workspace", tmp_path / "a")
    answer = typed(*words)
    assert answer.code == 2
    assert "no terminal" in answer.err
    assert not (tmp_path / "a").exists()


def test_a_given_key_is_opened_once(typed: Typed, tmp_path: Path, passphrases: list[str]) -> None:
    signature.make_key(tmp_path / "mine", b"open sesame")
    words = ("--key", tmp_path / "mine", "--workspace", tmp_path / "a")
    passphrases += ["close sesame"]
    answer = typed("init", "site", "--name", "hospital-a", *words, answers="")
    assert answer.code == 3
    assert "passphrase is wrong" in answer.err
    assert not (tmp_path / "a").exists()
    passphrases += ["open sesame"]
    answer = typed("init", "site", "--name", "hospital-a", *words, answers="")
    assert answer.code == 0
    assert "stays where it is" in answer.out
    assert workspace.find(tmp_path / "a").key_path == tmp_path / "mine"


def test_a_given_key_and_a_new_passphrase_exclude_each_other(typed: Typed, tmp_path: Path) -> None:
    signature.make_key(tmp_path / "mine")
    words = ("--key", tmp_path / "mine", "--passphrase", "--workspace", tmp_path / "a")
    answer = typed("init", "site", "--name", "hospital-a", *words, answers="")
    assert answer.code == 2
    assert "ssh-keygen -p" in answer.err


def test_a_key_in_an_agent_comes_with_the_line_that_signs(typed: Typed, tmp_path: Path) -> None:
    signature.write_public(tmp_path / "mine.pub", sshsig.public_key(a_key()))
    words = ("--key", tmp_path / "mine.pub", "--workspace", tmp_path / "a")
    answer = typed("init", "site", "--name", "hospital-a", *words)
    assert answer.code == 0
    line = "ssh-keygen -Y sign -n brainfed -f key/id_ed25519.pub outbox/hospital-a.enrolment.json"
    assert f"  {line}\n" in answer.out


def test_a_relative_path_of_a_key_is_made_absolute(
    typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signature.make_key(tmp_path / "mine")
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    assert typed("init", "site", "--name", "hospital-a", "--key", "../mine").code == 0
    assert workspace.find(tmp_path / "a").key == str(tmp_path / "mine")


@pytest.mark.parametrize("wrong", ["missing", "open", "rsa.pub"])
def test_a_wrong_key_is_refused_in_words(typed: Typed, tmp_path: Path, wrong: str) -> None:
    signature.make_key(tmp_path / "open")
    (tmp_path / "open").chmod(0o644)
    (tmp_path / "rsa.pub").write_text("ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQ== x@y")
    words = ("--key", tmp_path / wrong, "--workspace", tmp_path / "a")
    answer = typed("init", "site", "--name", "hospital-a", *words)
    assert answer.code == (2 if wrong == "missing" else 3)
    assert "next:" in answer.err
    assert not (tmp_path / "a").exists()
