import subprocess
import sys
from pathlib import Path

import pytest

from brainfed.errors import (
    LockedError,
    NoWorkspaceError,
    WorkspaceError,
    WrongRoleError,
)
from brainfed.formats import workspace
from brainfed.formats.workspace import Role
from tests.federation import a_workspace, mode_of


def test_a_workspace_is_found_from_any_folder_below(tmp_path: Path) -> None:
    place = a_workspace(tmp_path / "a", Role.SITE, "hospital-a")
    below = place.rounds / "deep" / "deeper"
    below.mkdir(parents=True)
    assert workspace.find(below) == place
    assert workspace.find(place.root).role is Role.SITE


def test_outside_of_a_workspace_is_an_error_with_the_command_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(NoWorkspaceError) as caught:
        workspace.find(tmp_path)
    assert caught.value.exit_code == 3
    assert "brainfed init" in str(caught.value.hint)


def test_nothing_in_a_new_workspace_is_open_to_others(tmp_path: Path) -> None:
    place = a_workspace(tmp_path / "a", Role.SITE, "hospital-a")
    assert mode_of(place.root) == 0o700
    assert all(mode_of(path) == 0o700 for path in place.root.rglob("*") if path.is_dir())
    private = (place.key_path, place.root / workspace.MARKER, place.ledger_path)
    assert [mode_of(path) for path in private] == [0o600] * 3


def test_a_folder_that_is_a_workspace_is_not_made_one_again(tmp_path: Path) -> None:
    place = a_workspace(tmp_path, Role.SITE, "hospital-a")
    key = place.key_path.read_bytes()
    with pytest.raises(WorkspaceError, match="workspace already"):
        workspace.create(tmp_path, Role.COORDINATOR, "uni-lead")
    assert place.key_path.read_bytes() == key
    assert workspace.find(tmp_path) == place


def test_what_was_killed_before_the_marker_keeps_its_key(tmp_path: Path) -> None:
    first = workspace.create(tmp_path, Role.SITE, "hospital-a")
    key = first.key_path.read_bytes()
    with pytest.raises(NoWorkspaceError):
        workspace.find(tmp_path)
    second = workspace.create(tmp_path, Role.SITE, "hospital-a")
    workspace.finish(second)
    assert second.key_path.read_bytes() == key
    assert workspace.find(tmp_path) == second


@pytest.mark.parametrize(
    "text",
    ["", "role", 'role = "site"', 'role = "boss"\nname = "a"\nkey = "k"', "\xff", 'name = "a"'],
)
def test_a_damaged_marker_is_a_workspace_error(tmp_path: Path, text: str) -> None:
    (tmp_path / workspace.MARKER).write_text(text, "latin-1")
    with pytest.raises(WorkspaceError, match="marker"):
        workspace.find(tmp_path)


def test_a_command_of_the_other_role_is_refused(tmp_path: Path) -> None:
    place = a_workspace(tmp_path, Role.SITE, "hospital-a")
    place.require(Role.SITE)
    with pytest.raises(WrongRoleError) as caught:
        place.require(Role.COORDINATOR)
    assert caught.value.exit_code == 3
    assert "hospital-a" in str(caught.value.found)


def test_a_workspace_held_by_another_process_is_locked(tmp_path: Path) -> None:
    place = a_workspace(tmp_path, Role.SITE, "hospital-a")
    program = (
        "import sys; from pathlib import Path; from brainfed.formats import workspace\n"
        "with workspace.locked(workspace.find(Path(sys.argv[1]))):\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(LockedError), workspace.locked(place):
            pass
        other.kill()
    with workspace.locked(place):  # a killed process holds nothing
        pass


def test_a_lock_is_given_back_after_a_failure(tmp_path: Path) -> None:
    place = a_workspace(tmp_path, Role.SITE, "hospital-a")
    with pytest.raises(KeyError), workspace.locked(place):
        raise KeyError
    with workspace.locked(place), pytest.raises(LockedError), workspace.locked(place):
        pass


def test_locking_clears_away_what_a_killed_command_left(tmp_path: Path) -> None:
    place = a_workspace(tmp_path, Role.SITE, "hospital-a")
    (place.inbox / ".tmp-12345678-00001").write_bytes(b"half")
    with workspace.locked(place):
        assert list(place.inbox.iterdir()) == []


def test_rounds_have_four_digits() -> None:
    place = workspace.Workspace(Path("w"), Role.SITE, "a")
    assert place.round_folder(3) == Path("w/rounds/r0003")
