"""The final: chosen on validation, signed once, carried to the sites; no round is closed after."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from brainfed.core import canonical
from brainfed.errors import (
    BrainfedError,
    ConflictError,
    MalformedError,
    NotReadyError,
    QuorumError,
    StrangerError,
    UsageError,
    WrongFederationError,
    WrongRoleError,
    WrongRoundError,
)
from brainfed.formats import document, federation, ledger, rounds, signature, workspace
from brainfed.formats.final import Final
from brainfed.formats.workspace import Workspace
from brainfed.steps.audit import Verdict as AuditVerdict
from brainfed.steps.audit import audit
from brainfed.steps.compare_rounds import compare_rounds
from brainfed.steps.exchange import export
from brainfed.steps.finish import Finished, check_unfinished, finish
from brainfed.steps.rotate import rotate
from brainfed.steps.status import status
from brainfed.steps.verdict import Verdict
from tests.faults import killed_everywhere
from tests.federation import (
    TODAY,
    Small,
    a_federation,
    carry,
    close_round,
    copy_of,
    sign,
    snapshot,
    take,
)
from tests.reported import a_reported_federation

N_ROUNDS = 3


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """Three rounds, each better than the one before; hospital-c is below the floor."""
    return a_reported_federation(tmp_path_factory.mktemp("reported"), N_ROUNDS)


@pytest.fixture
def small(told: Small, tmp_path: Path) -> Small:
    return copy_of(told, tmp_path / "federation")


@pytest.fixture
def silent(tmp_path: Path) -> Small:
    """Two rounds of which nobody has told anything."""
    found = a_federation(tmp_path / "federation")
    close_round(found)
    close_round(found)
    return found


def finished(small: Small, **options: Any) -> Finished:
    return finish(small.coordinator, today=TODAY, **options)


def without_scores_of_the_last_round(small: Small) -> Small:
    for path in small.coordinator.rounds.rglob("*.scores.json"):
        path.unlink()
    return small


def finals(place: Workspace) -> list[Path]:
    return rounds.final_paths(place)


def forged(small: Small, signer: Any = None, **changes: Any) -> BrainfedError | None:
    """What hospital-a makes of a final that was changed and signed anew."""
    content = json.loads(finished(small).path.read_bytes()) | changes
    target = small.medium("forged") / "final.json"
    target.write_bytes(canonical.dumps(content))
    sign(target, signer or small.coordinator)
    site = small.sites["hospital-a"]
    (file,) = take(site, target).files
    assert (file.verdict is Verdict.ACCEPTED) == bool(finals(site))
    return file.error


# --- chosen ---------------------------------------------------------------------------------------


def test_the_best_round_on_validation_is_signed_with_its_weights_and_its_record(
    small: Small,
) -> None:
    done = finished(small)
    best = compare_rounds(small.coordinator).best
    assert done.final.round == best == N_ROUNDS
    weights = rounds.global_path(small.coordinator, N_ROUNDS)
    (record,) = rounds.records(small.coordinator, N_ROUNDS)
    assert weights is not None
    assert done.final.weights == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert done.final.record == hashlib.sha256(record.read_bytes()).hexdigest()
    assert done.final.weights_licence == "CC-BY-4.0"
    assert done.by_validation
    assert not done.already
    (line,) = [e for e in ledger.read(small.coordinator.ledger_path) if e.get("what") == "final"]
    assert (line["event"], line["digest"]) == ("made", done.digest)
    assert audit([small.coordinator.root]).verdict is AuditVerdict.REDERIVED


def test_what_the_comparison_does_not_see_is_said(small: Small) -> None:
    told = compare_rounds(small.coordinator)
    assert told.compared == ("hospital-a", "hospital-b")
    assert [(u.site, u.why) for u in told.unseen] == [
        ("hospital-c", "fewer than 5 patients: the floor holds them back")
    ]
    assert [entry.n for entry in told.rounds] == [36, 36, 36, 36]
    assert told.not_compared == ()


def test_a_round_that_a_site_has_not_told_of_is_named_and_not_compared(small: Small) -> None:
    without_scores_of_the_last_round(small)
    told = compare_rounds(small.coordinator)
    assert told.best == N_ROUNDS - 1
    assert told.not_compared == (f"Round {N_ROUNDS}: no figure of hospital-a, hospital-b.",)


def test_a_site_that_was_revoked_is_not_asked_any_more(small: Small) -> None:
    from brainfed.steps.admit import revoke

    revoke(small.coordinator, "hospital-b")
    told = compare_rounds(small.coordinator)
    assert told.sites == ("hospital-a", "hospital-c")
    assert (told.compared, told.best) == (("hospital-a",), N_ROUNDS)


def test_a_site_sees_its_own_figures_and_no_best_round(small: Small) -> None:
    told = compare_rounds(small.sites["hospital-a"])
    assert not told.is_whole
    assert told.best is None
    assert {score.site for entry in told.rounds for score in entry.sites} == {"hospital-a"}


def test_the_newest_round_must_be_told_of_or_left_out_on_purpose(small: Small) -> None:
    without_scores_of_the_last_round(small)
    with pytest.raises(NotReadyError, match="can't be compared yet") as caught:
        finished(small)
    assert "hospital-a, hospital-b" in str(caught.value.expected)
    assert "--round 2" in str(caught.value.hint)
    assert finals(small.coordinator) == []
    assert finished(small, round_number=2).final.round == 2


def test_another_round_than_the_best_is_refused_by_name(small: Small) -> None:
    with pytest.raises(UsageError) as caught:
        finished(small, round_number=1)
    assert caught.value.expected == f"round {N_ROUNDS}"
    assert finals(small.coordinator) == []


def test_where_validation_cannot_tell_a_person_names_the_round(silent: Small) -> None:
    with pytest.raises(UsageError, match="can't tell"):
        finished(silent)
    with pytest.raises(NotReadyError, match="no global weights of round 7"):
        finished(silent, round_number=7)
    done = finished(silent, round_number=1)
    assert done.final.round == 1
    assert not done.by_validation
    assert done.told.best is None


def test_the_initial_weights_can_be_named_too_and_have_no_record(silent: Small) -> None:
    assert finished(silent, round_number=0).final.record is None
    carry(silent.coordinator, silent.sites["hospital-a"], silent.medium("final"))
    assert len(finals(silent.sites["hospital-a"])) == 1


# --- once -----------------------------------------------------------------------------------------


def test_finishing_again_changes_nothing(small: Small) -> None:
    first = finished(small)
    before = snapshot(small.coordinator)
    again = finished(small)
    assert (again.already, again.digest) == (True, first.digest)
    assert snapshot(small.coordinator) == before


def test_figures_that_come_later_change_no_final(small: Small) -> None:
    without_scores_of_the_last_round(small)
    finished(small, round_number=2)
    stick = small.medium("scores-hospital-a"), small.medium("scores-hospital-b")
    assert not take(small.coordinator, *stick).refused
    again = finished(small)
    assert (again.final.round, again.already, again.by_validation) == (2, True, False)
    assert again.told.best == N_ROUNDS


def test_a_second_final_is_refused(small: Small) -> None:
    finished(small)
    with pytest.raises(ConflictError, match="signed already"):
        finished(small, round_number=1)
    assert len(finals(small.coordinator)) == 1


def test_no_round_is_closed_after_the_final(small: Small) -> None:
    check_unfinished(small.coordinator, small.known)
    finished(small)
    with pytest.raises(QuorumError, match="no round is closed after the final"):
        check_unfinished(small.coordinator, small.known)


def test_only_the_coordinator_finishes(small: Small) -> None:
    with pytest.raises(WrongRoleError):
        finish(small.sites["hospital-a"], today=TODAY)


def test_a_final_that_was_damaged_is_not_believed(small: Small) -> None:
    path = finished(small).path
    path.write_bytes(path.read_bytes().replace(b"CC-BY-4.0", b"CC-BY-9.0"))
    with pytest.raises(BrainfedError):
        rounds.verify_final(small.coordinator, small.known)


def test_two_finals_in_one_workspace_are_an_alarm(small: Small) -> None:
    first = finished(small)
    other = Final.model_validate(
        first.final.model_dump() | {"round": 0, "record": None, "plan": first.final.plan}
    )
    path = small.coordinator.round_folder(0) / f"{small.known.file_stem(other)}.final.json"
    document.write_signed(path, other, small.coordinator.private_key())
    with pytest.raises(ConflictError, match="Two finals"):
        rounds.verify_final(small.coordinator, small.known)


def test_it_can_be_killed_at_any_moment(small: Small, tmp_path: Path) -> None:
    def command(root: Path) -> None:
        finish(workspace.find(root), today=TODAY)

    for _, root in killed_everywhere(small.coordinator.root, tmp_path / "work", command, step=4):
        command(root)
        place = workspace.find(root)
        there = rounds.verify_final(place, federation.load(place))
        assert there is not None
        assert there[0].round == N_ROUNDS
        assert (place.outbox / there[1].name).exists()


# --- carried --------------------------------------------------------------------------------------


def test_it_goes_to_a_site_which_takes_it_once(small: Small) -> None:
    done = finished(small)
    site = small.sites["hospital-a"]
    taken = carry(small.coordinator, site, small.medium("final"))
    assert not taken.refused
    (path,) = finals(site)
    assert path.read_bytes() == done.path.read_bytes()
    assert path.relative_to(site.root) == done.path.relative_to(small.coordinator.root)
    there = rounds.verify_final(site, federation.load(site))
    assert there is not None
    assert there[0] == done.final
    before = snapshot(site)
    again = take(site, small.medium("final"))
    assert {file.verdict for file in again.files} == {Verdict.ALREADY}
    assert snapshot(site) == before
    assert ledger.missing(site.ledger_path, site.rounds) == []


def test_the_weights_that_it_names_travel_along_though_newer_ones_are_there(
    silent: Small, tmp_path: Path
) -> None:
    finished(silent, round_number=1)
    names = export(silent.coordinator, None).outbox
    assert sum(".r0001." in name for name in names) == 6
    assert sum(".r0002." in name for name in names) == 4
    # A site that has neither weights nor records of these rounds takes all of one medium.
    fresh = a_federation(tmp_path / "fresh").sites["hospital-a"]
    assert federation.load(fresh).digest == silent.known.digest
    taken = take(fresh, silent.coordinator.outbox)
    assert not taken.refused, taken.refused
    assert len(finals(fresh)) == 1


def test_a_site_without_the_weights_is_told_to_import_them(silent: Small, tmp_path: Path) -> None:
    path = finished(silent, round_number=1).path
    fresh = a_federation(tmp_path / "fresh").sites["hospital-a"]
    (file,) = take(fresh, path).files
    assert isinstance(file.error, WrongRoundError)
    assert "don't lie here" in file.error.message
    (weights,) = rounds.signed(silent.coordinator, 1, "*.global.safetensors")
    assert not take(fresh, weights).refused
    (file,) = take(fresh, path).files
    assert isinstance(file.error, WrongRoundError)
    assert "record" in file.error.message


def test_after_a_rotation_the_final_is_signed_again_by_the_newest_key(small: Small) -> None:
    first = finished(small)
    rotate(small.coordinator)
    place = workspace.find(small.coordinator.root)
    site = small.sites["hospital-a"]
    taken = carry(place, site, small.medium("old"))
    assert [type(file.error) for file in taken.refused] == [StrangerError]
    again = finish(place, today=TODAY)
    assert (again.already, again.digest) == (True, first.digest)
    assert not carry(place, site, small.medium("new")).refused
    assert len(finals(site)) == 1


# --- refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({}, type(None)),
        ({"weights": "0" * 64}, ConflictError),
        ({"record": "0" * 64}, ConflictError),
        ({"round": 2}, ConflictError),
        ({"edition": 2}, WrongRoundError),
        ({"round": 4}, WrongRoundError),
        ({"purpose": "drill"}, WrongRoundError),
        ({"federation": "0" * 64}, WrongFederationError),
        ({"plan": {"version": 1, "digest": "0" * 64}}, WrongFederationError),
        ({"sender": "hospital-a"}, StrangerError),
        ({"roster_version": 9}, WrongRoundError),
        ({"record": None}, MalformedError),
        ({"because": "it is good"}, MalformedError),
    ],
)
def test_a_final_that_says_something_else_is_refused(
    small: Small, changes: dict[str, Any], error: type[BrainfedError]
) -> None:
    assert isinstance(forged(small, **changes), error)


def test_a_final_by_a_site_is_refused(small: Small) -> None:
    other = small.sites["hospital-b"]
    assert isinstance(forged(small, other, sender="hospital-b"), StrangerError)
    assert isinstance(forged(small, other), StrangerError)


def test_a_second_final_tells_two_stories(small: Small) -> None:
    site = small.sites["hospital-a"]
    finished(small)
    carry(small.coordinator, site, small.medium("final"))
    content = json.loads(finals(small.coordinator)[0].read_bytes())
    target = small.medium("second") / "final.json"
    target.write_bytes(canonical.dumps(content | {"day": "2026-03-02"}))
    sign(target, small.coordinator)
    (file,) = take(site, target).files
    assert isinstance(file.error, ConflictError)
    assert "two stories" in file.error.message
    assert len(finals(site)) == 1


def test_the_coordinator_takes_no_final_that_it_did_not_sign(small: Small) -> None:
    other = copy_of(small, small.root.parent / "other")
    path = finish(other.coordinator, today=TODAY).path
    (file,) = take(small.coordinator, path).files
    assert isinstance(file.error, ConflictError)
    assert finals(small.coordinator) == []


def test_the_weights_of_a_superseded_edition_cannot_be_the_final(small: Small) -> None:
    from brainfed.formats import weights as weight_files
    from brainfed.formats.manifest import Manifest
    from tests.federation import random_weights

    path = finished(small).path
    site = small.sites["hospital-a"]
    there = rounds.global_path(site, N_ROUNDS)
    assert there is not None
    manifest = weight_files.read_manifest(there)
    newer = Manifest.model_validate(manifest.model_dump() | {"edition": 2})
    target = there.with_name(small.known.weights_name(newer))
    weight_files.write(target, newer, random_weights(small.known.first_plan, 5))
    signature.sign_file(target, small.coordinator.private_key())
    (file,) = take(site, path).files
    assert isinstance(file.error, WrongRoundError)
    assert "superseded" in file.error.message


# --- what comes next ------------------------------------------------------------------------------


def test_status_leads_from_the_final_to_the_test_patients_and_the_report(small: Small) -> None:
    finished(small)
    site = small.sites["hospital-a"]
    assert "brainfed export" in status(small.coordinator).todo[0]
    carry(small.coordinator, site, small.medium("final"))
    assert status(small.coordinator).seats == ()
    (opened,) = site.reports.glob("*.test.csv")  # by the fixture, of these weights
    opened.rename(opened.with_suffix(".old"))
    assert status(site).todo == (
        "The federation ends with the weights of round 3. Open the test patients, once: brainfed "
        "evaluate --subset test",
    )
    opened.with_suffix(".old").rename(opened)
    assert status(site).todo[-1] == "Read how well it went: brainfed report"
