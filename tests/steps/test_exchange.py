import dataclasses
import errno
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainfed.core import sshsig
from brainfed.errors import (
    NotReadyError,
    ResourceError,
    UsageError,
    WorkspaceError,
    WrongRoleError,
)
from brainfed.formats import courier, ledger, packing_list, rounds, signature, workspace
from brainfed.formats.federation import Federation
from brainfed.formats.manifest import Kind
from brainfed.formats.packing_list import Packed, PackingList
from brainfed.formats.roster import Role
from brainfed.formats.workspace import Workspace
from brainfed.plan import SLUG, check_name
from brainfed.steps.admit import admit
from brainfed.steps.exchange import Exported, export, fill_outbox
from brainfed.steps.verdict import Verdict
from tests import attacks
from tests.builders import a_plan
from tests.federation import (
    Small,
    a_federation,
    a_key,
    a_workspace,
    an_unstarted_federation,
    carry,
    close_round,
    enrolment_of,
    leftovers,
    mode_of,
    say_yes,
    sign,
    take,
    train,
)


@pytest.fixture
def small(tmp_path: Path) -> Small:
    """Its sites have sent their acceptances, in a federation that doesn't encrypt."""
    return a_federation(tmp_path, plan=a_plan(exchange={"encryption": "off"}))


def without_acceptances(site: Workspace) -> Workspace:
    """As if the coordinator had them and nothing but the update were due."""
    for path in site.federation_folder.glob("*.acceptance.json*"):
        path.unlink()
    return site


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_before_it_has_joined_a_site_sends_its_enrolment(tmp_path: Path) -> None:
    site = an_unstarted_federation(tmp_path).sites["hospital-a"]
    done = export(site, tmp_path)
    assert done.outbox == ("hospital-a.enrolment.json", "hospital-a.enrolment.json.sig")
    assert set(done.outbox) < set(names(tmp_path))
    assert (tmp_path / "hospital-a.packing-list.txt").exists()


def test_what_is_not_there_can_not_be_sent(small: Small, tmp_path: Path) -> None:
    with pytest.raises(NotReadyError, match="nothing to send"):
        export(without_acceptances(small.sites["hospital-a"]), small.medium())
    with pytest.raises(NotReadyError):
        export(an_unstarted_federation(tmp_path / "b").coordinator, small.medium())
    assert names(small.medium()) == []


def test_an_update_is_signed_when_it_is_sent_and_read_back(small: Small) -> None:
    site = small.sites["hospital-a"]
    path = train(site)
    done = export(site, small.medium())
    copied = [one.name for one in done.copied]
    assert copied[2:] == [path.name, f"{path.name}.sig"]
    assert all("acceptance.json" in name for name in copied[:2])
    assert done.packing_list is not None
    assert names(small.medium()) == sorted([*copied, done.packing_list.name])
    signed = signature.verify_file(small.medium() / path.name)
    assert signed.key == sshsig.public_key(site.private_key())
    assert done.copied[2].digest == signed.digest == signature.digest_of(path).hex()
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
    site = without_acceptances(small.sites["hospital-a"])
    assert fill_outbox(site) == ()
    assert names(site.outbox) == []


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
    plan = a_plan(exchange={"encryption": "off"})
    site = a_federation(small.root / "again", plan=plan, joined=False).sites["hospital-a"]
    assert [file.verdict.value for file in take(site, small.medium()).files] == ["accepted"] * 2


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
    def full(descriptor: int) -> None:
        if str(small.medium()) in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match="full") as caught:
        export(small.coordinator, small.medium())
    assert caught.value.exit_code == 8
    assert names(small.medium()) == []
    assert leftovers(small.root) == []


# --- what is due --------------------------------------------------------------------------------


def test_a_site_that_has_joined_sends_its_acceptance_signed(small: Small) -> None:
    site = small.sites["hospital-a"]
    done = export(site, small.medium())
    (name,) = [name for name in done.outbox if name.endswith(".json")]
    assert name == f"{small.known.prefix}.hospital-a.plan.v0001.acceptance.json"
    assert signature.verify_file(small.medium() / name).key == site.public_key()
    (line,) = [
        entry for entry in ledger.read(site.ledger_path) if entry.get("what") == "signed acceptance"
    ]
    assert line["digest"] == signature.digest_of(small.medium() / name).hex()


def test_the_coordinator_sends_all_rosters_newer_than_the_starts(small: Small) -> None:
    assert not any("roster" in name for name in fill_outbox(small.coordinator))
    for name in ("hospital-c", "hospital-d"):
        late = a_workspace(small.root / name, Role.SITE, name)
        admit(small.coordinator, [enrolment_of(late)], confirm=say_yes)
    rosters = [name for name in fill_outbox(small.coordinator) if name.endswith(".json")]
    prefix = small.known.prefix
    assert rosters == [
        f"{prefix}.roster.v0002.json",
        f"{prefix}.roster.v0003.json",
        f"{prefix}.start.json",
    ]
    late = workspace.find(small.root / "hospital-d")
    assert export(late, None).outbox[0] == "hospital-d.enrolment.json"
    carry(small.coordinator, late, small.medium())
    assert not any("enrolment" in name for name in export(late, None).outbox)


# --- the packing list ---------------------------------------------------------------------------


def test_the_packing_list_tells_people_what_lies_there_and_import_leaves_it_alone(
    small: Small,
) -> None:
    site = small.sites["hospital-a"]
    train(site)
    done = export(site, small.medium())
    assert done.packing_list is not None
    text = done.packing_list.read_text()
    for told in (small.known.name, small.known.digest[:8], "hospital-a (site)", "uni-lead"):
        assert told in text
    for file in done.copied:
        assert f"{file.digest[:8]}  " in text
        assert f"{file.n_bytes:,} B  {file.name}\n" in text
    assert "round       1\n" in text
    assert take(small.coordinator, small.medium()).n_foreign == 1


def test_the_packing_list_of_the_page_is_what_is_written() -> None:
    page = Path(__file__).parents[2] / "docs" / "formats" / "packing-list.md"
    (shown,) = re.findall(r"```text\n(.*?)```", page.read_text(), re.S)
    files = [
        Packed(name, int(size.replace(",", "")), digits)
        for digits, size, name in re.findall(r"^  (\w{8}) +([\d,]+) B  (\S+)$", shown, re.M)
    ]
    assert len(files) == 2
    content = PackingList("walk, 58ddaf29", 1, "hospital-a (site)", ("uni-lead",), tuple(files))
    assert content.text() == shown


def test_the_packing_lists_of_two_senders_lie_side_by_side(small: Small) -> None:
    for site in small.sites.values():
        for _ in range(2):
            export(site, small.medium())
    assert len([name for name in names(small.medium()) if "packing-list" in name]) == 2


# --- names --------------------------------------------------------------------------------------

DEVICES = {"con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in range(10))}


def is_allowed(name: str) -> bool:
    try:
        check_name(name)
    except UsageError:
        return False
    return True


SLUGS = st.from_regex(SLUG, fullmatch=True).filter(is_allowed)


@given(st.data())
def test_every_name_that_export_writes_is_safe_on_fat32_exfat_and_windows(
    small_known: Federation, data: st.DataObject
) -> None:
    senders = data.draw(st.lists(SLUGS, min_size=2, max_size=3, unique=True))
    federation_name = data.draw(SLUGS)
    plan = small_known.first_plan.model_copy(update={"name": federation_name})
    entry = dataclasses.replace(small_known.plans[0], plan=plan)
    known = dataclasses.replace(small_known, plans=(entry,))
    written = []
    for sender in senders:
        number, edition = data.draw(st.integers(1, 9999)), data.draw(st.integers(1, 99))
        for kind in Kind:
            about = SimpleNamespace(round=number, edition=edition, sender=sender, kind=kind)
            written.append(known.weights_name(about))
        written.append(f"{known.file_stem(about)}.record.json")
        written += [f"{sender}.enrolment.json", f"{sender}.release.enrolment.json"]
        written.append(f"{known.prefix}.{sender}.plan.v{number:04d}.acceptance.json")
        written.append(packing_list.file_name(known.prefix, sender))
        written.append(packing_list.file_name("", sender))
    written += [f"{known.prefix}.start.json", f"{known.prefix}.roster.v0001.json"]
    written += [f"{name}{more}" for name in written for more in (".sig", ".age")]
    assert len({name.casefold() for name in written}) == len(written)
    for name in written:
        assert len(name) <= 200
        assert re.fullmatch(r"[a-z0-9.-]+", name)
        assert not name.endswith((".", " "))
        assert name.split(".")[0] not in DEVICES


@pytest.fixture(scope="module")
def small_known(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return a_federation(tmp_path_factory.mktemp("names")).known


# --- signed by hand -----------------------------------------------------------------------------

needs_openssh = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in ("ssh-agent", "ssh-add", "ssh-keygen")),
    reason="OpenSSH is not installed",
)


@pytest.fixture
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An ssh-agent of this test alone: the environment in which its tools find it."""
    with tempfile.TemporaryDirectory(prefix="agent") as folder:
        address = f"{folder}/socket"
        with subprocess.Popen(["ssh-agent", "-D", "-a", address], stdout=subprocess.DEVNULL) as own:
            try:
                for _ in range(200):
                    if Path(address).exists():
                        break
                    time.sleep(0.02)
                yield {**os.environ, "SSH_AUTH_SOCK": address}
            finally:
                own.terminate()


def into_the_agent(site: Workspace, agent: dict[str, str]) -> Workspace:
    """Move the private key of a workspace into the agent; only the public one stays."""
    subprocess.run(["ssh-add", "-q", site.key_path], check=True, env=agent)
    site.key_path.unlink()
    return workspace.with_key(site, f"{site.key}.pub")


def sign_by_hand(done: Exported, agent: dict[str, str]) -> None:
    for path in done.unsigned:
        command = ["ssh-keygen", "-Y", "sign", "-n", "brainfed", "-f", done.public_key, path]
        subprocess.run(command, check=True, capture_output=True, env=agent)


@needs_openssh
@pytest.mark.parametrize("encryption", ["off", "where-possible"])
def test_a_key_in_an_agent_signs_and_the_other_side_sees_no_difference(
    tmp_path: Path, agent: dict[str, str], encryption: str
) -> None:
    if encryption != "off":
        pytest.importorskip("pyrage", reason="the extra [encrypt] is not installed")
    small = a_federation(tmp_path, plan=a_plan(exchange={"encryption": encryption}))
    site = into_the_agent(small.sites["hospital-a"], agent)
    path = train(site)
    with pytest.raises(WorkspaceError, match="agent") as caught:
        export(site, small.medium())
    assert "--unsigned" in str(caught.value.hint)
    done = export(site, None, unsigned=True)
    assert {path.parent for path in done.unsigned} == {site.outbox}
    assert len(done.unsigned) == 2
    assert (site.outbox / path.name).read_bytes() == path.read_bytes()
    sign_by_hand(done, agent)
    assert export(site, None, unsigned=True).unsigned == ()  # they are taken over
    export(site, small.medium())
    assert path.name not in names(small.medium()) or encryption == "off"
    signed = signature.verify_file(path)
    assert signed.key == site.public_key()
    taken = take(small.coordinator, small.medium())
    assert [file.verdict.value for file in taken.files] == ["accepted", "accepted"]
    theirs = small.coordinator.round_folder(1) / path.name
    assert signature.verify_file(theirs) == dataclasses.replace(signed, path=theirs)
    assert ledger.missing(site.ledger_path, site.round_folder(1)) == []


@needs_openssh
def test_what_was_signed_on_the_medium_is_taken(tmp_path: Path, agent: dict[str, str]) -> None:
    small = a_federation(tmp_path, plan=a_plan(exchange={"encryption": "off"}))
    site = into_the_agent(small.sites["hospital-a"], agent)
    train(site)
    done = export(site, small.medium(), unsigned=True)
    assert not any(name.endswith(".sig") for name in names(small.medium()))
    sign_by_hand(done, agent)
    taken = take(small.coordinator, small.medium())
    assert [file.verdict.value for file in taken.files] == ["accepted", "accepted"]


def test_a_signature_in_the_outbox_by_another_key_or_over_other_bytes_is_not_taken_over(
    small: Small,
) -> None:
    site = small.sites["hospital-a"]
    export(site, None)  # the acceptance, which no update leaves without, has its signature
    path = train(site)
    outbox = site.outbox / path.name
    for signer, namespace in ((a_key(9), "brainfed"), (site.private_key(), "git")):
        export(site, None, unsigned=True)
        digest = signature.digest_of(path)
        armored = sshsig.sign(signer, digest, namespace).armored
        signature.signature_path(outbox).write_bytes(armored)
        assert export(site, None, unsigned=True).unsigned == (outbox,)
        assert not signature.signature_path(path).exists()
    export(site, small.medium())
    assert signature.verify_file(small.medium() / path.name).key == site.public_key()


def test_the_coordinator_has_nothing_to_sign_by_hand(small: Small) -> None:
    with pytest.raises(WrongRoleError):
        export(small.coordinator, None, unsigned=True)


# --- encryption ---------------------------------------------------------------------------------


def an_encrypting_federation(root: Path, encryption: str = "where-possible") -> Small:
    pytest.importorskip("pyrage", reason="the extra [encrypt] is not installed")
    return a_federation(root, plan=a_plan(exchange={"encryption": encryption}))


@pytest.mark.parametrize("encryption", ["where-possible", "required"])
def test_weights_travel_encrypted_and_everything_ends_as_in_the_clear(
    tmp_path: Path, encryption: str
) -> None:
    small = an_encrypting_federation(tmp_path, encryption)
    close_round(small)
    seen = [path for path in (tmp_path / "media").rglob("*") if path.is_file()]
    assert any(path.suffix == ".age" for path in seen)
    for path in seen:
        assert path.read_bytes()[8:10] != b'{"', f"{path} holds plain weights"
    for site in small.sites.values():
        assert not list(site.outbox.glob("*.safetensors"))
        theirs = rounds.global_path(small.coordinator, 1)
        mine = rounds.global_path(site, 1)
        assert mine is not None
        assert theirs is not None
        assert mine.read_bytes() == theirs.read_bytes()


def test_an_update_is_for_the_coordinator_alone(tmp_path: Path) -> None:
    small = an_encrypting_federation(tmp_path)
    site, other = small.sites.values()
    path = train(site)
    export(site, small.medium())
    (file,) = [f for f in take(other, small.medium()).files if f.name.endswith(".age")]
    assert (file.verdict, file.error) == (Verdict.IGNORED, None)
    assert "encrypted for others" in file.what
    assert not any(other.inbox.iterdir())
    other.identity_path.unlink()
    (file,) = [f for f in take(other, small.medium()).files if f.name.endswith(".age")]
    assert "no age identity" in str(file.error)
    there = small.medium() / f"{path.name}.age"
    assert mode_of(site.outbox / there.name) == 0o600
    there.write_bytes(there.read_bytes()[:-3])
    (file,) = [f for f in take(small.coordinator, small.medium()).files if f.name == there.name]
    assert "damaged" in str(file.error)
    assert not any(small.coordinator.inbox.iterdir())


def test_encrypted_weights_in_a_zip_and_under_other_names_are_taken(tmp_path: Path) -> None:
    small = an_encrypting_federation(tmp_path)
    site = small.sites["hospital-a"]
    train(site)
    export(site, small.medium())
    with zipfile.ZipFile(small.medium("portal") / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number, path in enumerate(sorted(small.medium().iterdir())):
            archive.write(path, str(number))
    done = take(small.coordinator, small.medium("portal"))
    assert {file.verdict.value for file in done.files} <= {"accepted", "already there"}
    assert rounds.update_paths(small.coordinator, 1)


@pytest.mark.skipif(shutil.which("age") is None, reason="Debian's age is not installed")
def test_debians_age_opens_what_was_exported_and_its_files_are_imported(tmp_path: Path) -> None:
    small = an_encrypting_federation(tmp_path)
    site = small.sites["hospital-a"]
    path = train(site)
    export(site, small.medium())
    there = small.medium() / f"{path.name}.age"
    command = ["age", "-d", "-i", str(small.coordinator.identity_path), str(there)]
    assert subprocess.run(command, check=True, capture_output=True).stdout == path.read_bytes()
    recipient = small.known.roster.coordinator.recipient
    assert recipient is not None
    subprocess.run(["age", "-r", recipient, "-o", str(there), str(path)], check=True)
    assert not take(small.coordinator, small.medium()).refused
    assert rounds.update_paths(small.coordinator, 1)


def a_reader_without_a_recipient(tmp_path: Path, encryption: str) -> Small:
    small = an_encrypting_federation(tmp_path, encryption)
    late = a_workspace(tmp_path / "late", Role.SITE, "hospital-c")
    path = enrolment_of(late)
    attacks.edit_json(path, attacks.setting("recipient", None))
    sign(path, late)
    admit(small.coordinator, [path], confirm=say_yes)
    return small


def test_where_a_reader_has_no_recipient_weights_travel_in_the_clear(tmp_path: Path) -> None:
    small = a_reader_without_a_recipient(tmp_path, "where-possible")
    assert not any(name.endswith(".age") for name in export(small.coordinator, None).outbox)


def test_where_encryption_is_required_the_one_who_lacks_a_recipient_is_named(
    tmp_path: Path,
) -> None:
    small = a_reader_without_a_recipient(tmp_path, "required")
    with pytest.raises(NotReadyError) as caught:
        export(small.coordinator, small.medium())
    assert "hospital-c" in str(caught.value.found)
    assert names(small.medium()) == []
    assert not list(small.coordinator.outbox.glob("*.safetensors"))
    assert not any("safetensors" in name for name in fill_outbox(small.coordinator))


def test_without_the_extra_nothing_leaves_in_the_clear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = an_encrypting_federation(tmp_path)
    site = small.sites["hospital-a"]
    train(site)
    export(site, small.medium())
    monkeypatch.setitem(sys.modules, "pyrage", None)
    monkeypatch.setattr(courier, "is_available", lambda: False)
    with pytest.raises(ResourceError, match="extra"):
        export(site, small.medium("second"))
    assert names(small.medium("second")) == []
    (file,) = [f for f in take(small.coordinator, small.medium()).files if "update" in f.name]
    assert isinstance(file.error, NotReadyError)
    assert "pip install" in str(file.error.hint)


def test_unsigned_weights_that_are_to_be_encrypted_do_not_leave(tmp_path: Path) -> None:
    small = an_encrypting_federation(tmp_path)
    site = small.sites["hospital-a"]
    train(site)
    with pytest.raises(UsageError, match="encrypted"):
        export(site, small.medium(), unsigned=True)
    assert names(small.medium()) == []
