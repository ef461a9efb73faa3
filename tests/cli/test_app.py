"""Every error ends in words, an exit code, and no traceback."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import filelock
import pytest

from brainfed import errors
from brainfed.cli import bug
from brainfed.formats.roster import Role
from brainfed.steps import status
from tests.cli.typed import Typed, too_wide
from tests.federation import a_workspace

EVERYWHERE = [
    ("status",),
    ("import", "stick"),
    ("export",),
    ("admit", "a.enrolment.json"),
    ("start", "plan.toml"),
    ("aggregate",),
    ("preprocess", "scans", "--labels", "msd"),
    ("split",),
    ("train-round",),
    ("evaluate",),
]
OF_THE_COORDINATOR = [words for words in EVERYWHERE if words[0] in {"admit", "start", "aggregate"}]
OF_A_SITE = [
    words for words in EVERYWHERE if words[0] in {"preprocess", "split", "train-round", "evaluate"}
]


def break_status(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def broken(place: object) -> None:
        raise error

    monkeypatch.setattr(status, "status", broken)


@pytest.mark.parametrize("words", EVERYWHERE, ids=lambda words: words[0])
def test_a_command_outside_of_a_workspace_says_how_to_make_one(
    typed: Typed, words: tuple[str, ...]
) -> None:
    answer = typed(*words)
    assert answer.code == 3
    assert answer.out == ""
    assert "brainfed init" in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.parametrize("words", OF_THE_COORDINATOR, ids=lambda words: words[0])
def test_a_site_is_refused_the_coordinators_commands(
    typed: Typed, tmp_path: Path, words: tuple[str, ...]
) -> None:
    a_workspace(tmp_path, Role.SITE, "hospital-a")
    answer = typed(*words, "--workspace", tmp_path)
    assert answer.code == 3
    assert "belongs to the coordinator" in answer.err


@pytest.mark.parametrize("words", OF_A_SITE, ids=lambda words: words[0])
def test_a_coordinator_is_refused_a_sites_commands(
    typed: Typed, tmp_path: Path, words: tuple[str, ...]
) -> None:
    a_workspace(tmp_path, Role.COORDINATOR, "uni-lead")
    answer = typed(*words, "--workspace", tmp_path)
    assert answer.code == 3
    assert "belongs to the site" in answer.err


@pytest.mark.parametrize("words", EVERYWHERE[1:], ids=lambda words: words[0])
def test_a_command_that_changes_things_waits_for_nobody(
    typed: Typed, tmp_path: Path, words: tuple[str, ...]
) -> None:
    role = Role.COORDINATOR if words in OF_THE_COORDINATOR else Role.SITE
    a_workspace(tmp_path, role, "somebody")
    with filelock.FileLock(tmp_path / ".lock"):
        answer = typed(*words, "--workspace", tmp_path, "--json")
    assert answer.code == 3
    assert answer.json["error"]["kind"] == "LockedError"


def test_status_can_be_read_while_another_command_works(typed: Typed, tmp_path: Path) -> None:
    a_workspace(tmp_path, Role.SITE, "hospital-a")
    with filelock.FileLock(tmp_path / ".lock"):
        assert typed("status", "--workspace", tmp_path).code == 0


def test_an_error_says_where_expected_found_and_next(typed: Typed, tmp_path: Path) -> None:
    a_workspace(tmp_path, Role.SITE, "hospital-a")
    answer = typed("aggregate", "--workspace", tmp_path)
    lines = [line.split()[0] for line in answer.err.splitlines() if not line.startswith("   ")]
    assert lines == ["error:", "where:", "expected:", "found:", "next:"]
    assert too_wide(answer.err) == []


def test_an_error_is_one_json_object_on_stdout(typed: Typed) -> None:
    answer = typed("status", "--json")
    assert answer.json["error"]["kind"] == "NoWorkspaceError"
    assert answer.json["error"]["exit_code"] == answer.code == 3
    assert answer.json["error"]["next"] in " ".join(answer.err.split())


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("frobnicate",), "frobnicate"),
        (("statsu",), "'status'"),
        (("split", "--frobnicate"), "--frobnicate"),
        (("preprocess",), "SCANS"),
        (("preprocess", "scans", "--labels", "brats"), "brats2012"),
        (("evaluate", "--subset", "train"), "train"),
        (("init", "client", "--name", "a"), "client"),
        (("plan", "chek", "plan.toml"), "'check'"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, tuple) else "",
)
def test_a_mistyped_command_line_names_what_is_wrong_and_the_help(
    typed: Typed, words: tuple[str, ...], named: str
) -> None:
    answer = typed(*words, "--json")
    assert answer.code == 2
    assert answer.json["error"]["kind"] == "UsageError"
    assert named in answer.json["error"]["message"]
    assert "--help" in answer.err


def test_brainfed_alone_prints_its_help(typed: Typed) -> None:
    answer = typed()
    assert answer.code == 0
    assert "train-round" in answer.out


def test_the_version_is_printed(typed: Typed) -> None:
    assert typed("--version").out.startswith("brainfed 0.")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError(), 8),
        (OSError(errno.ENOSPC, "No space left on device"), 8),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 8),
        (KeyboardInterrupt(), 130),
        (errors.InterruptedByUserError("Stopped"), 130),
        (errors.QuorumError("Too few"), 7),
        (errors.PlanError("Wrong"), 4),
    ],
)
def test_an_error_gives_the_exit_code_of_its_family(
    typed: Typed,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
) -> None:
    place = a_workspace(tmp_path, Role.SITE, "hospital-a")
    break_status(monkeypatch, error)
    answer = typed("status", "--workspace", tmp_path, "--json")
    assert answer.code == code
    assert answer.json["error"]["exit_code"] == code
    assert "Traceback" not in answer.err
    assert not place.reports.exists()


def test_a_bug_leaves_a_report_in_the_workspace_and_no_traceback(
    typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = a_workspace(tmp_path, Role.SITE, "hospital-a")
    break_status(monkeypatch, ZeroDivisionError("of our own making"))
    answer = typed("status", f"--workspace={tmp_path}")
    [report] = place.reports.glob("bug-*.txt")
    text = report.read_text()
    assert answer.code == 70
    assert str(report) in answer.err
    assert "Traceback" not in answer.err + answer.out
    assert "ZeroDivisionError: of our own making" in text
    assert "command: brainfed status --workspace\n" in text
    assert report.stat().st_mode & 0o077 == 0


def test_a_bug_outside_of_a_workspace_leaves_its_report_in_the_temporary_folder(
    typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bug.tempfile, "gettempdir", lambda: str(tmp_path))

    def broken(path: Path, place: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("brainfed.steps.inspect.inspect", broken)
    assert typed("inspect", "secret-name.safetensors").code == 70
    [report] = tmp_path.glob("bug-*.txt")
    assert "secret-name" not in report.read_text()


def test_a_bug_whose_report_cannot_be_written_still_ends_in_words(
    typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = a_workspace(tmp_path, Role.SITE, "hospital-a")
    place.reports.write_text("a file where the folder should be")
    break_status(monkeypatch, ZeroDivisionError())
    answer = typed("status", "--workspace", tmp_path)
    assert answer.code == 8
    assert "Traceback" not in answer.err


@pytest.mark.parametrize("words", [("--help",), ("status",)])
def test_a_reader_that_has_gone_is_no_error(tmp_path: Path, words: tuple[str, ...]) -> None:
    a_workspace(tmp_path, Role.SITE, "hospital-a")
    program = "from brainfed.__main__ import main; main()"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        stdout=writer,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
