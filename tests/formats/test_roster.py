import shutil
import subprocess
from pathlib import Path

import pytest

from brainfed.core.sshsig import public_key
from brainfed.errors import MalformedError, StrangerError
from brainfed.formats.roster import PrincipalRole, Roster, Status
from brainfed.steps.exchange import export
from tests.federation import a_federation, a_key, a_principal, a_roster, train

COORDINATOR = PrincipalRole.COORDINATOR


def a_roster_of(*principals: object) -> Roster:
    return Roster(version=1, principals=tuple(principals))


def test_the_holder_of_a_key_is_found() -> None:
    roster = a_roster(uni_lead=a_key(1), hospital_a=a_key(2))
    assert roster.holder(public_key(a_key(2))).name == "hospital-a"
    assert roster.coordinator.name == "uni-lead"
    assert [site.name for site in roster.sites] == ["hospital-a"]


def test_nobody_holds_a_strangers_key() -> None:
    with pytest.raises(StrangerError, match="not in the roster"):
        a_roster(uni_lead=a_key(1)).holder(public_key(a_key(9)))


def test_a_revoked_key_counts_no_longer() -> None:
    revoked = a_principal("hospital-a", a_key(2), status=Status.REVOKED, revoked_since=3)
    roster = a_roster_of(revoked, a_principal("uni-lead", a_key(1), COORDINATOR))
    assert roster.sites == ()
    with pytest.raises(StrangerError, match="revoked"):
        roster.holder(public_key(a_key(2)))


@pytest.mark.parametrize(
    "principals",
    [
        [],
        [a_principal("hospital-a", a_key(2))],
        [a_principal("a", a_key(1), COORDINATOR), a_principal("b", a_key(2), COORDINATOR)],
        [a_principal("a", a_key(1), COORDINATOR), a_principal("a", a_key(2))],
        [a_principal("a", a_key(1), COORDINATOR), a_principal("b", a_key(1))],
        [a_principal("b", a_key(1), COORDINATOR), a_principal("a", a_key(2))],
        [a_principal("a", a_key(1), COORDINATOR, status=Status.REVOKED)],
        [a_principal("a", a_key(1), COORDINATOR, revoked_since=2)],
    ],
    ids=[
        "nobody", "no coordinator", "two coordinators", "a name twice", "a key twice", "unsorted",
        "revoked since never", "active but revoked",
    ],
)  # fmt: skip
def test_a_roster_that_contradicts_itself_is_refused(principals: list[object]) -> None:
    with pytest.raises(ValueError, match=r"principals|coordinator|revoked"):
        a_roster_of(*principals)
    data = Roster.model_construct(version=1, principals=tuple(principals)).dumps()
    with pytest.raises(MalformedError):
        Roster.loads(data)


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


def test_an_approver_can_not_sign_for_brainfed() -> None:
    roster = a_roster_of(
        a_principal("lawyer", a_key(3), PrincipalRole.APPROVER),
        a_principal("uni-lead", a_key(1), COORDINATOR),
    )
    assert b"lawyer" not in roster.allowed_signers()


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
