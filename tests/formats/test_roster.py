import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from brainfed.core.sshsig import public_key
from brainfed.errors import (
    ConflictError,
    MalformedError,
    StrangerError,
    WrongFederationError,
)
from brainfed.formats.roster import Principal, Role, Roster, Status
from brainfed.steps.exchange import export
from tests.federation import a_federation, a_key, a_principal, a_roster, train

COORDINATOR = Role.COORDINATOR


def a_roster_of(*principals: object) -> Roster:
    return Roster(version=1, principals=tuple(principals))


def test_the_holder_of_a_key_is_found() -> None:
    roster = a_roster(uni_lead=a_key(1), hospital_a=a_key(2))
    assert roster.entry(public_key(a_key(2))).name == "hospital-a"
    assert roster.coordinator.name == "uni-lead"
    assert [site.name for site in roster.sites] == ["hospital-a"]


def test_nobody_holds_a_strangers_key() -> None:
    with pytest.raises(StrangerError, match="not in the roster"):
        a_roster(uni_lead=a_key(1)).entry(public_key(a_key(9)))


def test_a_revoked_key_counts_before_its_round_and_not_from_it_on() -> None:
    revoked = a_principal("hospital-a", a_key(2), status=Status.REVOKED, revoked_since=3)
    roster = a_roster_of(revoked, a_principal("uni-lead", a_key(1), COORDINATOR))
    assert roster.sites == ()
    assert roster.signer(public_key(a_key(2)), 2) == revoked
    for number in (3, 4):
        with pytest.raises(StrangerError, match="revoked"):
            roster.signer(public_key(a_key(2)), number)
    assert roster.revoked_keys().decode() == f"{public_key(a_key(2)).line}\n"


def test_a_party_may_have_one_active_key_and_older_ones() -> None:
    old = a_principal("hospital-a", a_key(2), status=Status.REVOKED, revoked_since=3)
    new = a_principal("hospital-a", a_key(3))
    roster = a_roster_of(old, new, a_principal("uni-lead", a_key(1), COORDINATOR))
    assert roster.get("hospital-a") == new
    assert [site.key for site in roster.sites] == [new.key]
    assert len(roster.allowed_signers().splitlines()) == 3


REVOKED = {"status": Status.REVOKED, "revoked_since": 1}
OLD_LEAD = a_principal("uni-lead", a_key(1), COORDINATOR, **REVOKED)
NEW_LEAD = a_principal("uni-lead", a_key(7), COORDINATOR)
SITE_A = a_principal("hospital-a", a_key(2))


@pytest.mark.parametrize(
    "principals",
    [
        [],
        [a_principal("hospital-a", a_key(2))],
        [a_principal("a", a_key(1), COORDINATOR), a_principal("b", a_key(2), COORDINATOR)],
        [a_principal("a", a_key(1), COORDINATOR), a_principal("a", a_key(2), COORDINATOR)],
        [a_principal("a", a_key(1), **REVOKED), a_principal("a", a_key(2), COORDINATOR)],
        [a_principal("a", a_key(1), COORDINATOR), a_principal("b", a_key(1))],
        [a_principal("b", a_key(1), COORDINATOR), a_principal("a", a_key(2))],
        [a_principal("a", a_key(1), COORDINATOR, **REVOKED)],
        [NEW_LEAD, OLD_LEAD],
    ],
    ids=[
        "nobody", "no coordinator", "two coordinators", "two active keys", "two roles of a name",
        "a key twice", "unsorted", "no active coordinator", "revoked after active",
    ],
)  # fmt: skip
def test_a_roster_that_contradicts_itself_is_refused(principals: list[object]) -> None:
    with pytest.raises(ValueError, match=r"principal|coordinator|key|role"):
        a_roster_of(*principals)
    data = Roster.model_construct(version=1, principals=tuple(principals)).dumps()
    with pytest.raises(MalformedError):
        Roster.loads(data)


@pytest.mark.parametrize(
    "changes",
    [{"status": Status.REVOKED}, {"revoked_since": 2}, {"role": Role.APPROVER}],
    ids=["revoked since never", "active but revoked", "an approver of no site"],
)
def test_an_entry_that_contradicts_itself_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"revoked|approver"):
        Principal(**({"name": "a", "role": Role.SITE, "key": public_key(a_key()).line} | changes))


@pytest.mark.parametrize("name", ["con", "com1", "aux", "lpt9", "nul.release"])
def test_a_name_that_windows_keeps_for_devices_is_refused(name: str) -> None:
    role = Role.APPROVER if name.endswith("release") else Role.SITE
    with pytest.raises(ValueError, match="name"):
        a_principal(name, a_key(), role)


# --- one version after the other ----------------------------------------------------------------

RECOVERY = public_key(a_key(50)).line


def first(**changes: Any) -> Roster:
    fields: dict[str, Any] = {
        "version": 1,
        "recovery": RECOVERY,
        "principals": (
            a_principal("hospital-a", a_key(2)),
            a_principal("uni-lead", a_key(1), COORDINATOR),
        ),
    }
    return Roster.model_validate(fields | changes)


def second(*principals: Principal, **changes: Any) -> Roster:
    old = first()
    entries = tuple(sorted(principals or old.principals, key=lambda entry: entry.order))
    fields = {"version": 2, "previous": old.digest, "principals": entries}
    return first(**(fields | changes))


def test_the_coordinator_signs_the_next_roster() -> None:
    second().check_follows(first(), public_key(a_key(1)))
    for stranger in (2, 9, 50):
        with pytest.raises(StrangerError, match="not signed by the coordinator"):
            second().check_follows(first(), public_key(a_key(stranger)))


def test_a_new_coordinator_key_needs_the_old_one_or_the_recovery_key() -> None:
    rotated = second(SITE_A, OLD_LEAD, NEW_LEAD)
    for signer in (1, 50):
        rotated.check_follows(first(), public_key(a_key(signer)))
    for signer in (2, 7, 9):
        with pytest.raises(StrangerError, match="recovery key"):
            rotated.check_follows(first(), public_key(a_key(signer)))


def test_the_recovery_key_and_the_coordinators_name_never_change() -> None:
    for changed in (
        second(recovery=public_key(a_key(51)).line),
        second(recovery=None),
        second(SITE_A, a_principal("uni-two", a_key(1), COORDINATOR)),
    ):
        with pytest.raises(StrangerError, match="another coordinator"):
            changed.check_follows(first(), public_key(a_key(1)))


def test_no_key_vanishes_and_none_changes_its_owner() -> None:
    gone = second(a_principal("uni-lead", a_key(1), COORDINATOR))
    taken = second(a_principal("hospital-b", a_key(2)), NEW_LEAD, OLD_LEAD)
    for changed in (gone, taken):
        with pytest.raises(ConflictError, match="vanished"):
            changed.check_follows(first(), public_key(a_key(1)))


@pytest.mark.parametrize("since", [None, 2, 0])
def test_a_revocation_is_never_taken_back_or_moved(since: int | None) -> None:
    lead = a_principal("uni-lead", a_key(1), COORDINATOR)
    old = first(principals=(a_principal("hospital-a", a_key(2), **REVOKED), lead))
    status = Status.ACTIVE if since is None else Status.REVOKED
    entry = a_principal("hospital-a", a_key(2), status=status, revoked_since=since)
    new = first(version=2, previous=old.digest, principals=(entry, lead))
    with pytest.raises(ConflictError, match="revocation"):
        new.check_follows(old, public_key(a_key(1)))


def test_a_roster_names_the_one_before_and_no_other() -> None:
    with pytest.raises(ConflictError, match="two stories"):
        second(previous="0" * 64).check_follows(first(), public_key(a_key(1)))
    with pytest.raises(ValueError, match="previous"):
        first(version=2)
    with pytest.raises(ValueError, match="previous"):
        first(previous="0" * 64)


def test_a_roster_of_another_federation_does_not_follow() -> None:
    old = first(federation="1" * 64)
    new = first(version=2, previous=old.digest, federation="2" * 64)
    with pytest.raises(WrongFederationError):
        new.check_follows(old, public_key(a_key(1)))


@pytest.mark.parametrize("name", ["*", "a*", "a,b", "!a", 'a" b', "a b", "?", "a\nb"])
def test_a_principal_is_a_literal_name(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        a_principal(name, a_key())


def test_the_allowed_signers_file_has_one_literal_principal_a_line_and_no_comment() -> None:
    text = a_roster(uni_lead=a_key(1), hospital_a=a_key(2)).allowed_signers().decode()
    assert [line.split()[0] for line in text.splitlines()] == ["hospital-a", "uni-lead"]
    assert all(len(line.split()) == 4 for line in text.splitlines())
    assert all(line.split()[1] == 'namespaces="brainfed"' for line in text.splitlines())
    assert "*" not in text
    assert "@" not in text


def test_an_approver_signs_in_a_namespace_of_its_own() -> None:
    roster = a_roster_of(
        a_principal("hospital-a", a_key(2)),
        a_principal("hospital-a.release", a_key(3), Role.APPROVER),
        a_principal("uni-lead", a_key(1), COORDINATOR),
    )
    line = roster.allowed_signers().decode().splitlines()[1]
    assert line.startswith('hospital-a.release namespaces="brainfed-release" ssh-ed25519 ')


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="OpenSSH is not installed")
def test_ssh_keygen_checks_our_files_with_our_roster(tmp_path: Path) -> None:
    small = a_federation(tmp_path)
    site = small.sites["hospital-a"]
    train(site)
    export(site, small.medium())
    (path,) = small.medium().glob("*.safetensors")
    roster = small.coordinator.federation_folder / "roster"

    def check(principal: str, data: bytes) -> bool:
        command = ["ssh-keygen", "-Y", "verify", "-n", "brainfed", "-f", roster, "-I", principal]
        done = subprocess.run(
            [*command, "-s", f"{path}.sig"], input=data, capture_output=True, check=False
        )
        return done.returncode == 0

    assert check("hospital-a", path.read_bytes())
    assert not check("hospital-b", path.read_bytes())
    assert not check("hospital-a", path.read_bytes() + b" ")
    assert roster.read_bytes() == (site.federation_folder / "roster").read_bytes()
