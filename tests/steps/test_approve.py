"""The approver's signature: who may give it, and what asks for it on the update's way."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from brainfed.core import sshsig
from brainfed.errors import (
    BrainfedError,
    ConflictError,
    FileRefusedError,
    NotReadyError,
    StrangerError,
    UnsignedError,
    UsageError,
    WrongRoundError,
)
from brainfed.formats import document, federation, ledger, rounds, signature, weights
from brainfed.formats.approval import Approval
from brainfed.formats.roster import Role
from brainfed.steps.admit import admit, revoke
from brainfed.steps.aggregate import aggregate
from brainfed.steps.approve import approve, to_approve
from brainfed.steps.archive import archive
from brainfed.steps.audit import Verdict as Audited
from brainfed.steps.audit import audit
from brainfed.steps.exchange import export
from brainfed.steps.initialise import initialise
from brainfed.steps.receive import Import
from brainfed.steps.release import release
from brainfed.steps.verdict import Verdict
from tests.approving import DAY, an_approving_federation, approver, let_go, ready
from tests.federation import (
    TODAY,
    Small,
    a_federation,
    a_workspace,
    carry,
    enrolment_of,
    say_yes,
    sign,
    take,
    train,
)


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return an_approving_federation(tmp_path)


def update_of(small: Small, site: str = "hospital-a") -> Path:
    place = small.sites[site]
    path = rounds.update_path(place, federation.load(place), 1, site)
    assert path is not None
    return path


def refused(done: Import) -> BrainfedError:
    """The one error of an import."""
    (one,) = [file.error for file in done.refused]
    assert one is not None
    return one


def by_hand(small: Small, site: str = "hospital-a", *names: str) -> Path:
    """Export with all that a stick had before, but without the files whose names hold these."""
    stick = small.medium(f"by-hand-{len(list((small.root / 'media').iterdir()))}")
    export(small.sites[site], stick)
    for path in stick.iterdir():
        if any(name in path.name for name in names):
            path.unlink()
    return stick


def put_approval(stick: Path, small: Small, signer: str, **changes: object) -> None:
    """Lay another approval onto a stick, signed by an approver."""
    (there,) = stick.glob("*.approval.json")
    content = document.read(there, Approval)
    there.unlink()
    signature.signature_path(there).unlink()
    path = stick / "other.approval.json"
    path.write_bytes(content.model_copy(update=changes).dumps())
    key = approver(small, signer).private_key()
    signature.sign_file(path, key, namespace=sshsig.RELEASE_NAMESPACE)


def test_export_sends_no_update_without_an_approval_and_names_the_command(small: Small) -> None:
    site = small.sites["hospital-a"]
    train(site)
    with pytest.raises(NotReadyError) as caught:
        export(site, small.medium())
    assert "brainfed release --approve --key FILE --who NAME" in str(caught.value.hint)
    assert not list(small.medium().iterdir())


def test_an_approved_update_is_exported_with_its_approval_imported_and_averaged(
    small: Small,
) -> None:
    done = ready(small)
    ready(small, "hospital-b")
    carry(small.sites["hospital-a"], small.coordinator, small.medium("a"))
    taken = carry(small.sites["hospital-b"], small.coordinator, small.medium("b"))
    assert not taken.refused
    assert (small.medium("a") / done.path.name).exists()
    aggregate(small.coordinator, today=TODAY)
    found = audit([small.root])
    assert found.verdict is Audited.REDERIVED, found.findings


def test_what_travels_is_key_and_role_and_the_name_stays_in_the_ledger(small: Small) -> None:
    done = ready(small)
    lines = ledger.read(small.sites["hospital-a"].ledger_path)
    assert [line["who"] for line in lines if "who" in line] == ["Dr. Who"]
    stick = small.medium()
    export(small.sites["hospital-a"], stick)
    assert not any(b"Dr. Who" in path.read_bytes() for path in stick.iterdir())
    assert done.approval.sender == "hospital-a.release"
    assert not list(stick.glob("*.release.json")) + list(stick.glob("*.html"))


def test_the_coordinator_refuses_an_update_without_its_approval(small: Small) -> None:
    ready(small)
    error = refused(take(small.coordinator, by_hand(small, "hospital-a", "approval")))
    assert isinstance(error, UnsignedError)
    assert "there is none of this one" in error.message


def test_an_approval_of_an_older_edition_lets_nothing_leave(small: Small) -> None:
    ready(small)
    stick = by_hand(small)
    old = list(stick.glob("*.approval.json*"))
    update_of(small).unlink()
    train(small.sites["hospital-a"], edition=2)
    with pytest.raises(NotReadyError, match="another edition"):
        export(small.sites["hospital-a"], small.medium())
    sign(update_of(small), small.sites["hospital-a"])
    for path in stick.iterdir():
        if path not in old:
            path.unlink()
    for path in (update_of(small), signature.signature_path(update_of(small))):
        shutil.copy(path, stick)
    error = refused(take(small.coordinator, stick))
    assert isinstance(error, WrongRoundError)
    assert "another edition" in error.message


def test_an_approval_of_another_digest_lets_nothing_leave(small: Small) -> None:
    ready(small)
    stick = by_hand(small)
    put_approval(stick, small, "hospital-a", update="0" * 64)
    error = refused(take(small.coordinator, stick))
    assert isinstance(error, WrongRoundError)
    assert "names another file" in error.message

    place = small.sites["hospital-a"]
    path = update_of(small)
    about, tensors = weights.read_manifest(path), weights.read_tensors(path, small.known.table)
    path.unlink()
    weights.write(path, about, {name: 2 * values for name, values in tensors.items()})
    with pytest.raises(NotReadyError, match="names another file"):
        export(place, small.medium())


def test_the_approver_of_another_site_lets_nothing_leave(small: Small) -> None:
    ready(small)
    stick = by_hand(small)
    put_approval(stick, small, "hospital-b", sender="hospital-b.release")
    error = refused(take(small.coordinator, stick))
    assert isinstance(error, StrangerError)
    assert "approver of another site" in error.message

    with pytest.raises(StrangerError, match=r"key of hospital-b\.release"):
        approve(small.sites["hospital-a"], approver(small, "hospital-b").key_path, "X", today=DAY)


def test_the_sites_own_key_approves_nothing(small: Small) -> None:
    site = small.sites["hospital-a"]
    train(site)
    release(site, today=DAY)
    with pytest.raises(StrangerError, match="key of hospital-a"):
        approve(site, site.key_path, "X", today=DAY)


def test_a_revoked_approver_lets_nothing_leave(small: Small) -> None:
    ready(small)
    site, stick = small.sites["hospital-a"], by_hand(small)
    revoke(small.coordinator, "hospital-a.release")
    carry(small.coordinator, site, small.medium("roster"))
    with pytest.raises(NotReadyError, match="a key that doesn't count"):
        export(site, small.medium())
    with pytest.raises(StrangerError, match="revoked key"):
        approve(site, approver(small).key_path, "X", today=DAY)
    errors = [file.error for file in take(small.coordinator, stick).refused]
    assert [type(error) for error in errors] == [StrangerError, UnsignedError]


def test_an_update_whose_approver_was_revoked_since_is_left_out_and_approved_anew(
    small: Small, tmp_path: Path
) -> None:
    site = small.sites["hospital-a"]
    ready(small)
    ready(small, "hospital-b")
    for place in small.sites.values():
        carry(place, small.coordinator, small.medium(place.name))
    revoke(small.coordinator, "hospital-a.release")
    with pytest.raises(BrainfedError, match="Too few updates"):
        aggregate(small.coordinator, today=TODAY)

    new = a_workspace(tmp_path / "again", Role.APPROVER, "hospital-a.release")
    admit(small.coordinator, [enrolment_of(new)], confirm=say_yes)
    carry(small.coordinator, site, small.medium("roster"))
    let_go(small, key=new.key_path)
    taken = carry(site, small.coordinator, small.medium("again"))
    assert not taken.refused
    assert aggregate(small.coordinator, today=TODAY).round == 1
    assert audit([small.coordinator.root]).verdict is not Audited.DIVERGES


def test_aggregate_takes_no_update_that_was_never_approved(small: Small) -> None:
    ready(small)
    ready(small, "hospital-b")
    for place in small.sites.values():
        carry(place, small.coordinator, small.medium(place.name))
    for path in small.coordinator.round_folder(1).glob("*hospital-a.release.approval.json*"):
        path.unlink()
    with pytest.raises(UnsignedError, match="there is none of this one"):
        aggregate(small.coordinator, today=TODAY)


def test_audit_names_the_missing_approval_of_an_update_that_is_included(small: Small) -> None:
    ready(small)
    ready(small, "hospital-b")
    for place in small.sites.values():
        carry(place, small.coordinator, small.medium(place.name))
    aggregate(small.coordinator, today=TODAY)
    kept = archive(small.coordinator, small.root / "archive")
    assert audit([kept.path]).verdict is Audited.REDERIVED
    for path in kept.path.rglob("*hospital-b.release.approval.json*"):
        path.unlink()
    found = audit([kept.path])
    assert found.verdict is Audited.INCOMPLETE
    (one,) = found.findings
    assert "approval of the update of hospital-b for round 1" in one.sentence


def test_audit_says_that_an_included_update_was_approved_by_somebody_else(small: Small) -> None:
    ready(small)
    ready(small, "hospital-b")
    for place in small.sites.values():
        carry(place, small.coordinator, small.medium(place.name))
    aggregate(small.coordinator, today=TODAY)
    (path,) = small.coordinator.round_folder(1).glob("*hospital-b.release.approval.json")
    content = document.read(path, Approval).model_copy(update={"update": "0" * 64})
    path.write_bytes(content.dumps())
    key = approver(small, "hospital-b").private_key()
    signature.sign_file(path, key, namespace=sshsig.RELEASE_NAMESPACE)
    found = audit([small.coordinator.root])
    assert found.verdict is Audited.DIVERGES
    assert any("names another file" in finding.sentence for finding in found.findings)


def test_an_archive_carries_approvals_and_no_release(small: Small) -> None:
    ready(small)
    site = small.sites["hospital-a"]
    export(site, small.medium())
    kept = archive(site, small.root / "archive").path
    assert list(kept.rglob("*.approval.json.sig"))
    assert not list(kept.rglob("*.release.json")) + list(kept.rglob("*.release.html"))
    assert audit([site.root, small.coordinator.root]).verdict is not Audited.DIVERGES


def test_a_second_approval_of_the_same_update_changes_nothing_and_of_another_is_an_alarm(
    small: Small,
) -> None:
    ready(small)
    carry(small.sites["hospital-a"], small.coordinator, small.medium())
    again = by_hand(small)
    put_approval(again, small, "hospital-a", day="2026-03-09")
    verdicts = {file.name: file.verdict for file in take(small.coordinator, again).files}
    assert verdicts["other.approval.json"] is Verdict.ALREADY

    other = by_hand(small)
    put_approval(other, small, "hospital-a", update="1" * 64)
    assert isinstance(refused(take(small.coordinator, other)), ConflictError)


def test_an_approval_waits_for_the_page_and_is_of_that_page(small: Small) -> None:
    site = small.sites["hospital-a"]
    with pytest.raises(NotReadyError, match="no update to release"):
        to_approve(site)
    train(site)
    with pytest.raises(NotReadyError, match="no release page"):
        to_approve(site)
    made = release(site, today=DAY)
    done = approve(site, approver(small).key_path, "Dr. Who", today=DAY)
    assert done.approval.page == signature.digest_of(made.page).hex()
    assert approve(site, approver(small).key_path, "Dr. Who", today=DAY).already
    made.page.write_bytes(made.page.read_bytes() + b"<p>and more</p>")
    with pytest.raises(FileRefusedError, match="was changed after it was made"):
        approve(site, approver(small).key_path, "Dr. Who", today=DAY)


def test_a_page_about_an_older_update_is_not_approved(small: Small) -> None:
    site = small.sites["hospital-a"]
    path = train(site)
    release(site, today=DAY)
    about, tensors = weights.read_manifest(path), weights.read_tensors(path, small.known.table)
    path.unlink()
    weights.write(path, about, {name: 2 * values for name, values in tensors.items()})
    with pytest.raises(NotReadyError, match="of another update"):
        approve(site, approver(small).key_path, "X", today=DAY)


def test_the_approver_gives_a_name(small: Small) -> None:
    train(small.sites["hospital-a"])
    for name in ("", "  ", "a\nb", "x" * 201):
        with pytest.raises(UsageError):
            approve(small.sites["hospital-a"], approver(small).key_path, name, today=DAY)


def test_an_approver_with_a_passphrase_is_asked_for_it(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signature, "_BCRYPT_ROUNDS", 1)  # what slows guessing slows this test
    site = small.sites["hospital-a"]
    train(site)
    release(site, today=DAY)
    revoke(small.coordinator, "hospital-a.release")
    root = tmp_path / "careful"
    initialise(root, Role.APPROVER, "hospital-a.release", passphrase=b"correct horse")
    enrolment = root / "outbox" / "hospital-a.release.enrolment.json"
    admit(small.coordinator, [enrolment], confirm=say_yes)
    carry(small.coordinator, site, small.medium("roster"))
    key = root / "key" / "id_ed25519"
    with pytest.raises(BrainfedError, match="encrypted"):
        approve(site, key, "X", today=DAY)
    done = approve(site, key, "X", today=DAY, passphrase=lambda path: b"correct horse")
    assert done.is_signed


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs OpenSSH")
def test_a_key_outside_signs_by_hand_and_the_signature_is_recognised(small: Small) -> None:
    site = small.sites["hospital-a"]
    train(site)
    release(site, today=DAY)
    private = approver(small).key_path
    done = approve(site, signature.public_path(private), "Dr. Who", today=DAY)
    assert not done.is_signed
    with pytest.raises(NotReadyError):
        export(site, small.medium())
    later = approve(site, signature.public_path(private), "Dr. Who", today=TODAY)
    assert later.approval == done.approval  # what is perhaps being signed right now stays
    subprocess.run(
        ["ssh-keygen", "-Y", "sign", "-n", "brainfed-release", "-f", private, done.path],
        check=True,
        capture_output=True,
        env=os.environ | {"LC_ALL": "C"},
    )
    assert not carry(site, small.coordinator, small.medium()).refused


def test_a_federation_without_an_approver_says_how_to_get_one(tmp_path: Path) -> None:
    small = a_federation(tmp_path)
    site = small.sites["hospital-a"]
    train(site)
    release(site, today=DAY)
    with pytest.raises(NotReadyError) as caught:
        approve(site, site.key_path, "X", today=DAY)
    assert "brainfed init approver --name hospital-a.release" in str(caught.value.hint)


def test_where_the_plan_asks_for_none_an_update_leaves_as_before(tmp_path: Path) -> None:
    small = a_federation(tmp_path)
    train(small.sites["hospital-a"])
    assert not carry(small.sites["hospital-a"], small.coordinator, small.medium()).refused


def test_no_update_leaves_under_a_plan_that_was_not_accepted(tmp_path: Path) -> None:
    small = a_federation(tmp_path)
    site = small.sites["hospital-a"]
    train(site)
    path = federation.acceptance_path(site, site.name, 1)
    kept = path.read_bytes()
    path.unlink()
    with pytest.raises(NotReadyError, match="has not been accepted here"):
        export(site, small.medium())
    path.write_bytes(kept)
    export(site, small.medium())


def test_the_acceptance_of_another_plan_is_none(tmp_path: Path) -> None:
    small = a_federation(tmp_path)
    site = small.sites["hospital-a"]
    train(site)
    path = federation.acceptance_path(site, site.name, 1)
    digest = small.known.plans[0].version.digest
    path.write_bytes(path.read_bytes().replace(digest.encode(), b"0" * 64))
    with pytest.raises(NotReadyError, match="has not been accepted here"):
        export(site, small.medium())
