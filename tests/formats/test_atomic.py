import errno
import hashlib
import io
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainfed.errors import ConflictError, ResourceError, TooLargeError
from brainfed.formats import atomic, pour
from tests.federation import leftovers, mode_of


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def small_files_only() -> Iterator[None]:
    """The system itself refuses files over 10 kB: a real failure in the middle of writing."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_appears_whole_with_its_permissions(tmp_path: Path) -> None:
    atomic.write_bytes(tmp_path / "a", b"content", mode=0o600)
    assert (tmp_path / "a").read_bytes() == b"content"
    assert mode_of(tmp_path / "a") == 0o600
    assert names(tmp_path) == ["a"]


def test_a_private_file_is_private_while_it_is_written(tmp_path: Path) -> None:
    with atomic.new_file(tmp_path / "a", mode=0o600):
        assert mode_of(leftovers(tmp_path)[0]) == 0o600
        assert not (tmp_path / "a").exists()


def test_a_file_that_is_there_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(ConflictError):
        atomic.write_bytes(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    atomic.write_bytes(tmp_path / "a", b"new", replace=True)
    assert (tmp_path / "a").read_bytes() == b"new"


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_while_writing_leaves_nothing(
    tmp_path: Path, failure: type[BaseException]
) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(failure), atomic.new_file(tmp_path / "a", replace=True) as stream:
        stream.write(b"half")
        raise failure
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


@pytest.mark.usefixtures("small_files_only")
def test_a_full_disk_is_a_resource_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="full") as caught:
        atomic.write_bytes(tmp_path / "a", bytes(20_000))
    assert caught.value.exit_code == 8
    assert names(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_line_that_finds_no_room_is_a_resource_error() -> None:
    with pytest.raises(ResourceError, match="full"):
        atomic.append_lines(Path("/dev/full"), [b"line"])


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_a_failing_flush_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ResourceError):
        atomic.write_bytes(tmp_path / "a", b"content")
    assert names(tmp_path) == []


def test_a_missing_folder_is_a_resource_error(tmp_path: Path) -> None:
    with pytest.raises(ResourceError):
        atomic.write_bytes(tmp_path / "no" / "a", b"content")


def test_file_and_folder_are_flushed_before_and_after_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def note(descriptor: int) -> None:
        seen.append((Path(f"/proc/self/fd/{descriptor}").readlink(), (tmp_path / "a").exists()))

    monkeypatch.setattr(os, "fsync", note)
    atomic.write_bytes(tmp_path / "a", b"content")
    assert [was_there for _, was_there in seen] == [False, True]
    assert seen[1][0] == tmp_path


def test_a_medium_without_permissions_takes_open_files_but_no_private_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, mode: int) -> None:  # as vfat and exfat do
        raise PermissionError(errno.EPERM, "Operation not permitted", str(path))

    monkeypatch.setattr(Path, "chmod", refuse)
    atomic.write_bytes(tmp_path / "open", b"content", mode=0o644)
    with pytest.raises(ResourceError):
        atomic.write_bytes(tmp_path / "private", b"content", mode=0o600)
    assert names(tmp_path) == ["open"]


def test_native_writers_get_a_name_with_the_same_suffixes(tmp_path: Path) -> None:
    with atomic.new_path(tmp_path / "a.nii.gz") as temporary:
        assert temporary.suffixes == [".nii", ".gz"]
        assert temporary.parent == tmp_path
        temporary.write_bytes(b"content")
    assert (tmp_path / "a.nii.gz").read_bytes() == b"content"


def test_a_native_writer_that_wrote_nothing_is_a_resource_error(tmp_path: Path) -> None:
    with pytest.raises(ResourceError), atomic.new_path(tmp_path / "a"):
        pass
    assert names(tmp_path) == []


def test_a_copy_gives_the_digest_of_what_was_read(tmp_path: Path) -> None:
    data = bytes(range(256)) * 10_000
    (tmp_path / "a").write_bytes(data)
    digest = atomic.copy(tmp_path / "a", tmp_path / "b", cap_bytes=len(data))
    assert digest == hashlib.sha256(data).digest()
    assert (tmp_path / "b").read_bytes() == data


def test_a_copy_over_the_cap_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(11))
    with pytest.raises(TooLargeError) as caught:
        atomic.copy(tmp_path / "a", tmp_path / "b", cap_bytes=10)
    assert caught.value.where == str(tmp_path / "a")
    assert names(tmp_path) == ["a"]


def test_a_source_that_can_not_be_read_is_named_as_such(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="can't be read") as caught:
        atomic.copy(tmp_path / "gone", tmp_path / "b", cap_bytes=10)
    assert caught.value.where == str(tmp_path / "gone")
    assert names(tmp_path) == []


def test_a_second_name_is_the_same_file_or_where_that_fails_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"content")
    atomic.link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a").samefile(tmp_path / "b")

    def no_links(path: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(Path, "hardlink_to", no_links)
    atomic.link_or_copy(tmp_path / "a", tmp_path / "c")
    assert (tmp_path / "c").read_bytes() == b"content"
    assert not (tmp_path / "a").samefile(tmp_path / "c")


def test_placing_never_replaces(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"new")
    (tmp_path / "b").write_bytes(b"old")
    with pytest.raises(ConflictError):
        atomic.place(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"old"
    atomic.place(tmp_path / "a", tmp_path / "c")
    assert (tmp_path / "c").read_bytes() == b"new"


def test_a_folder_and_those_above_it_are_for_the_owner_alone(tmp_path: Path) -> None:
    before = mode_of(tmp_path)
    atomic.make_folder(tmp_path / "data" / "cases")
    assert mode_of(tmp_path / "data") == mode_of(tmp_path / "data" / "cases") == 0o700
    assert mode_of(tmp_path) == before
    atomic.make_folder(tmp_path / "data" / "cases")


def test_a_folder_in_place_of_which_a_file_lies_is_a_resource_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(ResourceError):
        atomic.make_folder(tmp_path / "a" / "b")
    with pytest.raises(ResourceError):
        atomic.make_folder(tmp_path / "a")


def test_leftovers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in (".tmp-1234abcd-a", "deep/.tmp-1234abcd-b", "kept", "deep/.hidden"):
        (tmp_path / name).write_bytes(b"")
    assert atomic.remove_leftovers(tmp_path) == 2
    assert sorted(p.name for p in tmp_path.rglob("*")) == [".hidden", "deep", "kept"]


def test_removing_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    atomic.remove(tmp_path / "no")


# --- scratch files -------------------------------------------------------------------------------


@given(st.binary(max_size=40), st.integers(1, 20), st.integers(0, 50))
def test_a_staged_stream_is_copied_and_digested_whatever_pieces_it_comes_in(
    tmp_path_factory: pytest.TempPathFactory, unit: bytes, repeat: int, cap: int
) -> None:
    folder = tmp_path_factory.mktemp("stage")
    data = unit * repeat
    target = folder / ".tmp-a"
    stream = io.BytesIO(data)
    hashes = ("sha256", "sha512")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pour, "_PIECE_BYTES", 7)
        patch.setattr(pour, "_WRITEBACK_BYTES", 14)
        if len(data) > cap:
            with pytest.raises(TooLargeError):
                atomic.stage(stream, target, cap_bytes=cap, where=folder, hashes=hashes)
            assert names(folder) == []
            assert stream.tell() <= cap + 7
        else:
            found = atomic.stage(stream, target, cap_bytes=cap, where=folder, hashes=hashes)
            assert found == {name: hashlib.new(name, data).digest() for name in hashes}
            assert target.read_bytes() == data
            assert mode_of(target) == 0o600


def test_a_scratch_file_is_flushed_when_it_is_put_in_place_and_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(
        os, "fsync", lambda fd: seen.append(Path(f"/proc/self/fd/{fd}").readlink().name)
    )
    atomic.stage(io.BytesIO(b"content"), tmp_path / ".tmp-a", cap_bytes=10, where=tmp_path)
    assert seen == []
    atomic.place(tmp_path / ".tmp-a", tmp_path / "a")
    assert seen == [".tmp-a", tmp_path.name]


@pytest.mark.usefixtures("small_files_only")
def test_a_disk_that_fills_up_while_staging_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="full"):
        atomic.stage(
            io.BytesIO(bytes(20_000)), tmp_path / ".tmp-a", cap_bytes=10**6, where=tmp_path
        )
    assert names(tmp_path) == []


def test_a_stream_that_fails_while_staging_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    class Broken(io.BytesIO):
        def readinto(self, buffer: object) -> int:
            raise OSError(errno.EIO, "Input/output error")

    where = tmp_path / "stick"
    with pytest.raises(ResourceError, match="can't be read") as caught:
        atomic.stage(Broken(b"x"), tmp_path / ".tmp-a", cap_bytes=10, where=where)
    assert caught.value.where == str(where)
    assert names(tmp_path) == []


def test_copying_takes_the_same_memory_for_a_large_file(tmp_path: Path) -> None:
    code = """
import resource, sys
from pathlib import Path
from brainfed.formats import atomic
folder = Path(sys.argv[1])
def peak_after(n_bytes):
    with (folder / "a").open("wb") as stream:
        stream.truncate(n_bytes)
    atomic.copy(folder / "a", folder / "b", cap_bytes=n_bytes, replace=True)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
first = peak_after(8 * 2**20)
print(peak_after(200 * 2**20) - first)
"""
    words = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    assert int(done.stdout) < 4000  # kB


def test_the_end_of_a_file_is_cut_off(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"kept and not")
    atomic.cut_off(tmp_path / "a", 4)
    assert (tmp_path / "a").read_bytes() == b"kept"
    with pytest.raises(ResourceError):
        atomic.cut_off(tmp_path / "no", 4)


def test_a_tree_is_removed_and_what_its_links_lead_to_stays(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "inner").mkdir(parents=True)
    (outside / "inner" / "scan.nii").write_bytes(b"a scan")
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "b" / "file").write_bytes(b"1")
    (tree / "a" / "link").symlink_to(outside / "inner")
    (tree / "file-link").symlink_to(outside / "inner" / "scan.nii")
    atomic.remove_tree(tree)
    assert not tree.exists()
    assert (outside / "inner" / "scan.nii").read_bytes() == b"a scan"
    atomic.remove_tree(tree)  # there is none


def test_a_tree_under_a_link_is_emptied_and_the_link_goes(tmp_path: Path) -> None:
    (tmp_path / "large-disk").mkdir()
    (tmp_path / "large-disk" / "file").write_bytes(b"1")
    (tmp_path / "data").symlink_to(tmp_path / "large-disk")
    atomic.remove_tree(tmp_path / "data")
    assert not os.path.lexists(tmp_path / "data")
    assert list((tmp_path / "large-disk").iterdir()) == []
