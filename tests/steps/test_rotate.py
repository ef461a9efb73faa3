import shutil
from pathlib import Path

import pytest

from brainfed.core import sshsig
from brainfed.errors import BrainfedError, NotReadyError, UsageError, WorkspaceError
from brainfed.formats import enrolment, federation, rounds, signature, workspace
from brainfed.formats.roster import Role, Roster, Status
from brainfed.formats.workspace import Workspace
from brainfed.steps.admit import admit
from brainfed.steps.exchange import fill_outbox
from brainfed.steps.initialise import initialise
from brainfed.steps.rotate import rotate
from tests.faults import killed_everywhere
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
    snapshot,
)


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return a_federation(tmp_path)


def newest(place: Workspace) -> Roster:
    found = federation.newest_roster(place)
    assert found is not None
    return found


def again(place: Workspace) -> Workspace:
    """The workspace as the next command finds it."""
    return workspace.find(place.root)


def test_a_site_gets_a_new_key_and_an_enrolment_by_it(small: Small) -> None:
    site = small.sites["hospital-a"]
    before = site.public_key()
    done = rotate(site)
    site = again(site)
    assert site.key == "key/id_ed25519-2"
    assert done.fingerprint == site.public_key().fingerprint != before.fingerprint
    assert done.enrolment == enrolment_of(site)
    assert enrolment.read_verified(enrolment_of(site)).key == site.public_key().line
    assert mode_of(site.key_path) == 0o600
    old = signature.load_key(site.root / workspace.KEY)
    assert sshsig.public_key(old) == before


def test_the_enrolment_stays_in_the_outbox_until_the_roster_names_the_key(small: Small) -> None:
    site = small.sites["hospital-a"]
    rotate(site)
    site = again(site)
    assert enrolment_of(site).name in fill_outbox(site)
    admit(small.coordinator, [enrolment_of(site)], confirm=say_yes)
    carry(small.coordinator, site, small.medium())
    assert enrolment_of(site).name not in fill_outbox(site)


def test_a_round_closes_after_a_site_has_rotated(small: Small) -> None:
    close_round(small)
    site = small.sites["hospital-a"]
    rotate(site)
    small.sites["hospital-a"] = site = again(site)
    admit(small.coordinator, [enrolment_of(site)], confirm=say_yes)
    carry(small.coordinator, site, small.medium())
    assert close_round(small).round == 2
    rounds.newest_global(site, federation.load(site))


@pytest.mark.parametrize("role", [Role.EVALUATOR, Role.AUDITOR])
def test_others_rotate_before_they_are_admitted(tmp_path: Path, role: Role) -> None:
    initialise(tmp_path, role, "agency", n_patients=7)
    for number in (2, 3):
        rotate(workspace.find(tmp_path))
        place = workspace.find(tmp_path)
        assert place.key == f"key/id_ed25519-{number}"
        content = enrolment.read_verified(enrolment_of(place))
        assert (content.role, content.n_patients) == (role, 7)


def test_a_site_can_go_over_to_a_key_in_an_agent_and_back(tmp_path: Path) -> None:
    site = a_workspace(tmp_path / "a", Role.SITE, "hospital-a")
    signature.write_public(tmp_path / "mine.pub", sshsig.public_key(a_key()))
    done = rotate(site, given=tmp_path / "mine.pub")
    site = again(site)
    assert site.key == "key/id_ed25519-2.pub"
    assert not done.is_signed
    assert not signature.signature_path(enrolment_of(site)).exists()
    assert rotate(site, passphrase=b"open sesame").is_signed
    assert again(site).key == "key/id_ed25519-3"
    assert signature.read_public_part(again(site).key_path)[1]


def test_a_lost_key_can_be_replaced(small: Small) -> None:
    site = small.sites["hospital-a"]
    for path in (site.root / "key").glob("id_*"):
        path.unlink()
    rotate(site)
    assert enrolment.read_verified(enrolment_of(site)).key == again(site).public_key().line


def test_the_key_in_use_is_no_new_one(small: Small) -> None:
    for place in (small.sites["hospital-a"], small.coordinator):
        before = snapshot(place)
        with pytest.raises(UsageError, match="no new one"):
            rotate(place, given=place.key_path)
        assert snapshot(place) == before


def test_a_copy_of_the_coordinators_own_key_is_no_new_one(small: Small) -> None:
    lead = small.coordinator
    shutil.copy(lead.key_path, small.root / "copy")
    before = snapshot(lead)
    for given in (small.root / "copy", signature.public_path(lead.key_path)):
        with pytest.raises(UsageError):
            rotate(lead, given=given)
    assert snapshot(lead) == before


def test_the_old_coordinator_key_hands_over_to_the_new_one(small: Small) -> None:
    close_round(small)
    lead = small.coordinator
    before = newest(lead)
    done = rotate(lead)
    lead = again(lead)
    after = newest(lead)
    assert (done.roster_version, after.version) == (before.version + 1,) * 2
    old = after.entry(before.coordinator.public_key)
    assert (old.status, old.revoked_since) == (Status.REVOKED, 2)
    assert after.coordinator.public_key == lead.public_key()
    signed = signature.verify_file(federation.roster_path(lead, after.version))
    assert signed.key == before.coordinator.public_key
    after.check_follows(before, signed.key)
    assert federation.roster_path(lead, after.version).name in "".join(fill_outbox(lead))


def test_the_federation_goes_on_after_the_coordinator_has_rotated(small: Small) -> None:
    close_round(small)
    rotate(small.coordinator)
    small = Small(small.root, again(small.coordinator), small.sites)
    for site in small.sites.values():
        assert not carry(small.coordinator, site, small.medium()).refused
        assert newest(site) == newest(small.coordinator)
    assert close_round(small).round == 2
    site = small.sites["hospital-b"]
    known = federation.load(site)
    assert rounds.newest_global(site, known).manifest.round == 2
    first = rounds.global_path(site, 1)
    assert first is not None
    rounds.verify_weights(first, known)


def test_the_recovery_key_replaces_a_lost_coordinator_key(small: Small) -> None:
    lead = small.coordinator
    before = newest(lead)
    safe = lead.recovery_path.rename(small.root / "safe")
    for path in (lead.root / "key").glob("id_*"):
        path.unlink()
    with pytest.raises(WorkspaceError) as caught:
        rotate(lead)
    assert "--recovery" in str(caught.value.hint)
    rotate(lead, recovery=safe)
    lead = again(lead)
    after = newest(lead)
    signed = signature.verify_file(federation.roster_path(lead, after.version))
    assert signed.key.line == before.recovery
    assert after.coordinator.public_key == lead.public_key()
    for site in small.sites.values():
        assert not carry(lead, site, small.medium()).refused
        assert newest(site) == after


def test_another_key_than_the_recovery_key_replaces_nothing(small: Small) -> None:
    lead = small.coordinator
    signature.make_key(small.root / "other")
    before = snapshot(lead)
    for wrong in (small.root / "other", small.root / "missing", lead.key_path):
        with pytest.raises(WorkspaceError):
            rotate(lead, recovery=wrong)
    assert snapshot(lead) == before


def test_only_the_coordinator_has_a_recovery_key(small: Small) -> None:
    site = small.sites["hospital-a"]
    before = snapshot(site)
    with pytest.raises(UsageError, match="Only the coordinator"):
        rotate(site, recovery=small.coordinator.recovery_path)
    assert snapshot(site) == before


def test_a_coordinator_does_not_rotate_before_the_start(tmp_path: Path) -> None:
    lead = an_unstarted_federation(tmp_path).coordinator
    before = snapshot(lead)
    with pytest.raises(NotReadyError) as caught:
        rotate(lead)
    assert "brainfed init coordinator" in str(caught.value.hint)
    assert snapshot(lead) == before


def test_a_wrong_passphrase_changes_nothing(tmp_path: Path) -> None:
    small = a_federation(tmp_path)
    lead = small.coordinator
    rotate(lead, passphrase=b"open sesame")
    lead = workspace.find(lead.root, lambda path: b"close sesame")
    before = snapshot(lead)
    with pytest.raises(WorkspaceError, match="passphrase is wrong"):
        rotate(lead)
    assert snapshot(lead) == before


@pytest.mark.parametrize("name", ["hospital-a", "uni-lead"])
def test_a_killed_rotation_ends_well(small: Small, tmp_path: Path, name: str) -> None:
    before = newest(small.coordinator)
    folder = tmp_path / "killed"
    folder.mkdir()
    n_points = 0

    def turn(root: Path) -> None:
        place = workspace.find(root)
        with workspace.locked(place):
            rotate(place)

    for _, root in killed_everywhere(tmp_path / name, folder, turn, step=2):
        turn(root)
        place = workspace.find(root)
        assert leftovers(root) == []
        assert sshsig.public_key(place.private_key()) == place.public_key()
        if place.role is Role.COORDINATOR:
            after = newest(place)
            assert after.coordinator.public_key == place.public_key()
            signer = signature.verify_file(federation.roster_path(place, 2)).key
            assert signer == before.coordinator.public_key
        else:
            assert enrolment.read_verified(enrolment_of(place)).key == place.public_key().line
            assert place.public_key() != small.sites[name].public_key()
        n_points += 1
    assert n_points >= 10


def test_a_killed_rotation_to_a_given_key_is_finished_with_the_same_key(small: Small) -> None:
    lead = small.coordinator
    public = signature.make_key(small.root / "mine")
    marker = (lead.root / workspace.MARKER).read_bytes()
    rotate(lead, given=small.root / "mine")
    (lead.root / workspace.MARKER).write_bytes(marker)  # as if killed before its last write
    with pytest.raises(BrainfedError) as caught:
        rotate(lead)
    assert "the same --key" in str(caught.value.hint)
    done = rotate(lead, given=small.root / "mine")
    assert done.roster_version == newest(lead).version == 2
    assert again(lead).public_key() == public
