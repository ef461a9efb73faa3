"""An archive holds what an auditor needs, byte for byte, and nothing else of a workspace."""

import shutil
from datetime import date
from pathlib import Path

import pytest

from brainfed.errors import ConflictError, FileRefusedError, NotReadyError, UsageError
from brainfed.formats import workspace
from brainfed.formats.roster import Role
from brainfed.formats.workspace import Workspace
from brainfed.steps.archive import archive
from brainfed.steps.audit import Verdict, audit
from tests import audited
from tests.audited import LEAD, an_archive, name_of, write
from tests.faults import killed_everywhere
from tests.federation import a_waiting_federation, a_workspace

FILES = an_archive()
SECRET = b"PATIENT-4711"
PLANTED = (
    "key/id_ed25519",
    "key/id_ed25519.pub",
    "key/age_identity",
    "data/cases/0123456789abcdef.h5",
    "data/identities.json",
    "data/cases.json",
    "ledger.jsonl",
    ".lock",
    "reports/scores.txt",
    "inbox/half.json",
    "outbox/packing-list.txt",
    "rounds/r0001/training.jsonl",
    "rounds/r0001/notes.txt",
    "rounds/r0001/notes.txt.sig",
    "federation/letter.json",
    "federation/.tmp-1234-start.json",
)


def a_place(root: Path) -> Workspace:
    """A coordinator's workspace with the golden story in it, and all that must stay there."""
    write(FILES, root)
    for name in PLANTED:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(SECRET)
    marker = f'role = "coordinator"\nname = "{LEAD}"\nkey = "key/id_ed25519"\n'
    (root / workspace.MARKER).write_text(marker)
    return workspace.find(root)


def contents(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


def test_an_archive_is_the_signed_files_and_the_three_that_follow(tmp_path: Path) -> None:
    place = a_place(tmp_path / "place")
    done = archive(place, tmp_path / "archive")

    assert contents(tmp_path / "archive") == FILES
    assert SECRET not in b"".join(contents(tmp_path / "archive").values())
    assert (done.n_files, done.n_new) == (len(audited.signed_names()),) * 2
    assert audit([tmp_path / "archive"]).verdict is Verdict.REDERIVED


def test_an_unsigned_update_stays_in_the_workspace(tmp_path: Path) -> None:
    place = a_place(tmp_path / "place")
    update = name_of(FILES, "r0003.hospital-a.update")
    (place.root / f"{update}.sig").unlink()
    archive(place, tmp_path / "archive")
    assert not (tmp_path / "archive" / update).exists()


def test_run_again_it_adds_what_is_new_and_leaves_the_rest(tmp_path: Path) -> None:
    place = a_place(tmp_path / "place")
    shutil.move(place.round_folder(3), tmp_path / "later")
    first = archive(place, tmp_path / "archive")
    before = {path: path.stat().st_ino for path in (tmp_path / "archive").rglob("*.json")}
    shutil.move(tmp_path / "later", place.round_folder(3))

    second = archive(place, tmp_path / "archive")

    assert second.n_new == second.n_files - first.n_files > 0
    assert contents(tmp_path / "archive") == FILES
    assert {path: path.stat().st_ino for path in before} == before
    assert archive(place, tmp_path / "archive").n_new == 0


@pytest.mark.parametrize("what", ["letter.txt", "federation/start.json", workspace.MARKER])
def test_a_folder_of_other_things_is_refused(what: str, tmp_path: Path) -> None:
    place = a_place(tmp_path / "place")
    path = tmp_path / "archive" / what
    path.parent.mkdir(parents=True)
    path.write_bytes(b"something else")
    if what == workspace.MARKER:
        write(audited.only(FILES, "start.json"), tmp_path / "archive")
    before = contents(tmp_path / "archive")
    with pytest.raises(ConflictError):
        archive(place, tmp_path / "archive")
    assert contents(tmp_path / "archive") == before


@pytest.mark.parametrize("suffix", ["", ".sig"])
def test_a_changed_file_in_the_archive_is_never_replaced(suffix: str, tmp_path: Path) -> None:
    place = a_place(tmp_path / "place")
    archive(place, tmp_path / "archive")
    path = tmp_path / "archive" / (name_of(FILES, "r0001", ".record.") + suffix)
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ConflictError) as raised:
        archive(place, tmp_path / "archive")
    assert raised.value.where == str(path)
    assert path.read_bytes().endswith(b" ")


def test_an_archive_inside_the_workspace_is_refused(tmp_path: Path) -> None:
    place = a_place(tmp_path / "place")
    with pytest.raises(UsageError):
        archive(place, place.root / "rounds" / "archive")


@pytest.mark.parametrize("part", ["r0002.hospital-c.update", "r0002.uni-lead.record"])
def test_a_damaged_file_is_refused_and_named(part: str, tmp_path: Path) -> None:
    place = a_place(tmp_path / "place")
    path = place.root / name_of(FILES, part)
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    with pytest.raises(FileRefusedError) as raised:
        archive(place, tmp_path / "archive")
    assert path.name in str(raised.value)


def test_before_the_start_there_is_nothing_to_archive(tmp_path: Path) -> None:
    place = a_workspace(tmp_path / "place", Role.COORDINATOR, LEAD)
    with pytest.raises(NotReadyError):
        archive(place, tmp_path / "archive")
    assert not (tmp_path / "archive").exists()


def test_killed_anywhere_it_is_finished_by_the_next_run(tmp_path: Path) -> None:
    place = a_place(tmp_path / "before" / "place")
    for number in (2, 3):
        shutil.rmtree(place.round_folder(number))

    def command(root: Path) -> None:
        archive(workspace.find(root / "place"), root / "archive")

    command(tmp_path / "before")
    whole = contents(tmp_path / "before" / "archive")
    shutil.rmtree(tmp_path / "before" / "archive")
    n = 0
    for _, root in killed_everywhere(tmp_path / "before", tmp_path, command, step=13):
        command(root)
        assert contents(root / "archive") == whole
        n += 1
    assert n > 5


def test_the_archive_of_a_real_walk_is_re_derived(tmp_path: Path) -> None:
    from brainfed.steps.aggregate import aggregate

    small = a_waiting_federation(tmp_path)
    aggregate(small.coordinator, today=date(2026, 3, 1))
    archive(small.coordinator, tmp_path / "archive")
    done = audit([tmp_path / "archive"])
    assert done.findings == ()
    assert [row.included for row in done.rounds] == [(), ("hospital-a", "hospital-b")]
    # And the workspaces themselves, as they are, together and alone.
    assert audit([small.coordinator.root]).verdict is Verdict.REDERIVED
    site = audit([small.sites["hospital-a"].root])
    assert [f for f in site.findings if f.kind.is_wrong] == []
