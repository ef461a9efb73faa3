import io
import os
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainfed.core import sshsig
from brainfed.errors import FileRefusedError, MalformedError, ResourceError, UsageError
from brainfed.formats import courier, document, medium, signature, weights, zipped
from brainfed.formats.medium import Sniffed
from brainfed.steps import pairing, receive
from tests.federation import a_key

WEIGHTS = (100).to_bytes(8, "little") + b'{"__metadata__":{}}'
JSON = b'{"kind":"x"}'


def a_signature(path: Path, over: bytes = JSON) -> Path:
    path.write_bytes(over)
    signature.sign_file(path, a_key())
    path.unlink()
    return signature.signature_path(path)


def found(folder: Path) -> list[tuple[str, str]]:
    return [(item.name, item.sniffed.value) for item in medium.look([folder]).items]


def a_zip(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_the_first_bytes_say_what_a_file_is(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(JSON)
    (tmp_path / "b.json").write_bytes(WEIGHTS)
    (tmp_path / "c").write_bytes(b"age-encryption.org/v1\n...")
    (tmp_path / "d.safetensors").write_bytes(b"\x89HDF\r\n\x1a\n")
    (tmp_path / "empty").write_bytes(b"")
    a_signature(tmp_path / "e").rename(tmp_path / "e.pdf")
    assert found(tmp_path) == [
        ("a.jpg", "json"),
        ("b.json", "weights"),
        ("c", "encrypted"),
        ("e.pdf", "signature"),
    ]
    assert medium.look([tmp_path]).n_foreign == 2


def test_a_file_beside_a_signature_was_meant_for_us_and_a_pgp_signature_is_none(
    tmp_path: Path,
) -> None:
    (tmp_path / "u").write_bytes(b"what has become of it")
    a_signature(tmp_path / "x").rename(tmp_path / "u.sig")
    (tmp_path / "linux.tar").write_bytes(b"tar")
    (tmp_path / "linux.tar.sig").write_bytes(b"\x88pgp")
    assert found(tmp_path) == [("u", "foreign"), ("u.sig", "signature")]
    assert medium.look([tmp_path]).n_foreign == 2


def test_what_lies_in_the_place_of_a_signature_is_taken_for_a_damaged_one(tmp_path: Path) -> None:
    (tmp_path / "u").write_bytes(WEIGHTS)
    (tmp_path / "u.sig").write_bytes(b"")
    assert found(tmp_path) == [("u", "weights"), ("u.sig", "foreign")]


def test_an_encrypted_file_has_the_signature_of_its_plain_name(tmp_path: Path) -> None:
    (tmp_path / "u.safetensors.age").write_bytes(b"age-encryption.org/v1\n")
    a_signature(tmp_path / "u.safetensors")
    items = medium.look([tmp_path]).items
    assert items[0].signed_by == items[1].lies_at
    alone = medium.look([tmp_path / "u.safetensors.age"])
    assert [item.path.name for item in alone.items] == [item.path.name for item in items]


def test_a_name_too_long_for_a_signature_beside_it_has_none(tmp_path: Path) -> None:
    path = tmp_path / ("a" * 253)
    path.write_bytes(JSON)
    assert found(path) == found(tmp_path) == [(path.name, "json")]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes with names")
def test_a_pipe_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert medium.look([tmp_path]).items == ()
    with pytest.raises(UsageError):
        medium.look([tmp_path / "pipe"])
    # Swapped in between the look and the opening.
    with pytest.raises(MalformedError), medium.open_regular(tmp_path / "pipe"):
        pass


def test_links_are_never_opened_unless_a_person_names_one(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "secret").write_bytes(JSON)
    (tmp_path / "folder" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "folder" / "way").symlink_to(tmp_path, target_is_directory=True)
    assert medium.look([tmp_path / "folder"]).items == ()
    with pytest.raises(MalformedError), medium.open_regular(tmp_path / "folder" / "link"):
        pass
    assert found(tmp_path / "folder" / "link") == [("secret", "json")]
    with pytest.raises(UsageError):
        medium.look([tmp_path / "gone"])


def test_a_device_and_a_socket_are_left_alone(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        medium.look([Path("/dev/null")])
    with pytest.raises(FileRefusedError), medium.open_regular(Path("/dev/null")):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_is_closed_to_us_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir(mode=0)
    (tmp_path / "u").write_bytes(JSON)
    assert found(tmp_path) == [("u", "json")]


def test_a_medium_that_fails_is_a_resource_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    (tmp_path / "u").write_bytes(JSON)

    def broken(*_: object, **__: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "open", broken)
    with pytest.raises(ResourceError):
        medium.look([tmp_path])


def test_too_many_files_are_a_usage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(11):
        (tmp_path / str(number)).write_bytes(b"")
    monkeypatch.setattr(medium, "MAX_FILES", 10)
    with pytest.raises(UsageError):
        medium.look([tmp_path])


# --- zips ---------------------------------------------------------------------------------------


def test_members_are_sniffed_like_files_and_no_zip_in_a_zip(tmp_path: Path) -> None:
    inner = a_zip(tmp_path / "inner", u=WEIGHTS).read_bytes()
    (tmp_path / "inner").unlink()
    a_zip(tmp_path / "z", u=WEIGHTS, n=JSON, text=b"hello", inner=inner)
    assert found(tmp_path) == [("z: u", "weights"), ("z: n", "json")]
    item = medium.look([tmp_path]).items[0]
    with item.opened() as stream:
        assert stream.read() == WEIGHTS


def test_a_zip_of_hundreds_of_tiny_members_is_taken(tmp_path: Path) -> None:
    # Its directory begins before what is read for the end record: reads straddle the two.
    (tmp_path / "u").write_bytes(WEIGHTS)
    with zipfile.ZipFile(tmp_path / "z", "w") as archive:
        for number in range(800):
            archive.writestr(f"{number:05d}.jpg", b"\xff\xd8xx")
        archive.writestr("u", WEIGHTS)
    seen = medium.look([tmp_path / "z"])
    assert seen.unreadable == ()
    assert [item.name for item in seen.items] == ["z: u"]
    with seen.items[0].opened() as stream:
        assert stream.read() == WEIGHTS


@given(st.integers(0, 60), st.lists(st.integers(-1, 70), max_size=6), st.integers(0, 60))
def test_a_frozen_file_reads_like_the_file(start: int, reads: list[int], at: int) -> None:
    content = bytes(range(60))
    plain = io.BytesIO(content)
    frozen = zipped._Frozen(io.BytesIO(content), start, content[start:])
    assert plain.seek(at) == frozen.seek(at)
    assert [plain.read(n) for n in reads] == [frozen.read(n) for n in reads]
    assert plain.tell() == frozen.tell()


def test_the_directory_of_a_zip_is_parsed_once_whatever_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "z", "w") as archive:
        for number in range(30):
            archive.writestr(f"{number}", WEIGHTS)
    parsed = []
    original = zipped._frozen
    monkeypatch.setattr(zipped, "_frozen", lambda *a: parsed.append(1) or original(*a))
    for item in medium.look([tmp_path]).items:
        with item.opened() as stream:
            assert stream.read() == WEIGHTS
    assert len(parsed) == 1


def test_no_zip64_locator_at_the_end_of_a_zip_is_followed_when_a_member_is_opened(
    tmp_path: Path,
) -> None:
    path = a_zip(tmp_path / "z", u=WEIGHTS)
    (item,) = medium.look([tmp_path]).items
    # Appended after the look: a record that claims a huge directory, and its locator.
    at = path.stat().st_size
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, 2**50, 0)
    with path.open("ab") as stream:
        stream.write(record + struct.pack("<4sLQL", b"PK\6\7", 0, at, 1))
    with item.opened() as content:
        assert content.read() == WEIGHTS


def test_a_foreign_zip_is_not_read_but_for_its_directory_and_first_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", os.urandom(30_000_000))
    read = []
    original = medium.open_regular

    class Counting:
        def __init__(self, stream) -> None:
            self._stream = stream

        def read(self, n: int = -1) -> bytes:
            data = self._stream.read(n)
            read.append(len(data))
            return data

        def __getattr__(self, name: str):
            return getattr(self._stream, name)

    def counted(path: Path):
        import contextlib

        @contextlib.contextmanager
        def opened():
            with original(path) as stream:
                yield Counting(stream)

        return opened()

    monkeypatch.setattr(medium, "open_regular", counted)
    assert medium.look([tmp_path]).n_foreign == 1
    assert 0 < sum(read) < 400_000


def test_a_directory_that_claims_too_much_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = a_zip(tmp_path / "z", u=WEIGHTS)
    data = bytearray(path.read_bytes())
    for at, layout, value in ((10, "<H", 5000), (12, "<L", 2**30), (4, "<H", 1)):
        changed = bytearray(data)
        struct.pack_into(layout, changed, len(data) - 22 + at, value)
        path.write_bytes(changed)
        ((_, error),) = medium.look([tmp_path]).unreadable
        assert isinstance(error, MalformedError)


def test_a_zip64_record_hidden_in_the_directory_is_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "z"
    # The comment of the last member ends in a zip64 record and its locator, which zipfile follows.
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, 2**50, 0)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, 0, 1)
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("u")
        info.comment = record + locator
        archive.writestr(info, WEIGHTS)
    ((_, error),) = medium.look([tmp_path]).unreadable
    assert "unpack it by hand" in str(error.hint)


def test_more_members_than_the_limit_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z", "w") as archive:
        for number in range(zipped.MAX_MEMBERS + 1):
            archive.writestr(str(number), b"")
    ((item, error),) = medium.look([tmp_path]).unreadable
    assert item.path == tmp_path / "z"
    assert "4097 members" in str(error.found)


def test_a_method_that_is_not_streamed_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("u", WEIGHTS)
    ((_, error),) = medium.look([tmp_path]).unreadable
    assert error.found == "method 12"


@given(st.data())
def test_whatever_is_changed_in_a_zip_the_error_is_ours(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("zip")
    path = a_zip(folder / "z", u=WEIGHTS + bytes(1000), n=JSON)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(4, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.sampled_from([len(content), len(content) - 1, 40]))]
    path.write_bytes(content)
    for item in medium.look([folder]).items:
        assert item.sniffed in Sniffed
        try:
            with item.opened() as stream:
                while stream.read(2**16):
                    pass
        except (FileRefusedError, ResourceError):
            pass


def test_the_limits_of_the_page_are_those_of_the_code() -> None:
    text = (Path(__file__).parents[2] / "docs" / "formats" / "media.md").read_text()
    for words in (
        f"{medium.MAX_DEPTH} folders deep",
        f"{medium.MAX_FILES:,} files and members of zips",
        f"{sshsig.MAX_SIGNATURE_BYTES:,} B",
        f"{document.MAX_JSON_BYTES // 2**20} MiB",
        f"{weights.MAX_HEADER_BYTES // 2**20} MiB of header",
        f"{courier.MAX_HEADER_BYTES // 2**10} KiB of age header",
        f"At most {pairing.MAX_TRIES} are",
        f"at most {receive.KEPT_BYTES // 2**20} MiB of them",
        f"what {receive.KEPT_WEIGHTS} weight files",
        f"{pairing.MAX_TRIES_IN_ALL:,} in one import",
        f"{zipped.MAX_MEMBERS:,} members and {zipped.MAX_DIRECTORY_BYTES // 2**20} MiB",
    ):
        assert words in text
