from pathlib import Path
from typing import Any

import pytest

from brainfed.core.sshsig import public_key
from brainfed.errors import (
    ConflictError,
    NotReadyError,
    SignatureError,
    StrangerError,
    UsageError,
    WrongFederationError,
    WrongRoleError,
)
from brainfed.formats import document, enrolment, federation, ledger, rounds, signature, workspace
from brainfed.formats.enrolment import Enrolment
from brainfed.formats.record import InputStatus, Reason
from brainfed.formats.roster import Role, Status
from brainfed.steps.admit import Admitted, Candidate, admit, revoke
from brainfed.steps.aggregate import aggregate
from brainfed.steps.rotate import rotate
from tests import attacks
from tests.builders import a_plan
from tests.federation import (
    TODAY,
    Small,
    a_federation,
    a_key,
    a_workspace,
    an_unstarted_federation,
    carry,
    close_round,
    enrolment_of,
    say_yes,
    sign,
    snapshot,
    start,
    take,
    train,
)


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return an_unstarted_federation(tmp_path)


def admit_all(small: Small) -> None:
    admit(small.coordinator, [enrolment_of(s) for s in small.sites.values()], confirm=say_yes)


def test_each_site_is_shown_before_it_is_admitted(small: Small) -> None:
    shown: list[Candidate] = []

    def look(candidate: Candidate) -> bool:
        shown.append(candidate)
        return candidate.name == "hospital-a"

    done = admit(small.coordinator, [enrolment_of(s) for s in small.sites.values()], confirm=look)
    assert [candidate.name for candidate in shown] == ["hospital-a", "hospital-b"]
    assert all(candidate.fingerprint.startswith("SHA256:") for candidate in shown)
    assert (done.admitted, done.declined) == (("hospital-a",), ("hospital-b",))
    assert done.sites == ("hospital-a",)


def test_admitting_again_changes_nothing_and_asks_nothing(small: Small) -> None:
    admit_all(small)
    before = snapshot(small.coordinator)
    paths = [enrolment_of(site) for site in small.sites.values()]
    done = admit(small.coordinator, paths, confirm=lambda candidate: pytest.fail("asked"))
    assert done.already == ("hospital-a", "hospital-b")
    assert done.version == 1
    assert snapshot(small.coordinator) == before


def test_one_damaged_enrolment_admits_nobody(small: Small) -> None:
    before = snapshot(small.coordinator)
    attacks.flip_bit(enrolment_of(small.sites["hospital-b"]), 300)
    with pytest.raises(SignatureError):
        admit_all(small)
    assert snapshot(small.coordinator) == before


def test_an_enrolment_signed_by_somebody_else_is_refused(small: Small) -> None:
    path = sign(enrolment_of(small.sites["hospital-a"]), small.sites["hospital-b"])
    with pytest.raises(StrangerError):
        admit(small.coordinator, [path], confirm=say_yes)


def ask_in(small: Small, name: str, key_seed: int, **changes: Any) -> Admitted:
    """Admit an enrolment made by hand under any name, role and key."""
    fields: dict[str, Any] = {
        "name": name,
        "role": Role.SITE,
        "key": public_key(a_key(key_seed)).line,
    }
    path = small.root / f"{name}.{key_seed}.enrolment.json"
    path.unlink(missing_ok=True)
    document.write_signed(path, Enrolment(**(fields | changes)), a_key(key_seed))
    return admit(small.coordinator, [path], confirm=say_yes)


def test_a_key_that_is_taken_is_not_admitted(small: Small) -> None:
    admit_all(small)
    before = snapshot(small.coordinator)
    path = enrolment_of(small.sites["hospital-b"])
    attacks.edit_json(path, attacks.setting("name", "hospital-c"))
    with pytest.raises(ConflictError, match="as another party's"):
        admit(small.coordinator, [sign(path, small.sites["hospital-b"])], confirm=say_yes)
    assert snapshot(small.coordinator) == before


def test_nobody_is_admitted_under_the_coordinators_name_or_in_two_roles(small: Small) -> None:
    admit_all(small)
    before = snapshot(small.coordinator)
    with pytest.raises(ConflictError, match="another party"):
        ask_in(small, "uni-lead", 7)
    with pytest.raises(ConflictError, match="another party"):
        ask_in(small, "hospital-a", 7, role=Role.EVALUATOR)
    assert {k: v for k, v in snapshot(small.coordinator).items() if "enrolment" not in k} == {
        k: v for k, v in before.items() if "enrolment" not in k
    }


def test_a_new_key_replaces_the_old_one_after_the_open_round(tmp_path: Path) -> None:
    small = a_federation(tmp_path)
    train(small.sites["hospital-a"])
    shown: list[Candidate] = []

    def look(candidate: Candidate) -> bool:
        shown.append(candidate)
        return True

    old = small.sites["hospital-a"].public_key()
    twin = a_workspace(tmp_path / "twin", Role.SITE, "hospital-a")
    admit(small.coordinator, [enrolment_of(twin)], confirm=look)
    assert shown[0].replaces == old.fingerprint
    entries = [p for p in small.known.roster.principals if p.name == "hospital-a"]
    assert [(p.key, p.revoked_since) for p in entries] == [
        (old.line, 2), (twin.public_key().line, None),
    ]  # fmt: skip
    # The update that was on its way still counts.
    assert not carry(small.sites["hospital-a"], small.coordinator, small.medium()).refused


def test_an_approver_needs_its_site_and_signs_for_nothing_else(small: Small) -> None:
    with pytest.raises(ConflictError, match="site is not in the roster"):
        ask_in(small, "hospital-a.release", 8, role=Role.APPROVER)
    admit_all(small)
    ask_in(small, "hospital-a.release", 8, role=Role.APPROVER)
    roster = federation.newest_roster(small.coordinator)
    assert roster is not None
    line = next(x for x in roster.allowed_signers().decode().splitlines() if ".release" in x)
    assert 'namespaces="brainfed-release"' in line


def test_the_enrolments_are_kept_beside_the_roster(small: Small) -> None:
    admit_all(small)
    for site in small.sites.values():
        path = federation.enrolment_path(small.coordinator, site.name, 1)
        assert enrolment.read_verified(path).key == site.public_key().line


def test_the_first_roster_names_the_recovery_key(small: Small) -> None:
    admit_all(small)
    roster = federation.newest_roster(small.coordinator)
    assert roster is not None
    path = signature.public_path(small.coordinator.recovery_path)
    assert roster.recovery == signature.read_public(path).line


def test_only_a_coordinator_admits(small: Small) -> None:
    site = small.sites["hospital-a"]
    with pytest.raises(WrongRoleError):
        admit(site, [], confirm=say_yes)


def test_a_site_admitted_after_the_start_joins_with_the_next_roster(
    small: Small, tmp_path: Path
) -> None:
    admit_all(small)
    start(small, a_plan())
    late = a_workspace(tmp_path / "late", Role.SITE, "hospital-c")
    done = admit(small.coordinator, [enrolment_of(late)], confirm=say_yes)
    assert done.version == 2
    assert not carry(small.coordinator, late, small.medium()).refused
    roster = federation.load(late).roster
    assert [site.name for site in roster.sites] == ["hospital-a", "hospital-b", "hospital-c"]
    assert roster.federation == small.known.digest
    signature.verify_file(federation.roster_path(late, 2))


# --- revoking -----------------------------------------------------------------------------------


def test_a_revoked_key_keeps_its_closed_rounds_and_loses_the_open_one(tmp_path: Path) -> None:
    small = a_federation(tmp_path, ("hospital-a", "hospital-b", "hospital-c"))
    close_round(small)
    train(small.sites["hospital-a"])
    done = revoke(small.coordinator, "hospital-a")
    assert (done.since_round, done.version, done.already) == (2, 2, False)
    (refused,) = carry(small.sites["hospital-a"], small.coordinator, small.medium()).refused
    assert isinstance(refused.error, StrangerError)
    assert "revoked" in refused.error.message
    for path in rounds.update_paths(small.coordinator, 1):
        rounds.verify_weights(path, small.known)


def test_an_update_that_came_before_the_revocation_is_left_out_with_the_reason(
    tmp_path: Path,
) -> None:
    small = a_federation(tmp_path, ("hospital-a", "hospital-b", "hospital-c"))
    for site in small.sites.values():
        train(site)
        carry(site, small.coordinator, small.medium(f"from-{site.name}"))
    revoke(small.coordinator, "hospital-b")
    done = aggregate(small.coordinator, today=TODAY)
    record, _ = rounds.verify_record(done.record, small.known)
    told = {entry.sender: (entry.status, entry.reason, entry.weight) for entry in record.inputs}
    assert told["hospital-b"] == (InputStatus.EXCLUDED, Reason.REVOKED, 0)
    assert told["hospital-a"][0] is told["hospital-c"][0] is InputStatus.INCLUDED
    # The site itself is told so, in plain words.
    site = small.sites["hospital-a"]
    carry(small.coordinator, site, small.medium("back"))
    assert rounds.newest_round(site) == 1


def test_a_revoked_site_comes_back_under_a_new_key_only(tmp_path: Path) -> None:
    small = a_federation(tmp_path)
    revoke(small.coordinator, "hospital-a")
    with pytest.raises(ConflictError, match="revoked"):
        admit(small.coordinator, [_kept(small, "hospital-a")], confirm=say_yes)
    twin = a_workspace(tmp_path / "twin", Role.SITE, "hospital-a")
    admit(small.coordinator, [enrolment_of(twin)], confirm=say_yes)
    entries = [p for p in small.known.roster.principals if p.name == "hospital-a"]
    assert [p.status for p in entries] == [Status.REVOKED, Status.ACTIVE]
    assert entries[0].revoked_since == 1


def _kept(small: Small, name: str) -> Path:
    return federation.enrolment_path(small.coordinator, name, 1)


def test_an_update_under_the_new_key_takes_the_place_of_one_under_the_revoked_key(
    tmp_path: Path,
) -> None:
    small = a_federation(tmp_path)
    site = small.sites["hospital-a"]
    train(site)
    carry(site, small.coordinator, small.medium("first"))
    revoke(small.coordinator, "hospital-a")
    rotate(site)
    admit(small.coordinator, [enrolment_of(site)], confirm=say_yes)
    site = workspace.find(site.root)
    carry(small.coordinator, site, small.medium("roster"))
    # Export signs the same bytes again, under the new key.
    assert not carry(site, small.coordinator, small.medium("again")).refused
    (there,) = rounds.update_paths(small.coordinator, 1)
    assert signature.verify_file(there).key == site.public_key()
    train(small.sites["hospital-b"])
    carry(small.sites["hospital-b"], small.coordinator, small.medium("b"))
    record, _ = rounds.verify_record(aggregate(small.coordinator, today=TODAY).record, small.known)
    assert {entry.status for entry in record.inputs} == {InputStatus.INCLUDED}


def test_a_roster_of_no_federation_is_refused_after_the_start(tmp_path: Path) -> None:
    small = a_federation(tmp_path)
    old = small.known.roster
    content = old.model_copy(update={"version": 2, "previous": old.digest, "federation": None})
    path = small.medium() / "roster.json"
    document.write_signed(path, content, small.coordinator.private_key())
    (file,) = take(small.sites["hospital-a"], path).files
    assert isinstance(file.error, WrongFederationError)


def test_revoking_again_changes_nothing(tmp_path: Path) -> None:
    small = a_federation(tmp_path)
    revoke(small.coordinator, "hospital-a")
    before = snapshot(small.coordinator)
    assert revoke(small.coordinator, "hospital-a").already
    assert snapshot(small.coordinator) == before


@pytest.mark.parametrize("name", ["hospital-z", "uni-lead", ""])
def test_who_is_not_in_the_roster_or_leads_it_is_not_revoked(tmp_path: Path, name: str) -> None:
    small = a_federation(tmp_path)
    before = snapshot(small.coordinator)
    with pytest.raises(UsageError):
        revoke(small.coordinator, name)
    assert snapshot(small.coordinator) == before


def test_before_any_admission_there_is_nobody_to_revoke(small: Small) -> None:
    with pytest.raises(NotReadyError):
        revoke(small.coordinator, "hospital-a")
    with pytest.raises(WrongRoleError):
        revoke(small.sites["hospital-a"], "hospital-a")


def test_every_site_learns_of_a_revocation(tmp_path: Path) -> None:
    small = a_federation(tmp_path)
    revoke(small.coordinator, "hospital-a")
    site = small.sites["hospital-b"]
    carry(small.coordinator, site, small.medium())
    assert [p.name for p in federation.load(site).roster.sites] == ["hospital-b"]
    revoked = (site.federation_folder / "revoked").read_text()
    assert revoked == f"{small.sites['hospital-a'].public_key().line}\n"
    own = take(small.sites["hospital-a"], small.medium())
    assert not [f for f in own.files if isinstance(f.error, SignatureError)]
    assert "revoking a key" in str(ledger.read(small.coordinator.ledger_path))
