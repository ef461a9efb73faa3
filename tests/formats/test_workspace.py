import subprocess
import sys
from pathlib import Path

import pytest

from brainfed.core import sshsig
from brainfed.errors import (
    LockedError,
    NoWorkspaceError,
    UsageError,
    WorkspaceError,
    WrongRoleError,
)
from brainfed.formats import signature, workspace
from brainfed.formats.roster import Role
from brainfed.formats.workspace import Workspace
from tests.federation import a_key, a_workspace, mode_of


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
        workspace.create(Workspace(tmp_path, Role.COORDINATOR, "uni-lead"))
    assert place.key_path.read_bytes() == key
    assert workspace.find(tmp_path) == place


def test_what_was_killed_before_the_marker_is_begun_again(tmp_path: Path) -> None:
    place = Workspace(tmp_path, Role.SITE, "hospital-a")
    workspace.create(place)
    with pytest.raises(NoWorkspaceError):
        workspace.find(tmp_path)
    workspace.create(place)
    workspace.finish(place)
    assert workspace.find(tmp_path) == place


def test_a_folder_that_was_open_to_others_is_closed(tmp_path: Path) -> None:
    root = tmp_path / "a"
    (root / "key").mkdir(parents=True)
    for folder in (root, root / "key"):
        folder.chmod(0o755)
    a_workspace(root, Role.SITE, "hospital-a")
    assert mode_of(root) == mode_of(root / "key") == 0o700


def test_a_folder_of_all_users_is_not_made_a_workspace(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    with pytest.raises(UsageError, match="shared by all users"):
        workspace.create(Workspace(tmp_path, Role.SITE, "hospital-a"))
    assert mode_of(tmp_path) == 0o1777
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", ["/a b/\\\"'ä/id", "key/id_ed25519.pub", r"C:\Users\x\id"])
def test_the_marker_names_any_path_of_a_key(tmp_path: Path, key: str) -> None:
    place = Workspace(tmp_path, Role.SITE, "hospital-a", key)
    workspace.finish(place)
    assert workspace.find(tmp_path) == place
    changed = workspace.with_key(place, "key/id_ed25519-2")
    assert workspace.find(tmp_path) == changed
    assert mode_of(tmp_path / workspace.MARKER) == 0o600


def a_locked_key(root: Path) -> Workspace:
    """A workspace whose key has the passphrase `open sesame`."""
    place = Workspace(root, Role.SITE, "hospital-a")
    workspace.create(place)
    signature.make_key(place.key_path, b"open sesame")
    workspace.finish(place)
    return place


def test_a_passphrase_is_asked_for_once_and_only_for_the_private_half(tmp_path: Path) -> None:
    a_locked_key(tmp_path)
    asked: list[Path] = []

    def unlock(path: Path) -> bytes:
        asked.append(path)
        return b"open sesame"

    place = workspace.find(tmp_path, unlock)
    public = place.public_key()
    assert asked == []
    assert sshsig.public_key(place.private_key()) == public
    assert sshsig.public_key(place.private_key()) == public
    assert asked == [place.key_path]
    assert "sesame" not in repr(place)


def test_a_wrong_passphrase_opens_nothing(tmp_path: Path) -> None:
    a_locked_key(tmp_path)
    with pytest.raises(WorkspaceError, match="passphrase is wrong") as caught:
        workspace.find(tmp_path, lambda path: b"close sesame").private_key()
    assert caught.value.exit_code == 3
    with pytest.raises(WorkspaceError, match="no passphrase"):
        workspace.find(tmp_path).private_key()


def test_the_public_key_is_known_without_its_pub_file(tmp_path: Path) -> None:
    place = a_locked_key(tmp_path)
    public = place.public_key()
    signature.public_path(place.key_path).unlink()
    assert place.public_key() == public


def test_a_private_key_that_is_not_the_public_ones_is_not_used(tmp_path: Path) -> None:
    place = a_workspace(tmp_path, Role.SITE, "hospital-a")
    signature.write_public(signature.public_path(place.key_path), sshsig.public_key(a_key(9)))
    with pytest.raises(WorkspaceError, match="belongs to the public key"):
        place.private_key()


def test_a_key_that_is_elsewhere_is_signed_with_by_hand(tmp_path: Path) -> None:
    place = Workspace(tmp_path, Role.SITE, "hospital-a", "key/id_ed25519.pub")
    workspace.create(place)
    signature.write_public(place.key_path, sshsig.public_key(a_key()))
    assert place.public_key() == sshsig.public_key(a_key())
    with pytest.raises(WorkspaceError) as caught:
        place.private_key()
    hint = str(caught.value.hint)
    assert "brainfed export --unsigned" in hint
    assert f"ssh-keygen -Y sign -n brainfed -f {place.key_path} FILE" in hint


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
    place.require(Role.EVALUATOR, Role.SITE)
    with pytest.raises(WrongRoleError, match="the coordinator or the auditor"):
        place.require(Role.COORDINATOR, Role.AUDITOR)


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


@pytest.mark.parametrize("line", ["", "floor = 1\n", "floor = 10000\n"])
def test_a_floor_of_its_own_may_be_written_by_hand(tmp_path: Path, line: str) -> None:
    place = a_workspace(tmp_path, Role.SITE, "hospital-a")
    path = tmp_path / workspace.MARKER
    path.write_text(path.read_text() + line)
    assert workspace.find(tmp_path).floor == int((line or "floor = 1").split()[-1])
    assert workspace.with_key(workspace.find(tmp_path), place.key).floor == (
        workspace.find(tmp_path).floor
    )


@pytest.mark.parametrize("value", ["0", "-5", "10001", "5.0", '"5"', "true", "[]"])
def test_a_floor_that_is_none_is_refused_and_never_passed_over(tmp_path: Path, value: str) -> None:
    a_workspace(tmp_path, Role.SITE, "hospital-a")
    path = tmp_path / workspace.MARKER
    path.write_text(f"{path.read_text()}floor = {value}\n")
    with pytest.raises(WorkspaceError, match="marker file is damaged"):
        workspace.find(tmp_path)


def test_rounds_have_four_digits() -> None:
    place = Workspace(Path("w"), Role.SITE, "a")
    assert place.round_folder(3) == Path("w/rounds/r0003")
