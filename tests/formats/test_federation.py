from pathlib import Path

import pytest

from brainfed import plan as plans
from brainfed.core.architecture import tensor_table
from brainfed.errors import (
    FileRefusedError,
    MalformedError,
    NotReadyError,
    PlanError,
    SignatureError,
    StrangerError,
)
from brainfed.formats import document, federation, signature
from brainfed.formats.roster import Role, Roster, Status
from tests import attacks
from tests.builders import a_plan
from tests.federation import (
    DIGESTS,
    Small,
    a_federation,
    a_key,
    a_principal,
    a_workspace,
    an_unstarted_federation,
    an_update_manifest,
    sign,
)


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return a_federation(tmp_path)


def put_roster(small: Small, version: int, *, federation_digest: str | None = None) -> Path:
    """A roster of the coordinator, put beside the first one by hand."""
    known = small.known
    principals = known.roster.principals
    roster = Roster(
        version=version,
        federation=federation_digest or known.digest,
        previous=known.roster.digest,
        recovery=known.roster.recovery,
        principals=principals,
    )
    path = federation.roster_path(small.coordinator, version)
    document.write_signed(path, roster, small.coordinator.private_key())
    return path


def test_both_sides_know_the_same_federation(small: Small) -> None:
    site = federation.load(small.sites["hospital-a"])
    assert site.digest == small.known.digest
    assert site.first_plan == small.known.first_plan == a_plan()
    assert site.table == tensor_table(a_plan())
    assert site.roster == small.known.roster


@pytest.mark.parametrize("role", Role)
def test_before_the_start_there_is_nothing_to_know(tmp_path: Path, role: Role) -> None:
    name = "somebody.release" if role is Role.APPROVER else "somebody"
    place = a_workspace(tmp_path, role, name)
    with pytest.raises(NotReadyError) as caught:
        federation.load(place)
    assert ("start" if role is Role.COORDINATOR else "import") in str(caught.value.hint)


def test_a_plan_changed_after_the_start_is_an_error(small: Small) -> None:
    path = small.coordinator.federation_folder / "plan.toml"
    path.write_text(path.read_text().replace("rounds = 2", "rounds = 3"))
    with pytest.raises(PlanError, match="changed after the start"):
        federation.load(small.coordinator)
    path.unlink()
    assert small.known.first_plan == a_plan()
    assert path.read_text() == plans.render(a_plan())


def test_a_start_changed_after_it_was_accepted_is_an_error(small: Small) -> None:
    path = small.coordinator.federation_folder / "start.json"
    path.write_bytes(path.read_bytes().replace(b'"real"', b'"drill"'))
    with pytest.raises(SignatureError):
        federation.load(small.coordinator)
    sign(path, a_key(7))
    with pytest.raises(StrangerError):
        federation.load(small.coordinator)


def test_the_newest_signed_roster_counts(small: Small) -> None:
    put_roster(small, 2)
    signature.signature_path(put_roster(small, 3)).unlink()
    assert small.known.roster.version == 2


def test_a_roster_changed_after_it_was_accepted_is_an_error(small: Small) -> None:
    path = put_roster(small, 2)
    attacks.edit_json(path, lambda content: content["principals"].pop(0))
    with pytest.raises(SignatureError):
        federation.load(small.coordinator)
    sign(path, small.sites["hospital-a"])
    with pytest.raises(FileRefusedError):
        federation.load(small.coordinator)


def test_a_roster_of_another_federation_is_an_error(small: Small) -> None:
    put_roster(small, 2, federation_digest="0" * 64)
    with pytest.raises(MalformedError, match="another federation"):
        federation.load(small.coordinator)


def test_names_of_files_say_federation_round_edition_sender_and_kind(small: Small) -> None:
    site = small.sites["hospital-a"]
    prefix = f"test-{small.known.digest[:8]}"
    first, again = an_update_manifest(site), an_update_manifest(site, edition=2)
    assert small.known.weights_name(first) == f"{prefix}.r0001.hospital-a.update.safetensors"
    assert small.known.weights_name(again) == f"{prefix}.r0001.e2.hospital-a.update.safetensors"


def test_a_principal_is_found_by_role_and_only_while_active(small: Small) -> None:
    known = small.known
    assert known.principal(Role.SITE, "hospital-a").name == "hospital-a"
    for role, name in (
        (Role.SITE, "hospital-z"),
        (Role.COORDINATOR, "hospital-a"),
        (Role.SITE, "uni-lead"),
    ):
        with pytest.raises(StrangerError):
            known.principal(role, name)
    revoked = Roster(
        version=2,
        previous=DIGESTS["one"],
        principals=(
            a_principal("hospital-a", a_key(2), status=Status.REVOKED, revoked_since=1),
            a_principal("uni-lead", a_key(1), Role.COORDINATOR),
        ),
    )
    with pytest.raises(StrangerError):
        federation.Federation(known.digest, known.start, revoked, known.plans).principal(
            Role.SITE, "hospital-a"
        )


def test_before_the_first_admission_there_is_no_roster(tmp_path: Path) -> None:
    assert federation.newest_roster(an_unstarted_federation(tmp_path).coordinator) is None
