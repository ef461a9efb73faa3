"""A score file from its site to the coordinator, the archive and the audit, and what stops it."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from brainfed.core import canonical
from brainfed.errors import (
    BrainfedError,
    ConflictError,
    MalformedError,
    StrangerError,
    WrongFederationError,
    WrongRoundError,
)
from brainfed.formats import federation, ledger, rounds, sent, signature, workspace
from brainfed.formats.dataset import Subset
from brainfed.formats.roster import Role
from brainfed.formats.workspace import Workspace
from brainfed.steps.admit import admit, revoke
from brainfed.steps.archive import archive
from brainfed.steps.audit import Verdict as AuditVerdict
from brainfed.steps.audit import audit
from brainfed.steps.exchange import export
from brainfed.steps.findings import FindingKind
from brainfed.steps.initialise import initialise
from brainfed.steps.inspect import inspect
from brainfed.steps.purge import ErasureReason, purge
from brainfed.steps.rotate import rotate
from brainfed.steps.status import status
from brainfed.steps.verdict import Verdict
from tests.builders import a_plan
from tests.faults import killed_everywhere
from tests.federation import (
    TODAY,
    Small,
    a_federation,
    a_key,
    carry,
    close_round,
    enrolment_of,
    say_yes,
    sign,
    snapshot,
    take,
)
from tests.scored import rows_of, score, scores_in, with_a_split


@pytest.fixture
def small(tmp_path: Path) -> Small:
    """Rounds 0 and 1 are closed; hospital-a has patients."""
    found = a_federation(tmp_path / "federation", plan=a_plan(participation={"floor": 5}))
    close_round(found)
    site = with_a_split(found.sites["hospital-a"])
    sent.write(site.data, sent.Sent(first_round=0, groups=()))
    return found


@pytest.fixture
def site(small: Small) -> Workspace:
    return small.sites["hospital-a"]


def lying(place: Workspace) -> list[Path]:
    return sorted(place.rounds.glob("r*/*.scores.json"))


def brought(small: Small, site: Workspace, **options: Any) -> Path:
    """Scores of round 1, at the coordinator."""
    score(site, rows_of(range(24)), number=1, **options)
    assert not carry(site, small.coordinator, small.medium()).refused
    (path,) = lying(small.coordinator)
    return path


def forged(
    small: Small, site: Workspace, signer: Any = None, **changes: Any
) -> tuple[BrainfedError | None, Verdict]:
    """What the coordinator makes of scores that were changed and signed anew."""
    path = score(site, rows_of(range(24)), number=1)
    assert path is not None
    content = json.loads(path.read_bytes()) | changes
    target = small.medium("forged") / "scores.json"
    target.write_bytes(canonical.dumps(content))
    sign(target, signer or site)
    (file,) = take(small.coordinator, target).files
    return file.error, file.verdict


# --- there ----------------------------------------------------------------------------------------


def test_scores_travel_and_lie_at_the_coordinator_byte_for_byte(
    small: Small, site: Workspace
) -> None:
    path = brought(small, site)
    (there,) = lying(site)
    assert path.read_bytes() == there.read_bytes()
    assert path.relative_to(small.coordinator.root) == there.relative_to(site.root)
    told = ledger.read(small.coordinator.ledger_path)[-1]
    assert told["what"] == "the scores of hospital-a for the global weights of round 1"
    assert told["digest"] == signature.digest_of(path).hex()
    assert ledger.missing(small.coordinator.ledger_path, small.coordinator.rounds) == []
    assert ledger.missing(site.ledger_path, site.rounds) == []


def test_bringing_them_again_changes_nothing(small: Small, site: Workspace) -> None:
    brought(small, site)
    before = snapshot(small.coordinator)
    done = take(small.coordinator, small.medium())
    assert {file.verdict for file in done.files} == {Verdict.ALREADY}
    assert snapshot(small.coordinator) == before


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="OpenSSH is not installed")
def test_ssh_keygen_checks_them_with_the_roster(small: Small, site: Workspace) -> None:
    path = brought(small, site)
    roster = small.coordinator.federation_folder / federation.ROSTER
    command = ["ssh-keygen", "-Y", "verify", "-n", "brainfed", "-f", roster, "-I", site.name]
    with path.open("rb") as stream:
        done = subprocess.run(
            [*command, "-s", f"{path}.sig"], stdin=stream, check=False, capture_output=True
        )
    assert done.returncode == 0, done.stderr


def test_an_evaluator_scores_and_sends_too(small: Small, tmp_path: Path) -> None:
    initialise(tmp_path / "clinic-e", Role.EVALUATOR, "clinic-e")
    evaluator = workspace.find(tmp_path / "clinic-e")
    admit(small.coordinator, [enrolment_of(evaluator)], confirm=say_yes)
    carry(small.coordinator, evaluator, small.medium("to-e"))
    brought(small, with_a_split(evaluator))


def test_a_site_leaves_the_scores_of_others_alone(small: Small, site: Workspace) -> None:
    brought(small, site)
    other = small.sites["hospital-b"]
    before = snapshot(other)
    files = take(other, small.medium()).files
    assert {"ignored"} >= {f.verdict for f in files if "scores" in f.what}
    assert snapshot(other) == before


def test_a_file_that_says_more_takes_the_place_and_the_older_one_comes_to_nothing(
    small: Small, site: Workspace
) -> None:
    path = brought(small, site)
    old = small.medium("old stick")
    shutil.copytree(small.medium(), old, dirs_exist_ok=True)
    first = scores_in(path)
    score(site, rows_of(range(40, 48)), number=1, subset=Subset.VALIDATION)
    assert not carry(site, small.coordinator, small.medium()).refused
    grown = scores_in(path)
    assert grown.keeps(first)
    assert not first.keeps(grown)
    assert path.read_bytes() == lying(site)[0].read_bytes()
    signature.verify_file(path)
    done = take(small.coordinator, old)
    assert not done.refused
    assert scores_in(path) == grown


def test_killed_anywhere_the_coordinator_ends_with_the_file_that_says_more(
    small: Small, site: Workspace, tmp_path: Path
) -> None:
    path = brought(small, site)
    name = path.relative_to(small.coordinator.root)
    score(site, rows_of(range(40, 48)), number=1, subset=Subset.VALIDATION)
    export(site, small.medium())

    def bring(root: Path) -> None:
        place = workspace.find(root)
        with workspace.locked(place):
            take(place, small.medium())

    for _, root in killed_everywhere(small.coordinator.root, tmp_path / "work", bring, step=3):
        if (root / name).exists() and signature.signature_path(root / name).exists():
            signature.verify_file(root / name)
        bring(root)
        assert (root / name).read_bytes() == lying(site)[0].read_bytes()
        signature.verify_file(root / name)


# --- refused --------------------------------------------------------------------------------------


def a_figure(**changes: Any) -> dict[str, Any]:
    nothing = dict.fromkeys(("q1", "median", "q3"))
    figure = {"subset": "test", "group": "all", "measure": "dice", "region": "WT", "n": 9}
    return figure | nothing | {"mean": 500_000, "sd": 10_000} | changes


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"weights": "0" * 64}, WrongRoundError, "other weights"),
        ({"edition": 2}, WrongRoundError, "other weights"),
        ({"round": 2}, WrongRoundError, "other weights"),
        ({"plan": {"version": 1, "digest": "0" * 64}}, WrongFederationError, "another plan"),
        ({"federation": "0" * 64}, WrongFederationError, "another federation"),
        ({"purpose": "real"}, WrongRoundError, "purpose"),
        ({"sender": "hospital-b"}, StrangerError, "another sender"),
        ({"roster_version": 9}, WrongRoundError, "newer roster"),
        ({"figures": [a_figure(n=4)]}, MalformedError, "fewer patients than the plan"),
        ({"figures": [a_figure(measure="guess")]}, MalformedError, "Not a scores"),
        ({"comment": "Anna Schmidt"}, MalformedError, "Not a scores"),
    ],
    ids=str,
)
def test_what_does_not_belong_is_refused(
    small: Small, site: Workspace, changes: dict[str, Any], kind: type[BrainfedError], words: str
) -> None:
    if changes.get("purpose") == small.known.start.purpose:
        changes = {"purpose": "drill"}
    before = snapshot(small.coordinator)
    error, verdict = forged(small, site, **changes)
    assert verdict is Verdict.REFUSED
    assert isinstance(error, kind)
    assert words in error.message
    assert snapshot(small.coordinator) == before


def test_a_stranger_s_and_the_coordinator_s_own_scores_are_refused(
    small: Small, site: Workspace
) -> None:
    for signer in (a_key(9), small.coordinator):
        error, verdict = forged(small, site, signer)
        assert verdict is Verdict.REFUSED
        assert isinstance(error, StrangerError)


def test_a_figure_that_changes_is_an_alarm_and_the_first_file_stays(
    small: Small, site: Workspace
) -> None:
    path = brought(small, site)
    before = path.read_bytes()
    error, verdict = forged(small, site, figures=[a_figure()])
    assert verdict is Verdict.REFUSED
    assert isinstance(error, ConflictError)
    assert "tells two stories" in error.message
    assert path.name in str(error.expected)
    assert path.read_bytes() == before


def test_scores_by_a_revoked_key_are_refused_and_signed_again_by_the_new_one(
    small: Small, site: Workspace
) -> None:
    path = brought(small, site)
    score(site, rows_of(range(40, 48)), number=1, subset=Subset.VALIDATION)
    export(site, small.medium("late"))
    revoke(small.coordinator, site.name)
    done = take(small.coordinator, small.medium("late"))
    assert {type(f.error) for f in done.refused} == {StrangerError}
    rotate(site)
    new = workspace.find(site.root)
    admit(small.coordinator, [enrolment_of(new)], confirm=say_yes)
    carry(small.coordinator, new, small.medium("roster"))
    assert not carry(new, small.coordinator, small.medium("again")).refused
    assert path.read_bytes() == lying(new)[0].read_bytes()
    assert signature.verify_file(path).key == new.public_key()


# --- kept -----------------------------------------------------------------------------------------


def test_the_archive_holds_them_and_takes_the_file_that_says_more(
    small: Small, site: Workspace, tmp_path: Path
) -> None:
    path = brought(small, site)
    kept = tmp_path / "archive"
    archive(small.coordinator, kept)
    copy = kept / path.relative_to(small.coordinator.root)
    assert copy.read_bytes() == path.read_bytes()
    score(site, rows_of(range(40, 48)), number=1, subset=Subset.VALIDATION)
    carry(site, small.coordinator, small.medium())
    assert archive(small.coordinator, kept).n_new == 1
    assert copy.read_bytes() == path.read_bytes()
    signature.verify_file(copy)
    done = audit([kept])
    assert done.verdict is AuditVerdict.REDERIVED, done.findings


def test_an_archive_never_takes_scores_that_say_other_things(
    small: Small, site: Workspace, tmp_path: Path
) -> None:
    path = brought(small, site)
    archive(small.coordinator, tmp_path / "archive")
    content = json.loads(path.read_bytes()) | {"figures": [a_figure()]}
    path.write_bytes(canonical.dumps(content))
    sign(path, site)
    with pytest.raises(ConflictError, match="another file"):
        archive(small.coordinator, tmp_path / "archive")


def test_an_audit_takes_an_older_copy_beside_a_newer_one_for_no_second_story(
    small: Small, site: Workspace
) -> None:
    brought(small, site)
    score(site, rows_of(range(40, 48)), number=1, subset=Subset.VALIDATION)
    export(site, None)
    done = audit([small.coordinator.root, site.root])
    assert done.verdict is AuditVerdict.REDERIVED, done.findings


def edited(path: Path, site: Workspace, edit: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_bytes())
    edit(content)
    path.write_bytes(canonical.dumps(content))
    sign(path, site)


def test_an_audit_names_scores_of_weights_that_nobody_knows(small: Small, site: Workspace) -> None:
    path = brought(small, site)
    edited(path, site, lambda content: content.update(weights="0" * 64))
    done = audit([small.coordinator.root])
    assert [(f.kind, f.file) for f in done.findings] == [(FindingKind.CONTENT, path)]


def test_an_audit_misses_the_weights_of_a_round_that_is_not_there(
    small: Small, site: Workspace
) -> None:
    path = brought(small, site)
    edited(path, site, lambda content: content.update(edition=2))
    done = audit([small.coordinator.root])
    assert FindingKind.MISSING in {f.kind for f in done.findings if f.file == path}


def test_an_audit_names_two_scores_that_contradict_each_other(
    small: Small, site: Workspace
) -> None:
    path = brought(small, site)
    edited(path, site, lambda content: content.update(figures=[a_figure()]))
    done = audit([small.coordinator.root, site.root])
    (found,) = done.findings
    assert found.kind is FindingKind.TWO_STORIES
    assert str(path) in found.sentence
    assert str(lying(site)[0]) in found.sentence


def test_scores_that_wait_for_their_signature_are_no_finding(small: Small, site: Workspace) -> None:
    score(site, rows_of(range(24)), number=1)
    done = audit([site.root, small.coordinator.root])
    assert done.verdict is AuditVerdict.REDERIVED, done.findings


# --- around ---------------------------------------------------------------------------------------


def test_status_tells_that_scores_are_to_be_sent(small: Small, site: Workspace) -> None:
    path = score(site, rows_of(range(24)), number=1)
    assert path is not None
    assert any(path.name in line and "brainfed export" in line for line in status(site).todo)
    export(site, small.medium())
    assert not any(path.name in line for line in status(site).todo)


def test_inspect_reads_them_with_the_name_of_their_signer(small: Small, site: Workspace) -> None:
    found = inspect(brought(small, site), small.coordinator)
    assert found.kind == "scores"
    assert "made by hospital-a" in found.signature


def test_a_purge_erases_scores_that_were_never_signed_and_keeps_the_others(
    small: Small, site: Workspace
) -> None:
    brought(small, site)
    score(site, rows_of(range(24)), number=0)
    assert len(lying(site)) == 2
    purge(site, reason=ErasureReason.ENDED, today=TODAY)
    assert [path.parent.name for path in lying(site)] == ["r0001"]
    assert not sent.path_of(site.data).exists()


def test_after_a_purge_no_round_is_told_again(small: Small, site: Workspace) -> None:
    brought(small, site)
    purge(site, reason=ErasureReason.ENDED, today=TODAY)
    with_a_split(site)
    assert score(site, rows_of(range(23)), number=0) is None
    newest = rounds.newest_round(site)
    assert score(site, rows_of(range(8)), number=newest or 0, subset=Subset.VALIDATION) is None
