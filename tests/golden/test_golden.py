"""The golden files of version 1 stay readable for ever, and mean what they meant."""

import hashlib
import importlib.util
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import safetensors

from brainfed.core import averaging, sshsig
from brainfed.formats import document, enrolment, federation, signature, verify, weights
from brainfed.formats.amendment import Amendment
from brainfed.formats.approval import Approval
from brainfed.formats.document import Belonging
from brainfed.formats.enrolment import Enrolment
from brainfed.formats.federation import Federation
from brainfed.formats.final import Final
from brainfed.formats.manifest import Kind, Manifest
from brainfed.formats.record import InputStatus, Reason, Record
from brainfed.formats.roster import Role, Roster
from brainfed.formats.scores import Scores
from brainfed.formats.signature import Signed
from brainfed.formats.start import Start
from brainfed.steps import audit
from brainfed.steps.chain import Outcome
from brainfed.steps.gather import KINDS

HERE = Path(__file__).parent
V1 = HERE / "v1"
FROZEN = "0798c6dcf4138982d20bc8bdff19769388213d3144e13aa3854da37d6ffedc46"
"""SHA-256 over `digest  name` of all of v1 but `ADDED`. If it has to change, an old file has."""
ADDED = {
    "federation/hospital-a.erasure.json": (
        "08945e6c230258b36edfce806ceb96b2296b09f3c477253f1ea93bd5fe2d79b3"
    ),
    "federation/hospital-a.erasure.json.sig": (
        "59b856c100a665456c2d1ff2ada4cb3a2cdc6071042b4159cf8fd123ed3c0118"
    ),
}
"""Files of kinds that came later; those of `FROZEN` stay what they were."""
FILES = sorted(path.relative_to(V1).as_posix() for path in V1.rglob("*") if path.is_file())
SIGNED = [name for name in FILES if f"{name}.sig" in FILES]
JSON = [name for name in SIGNED if name.endswith(".json")]
WEIGHTS = [name for name in SIGNED if name.endswith(".safetensors")]
RELEASE = sshsig.RELEASE_NAMESPACE


def namespace_of(name: str) -> str:
    is_release = name.endswith(".approval.json")
    return RELEASE if is_release else sshsig.NAMESPACE


def signed(name: str) -> Signed:
    return signature.verify_file(V1 / name, namespace=namespace_of(name))


def data(name: str) -> bytes:
    return (V1 / name).read_bytes()


def kind_of(name: str) -> type[document.Header]:
    return KINDS[document.kind_of(data(name))]


def kind_of_any(name: str) -> type[document.Header] | None:
    return kind_of(name) if name in JSON else None


def named(kind: type[document.Header]) -> list[str]:
    return [name for name in JSON if kind_of(name) is kind]


@pytest.fixture(scope="module")
def rosters() -> dict[int, tuple[Signed, Roster]]:
    found = [(signed(name), Roster.loads(data(name))) for name in named(Roster)]
    return {roster.version: (by, roster) for by, roster in found}


@pytest.fixture(scope="module")
def known(rosters: dict[int, tuple[Signed, Roster]]) -> Federation:
    """The federation under its newest roster, as every reader assembles it."""
    by = signed("federation/start.json")
    start = Start.loads(data("federation/start.json"))
    assert start.roster.coordinator.public_key == by.key
    amendments = [Amendment.loads(data(name)) for name in named(Amendment)]
    return federation.assemble(start, by.digest, rosters[4][1], amendments)


def at(known: Federation, rosters: dict[int, tuple[Signed, Roster]], version: int) -> Federation:
    """The federation under the roster that a file was signed under."""
    return replace(known, roster=rosters[version][1])


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_make", HERE / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- the files themselves -----------------------------------------------------------------------


def test_no_byte_of_the_golden_files_has_changed() -> None:
    digests = {name: hashlib.sha256(data(name)).hexdigest() for name in FILES}
    assert {name: digests.pop(name) for name in ADDED} == ADDED
    lines = [f"{digest}  {name}\n" for name, digest in digests.items()]
    assert hashlib.sha256("".join(lines).encode()).hexdigest() == FROZEN
    assert sum(len(data(name)) for name in FILES) < 200_000


def test_the_script_makes_the_committed_files_to_the_byte(script: ModuleType) -> None:
    made = script.federation()
    assert list(made) == FILES
    assert [name for name in FILES if made[name] != data(name)] == []


def test_the_script_imports_nothing_of_brainfed() -> None:
    lines = (HERE / "make.py").read_text().splitlines()
    assert [line for line in lines if "import" in line.split() and "brainfed" in line] == []


def test_every_kind_role_hash_and_type_of_key_is_among_them() -> None:
    assert {kind_of(name) for name in JSON} == set(KINDS.values())
    assert {weights.read_manifest(V1 / name).kind for name in WEIGHTS} == {
        Kind.GLOBAL,
        Kind.UPDATE,
    }
    assert {e.role for e in Start.loads(data("federation/start.json")).roster.principals} == set(
        Role
    )
    signatures = [signature.read_signature(V1 / name) for name in SIGNED]
    assert {s.hash_algorithm for s in signatures} == {"sha256", "sha512"}
    assert {s.key.kind for s in signatures} == {"ssh-ed25519", "sk-ssh-ed25519@openssh.com"}
    assert {s.namespace for s in signatures} == {sshsig.NAMESPACE, RELEASE}


# --- read by brainfed ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", JSON)
def test_signed_json_reads_and_writes_back_the_same_bytes(name: str) -> None:
    assert signed(name).digest == hashlib.sha256(data(name)).hexdigest()
    assert kind_of(name).loads(data(name)).dumps() == data(name)


@pytest.mark.parametrize("name", SIGNED)
def test_a_signature_file_is_written_back_as_it_was(name: str) -> None:
    assert signature.read_signature(V1 / name).armored == data(f"{name}.sig")


@pytest.mark.parametrize("name", named(Enrolment))
def test_an_enrolment_is_signed_by_its_own_key_and_led_to_its_entry(
    name: str, rosters: dict[int, tuple[Signed, Roster]]
) -> None:
    read = enrolment.read_verified(V1 / name)
    version = int(name.split(".roster.v")[1][:4])
    (entry,) = [e for e in rosters[version][1].principals if e.key == read.key]
    assert (entry.name, entry.role, entry.recipient) == (read.name, read.role, read.recipient)


def test_each_roster_follows_the_one_before_the_last_by_the_recovery_key(
    rosters: dict[int, tuple[Signed, Roster]], known: Federation
) -> None:
    assert known.start.roster == rosters[1][1]
    assert sorted(rosters) == [1, 2, 3, 4]
    for version in (2, 3, 4):
        by, roster = rosters[version]
        roster.check_follows(rosters[version - 1][1], by.key)
    assert rosters[4][0].key.line == rosters[4][1].recovery
    assert [(e.name, e.revoked_since) for e in rosters[4][1].principals if not e.is_active] == [
        ("hospital-a", 3),
        ("hospital-b", 2),
        ("uni-lead", 3),
    ]


def test_the_derived_files_follow_from_the_newest_roster_and_plan(known: Federation) -> None:
    assert data("federation/roster") == known.roster.allowed_signers()
    assert data("federation/revoked") == known.roster.revoked_keys()
    (amendment,) = (Amendment.loads(data(name)) for name in named(Amendment))
    assert data("federation/plan.toml").decode() == amendment.plan_text


def test_round_0_and_1_are_under_the_first_plan_and_2_and_3_under_the_second(
    known: Federation,
) -> None:
    assert [known.in_force(number).version.version for number in range(4)] == [1, 1, 2, 2]
    assert [known.plan_of(number).training.rate for number in range(4)] == [
        0.001,
        0.001,
        0.0005,
        0.0005,
    ]


@pytest.mark.parametrize("name", [n for n in JSON if issubclass(kind_of(n), Belonging)])
def test_signed_json_is_verified_by_the_core_that_every_reader_uses(
    name: str, known: Federation, rosters: dict[int, tuple[Signed, Roster]]
) -> None:
    kind = kind_of(name)
    assert issubclass(kind, Belonging)
    then = at(known, rosters, kind.loads(data(name)).roster_version)
    content = verify.check_document(kind, data(name), signed(name), then)
    assert content.federation == known.digest


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_are_verified_by_the_core_and_lie_under_their_name(
    name: str, known: Federation, rosters: dict[int, tuple[Signed, Roster]]
) -> None:
    path = V1 / name
    claimed = weights.read_manifest(path)
    then = at(known, rosters, claimed.roster_version)
    with path.open("rb") as stream:
        file = verify.check_weights(stream, path.stat().st_size, signed(name), then)
    assert file.manifest == claimed
    assert path.name == known.weights_name(claimed)
    assert path.parent.name == f"r{claimed.round:04d}"


def by_digest() -> dict[str, Path]:
    return {signed(name).digest: V1 / name for name in WEIGHTS}


def values_of(path: Path) -> np.ndarray:
    return np.frombuffer(path.read_bytes()[weights.data_start(path) :], "<f4")


@pytest.mark.parametrize("name", named(Record))
def test_global_weights_are_derived_again_to_the_bit(name: str) -> None:
    record, there = Record.loads(data(name)), by_digest()
    included = [entry for entry in record.inputs if entry.status is InputStatus.INCLUDED]
    updates = [values_of(there[entry.digest or ""]) for entry in included]
    mean = averaging.weighted_mean(updates, [entry.weight for entry in included])
    assert mean.tobytes() == values_of(there[record.global_digest]).tobytes()


def test_the_rounds_are_one_chain_from_the_first_global_weights() -> None:
    there = by_digest()
    records = sorted((Record.loads(data(n)) for n in named(Record)), key=lambda r: r.round)
    assert [record.round for record in records] == [1, 2, 3]
    parent = next(d for d, path in there.items() if path.parent.name == "r0000")
    for record in records:
        assert record.parent == parent
        about: Manifest = weights.read_manifest(there[record.global_digest])
        assert (about.parent, about.round) == (parent, record.round)
        parent = record.global_digest
    left_out = {e.sender: e.reason for e in records[1].inputs if e.reason}
    assert left_out == {"hospital-b": Reason.REVOKED}
    absent = [e.sender for e in records[0].inputs if e.status is InputStatus.ABSENT]
    assert absent == ["hospital-c"]


def test_the_approval_is_of_the_update_that_was_sent_and_the_final_of_the_last_weights() -> None:
    there = by_digest()
    (approval,) = (Approval.loads(data(name)) for name in named(Approval))
    about = weights.read_manifest(there[approval.update])
    assert (f"{about.sender}.release", about.round) == (approval.sender, approval.round)
    (final,) = (Final.loads(data(name)) for name in named(Final))
    (record,) = (n for n in named(Record) if signed(n).digest == final.record)
    assert Record.loads(data(record)).global_digest == final.weights
    for name in named(Scores):
        assert Scores.loads(data(name)).weights == final.weights


def test_an_audit_derives_every_round_again_and_finds_nothing(known: Federation) -> None:
    done = audit.audit([V1])
    assert done.findings == ()
    assert done.verdict is audit.Verdict.REDERIVED
    assert [row.outcome for row in done.rounds] == [Outcome.GIVEN, *[Outcome.REDERIVED] * 3]
    assert (done.federation, done.n_files, done.n_foreign) == (known.digest, len(SIGNED), 0)


@pytest.mark.parametrize("name", SIGNED)
def test_an_audit_misses_every_file_that_another_relies_on(name: str, tmp_path: Path) -> None:
    folder = shutil.copytree(V1, tmp_path / "v1")
    (folder / name).unlink()
    (folder / f"{name}.sig").unlink()
    # Nothing names these, so an audit can't know that there were any: nobody relied on them.
    is_named = not name.endswith((".scores.json", ".approval.json", ".final.json", ".erasure.json"))
    is_named &= name not in {
        "federation/clinic-e.plan.v0001.acceptance.json",  # never trains
        "federation/clinic-e.plan.v0002.acceptance.json",
        "federation/hospital-c.plan.v0001.acceptance.json",  # sent nothing in round 1
        "federation/roster.v0001.json",  # stands inside start.json
    }
    is_missed = audit.audit([folder]).verdict is not audit.Verdict.REDERIVED
    assert is_missed == is_named


# --- read by others -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", SIGNED)
def test_ssh_keygen_accepts_every_signature(name: str, known: Federation) -> None:
    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen is not installed (Debian: openssh-client)")
    key = signature.read_signature(V1 / name).key
    command = ["ssh-keygen", "-Y", "verify", "-n", namespace_of(name)]
    # The recovery key is no principal, and an enrolment vouches for itself alone.
    if key.line == known.roster.recovery or kind_of_any(name) is Enrolment:
        command[2] = "check-novalidate"
    else:
        signers = str(V1 / "federation" / "roster")
        command += ["-f", signers, "-I", known.roster.entry(key).name]
    with (V1 / name).open("rb") as stream:
        done = subprocess.run(
            [*command, "-s", str(V1 / f"{name}.sig")],
            stdin=stream,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert key.fingerprint in done.stdout


@pytest.mark.parametrize("name", WEIGHTS)
def test_any_safetensors_reader_opens_the_weights(name: str, known: Federation) -> None:
    with safetensors.safe_open(V1 / name, "numpy") as file:
        assert {key: tuple(file.get_tensor(key).shape) for key in file.keys()} == known.table  # noqa: SIM118 - no mapping
        assert list(file.metadata()) == ["brainfed"]
