import json
import os
import shutil
import subprocess
from datetime import date
from pathlib import Path

import pytest

from brainfed.errors import (
    BrainfedError,
    ConflictError,
    NotReadyError,
    ResourceError,
    WorkspaceError,
    WrongRoleError,
)
from brainfed.formats import dataset, federation, ledger, signature, workspace
from brainfed.formats.erasure import Erased, Erasure, ErasureReason, Kept
from brainfed.formats.workspace import Workspace
from brainfed.steps.archive import archive
from brainfed.steps.audit import audit
from brainfed.steps.exchange import export
from brainfed.steps.exclude import choose
from brainfed.steps.inspect import inspect
from brainfed.steps.purge import DRAFT, Purged, purge, there_is
from brainfed.steps.split import split
from brainfed.steps.status import status
from brainfed.steps.verdict import Verdict
from tests.builders import a_plan
from tests.faults import FAILURES, KILLED, OURS, check_whole, disturbed, points, run_apart, thin_out
from tests.federation import (
    TODAY,
    Small,
    a_federation,
    a_workspace,
    carry,
    close_round,
    leftovers,
    sign,
    snapshot,
    take,
    train,
)
from tests.steps.patients import VISITS, a_site_with_patients, picture_of

LEFT = ErasureReason.LEFT
QUICK = 8
"""Points a command in `make test`; `make test-slow` takes them all."""
QUIETLY = {0, OURS + ResourceError.exit_code}
"""How a command may end whose disk failed."""
EXTENTS = [pytest.param(QUICK, id="some"), pytest.param(None, id="all", marks=pytest.mark.slow)]


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return a_federation(tmp_path / "federation")


@pytest.fixture
def site(small: Small) -> Workspace:
    """With a signed update of round 1 and one of round 2 that was never signed."""
    close_round(small)
    place = a_site_with_patients(small.sites["hospital-a"])
    path = train(place)
    path.with_name("training.jsonl").write_text("{}\n")
    (place.round_folder(1) / "training.jsonl").write_text("{}\n")
    return place


def empty(site: Workspace, today: date = TODAY) -> Purged:
    with workspace.locked(site):
        return purge(site, reason=LEFT, today=today)


def statement_of(site: Workspace) -> Path:
    return federation.erasure_path(site, site.name, 1)


def test_nothing_of_a_patient_is_left_and_what_was_exchanged_stays(site: Workspace) -> None:
    before = snapshot(site)
    done = empty(site)
    assert done.erased == tuple(Erased)
    after = snapshot(site)
    gone = {path for path in before.keys() - after.keys() if not path.startswith("outbox/")}
    assert {path.split("/")[0] for path in gone} == {"data", "reports", "rounds"}
    (update,) = [path for path in gone if path.endswith(".safetensors")]
    assert update.startswith("rounds/r0002/")
    signed = {p for p in before if f"{p}.sig" in before and not p.startswith("outbox/")}
    assert all(after[path] == before[path] for path in signed)
    assert any("rounds/r0001" in path and ".update." in path for path in signed)
    assert not site.data.exists()
    assert not site.reports.exists()
    words = [word.encode() for name in VISITS for word in (name, VISITS[name][0])]
    words += [picture_of(name) for name in VISITS]
    for path in site.root.rglob("*"):
        if path.is_file():
            assert not any(word in path.read_bytes() for word in words), path


def test_the_statement_says_what_there_was_and_is_signed_by_the_site(site: Workspace) -> None:
    dataset_digest = dataset.dataset_digest(dataset.read_index(site.data))
    split_digest = dataset.split_digest(site.data)
    done = empty(site)
    assert done.statement == statement_of(site)
    assert done.is_signed
    content = Erasure.loads(statement_of(site).read_bytes())
    assert (content.n_patients, content.n_cases) == (4, 5)
    assert (content.dataset, content.split) == (dataset_digest, split_digest)
    assert (content.reason, content.day, content.edition) == (LEFT, TODAY.isoformat(), 1)
    assert content.kept == tuple(Kept)
    shown = inspect(statement_of(site), site)
    assert (shown.kind, shown.content["erased"]) == ("erasure", [str(word) for word in Erased])
    assert "hospital-a (site)" in shown.signature
    digest = signature.digest_of(statement_of(site)).hex()
    (line,) = [line for line in ledger.read(site.ledger_path) if line["event"] == "purged"]
    assert (line["digest"], line["reason"]) == (digest, "left")
    assert ledger.missing(site.ledger_path, site.federation_folder) == []


def test_ssh_keygen_checks_the_statement(site: Workspace) -> None:
    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen is not installed (Debian: openssh-client)")
    empty(site)
    words = ["ssh-keygen", "-Y", "verify", "-n", "brainfed", "-f", "federation/roster"]
    words += ["-I", "hospital-a", "-s", f"{statement_of(site)}.sig"]
    for data, is_good in ((statement_of(site).read_bytes(), True), (b"{}", False)):
        done = subprocess.run(words, cwd=site.root, input=data, capture_output=True, check=False)
        assert (done.returncode == 0) is is_good


def test_counts_below_the_floor_are_not_stated(tmp_path: Path) -> None:
    small = a_federation(tmp_path / "small", plan=a_plan(participation={"floor": 5}))
    site = a_site_with_patients(small.sites["hospital-a"])
    empty(site)
    content = Erasure.loads(statement_of(site).read_bytes())
    assert (content.n_patients, content.n_cases) == ("fewer than 5", None)


def test_every_command_that_needs_data_says_to_preprocess(site: Workspace) -> None:
    empty(site)
    assert any("brainfed preprocess" in todo for todo in status(site).todo)
    for command in (
        lambda: split(site),
        lambda: dataset.cases_of(site.data, dataset.Subset.TRAIN),
        lambda: dataset.split_digest(site.data),
        lambda: choose(site, "anna-2019", dataset.ExclusionReason.WITHDRAWN),
    ):
        with pytest.raises(NotReadyError) as caught:
            command()
        assert "brainfed preprocess" in str(caught.value.hint)


def test_a_second_time_there_is_nothing_and_a_second_dataset_has_its_own_statement(
    site: Workspace,
) -> None:
    first = empty(site)
    before = snapshot(site)
    again = empty(site)
    assert again.already
    assert again.statement == first.statement
    assert snapshot(site) == before
    a_site_with_patients(site)
    second = empty(site)
    assert second.statement == federation.erasure_path(site, site.name, 2)
    assert second.is_signed
    assert snapshot(site).items() >= before.items()


def test_before_a_federation_all_is_erased_and_nobody_is_told(tmp_path: Path) -> None:
    site = a_workspace(tmp_path / "alone", workspace.Role.SITE, "hospital-a")
    (site.data / "cases").mkdir(parents=True)
    (site.data / "cases" / "0123456789abcdef.h5").write_bytes(b"a case")
    done = empty(site)
    assert (done.erased, done.statement) == ((Erased.CASES,), None)
    assert not site.data.exists()
    assert ledger.read(site.ledger_path)[-1]["event"] == "purged"


def test_a_link_out_of_the_data_folder_stops_it_before_anything_is_erased(
    site: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "scan.nii").write_bytes(b"a scan")
    (site.data / "more").symlink_to(tmp_path / "elsewhere")
    before = snapshot(site)
    with pytest.raises(WorkspaceError, match="A link leads out"):
        empty(site)
    assert snapshot(site) == before
    (site.data / "more").unlink()
    empty(site)
    assert (tmp_path / "elsewhere" / "scan.nii").exists()


def test_a_data_folder_on_another_disk_is_emptied(site: Workspace, tmp_path: Path) -> None:
    site.data.rename(tmp_path / "large-disk")
    site.data.symlink_to(tmp_path / "large-disk")
    empty(site)
    assert not os.path.lexists(site.data)
    assert list((tmp_path / "large-disk").iterdir()) == []


def test_what_can_not_be_signed_is_not_erased(site: Workspace) -> None:
    before = snapshot(site)
    site.key_path.chmod(0o644)
    with pytest.raises(WorkspaceError, match="read by others"):
        empty(workspace.find(site.root))
    assert snapshot(site) == before


def test_a_key_in_a_token_signs_by_hand(site: Workspace) -> None:
    key = site.key_path.rename(site.root.parent / "token")
    place = workspace.with_key(site, f"{site.key}.pub")
    done = empty(place)
    assert done.statement is not None
    assert not done.is_signed
    export(place, None, unsigned=True)
    (due,) = place.outbox.glob("*.erasure.json")
    signature.sign_file(due, signature.load_key(key))
    export(place, None)
    assert signature.verify_file(done.statement).key == place.public_key()


def test_the_coordinator_and_an_unjoined_party_have_nothing_to_purge(small: Small) -> None:
    with pytest.raises(WrongRoleError):
        there_is(small.coordinator)


# --- the statement travels -----------------------------------------------------------------------


def test_the_coordinator_takes_the_statement_in_and_once(small: Small, site: Workspace) -> None:
    empty(site)
    lead, medium = small.coordinator, small.medium("last")
    (got,) = [f for f in carry(site, lead, medium).files if f.path.name.endswith("erasure.json")]
    assert got.verdict is Verdict.ACCEPTED
    there = federation.erasure_path(lead, site.name, 1)
    assert there.read_bytes() == statement_of(site).read_bytes()
    before = snapshot(lead)
    (again,) = [f for f in take(lead, medium).files if f.path.name.endswith("erasure.json")]
    assert again.verdict is Verdict.ALREADY
    assert snapshot(lead) == before
    other = take(small.sites["hospital-b"], medium)
    assert not other.refused


def test_another_statement_of_the_same_edition_is_two_stories(
    small: Small, site: Workspace
) -> None:
    empty(site)
    lead, medium = small.coordinator, small.medium("last")
    carry(site, lead, medium)
    (path,) = medium.glob("*.erasure.json")
    changed = Erasure.loads(path.read_bytes()).model_copy(update={"day": "2026-12-24"})
    path.write_bytes(changed.dumps())
    sign(path, site)
    (refused,) = take(lead, medium).refused
    assert isinstance(refused.error, ConflictError)
    assert "two stories" in refused.error.message


@pytest.mark.parametrize("signer", ["hospital-b", "uni-lead"])
def test_nobody_states_it_for_another(small: Small, site: Workspace, signer: str) -> None:
    empty(site)
    medium = small.medium("last")
    export(site, medium)
    (path,) = medium.glob("*.erasure.json")
    sign(path, {"uni-lead": small.coordinator, **small.sites}[signer])
    (refused,) = take(small.coordinator, path).refused
    assert isinstance(refused.error, BrainfedError)
    assert "another sender" in refused.error.message


def test_audit_and_archive_know_the_statement(
    small: Small, site: Workspace, tmp_path: Path
) -> None:
    before = audit([site.root])
    empty(site)
    assert audit([site.root]).findings == before.findings
    archive(site, tmp_path / "archive")
    assert (tmp_path / "archive" / "federation" / statement_of(site).name).exists()
    changed = json.loads(statement_of(site).read_bytes()) | {"sender": "hospital-b"}
    path = statement_of(site)
    path.write_bytes(json.dumps(changed, sort_keys=True, separators=(",", ":")).encode())
    sign(path, site)
    found = {finding.sentence for finding in audit([site.root]).findings}
    assert found - {finding.sentence for finding in before.findings}


# --- a disk that fails, a process that is killed -------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.parametrize("at_most", EXTENTS)
def test_a_disturbed_purge_is_run_again_and_ends_as_an_undisturbed_one(
    site: Workspace, tmp_path: Path, at_most: int | None
) -> None:
    def run(root: Path) -> None:
        empty(workspace.find(root))

    whole = tmp_path / "whole"
    shutil.copytree(site.root, whole)
    ended = run_apart(lambda: run(whole))
    assert ended.code == 0
    old, new = snapshot(site), snapshot(workspace.find(whole))
    draft = f"data/{DRAFT}"
    new_or_draft = new | {draft: new[f"federation/{statement_of(site).name}"]}
    for point, code, root in disturbed(
        site.root, tmp_path, run, thin_out(points(ended.calls), at_most)
    ):
        place = workspace.find(root)
        assert code in QUIETLY if point.fault in FAILURES else code == KILLED, point
        found = snapshot(place)
        check_whole(point, found, old, new_or_draft)
        if f"federation/{statement_of(site).name}.sig" in found:  # what is stated is true
            assert {path for path in found if path.startswith("data/")} <= {draft}, point
        status(place)
        run(root)
        assert snapshot(place) == new, point
        purged = [x for x in ledger.read(place.ledger_path) if x["event"] == "purged"]
        assert len(purged) == 1, point
        assert leftovers(root) == [], point
