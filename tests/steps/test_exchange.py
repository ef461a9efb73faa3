import errno
import shutil
from pathlib import Path

import pytest

from brainfed.core import sshsig
from brainfed.errors import NotReadyError, ResourceError
from brainfed.formats import ledger, signature
from brainfed.steps.exchange import export, fill_outbox
from tests.federation import (
    Small,
    a_federation,
    an_unstarted_federation,
    close_round,
    leftovers,
    take,
    train,
)


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return a_federation(tmp_path)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_before_it_has_joined_a_site_sends_its_enrolment(tmp_path: Path) -> None:
    site = an_unstarted_federation(tmp_path).sites["hospital-a"]
    done = export(site, tmp_path)
    assert done.outbox == ("hospital-a.enrolment.json", "hospital-a.enrolment.json.sig")
    assert set(done.outbox) < set(names(tmp_path))


def test_what_is_not_there_can_not_be_sent(small: Small, tmp_path: Path) -> None:
    with pytest.raises(NotReadyError, match="nothing to send"):
        export(small.sites["hospital-a"], small.medium())
    with pytest.raises(NotReadyError):
        export(an_unstarted_federation(tmp_path / "b").coordinator, small.medium())
    assert names(small.medium()) == []


def test_an_update_is_signed_when_it_is_sent_and_read_back(small: Small) -> None:
    site = small.sites["hospital-a"]
    path = train(site)
    done = export(site, small.medium())
    assert names(small.medium()) == [path.name, f"{path.name}.sig"]
    assert [copied.name for copied in done.copied] == [path.name, f"{path.name}.sig"]
    key, digest = signature.verify_file(small.medium() / path.name)
    assert key == sshsig.public_key(site.private_key())
    assert done.copied[0].digest == digest.hex() == signature.digest_of(path).hex()
    assert ledger.read(site.ledger_path)[-1]["what"] == "signed update"


def test_exporting_again_changes_nothing(small: Small) -> None:
    site = small.sites["hospital-a"]
    train(site)
    first = export(site, small.medium())
    n_lines = len(ledger.read(site.ledger_path))
    assert export(site, small.medium()) == first
    assert len(ledger.read(site.ledger_path)) == n_lines


def test_files_of_others_on_the_medium_are_left_alone(small: Small) -> None:
    (small.medium() / "holiday.jpg").write_bytes(b"jpeg")
    (small.medium() / ".tmp-00000000-holiday.jpg").write_bytes(b"jpeg")
    site = small.sites["hospital-a"]
    path = train(site)
    killed = small.medium() / f".tmp-01234567-{path.name}"
    killed.write_bytes(b"half of it")
    export(site, small.medium())
    assert not killed.exists()
    assert {"holiday.jpg", ".tmp-00000000-holiday.jpg"} < set(names(small.medium()))


def test_the_outbox_holds_what_is_to_be_carried_now_and_nothing_older(small: Small) -> None:
    done = close_round(small)
    (small.coordinator.outbox / "note.txt").write_text("old")
    outbox = fill_outbox(small.coordinator)
    assert sorted(outbox) == names(small.coordinator.outbox)
    assert done.path.name in outbox
    assert done.record.name in outbox
    assert not any(".r0000." in name for name in outbox)
    assert fill_outbox(small.sites["hospital-a"]) == ()
    assert names(small.sites["hospital-a"].outbox) == []


def test_a_file_in_the_outbox_that_was_changed_is_put_right(small: Small) -> None:
    outbox = small.coordinator.outbox
    path = next(outbox.glob("*.global.safetensors"))
    path.unlink()
    path.write_bytes(b"something else")
    export(small.coordinator, small.medium())
    signature.verify_file(small.medium() / path.name)


def test_without_hard_links_the_outbox_holds_copies(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(path: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(Path, "hardlink_to", no_links)
    shutil.rmtree(small.coordinator.outbox)
    small.coordinator.outbox.mkdir()
    for _ in range(2):
        export(small.coordinator, small.medium())
    site = a_federation(small.root / "again", joined=False).sites["hospital-a"]
    assert len(take(site, small.medium()).files) == 3


def test_a_medium_that_is_not_there_is_a_resource_error(small: Small) -> None:
    with pytest.raises(ResourceError, match="isn't there"):
        export(small.coordinator, small.root / "no-stick")
    assert not (small.root / "no-stick").exists()


def test_a_medium_that_gives_back_other_bytes_is_not_trusted(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = signature.digest_of

    def worn_out(path: Path, algorithm: str = "sha256") -> bytes:
        return bytes(32) if path.parent == small.medium() else original(path, algorithm)

    monkeypatch.setattr(signature, "digest_of", worn_out)
    with pytest.raises(ResourceError, match="other bytes"):
        export(small.coordinator, small.medium())


def test_a_full_medium_is_a_resource_error_and_nothing_half_is_left(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    def full(descriptor: int) -> None:
        if str(small.medium()) in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match="full") as caught:
        export(small.coordinator, small.medium())
    assert caught.value.exit_code == 8
    assert names(small.medium()) == []
    assert leftovers(small.root) == []
