import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from brainfed.core import sshsig
from brainfed.errors import UsageError, WorkspaceError
from brainfed.formats import courier, document, enrolment, ledger, signature, workspace
from brainfed.formats.enrolment import Enrolment
from brainfed.formats.roster import Role
from brainfed.steps.initialise import initialise
from tests.federation import Small, a_key, an_unstarted_federation, mode_of, snapshot

NAMES = {
    Role.COORDINATOR: "uni-lead",
    Role.SITE: "hospital-a",
    Role.EVALUATOR: "hospital-b",
    Role.APPROVER: "hospital-a.release",
    Role.AUDITOR: "agency",
}
OTHERS = [role for role in Role if role is not Role.COORDINATOR]


@pytest.fixture(params=[0o000, 0o022])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return an_unstarted_federation(tmp_path)


def test_a_new_site_has_a_key_and_an_enrolment_signed_by_it(tmp_path: Path) -> None:
    made = initialise(tmp_path, Role.SITE, "hospital-a", n_patients=40)
    assert made.enrolment == tmp_path / "outbox" / "hospital-a.enrolment.json"
    content = enrolment.read_verified(made.enrolment)
    assert (content.name, content.n_patients) == ("hospital-a", 40)
    place = workspace.find(tmp_path)
    assert made.fingerprint in json.dumps(ledger.read(place.ledger_path))


def test_a_new_coordinator_has_no_enrolment(tmp_path: Path) -> None:
    assert initialise(tmp_path, Role.COORDINATOR, "uni-lead").enrolment is None
    assert list((tmp_path / "outbox").iterdir()) == []


def test_a_name_that_can_not_be_a_file_name_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        initialise(tmp_path / "a", Role.SITE, "Hospital A")
    assert not (tmp_path / "a").exists()


def test_a_workspace_is_not_made_twice(small: Small) -> None:
    before = snapshot(small.coordinator)
    with pytest.raises(WorkspaceError):
        initialise(small.coordinator.root, Role.COORDINATOR, "uni-lead")
    assert snapshot(small.coordinator) == before


@pytest.mark.parametrize("role", OTHERS)
def test_everybody_but_the_coordinator_enrols_with_role_and_recipient(
    tmp_path: Path, role: Role
) -> None:
    made = initialise(tmp_path, role, NAMES[role])
    place = workspace.find(tmp_path)
    assert made.enrolment is not None
    content = enrolment.read_verified(made.enrolment)
    assert (content.role, content.name) == (role, NAMES[role])
    assert content.key == place.public_key().line
    assert made.recovery is None
    expected = courier.recipient_of(place.identity_path) if courier.is_available() else None
    assert content.recipient == expected


def test_a_new_coordinator_has_a_recovery_key_and_an_identity(tmp_path: Path) -> None:
    made = initialise(tmp_path, Role.COORDINATOR, "uni-lead")
    place = workspace.find(tmp_path)
    assert made.recovery == place.recovery_path
    assert place.recovery_is_here
    recovery = sshsig.public_key(signature.load_key(place.recovery_path))
    assert signature.read_public(signature.public_path(place.recovery_path)) == recovery
    assert recovery != place.public_key()
    assert place.identity_path.exists() == courier.is_available()


@pytest.mark.parametrize("role", Role)
@pytest.mark.usefixtures("umask")
def test_nothing_of_a_workspace_is_open_to_others(tmp_path: Path, role: Role) -> None:
    root = tmp_path / "there"
    root.mkdir(mode=0o755)
    initialise(root, role, NAMES[role])
    assert mode_of(root) == 0o700
    private = {"brainfed.toml", "ledger.jsonl", "id_ed25519", "recovery_ed25519", "age_identity"}
    seen = set()
    for path in root.rglob("*"):
        if path.is_dir() or path.name in private:
            assert mode_of(path) & 0o077 == 0, path
        assert mode_of(path) & 0o022 == 0, path
        seen.add(path.name)
    assert seen >= {"brainfed.toml", "ledger.jsonl", "id_ed25519"}


@pytest.mark.parametrize(
    ("role", "name"),
    [
        (Role.APPROVER, "hospital-a"),
        (Role.APPROVER, "Hospital A.release"),
        (Role.APPROVER, ".release"),
        (Role.SITE, "hospital-a.release"),
        (Role.AUDITOR, "con"),
    ],
)
def test_a_name_that_its_role_can_not_have_makes_nothing(
    tmp_path: Path, role: Role, name: str
) -> None:
    with pytest.raises(UsageError):
        initialise(tmp_path / "a", role, name)
    assert not (tmp_path / "a").exists()


def test_a_passphrase_protects_the_key_and_the_recovery_key(tmp_path: Path) -> None:
    initialise(tmp_path, Role.COORDINATOR, "uni-lead", passphrase=b"open sesame")
    place = workspace.find(tmp_path, lambda path: b"open sesame")
    assert sshsig.public_key(place.private_key()) == place.public_key()
    for path in (place.key_path, place.recovery_path):
        assert signature.read_public_part(path)[1]
    assert b"sesame" not in b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())


def test_a_key_that_is_there_stays_where_it_is(tmp_path: Path) -> None:
    public = signature.make_key(tmp_path / "mine", b"open sesame")
    before = (tmp_path / "mine").read_bytes()
    asked: list[Path] = []

    def unlock(path: Path) -> bytes:
        asked.append(path)
        return b"open sesame"

    root, given = tmp_path / "a", tmp_path / "mine"
    made = initialise(root, Role.SITE, "hospital-a", given=given, unlock=unlock)
    place = workspace.find(root)
    assert asked == [given]
    assert place.key_path == made.key == given
    assert place.public_key() == public
    assert made.enrolment is not None
    assert enrolment.read_verified(made.enrolment).key == public.line
    assert (tmp_path / "mine").read_bytes() == before
    assert not list((root / "key").glob("id_*"))


def test_a_key_that_lies_in_the_workspace_moves_with_it(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    public = signature.make_key(tmp_path / "a" / "mine")
    initialise(tmp_path / "a", Role.SITE, "hospital-a", given=tmp_path / "a" / "mine")
    (tmp_path / "a").rename(tmp_path / "b")
    assert sshsig.public_key(workspace.find(tmp_path / "b").private_key()) == public


def test_the_recovery_key_has_the_passphrase_of_the_given_key(tmp_path: Path) -> None:
    signature.make_key(tmp_path / "mine", b"open sesame")
    root, given = tmp_path / "a", tmp_path / "mine"
    initialise(root, Role.COORDINATOR, "lead", given=given, unlock=lambda path: b"open sesame")
    signature.load_key(workspace.find(root).recovery_path, b"open sesame")
    assert signature.read_public_part(workspace.find(root).recovery_path)[1]


@pytest.mark.parametrize("application", [None, b"ssh:"])
def test_a_key_in_an_agent_or_a_token_leaves_the_enrolment_unsigned(
    tmp_path: Path, application: bytes | None
) -> None:
    public = sshsig.PublicKey(a_key().public_key().public_bytes_raw(), application)
    (tmp_path / "mine.pub").write_text(f"{public.line} jane@ward-3\n")
    root, given = tmp_path / "a", tmp_path / "mine.pub"
    made = initialise(root, Role.SITE, "hospital-a", given=given)
    place = workspace.find(root)
    assert not made.is_signed
    assert made.enrolment is not None
    assert document.read(made.enrolment, Enrolment).key == public.line
    assert not signature.signature_path(made.enrolment).exists()
    assert place.public_key() == public
    assert b"jane" not in b"".join(p.read_bytes() for p in root.rglob("*") if p.is_file())
    assert not place.has_private_key


def wrong_keys(folder: Path) -> dict[str, Path]:
    """Keys that can't be used, by what is wrong with them."""
    public = signature.make_key(folder / "open")
    (folder / "open").chmod(0o644)
    signature.make_key(folder / "encrypted", b"open sesame")
    (folder / "rsa.pub").write_text("ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQ==")
    (folder / "noise").write_bytes(b"\0" * 100)
    (folder / "noise").chmod(0o600)
    (folder / "li\nne").write_text(public.line)
    signature.make_key(folder / "other")
    signature.write_public(folder / "other.pub", public)
    names = ["open", "encrypted", "rsa.pub", "noise", "li\nne", "other", "missing", "."]
    return {name: folder / name for name in names}


@pytest.mark.parametrize(
    "name", ["open", "encrypted", "rsa.pub", "noise", "li\nne", "other", "missing", "."]
)
def test_a_key_that_can_not_be_used_makes_nothing(tmp_path: Path, name: str) -> None:
    given = wrong_keys(tmp_path)[name]
    with pytest.raises((UsageError, WorkspaceError)):
        initialise(
            tmp_path / "a", Role.SITE, "hospital-a", given=given, unlock=lambda path: b"wrong"
        )
    assert not (tmp_path / "a").exists()


def test_a_coordinator_can_not_have_its_key_elsewhere(tmp_path: Path) -> None:
    signature.write_public(tmp_path / "mine.pub", sshsig.public_key(a_key()))
    with pytest.raises(UsageError, match="agent or a hardware token") as caught:
        initialise(tmp_path / "a", Role.COORDINATOR, "lead", given=tmp_path / "mine.pub")
    assert "aggregation" in str(caught.value.expected)
    assert not (tmp_path / "a").exists()


def test_a_killed_init_with_a_passphrase_does_not_end_without_one(tmp_path: Path) -> None:
    initialise(tmp_path, Role.SITE, "hospital-a")
    (tmp_path / workspace.MARKER).unlink()  # as if killed before its last write
    with pytest.raises(WorkspaceError, match="earlier try"):
        initialise(tmp_path, Role.SITE, "hospital-a", passphrase=b"open sesame")
    initialise(tmp_path, Role.SITE, "hospital-a")
