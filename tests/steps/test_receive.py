import atexit
import functools
import json
import os
import pickle
import random
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from brainfed.core import sshsig
from brainfed.errors import (
    BrainfedError,
    ConflictError,
    FileRefusedError,
    MalformedError,
    NotReadyError,
    PlanError,
    ResourceError,
    SignatureError,
    StrangerError,
    TensorsError,
    TooLargeError,
    UnsignedError,
    UsageError,
    WrongFederationError,
    WrongRoleError,
    WrongRoundError,
)
from brainfed.formats import (
    atomic,
    document,
    federation,
    ledger,
    medium,
    rounds,
    signature,
    weights,
)
from brainfed.formats.manifest import Kind
from brainfed.formats.record import Record
from brainfed.formats.roster import Role, Roster
from brainfed.formats.workspace import Workspace
from brainfed.steps import accept, pairing
from brainfed.steps import receive as receive_module
from brainfed.steps.accept import JoinRequest
from brainfed.steps.admit import admit
from brainfed.steps.aggregate import aggregate
from brainfed.steps.exchange import export
from brainfed.steps.receive import Import, receive
from brainfed.steps.rotate import rotate
from brainfed.steps.verdict import Verdict
from tests import attacks
from tests.builders import a_plan
from tests.federation import (
    DIGESTS,
    TODAY,
    Small,
    a_federation,
    a_key,
    a_workspace,
    an_unstarted_federation,
    carry,
    close_round,
    copy_of,
    enrolment_of,
    leftovers,
    random_weights,
    say_yes,
    sign,
    snapshot,
    take,
    train,
)
from tests.formats.test_weights import MALFORMED, TENSORS

IN_THE_CLEAR = a_plan(exchange={"encryption": "off"})
NO_COUNTS = dict.fromkeys(("split", "n_patients", "n_cases", "n_slices", "n_validation"))


@pytest.fixture
def small(tmp_path: Path) -> Small:
    """A federation whose coordinator has the sites' acceptances of the plan."""
    return copy_of(_accepted(), tmp_path)


@functools.cache
def _accepted() -> Small:
    root = Path(tempfile.mkdtemp(prefix="brainfed-test-"))
    atexit.register(shutil.rmtree, root)
    small = a_federation(root, plan=IN_THE_CLEAR)
    for site in small.sites.values():
        carry(site, small.coordinator, small.medium(f"acceptance-{site.name}"))
    return small


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """A federation with one closed round, for copies."""
    small = a_federation(tmp_path_factory.mktemp("closed"), plan=IN_THE_CLEAR)
    close_round(small)
    return small


def an_update_on_a_stick(small: Small, **changes: object) -> Path:
    """A signed update of hospital-a on the stick; gives its path there."""
    return an_update_of(small.sites["hospital-a"], small.medium(), **changes)


def an_update_of(site: Workspace, medium: Path, **changes: object) -> Path:
    """As exported, without what else a site sends along."""
    path = train(site, **changes)
    export(site, medium)
    for other in [*medium.glob("*.acceptance.json*"), *medium.glob("*.packing-list.txt")]:
        other.unlink()
    return medium / path.name


def verdicts(done: Import) -> list[str]:
    return [file.verdict.value for file in done.files]


def refused(place: Workspace, *sources: Path) -> BrainfedError:
    """Import what must be refused, and nothing may have changed; gives the first error."""
    before = snapshot(place)
    done = take(place, *sources)
    assert done.refused, verdicts(done)
    assert snapshot(place) == before
    assert not any(place.inbox.iterdir())
    assert leftovers(place.root) == []
    error = done.refused[0].error
    assert error is not None
    last = ledger.read(place.ledger_path)[-1]
    assert last["event"] == "refused"
    return error


# --- what is taken -----------------------------------------------------------------------------


def test_a_site_joins_after_it_was_shown_whom_and_what(tmp_path: Path) -> None:
    small = a_federation(tmp_path, joined=False)
    shown: list[JoinRequest] = []

    def look(request: JoinRequest) -> bool:
        shown.append(request)
        return True

    site = small.sites["hospital-a"]
    export(small.coordinator, small.medium())
    done = receive(site, [small.medium()], confirm=look)
    assert verdicts(done) == ["accepted", "accepted"]
    (request,) = shown
    assert (request.coordinator, request.site) == ("uni-lead", "hospital-a")
    assert request.plan == a_plan()
    assert request.federation == small.known.digest
    assert request.fingerprint.startswith("SHA256:")
    assert rounds.newest_round(site) == 0


def test_without_the_confirmation_nothing_changes(tmp_path: Path) -> None:
    small = a_federation(tmp_path, joined=False)
    site = small.sites["hospital-a"]
    export(small.coordinator, small.medium())
    before = snapshot(site)
    done = receive(site, [small.medium()], confirm=lambda request: False)
    assert isinstance(done.files[0].error, StrangerError)
    assert {type(file.error) for file in done.files[1:]} == {NotReadyError}
    assert snapshot(site) == before


def test_importing_twice_changes_nothing_the_second_time(small: Small) -> None:
    an_update_on_a_stick(small)
    assert verdicts(take(small.coordinator, small.medium())) == ["accepted"]
    before = snapshot(small.coordinator)
    n_lines = len(ledger.read(small.coordinator.ledger_path))
    assert verdicts(take(small.coordinator, small.medium())) == ["already there"]
    assert snapshot(small.coordinator) == before
    assert len(ledger.read(small.coordinator.ledger_path)) == n_lines


def test_a_whole_round_travels(small: Small) -> None:
    done = close_round(small)
    for site in small.sites.values():
        path = rounds.global_path(site, 1)
        assert path is not None
        assert signature.digest_of(path).hex() == done.digest
        assert len(rounds.records(site, 1)) == 1


def test_a_single_file_is_taken_with_the_signature_beside_it(small: Small) -> None:
    path = an_update_on_a_stick(small)
    assert verdicts(take(small.coordinator, path)) == ["accepted"]


def test_files_are_known_by_their_content_not_by_their_names(small: Small) -> None:
    path = an_update_on_a_stick(small)
    signature.signature_path(path).rename(small.medium() / "attachment(1).bin")
    path.rename(small.medium() / "download.zip")
    assert verdicts(take(small.coordinator, small.medium())) == ["accepted"]
    name = path.name
    assert rounds.update_paths(small.coordinator, 1)[0].name == name


def test_signatures_whose_names_were_exchanged_are_put_right(small: Small) -> None:
    paths = [an_update_of(site, small.medium()) for site in small.sites.values()]
    first, second = (signature.signature_path(path) for path in paths)
    first.rename(small.root / "kept")
    second.rename(first)
    (small.root / "kept").rename(second)
    assert verdicts(take(small.coordinator, small.medium())) == ["accepted", "accepted"]


def test_a_sha512_signature_of_ssh_keygen_is_taken(small: Small) -> None:
    if shutil.which("ssh-keygen") is None:
        pytest.skip("OpenSSH's ssh-keygen is not installed")
    path = an_update_on_a_stick(small)
    signature.signature_path(path).unlink()
    key = small.sites["hospital-a"].key_path
    command = ["ssh-keygen", "-Y", "sign", "-n", "brainfed", "-O", "hashalg=sha512", "-f", key]
    subprocess.run([*command, path], check=True, capture_output=True)
    assert b"sha512" not in signature.signature_path(path).read_bytes()
    assert verdicts(take(small.coordinator, small.medium())) == ["accepted"]


def test_the_same_file_under_two_names_is_taken_once(small: Small) -> None:
    path = an_update_on_a_stick(small)
    for name in (path.name, signature.signature_path(path).name):
        shutil.copy(small.medium() / name, small.medium() / f"copy-{name}")
    done = take(small.coordinator, small.medium())
    assert sorted(verdicts(done)) == ["accepted", "already there"]
    assert any(file.what == f"the same file as copy-{path.name}" for file in done.files)


def test_a_strangers_signature_over_the_same_bytes_does_not_get_in_the_way(small: Small) -> None:
    path = an_update_on_a_stick(small)
    shutil.copy(path, small.medium() / "a-copy")  # comes first by name
    sign(small.medium() / "a-copy", a_key(9))
    assert sorted(verdicts(take(small.coordinator, small.medium()))) == ["accepted", "refused"]


def test_foreign_files_are_counted_and_left_alone(small: Small) -> None:
    an_update_on_a_stick(small)
    deep = small.medium() / "a" / "b" / "c"
    deep.mkdir(parents=True)
    for folder in (small.medium(), deep):
        (folder / "holiday.jpg").write_bytes(b"\xff\xd8\xff")
        (folder / "empty").write_bytes(b"")
    done = take(small.coordinator, small.medium())
    assert verdicts(done) == ["accepted"]
    assert done.n_foreign == 4


def test_files_three_folders_down_are_found_and_deeper_ones_not(small: Small) -> None:
    path = an_update_on_a_stick(small)
    for depth, expected in ((3, ["accepted"]), (4, [])):
        folder = small.root / f"deep{depth}" / "/".join("abcd"[:depth])
        folder.mkdir(parents=True)
        for file in (path, signature.signature_path(path)):
            shutil.copy(file, folder)
        place = copy_of(small, small.root / f"copy{depth}").coordinator
        assert verdicts(take(place, small.root / f"deep{depth}")) == expected


def test_links_special_and_hidden_files_are_left_alone(small: Small) -> None:
    path = an_update_on_a_stick(small)
    other = small.medium("other")
    (other / "link.safetensors").symlink_to(path)
    (other / "link.safetensors.sig").symlink_to(signature.signature_path(path))
    (other / "folder").symlink_to(small.medium(), target_is_directory=True)
    shutil.copy(path, other / ".hidden")
    os.mkfifo(other / "pipe")
    done = take(small.coordinator, other)
    assert (done.files, done.n_foreign) == ((), 0)


def test_a_path_where_nothing_lies_is_a_usage_error(small: Small) -> None:
    with pytest.raises(UsageError):
        take(small.coordinator, small.root / "no-stick")


def test_a_newer_roster_is_taken_and_an_older_one_changes_nothing(
    small: Small, tmp_path: Path
) -> None:
    site = small.sites["hospital-a"]
    export(small.coordinator, small.medium("old"))
    late = a_workspace(tmp_path / "late", Role.SITE, "hospital-c")
    admit(small.coordinator, [enrolment_of(late)], confirm=say_yes)
    assert "accepted" in verdicts(carry(small.coordinator, site, small.medium("new")))
    assert federation.load(site).roster.version == 2
    assert b"hospital-c" in (site.federation_folder / "roster").read_bytes()
    before = snapshot(site)
    assert set(verdicts(take(site, small.medium("old")))) == {"already there"}
    assert snapshot(site) == before


def test_an_enrolment_on_the_stick_is_ignored_with_the_command_that_takes_it(
    small: Small, tmp_path: Path
) -> None:
    late = a_workspace(tmp_path / "late", Role.SITE, "hospital-c")
    for place in (small.coordinator, an_unstarted_federation(tmp_path / "b").coordinator):
        before = snapshot(place)
        done = take(place, late.outbox)
        assert verdicts(done) == ["ignored"]
        assert "brainfed admit" in done.files[0].what
        assert snapshot(place) == before


def test_a_sites_own_and_another_sites_update_are_ignored_at_a_site(small: Small) -> None:
    an_update_on_a_stick(small)
    for site in small.sites.values():
        before = snapshot(site)
        assert verdicts(take(site, small.medium())) == ["ignored"]
        assert snapshot(site) == before


def test_the_coordinators_own_files_at_the_coordinator_change_nothing(closed, tmp_path) -> None:
    small = copy_of(closed, tmp_path)
    export(small.coordinator, small.medium())
    before = snapshot(small.coordinator)
    assert set(verdicts(take(small.coordinator, small.medium()))) == {"already there"}
    assert snapshot(small.coordinator) == before


def test_one_bad_file_does_not_stop_the_good_ones(small: Small) -> None:
    an_update_on_a_stick(small)
    attacks.truncate(an_update_of(small.sites["hospital-b"], small.medium()))
    (small.medium() / "deep.json").write_bytes(attacks.nested_json(900))
    sign(small.medium() / "deep.json", a_key(9))
    done = take(small.coordinator, small.medium())
    assert sorted(verdicts(done)) == ["accepted", "refused", "refused"]


def test_a_refused_file_whose_name_is_not_utf8_does_not_stop_the_import(small: Small) -> None:
    path = an_update_on_a_stick(small)
    name_bytes = b"umlaut-\xe4[bold]\x1b[31m.json"
    (small.medium() / os.fsdecode(name_bytes)).write_bytes(b'{"kind":"x"}')
    done = take(small.coordinator, small.medium())
    assert sorted(verdicts(done)) == ["accepted", "refused"]
    names = [entry.get("file") for entry in ledger.read(small.coordinator.ledger_path)]
    assert names[-2:] == ["umlaut-?[bold]\x1b[31m.json", path.name]


# --- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_a_flipped_bit_anywhere_in_an_update_is_refused(small: Small, seed: int) -> None:
    path = an_update_on_a_stick(small)
    chance = random.Random(seed)
    bits = 8 * path.stat().st_size
    # Half of them in the first bytes, by which the kind of a file is told.
    attacks.flip_bit(path, chance.randrange(bits) if seed % 2 else chance.randrange(80))
    assert isinstance(refused(small.coordinator, small.medium()), SignatureError | TooLargeError)


@pytest.mark.parametrize("seed", range(12))
def test_a_flipped_bit_anywhere_in_a_signature_is_refused(small: Small, seed: int) -> None:
    path = signature.signature_path(an_update_on_a_stick(small))
    attacks.flip_bit(path, random.Random(seed).randrange(8 * path.stat().st_size))
    # A bit of the key in it makes another key: the roster doesn't know it, and nothing is copied.
    assert isinstance(refused(small.coordinator, small.medium()), SignatureError | StrangerError)


@pytest.mark.parametrize("name", ["start.json", "roster", "record.json", "global.safetensors"])
@pytest.mark.parametrize("seed", range(3))
def test_a_flipped_bit_in_what_the_coordinator_sends_is_refused(
    closed: Small, tmp_path: Path, name: str, seed: int
) -> None:
    small = copy_of(closed, tmp_path)
    site = a_federation(tmp_path / "fresh").sites["hospital-a"]
    shutil.rmtree(site.root)
    shutil.copytree(small.sites["hospital-a"].root, site.root)
    shutil.rmtree(site.round_folder(1))  # as it was before the round came back
    late = a_workspace(tmp_path / "late", Role.SITE, "hospital-c")
    admit(small.coordinator, [enrolment_of(late)], confirm=say_yes)
    export(small.coordinator, small.medium())
    (path,) = [p for p in small.medium().iterdir() if name in p.name and p.suffix != ".sig"]
    chance = random.Random(seed)
    attacks.flip_bit(path, chance.randrange(8 * path.stat().st_size))
    for other in small.medium().iterdir():
        if other not in {path, signature.signature_path(path)}:
            other.unlink()
    assert isinstance(refused(site, small.medium()), SignatureError)


def without_signature(path: Path) -> None:
    signature.signature_path(path).unlink()


@pytest.mark.parametrize(
    ("attack", "error"),
    [
        (attacks.truncate, SignatureError),
        (attacks.append, SignatureError),
        (lambda path: attacks.put_value(path, 0, 1.0), SignatureError),
        (lambda path: attacks.claim_header_of(path, 100 * 2**20), SignatureError),
        (without_signature, UnsignedError),
        (lambda path: attacks.truncate(signature.signature_path(path), 30), SignatureError),
        (lambda path: signature.signature_path(path).write_bytes(b""), SignatureError),
        (lambda path: sign(path, a_key(9)), StrangerError),
    ],
)
def test_a_file_without_a_good_signature_is_refused(
    small: Small, attack: Callable[[Path], object], error: type[FileRefusedError]
) -> None:
    path = an_update_on_a_stick(small)
    attack(path)
    found = refused(small.coordinator, small.medium())
    assert type(found) is error
    assert str(path) in str(found.where)


@pytest.mark.parametrize("name", MALFORMED)
def test_even_the_owner_of_the_key_can_not_send_another_form(small: Small, name: str) -> None:
    path = an_update_on_a_stick(small)
    MALFORMED[name](path)
    sign(path, small.sites["hospital-a"])
    assert isinstance(refused(small.coordinator, small.medium()), MalformedError)


@pytest.mark.parametrize("name", TENSORS)
def test_even_the_owner_of_the_key_can_not_send_other_tensors(small: Small, name: str) -> None:
    path = an_update_on_a_stick(small)
    TENSORS[name](path)
    sign(path, small.sites["hospital-a"])
    found = refused(small.coordinator, small.medium())
    assert isinstance(found, TensorsError)
    assert str(path) in str(found.where)
    assert ".tmp-" not in str(found)


def test_a_100_mb_header_is_refused_by_its_claim_and_by_its_size(small: Small) -> None:
    path = an_update_on_a_stick(small)
    attacks.claim_header_of(path, 100 * 2**20)
    sign(path, small.sites["hospital-a"])
    assert isinstance(refused(small.coordinator, small.medium()), TooLargeError)
    with path.open("r+b") as stream:
        stream.truncate(100 * 2**20)
    assert isinstance(refused(small.coordinator, small.medium()), TooLargeError)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"federation": DIGESTS["one"]}, WrongFederationError),
        ({"plan": {"version": 1, "digest": DIGESTS["one"]}}, WrongFederationError),
        ({"plan": {"version": 2, "digest": DIGESTS["one"]}}, WrongFederationError),
        ({"purpose": "simulation"}, WrongRoundError),
        ({"round": 2}, WrongRoundError),
        ({"round": 9999}, WrongRoundError),
        ({"parent": DIGESTS["one"]}, WrongRoundError),
        ({"sender": "hospital-b"}, StrangerError),
        ({"sender": "uni-lead"}, StrangerError),
        ({"kind": Kind.GLOBAL, **NO_COUNTS}, StrangerError),
        ({"kind": Kind.STATE, **NO_COUNTS}, StrangerError),
        ({"n_patients": 0}, MalformedError),
    ],
    ids=str,
)
def test_an_update_that_belongs_elsewhere_is_refused(
    small: Small, changes: dict[str, object], error: type[FileRefusedError]
) -> None:
    site = small.sites["hospital-a"]
    shutil.copy(train(site, **changes), small.medium() / "u")
    sign(small.medium() / "u", site)
    assert type(refused(small.coordinator, small.medium())) is error


def test_an_update_signed_by_another_site_is_refused(small: Small) -> None:
    sign(an_update_on_a_stick(small), small.sites["hospital-b"])
    assert isinstance(refused(small.coordinator, small.medium()), StrangerError)


def test_the_coordinator_can_not_send_an_update_in_a_sites_name(small: Small) -> None:
    sign(an_update_on_a_stick(small), small.coordinator)
    assert isinstance(refused(small.coordinator, small.medium()), StrangerError)


def test_a_second_other_update_of_a_site_is_refused_and_the_first_stays(small: Small) -> None:
    path = an_update_on_a_stick(small)
    take(small.coordinator, small.medium())
    attacks.put_value(path, 0, 1.0)
    sign(path, small.sites["hospital-a"])
    assert isinstance(refused(small.coordinator, small.medium()), ConflictError)
    attacks.edit_manifest(path, attacks.setting("edition", 2))
    sign(path, small.sites["hospital-a"])
    assert isinstance(refused(small.coordinator, small.medium()), ConflictError)


def test_of_two_different_updates_on_one_stick_one_is_taken(small: Small) -> None:
    path = an_update_on_a_stick(small)
    other = small.medium() / "other"
    shutil.copy(path, other)
    attacks.put_value(other, 0, 1.0)
    sign(other, small.sites["hospital-a"])
    assert sorted(verdicts(take(small.coordinator, small.medium()))) == ["accepted", "refused"]
    assert len(rounds.update_paths(small.coordinator, 1)) == 1


def test_an_update_two_rounds_late_is_refused_by_name_of_its_round(tmp_path: Path) -> None:
    plan = a_plan(participation={"quorum_sites": 1, "floor": 1}, exchange={"encryption": "off"})
    small = a_federation(tmp_path, plan=plan)
    for site in small.sites.values():
        carry(site, small.coordinator, small.medium(f"acceptance-{site.name}"))
    an_update_of(small.sites["hospital-b"], small.medium("late"))
    for number in (1, 2):
        stick = small.medium(f"round {number}")
        an_update_of(small.sites["hospital-a"], stick)
        take(small.coordinator, stick)
        aggregate(small.coordinator, today=TODAY)
        carry(small.coordinator, small.sites["hospital-a"], small.medium(f"back {number}"))
    found = refused(small.coordinator, small.medium("late"))
    assert isinstance(found, WrongRoundError)
    assert "closed" in found.message
    assert (found.expected, found.found) == ("round 3", "round 1")


def test_a_site_that_the_roster_does_not_name_is_told_so(small: Small, tmp_path: Path) -> None:
    stranger = a_workspace(tmp_path / "z", Role.SITE, "hospital-z")
    done = carry(small.coordinator, stranger, small.medium())
    (error,) = [file.error for file in done.refused]
    assert isinstance(error, StrangerError)
    assert "no such name" in str(error.found)
    assert "brainfed admit" in str(error.hint)
    assert rounds.newest_round(stranger) is None


def test_a_party_whose_name_the_roster_gives_to_another_key_sends_its_enrolment_alone(
    small: Small, tmp_path: Path
) -> None:
    twin = a_workspace(tmp_path / "twin", Role.SITE, "hospital-a")
    carry(small.coordinator, twin, small.medium())
    assert export(twin, small.medium("twin")).outbox[0] == "hospital-a.enrolment.json"
    assert verdicts(take(small.coordinator, small.medium("twin"))) == ["ignored"]


def test_a_site_that_has_joined_takes_no_other_start(small: Small, tmp_path: Path) -> None:
    site = small.sites["hospital-a"]
    # The same coordinator's key starts another federation: a copy that has not yet started.
    again = copy_of(small, tmp_path / "again").coordinator
    path = again.federation_folder / "start.json"
    attacks.edit_json(path, attacks.setting("nonce", "f" * 32))
    sign(path, again)
    shutil.copy(path, small.medium() / "start.json")
    shutil.copy(f"{path}.sig", small.medium() / "start.json.sig")
    assert isinstance(refused(site, small.medium()), WrongFederationError)
    other = an_unstarted_federation(tmp_path / "other", ("hospital-z",))
    sign(small.medium() / "start.json", other.coordinator)
    assert isinstance(refused(site, small.medium()), StrangerError)


def sign_for_a_release(path: Path, key: Ed25519PrivateKey) -> None:
    armored = sshsig.sign(key, signature.digest_of(path), sshsig.RELEASE_NAMESPACE).armored
    signature.signature_path(path).write_bytes(armored)


def test_a_start_signed_for_a_release_joins_nobody_and_the_good_one_then_does(
    tmp_path: Path,
) -> None:
    small = a_federation(tmp_path, joined=False)
    site = small.sites["hospital-a"]
    export(small.coordinator, small.medium())
    shutil.copytree(small.medium(), small.root / "good")
    (path,) = small.medium().glob("*.start.json")
    sign_for_a_release(path, small.coordinator.private_key())
    for other in small.medium().iterdir():
        if path.name not in other.name:
            other.unlink()
    found = refused(site, small.medium())
    assert isinstance(found, SignatureError)
    assert found.found == "namespace brainfed-release"
    assert "refused" not in verdicts(take(site, small.root / "good"))


def test_a_roster_that_the_recovery_key_signed_for_a_release_is_refused(small: Small) -> None:
    site, lead = small.sites["hospital-a"], small.coordinator
    key = signature.load_key(lead.recovery_path)
    rotate(lead, recovery=lead.recovery_path)
    path = Path(shutil.copy(federation.roster_path(lead, 2), small.medium()))
    sign_for_a_release(path, key)
    assert isinstance(refused(site, small.medium()), SignatureError)
    sign(path, key)
    assert verdicts(take(site, small.medium())) == ["accepted"]
    assert federation.load(site).roster.version == 2


def test_an_enrolment_signed_for_a_release_is_refused(small: Small, tmp_path: Path) -> None:
    late = a_workspace(tmp_path / "late", Role.SITE, "hospital-c")
    path = Path(shutil.copy(enrolment_of(late), small.medium()))
    sign_for_a_release(path, late.private_key())
    assert isinstance(refused(small.coordinator, small.medium()), SignatureError)


def test_a_start_signed_by_a_site_joins_nobody(tmp_path: Path) -> None:
    small = a_federation(tmp_path, joined=False)
    export(small.coordinator, small.medium())
    (path,) = small.medium().glob("*.start.json")
    for other in small.medium().iterdir():
        if other != path:
            other.unlink()
    sign(path, small.sites["hospital-b"])
    found = refused(small.sites["hospital-a"], small.medium())
    assert isinstance(found, StrangerError)


def test_a_federation_that_needs_a_newer_brainfed_is_not_joined(tmp_path: Path) -> None:
    small = a_federation(tmp_path, plan=a_plan(terms={"minimum_version": "99.0.0"}), joined=False)
    export(small.coordinator, small.medium())
    found = refused(small.sites["hospital-a"], small.medium())
    assert isinstance(found, WrongFederationError)
    assert found.expected == "99.0.0 or later"


def test_a_start_at_a_coordinator_that_has_not_started_is_refused(
    small: Small, tmp_path: Path
) -> None:
    other = an_unstarted_federation(tmp_path / "other").coordinator
    export(small.coordinator, small.medium())
    found = refused(other, small.medium())
    assert isinstance(found, WrongRoleError | NotReadyError)


def test_an_update_before_joining_is_not_ready(small: Small, tmp_path: Path) -> None:
    an_update_on_a_stick(small)
    fresh = a_workspace(tmp_path / "fresh", Role.SITE, "hospital-z")
    assert isinstance(refused(fresh, small.medium()), NotReadyError)


def test_a_changed_plan_stops_the_import(small: Small) -> None:
    an_update_on_a_stick(small)
    path = small.coordinator.federation_folder / "plan.toml"
    path.write_text(path.read_text() + "# mine\n")
    with pytest.raises(PlanError):
        take(small.coordinator, small.medium())
    assert not any(small.coordinator.inbox.iterdir())


@pytest.mark.parametrize(
    "data",
    [
        b'{"kind":"start"}',
        b'{"kind":"roster"}',
        b'{"kind":"record"}',
        b'{"kind":"something-new"}',
        b'{"kind":7}',
        b'{"a":1}',
        b'{"a": 1}',
        b'{"',
        b"hello",
        b"",
        attacks.nested_json(900),
        attacks.nested_json(100_000),
    ],
    ids=lambda data: repr(data[:24]),
)
def test_signed_nonsense_is_refused(small: Small, data: bytes) -> None:
    (small.medium() / "x").write_bytes(data)
    sign(small.medium() / "x", small.coordinator)
    assert isinstance(refused(small.sites["hospital-a"], small.medium()), FileRefusedError)
    sign(small.medium() / "x", a_key(9))
    assert isinstance(refused(small.sites["hospital-a"], small.medium()), FileRefusedError)


def test_a_json_file_over_4_mib_is_refused(small: Small) -> None:
    path = small.medium() / "x"
    path.write_bytes(b'{"' + b" " * document.MAX_JSON_BYTES)
    sign(path, small.coordinator)
    assert isinstance(refused(small.sites["hospital-a"], small.medium()), TooLargeError)


def test_refused_copies_are_not_piled_up_until_the_end(small: Small) -> None:
    for number in range(20):
        (small.medium() / f"{number}.json").write_bytes(b'{"kind":"x"}')
    in_the_inbox = []

    def look(what: str, done: int, total: int, note: str = "") -> None:
        in_the_inbox.append(len(list(small.coordinator.inbox.iterdir())))

    receive(small.coordinator, [small.medium()], confirm=say_yes, progress=look)
    assert len(in_the_inbox) == 20
    assert max(in_the_inbox) <= 1


# --- what waits in the inbox -------------------------------------------------------------------


@pytest.fixture
def inbox(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes that lie in the inbox whenever a file's turn to be accepted comes."""
    sizes: list[int] = []
    original = accept.accept

    def look(place: Workspace, *arguments: object, **named: object) -> object:
        sizes.append(sum(path.stat().st_size for path in place.inbox.iterdir()))
        return original(place, *arguments, **named)

    monkeypatch.setattr(accept, "accept", look)
    return sizes


def keep(monkeypatch: pytest.MonkeyPatch, n_bytes: int, n_weights: int = 0) -> None:
    monkeypatch.setattr(receive_module, "KEPT_BYTES", n_bytes)
    monkeypatch.setattr(receive_module, "KEPT_WEIGHTS", n_weights)


def test_what_does_not_fit_into_the_inbox_is_copied_again_in_its_turn(
    small: Small, monkeypatch: pytest.MonkeyPatch, inbox: list[int]
) -> None:
    close_round(small)
    late = a_workspace(small.root / "late", Role.SITE, "hospital-c")
    admit(small.coordinator, [enrolment_of(late)], confirm=say_yes)
    export(small.coordinator, small.medium("back"))
    stick = small.medium("stick")
    with zipfile.ZipFile(stick / "z.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number, path in enumerate(sorted(small.medium("back").iterdir())):
            if "packing-list" not in path.name:
                archive.write(path, f"renamed-{number}")
    site = without_round_1(small.sites["hospital-a"])
    other = copy_of(small, small.root / "other").sites["hospital-a"]
    reference = take(site, stick)
    keep(monkeypatch, 0)
    inbox.clear()
    done = take(other, stick)
    assert [(f.name, f.verdict, f.what) for f in done.files] == [
        (f.name, f.verdict, f.what) for f in reference.files
    ]
    assert verdicts(done).count("accepted") >= 3
    assert snapshot(other) == snapshot(site)
    largest = max(path.stat().st_size for path in small.medium("back").iterdir())
    assert 0 < max(inbox) <= largest + sshsig.MAX_SIGNATURE_BYTES


def test_a_strangers_json_is_neither_kept_nor_copied_a_second_time(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        path = small.medium() / f"{number:02d}.json"
        path.write_bytes(b'{"kind":"record","n":%d,"x":"%s"}' % (number, b"a" * 50_000))
        sign(path, a_key(9))
    keep(monkeypatch, 200_000)
    copied = Counted(monkeypatch, atomic, "stage")
    waiting = []
    check = receive_module._Run._check_key

    def look(run, staged) -> None:
        waiting.append(sum(path.stat().st_size for path in small.coordinator.inbox.iterdir()))
        check(run, staged)

    monkeypatch.setattr(receive_module._Run, "_check_key", look)
    done = take(small.coordinator, small.medium())
    assert {type(file.error) for file in done.files} == {StrangerError}
    assert copied.n == 2 * 30  # each with its signature, once
    assert 100_000 < waiting[0] <= 200_000
    assert waiting[-1] == 0  # each copy is gone after its turn
    assert ledger.read(small.coordinator.ledger_path)[-1]["event"] == "refused"


def test_many_weights_of_one_site_do_not_fill_the_inbox(
    small: Small, monkeypatch: pytest.MonkeyPatch, inbox: list[int]
) -> None:
    site = small.sites["hospital-a"]
    path = an_update_on_a_stick(small)
    size = path.stat().st_size
    for number in range(12):
        other = small.medium() / f"u{number}"
        shutil.copy(path, other)
        attacks.put_value(other, 0, float(number))
        sign(other, site)
    keep(monkeypatch, 3 * size)
    done = take(small.coordinator, small.medium())
    assert sorted(set(verdicts(done))) == ["accepted", "refused"]
    assert verdicts(done).count("accepted") == 1
    assert len(inbox) == len(done.files)
    assert max(inbox) <= 3 * size
    assert not any(small.coordinator.inbox.iterdir())


def test_a_file_that_changes_between_its_two_copies_is_refused(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = an_update_on_a_stick(small)
    keep(monkeypatch, 0)
    check = receive_module._Run._check_key

    def swap(run, staged) -> None:
        check(run, staged)
        attacks.put_value(path, 0, 9.0)

    monkeypatch.setattr(receive_module._Run, "_check_key", swap)
    assert isinstance(refused(small.coordinator, small.medium()), SignatureError)


# --- work that a medium can make ---------------------------------------------------------------


class Counted:
    """Counts the calls of a function and lets them through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: object, name: str) -> None:
        self.n = 0
        self._original = getattr(module, name)
        monkeypatch.setattr(module, name, self)

    def __call__(self, *arguments: object, **named: object) -> object:
        self.n += 1
        return self._original(*arguments, **named)


def signatures_of_nothing(small: Small, count: int, signer: Workspace | None = None) -> None:
    key = small.sites["hospital-a"].private_key() if signer is None else signer.private_key()
    for number in range(count):
        armored = sshsig.sign(key, number.to_bytes(32, "big")).armored
        (small.medium() / f"{number:05d}.sig").write_bytes(armored)


def test_ten_thousand_foreign_files_cost_a_look_each(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    an_update_on_a_stick(small)
    for number in range(10_000):
        (small.medium() / f"{number}.jpg").write_bytes(b"\xff\xd8\xff" + bytes(100))
    looked = Counted(monkeypatch, medium, "open_regular")
    verified = Counted(monkeypatch, sshsig, "verify")
    lines = Counted(monkeypatch, atomic, "append_lines")
    done = take(small.coordinator, small.medium())
    assert (verdicts(done), done.n_foreign) == (["accepted"], 10_000)
    assert looked.n == 10_000 + 3  # the update is looked at and copied, its signature looked at
    assert verified.n < 10
    assert lines.n == 1


def test_signatures_without_files_and_files_without_signatures_are_tried_a_bounded_number_of_times(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = an_update_on_a_stick(small)
    monkeypatch.setattr(pairing, "MAX_TRIES_IN_ALL", 2_000)
    signatures_of_nothing(small, 1_000)
    for number in range(300):
        (small.medium() / f"{number}.json").write_bytes(b'{"a":%d}' % number)
    verified = Counted(monkeypatch, sshsig, "verify")
    loaded = Counted(monkeypatch, federation, "load")
    flushed = Counted(monkeypatch, atomic, "append_lines")
    done = take(small.coordinator, small.medium())
    assert len(done.refused) == 300
    assert {file.path for file in done.files if file.verdict is Verdict.ACCEPTED} == {path}
    assert pairing.MAX_TRIES_IN_ALL <= verified.n < pairing.MAX_TRIES_IN_ALL + 300
    assert loaded.n < 5
    assert flushed.n == 2  # all refusals at once, and the update
    assert "alone" in str(done.refused[0].error)


def test_a_renamed_file_among_too_many_signatures_is_taken_alone(small: Small) -> None:
    path = an_update_on_a_stick(small)
    signature.signature_path(path).rename(small.medium() / "zzz")
    signatures_of_nothing(small, pairing.MAX_TRIES)
    found = refused(small.coordinator, small.medium())
    assert isinstance(found, UnsignedError)
    assert "alone" in str(found.hint)
    shutil.copy(path, small.medium("alone") / "u")
    shutil.copy(small.medium() / "zzz", small.medium("alone") / "s")
    assert verdicts(take(small.coordinator, small.medium("alone"))) == ["accepted"]


def test_signatures_by_strangers_are_not_tried_on_weights(small: Small) -> None:
    path = an_update_on_a_stick(small)
    signature.signature_path(path).rename(small.medium() / "zzz")
    other = an_unstarted_federation(small.root / "other").sites["hospital-a"]
    signatures_of_nothing(small, 2 * pairing.MAX_TRIES, other)
    assert verdicts(take(small.coordinator, small.medium())) == ["accepted"]


def test_nothing_large_is_copied_without_a_signature_that_may_belong_to_it(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = an_update_on_a_stick(small)
    fresh = a_workspace(small.root / "fresh", Role.SITE, "hospital-z")
    copied = Counted(monkeypatch, atomic, "stage")
    assert isinstance(refused(fresh, small.medium()), NotReadyError)
    sign(path, a_key(9))
    assert isinstance(refused(small.coordinator, small.medium()), StrangerError)
    signature.signature_path(path).unlink()
    assert isinstance(refused(small.coordinator, small.medium()), UnsignedError)
    assert copied.n == 0


def test_a_file_over_its_cap_is_not_read(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    path = an_update_on_a_stick(small)
    with path.open("r+b") as stream:
        stream.truncate(weights.largest_file(small.known.table) + 1)
    copied = Counted(monkeypatch, atomic, "stage")
    assert isinstance(refused(small.coordinator, small.medium()), TooLargeError)
    assert copied.n == 0


def test_an_import_hashes_an_update_once(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    an_update_on_a_stick(small)
    size = weights.largest_file(small.known.table)
    seen = []
    original = signature.digest_of

    def note(path: Path, algorithm: str = "sha256") -> bytes:
        seen.append(path)
        return original(path, algorithm)

    monkeypatch.setattr(signature, "digest_of", note)
    assert verdicts(take(small.coordinator, small.medium())) == ["accepted"]
    assert size > 0
    assert not [path for path in seen if ".update." in path.name or ".tmp-" in path.name]


# --- zips ---------------------------------------------------------------------------------------


def zipped(folder: Path, target: Path, *, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(target, "w", method) as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, f"../../evil/{path.name}")
    return target


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_of_a_portal_is_taken_and_its_names_become_no_paths(
    small: Small, method: int
) -> None:
    an_update_on_a_stick(small)
    folder = small.medium("portal")
    zipped(small.medium(), folder / "download.zip", method=method)
    outside = {path for path in small.root.rglob("*") if "evil" in path.name}
    assert verdicts(take(small.coordinator, folder)) == ["accepted"]
    assert outside == {path for path in small.root.rglob("*") if "evil" in path.name} == set()


def test_weights_and_signature_zipped_apart_are_taken(small: Small) -> None:
    path = an_update_on_a_stick(small)
    folder = small.medium("portal")
    for file in (path, signature.signature_path(path)):
        with zipfile.ZipFile(folder / f"{file.name}.zip", "w") as archive:
            archive.write(file, "content")
    assert verdicts(take(small.coordinator, folder)) == ["accepted"]


def test_a_zip_that_holds_nothing_of_ours_is_one_foreign_file(small: Small) -> None:
    with zipfile.ZipFile(small.medium() / "report.docx", "w") as archive:
        for number in range(50):
            archive.writestr(f"{number}.xml", "<a/>" * 1000)
            archive.writestr(f"{number}.json", '{"a":1}')
    done = take(small.coordinator, small.medium())
    assert (done.files, done.n_foreign) == ((), 1)


def test_a_bomb_in_a_zip_stops_at_the_cap(small: Small) -> None:
    path = an_update_on_a_stick(small)
    start = path.read_bytes()[:100]
    folder = small.medium("portal")
    n_bytes = 20 * weights.largest_file(small.known.table)
    with zipfile.ZipFile(folder / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("u", start + bytes(n_bytes))
        archive.write(signature.signature_path(path), "u.sig")
    data = bytearray((folder / "bomb.zip").read_bytes())
    assert isinstance(refused(small.coordinator, folder), TooLargeError)
    # And one that lies about its size in the directory.
    at = data.rfind(b"PK\x01\x02", 0, data.rfind(b"PK\x01\x02"))
    data[at + 24 : at + 28] = (1000).to_bytes(4, "little")
    (folder / "bomb.zip").write_bytes(data)
    assert isinstance(refused(small.coordinator, folder), FileRefusedError)
    assert max(p.stat().st_size for p in small.coordinator.root.rglob("*") if p.is_file()) < n_bytes


def test_a_zip_with_a_password_is_refused_with_advice(small: Small) -> None:
    an_update_on_a_stick(small)
    folder = small.medium("portal")
    path = zipped(small.medium(), folder / "a.zip")
    data = bytearray(path.read_bytes())
    at = data.find(b"PK\x01\x02")
    data[at + 8] |= 1
    path.write_bytes(data)
    found = refused(small.coordinator, folder)
    assert "unpack it by hand" in str(found.hint)


# --- what is never opened ------------------------------------------------------------------------


def test_hdf5_and_pickle_are_never_read_from_outside(small: Small) -> None:
    an_update_on_a_stick(small)
    case = small.medium() / "case.h5"
    with h5py.File(case, "w") as file:
        file["image"] = np.zeros(3)
    torch_file = small.medium() / "weights.pt"
    torch_file.write_bytes(pickle.dumps(print))
    for path in (case, torch_file):
        sign(path, small.sites["hospital-a"])
    code = (
        "import sys; from pathlib import Path; from brainfed.formats import workspace;"
        "used = []; sys.addaudithook(lambda event, _: used.append(event));"
        "from brainfed.steps.receive import receive;"
        "done = receive(workspace.find(Path(sys.argv[1])), [Path(sys.argv[2])],"
        "               confirm=lambda r: False);"
        "print(sorted(f.verdict.value for f in done.files));"
        "print([e for e in used if e.startswith('pickle')], {'h5py', 'torch'} & set(sys.modules))"
    )
    words = [sys.executable, "-c", code, str(small.coordinator.root), str(small.medium())]
    said = subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()
    assert said[0] == "['accepted', 'refused', 'refused']"
    assert said[1] == "[] set()"


# --- rosters -----------------------------------------------------------------------------------


def a_roster_on_a_stick(small: Small, **changes: object) -> Path:
    known = small.known
    fields = {
        "version": 2,
        "federation": known.digest,
        "previous": known.roster.digest,
        "recovery": known.roster.recovery,
        "principals": known.roster.principals,
    }
    path = small.medium() / "roster.json"
    path.write_bytes(Roster.model_validate(fields | changes).dumps())
    return sign(path, small.coordinator)


def test_a_roster_of_another_federation_or_signer_is_refused(small: Small) -> None:
    site = small.sites["hospital-a"]
    a_roster_on_a_stick(small, federation=DIGESTS["one"])
    assert isinstance(refused(site, small.medium()), WrongFederationError)
    sign(a_roster_on_a_stick(small), small.sites["hospital-b"])
    assert isinstance(refused(site, small.medium()), StrangerError)


def test_two_rosters_of_one_version_are_two_stories(small: Small) -> None:
    site = small.sites["hospital-a"]
    a_roster_on_a_stick(small)
    assert verdicts(take(site, small.medium())) == ["accepted"]
    a_roster_on_a_stick(small, principals=small.known.roster.principals[1:])
    assert isinstance(refused(site, small.medium()), ConflictError)


def test_a_roster_can_not_name_another_coordinator(small: Small) -> None:
    principals = [p.model_dump() for p in small.known.roster.principals]
    for principal in principals:
        swap = {"hospital-b": "coordinator", "uni-lead": "site"}
        principal["role"] = swap.get(principal["name"], principal["role"])
    a_roster_on_a_stick(small, principals=principals)
    found = refused(small.sites["hospital-a"], small.medium())
    assert isinstance(found, StrangerError)


# --- two stories -------------------------------------------------------------------------------


def a_forged_global(small: Small, number: int = 1, **changes: object) -> Path:
    """Other global weights of a round, signed by the coordinator's true key."""
    path = rounds.global_path(small.coordinator, number)
    assert path is not None
    forged = small.medium("forged") / "g"
    manifest = weights.read_manifest(path).model_copy(update=changes)
    weights.write(forged, manifest, random_weights(small.known.first_plan, 77))
    return sign(forged, small.coordinator)


def a_forged_record(small: Small, **changes: object) -> Path:
    (path,) = rounds.records(small.coordinator, 1)
    content = json.loads(path.read_bytes()) | changes
    forged = small.medium("forged") / "r"
    forged.write_bytes(Record.model_validate(content).dumps())
    return sign(forged, small.coordinator)


def test_two_global_weights_of_one_round_are_two_stories(closed: Small, tmp_path: Path) -> None:
    small = copy_of(closed, tmp_path)
    a_forged_global(small)
    for place in (*small.sites.values(), small.coordinator):
        found = refused(place, small.medium("forged"))
        assert isinstance(found, ConflictError)
        assert found.expected
        assert found.found


def test_two_records_of_one_round_are_two_stories(closed: Small, tmp_path: Path) -> None:
    small = copy_of(closed, tmp_path)
    a_forged_record(small, day="2026-03-02")
    for place in (*small.sites.values(), small.coordinator):
        found = refused(place, small.medium("forged"))
        assert isinstance(found, ConflictError)


def without_round_1(site: Workspace) -> Workspace:
    """The site before the round came back: its update alone."""
    for path in site.round_folder(1).iterdir():
        if ".hospital-" not in path.name:
            path.unlink()
    return site


def test_global_weights_that_their_record_does_not_name_are_refused(closed, tmp_path) -> None:
    small = copy_of(closed, tmp_path)
    site = without_round_1(small.sites["hospital-a"])
    (record,) = rounds.records(small.coordinator, 1)
    assert verdicts(take(site, record)) == ["accepted"]
    a_forged_global(small)
    assert isinstance(refused(site, small.medium("forged")), WrongRoundError)


def test_a_record_that_names_other_global_weights_than_came_before_is_refused(
    closed: Small, tmp_path: Path
) -> None:
    small = copy_of(closed, tmp_path)
    site = without_round_1(small.sites["hospital-a"])
    path = rounds.global_path(small.coordinator, 1)
    assert path is not None
    assert verdicts(take(site, path)) == ["accepted"]
    a_forged_record(small, global_digest=DIGESTS["one"])
    assert isinstance(refused(site, small.medium("forged")), ConflictError)


def test_global_weights_that_do_not_follow_the_round_before_are_refused(
    closed: Small, tmp_path: Path
) -> None:
    small = copy_of(closed, tmp_path)
    site = without_round_1(small.sites["hospital-a"])
    a_forged_global(small, parent=DIGESTS["one"])
    assert isinstance(refused(site, small.medium("forged")), WrongRoundError)


def test_a_record_that_names_another_update_of_this_site_is_refused(
    closed: Small, tmp_path: Path
) -> None:
    small = copy_of(closed, tmp_path)
    site = without_round_1(small.sites["hospital-a"])
    (path,) = rounds.records(small.coordinator, 1)
    inputs = json.loads(path.read_bytes())["inputs"]
    inputs[0]["digest"] = DIGESTS["two"]
    a_forged_record(small, inputs=inputs)
    found = refused(site, small.medium("forged"))
    assert isinstance(found, ConflictError)
    assert "another update of this site" in found.message


def test_a_record_by_a_site_is_refused(closed: Small, tmp_path: Path) -> None:
    small = copy_of(closed, tmp_path)
    site = without_round_1(small.sites["hospital-a"])
    sign(a_forged_record(small), small.sites["hospital-b"])
    assert isinstance(refused(site, small.medium("forged")), StrangerError)


def test_a_site_learns_from_the_record_what_became_of_its_update(tmp_path: Path) -> None:
    plan = a_plan(participation={"quorum_sites": 1, "floor": 1}, exchange={"encryption": "off"})
    small = a_federation(tmp_path, plan=plan)
    an_update_on_a_stick(small)
    take(small.coordinator, small.medium())
    aggregate(small.coordinator, today=TODAY)
    said = {}
    for name, site in small.sites.items():
        done = carry(small.coordinator, site, small.medium("back"))
        (said[name],) = [file.what for file in done.files if "record" in file.what]
    assert "update is in it" in said["hospital-a"]
    assert "update is in it" not in said["hospital-b"]


# --- disk --------------------------------------------------------------------------------------


def test_a_full_disk_at_any_flush_changes_nothing_that_can_not_be_done_again(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    an_update_on_a_stick(small)
    reference = copy_of(small, small.root / "reference").coordinator
    take(reference, small.medium())
    failures = 0
    for at in range(100):
        place = copy_of(small, small.root / f"full-{at}").coordinator
        before = snapshot(place)
        left = iter([False] * at + [True])

        def full(descriptor: int, left=left) -> None:
            if next(left, False):
                raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            try:
                take(place, small.medium())
            except ResourceError as error:
                failures += 1
                assert error.exit_code == 8
                assert leftovers(place.root) == []
                if "ledger" not in str(error.where):
                    changed = set(snapshot(place).items()) - set(before.items())
                    assert all(".sig" in name for name, _ in changed)  # alone it counts for nothing
        take(place, small.medium())
        assert snapshot(place) == snapshot(reference)
        shutil.rmtree(place.root.parent)
        if next(left, None) is not None:
            break
    assert failures == 3  # the copy, its signature, the line of the ledger


def test_verdicts_are_words() -> None:
    assert [str(verdict) for verdict in Verdict] == [
        "accepted",
        "already there",
        "ignored",
        "refused",
    ]
