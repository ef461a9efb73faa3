"""Who takes part in a round, by which rule, and that audit and sites come to the same."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainfed.core.rules import apply
from brainfed.errors import (
    BrainfedError,
    ConflictError,
    NotReadyError,
    QuorumError,
    UsageError,
)
from brainfed.formats import document, rounds, signature, weights
from brainfed.formats.record import InputStatus, Reason, Record
from brainfed.plan import Rule
from brainfed.steps import stretches as walk
from brainfed.steps.admit import revoke
from brainfed.steps.aggregate import Aggregated, aggregate
from brainfed.steps.audit import Verdict, audit
from brainfed.steps.exchange import export
from brainfed.steps.findings import FindingKind
from brainfed.steps.taking_part import Wishes
from tests.builders import a_plan
from tests.federation import (
    TODAY,
    Small,
    a_federation,
    a_waiting_federation,
    carry,
    close_round,
    copy_of,
    sign,
    take,
    train,
)

A, B, C, D, E = (f"hospital-{letter}" for letter in "abcde")


def close(small: Small, **wishes: Any) -> Aggregated:
    wishes.setdefault("without", {})
    return aggregate(small.coordinator, today=TODAY, wishes=Wishes(**wishes))


def record_of(done: Aggregated) -> Record:
    assert done.record is not None
    return document.read(done.record, Record)


def bring_back(small: Small) -> None:
    for site in small.sites.values():
        carry(small.coordinator, site, small.medium("back"))


def is_rederived(small: Small) -> bool:
    done = audit([small.coordinator.root])
    assert done.verdict is Verdict.REDERIVED, done.findings
    return True


@pytest.fixture(scope="module")
def waiting_once(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return a_waiting_federation(tmp_path_factory.mktemp("waiting"), sites=(A, B, C))


@pytest.fixture
def waiting(waiting_once: Small, tmp_path: Path) -> Small:
    return copy_of(waiting_once, tmp_path)


# --- rules ---------------------------------------------------------------------------------------


def flat(path: Path, small: Small) -> np.ndarray:
    tensors = weights.read_tensors(path, small.known.table)
    return np.concatenate([tensors[name].ravel() for name in sorted(tensors)])


@pytest.mark.parametrize(
    "settings",
    [
        {"rule": "fedavg", "clip_norm": 3.0},
        {"rule": "fedavg", "max_weight_fraction": 0.25},
        {"rule": "fedavg", "weights": "equal"},
        {"rule": "fedavgm"},
        {"rule": "fedadam", "server_rate": 0.1},
        {"rule": "median"},
        {"rule": "trimmed-mean"},
        {"rule": "krum"},
    ],
    ids=str,
)
def test_each_rule_closes_two_rounds_that_audit_and_sites_come_to_as_well(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    plan = a_plan(aggregation=settings)
    small = a_federation(tmp_path, sites=(A, B, C, D, E), plan=plan)
    state: tuple[np.ndarray, ...] = ()
    for number in (1, 2):
        before = rounds.global_path(small.coordinator, number - 1)
        assert before is not None
        done = close_round(small)  # which ends with every site's import of weights and record
        record = record_of(done)
        updates = [flat(path, small) for path in rounds.update_paths(small.coordinator, number)]
        expected, state = apply(
            plan.aggregation,
            flat(before, small),
            updates,
            [entry.weight for entry in record.inputs],
            state,
        )
        assert done.path is not None
        assert flat(done.path, small).tobytes() == expected.tobytes()
        assert (record.state_digest is not None) == bool(Rule(settings["rule"]).state)
        assert all(rounds.newest_round(site) == number for site in small.sites.values())
        assert not [*small.sites[A].rounds.rglob("*.state.safetensors")]
    assert is_rederived(small)


@pytest.mark.parametrize("rule", ["fedadam", "krum", "trimmed-mean"])
@pytest.mark.parametrize("n_threads", [1, 3, 8])
def test_no_bit_depends_on_threads_or_on_the_length_of_a_stretch(
    rule: str, n_threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = (
        a_plan(network={"channels": (8, 16)}, aggregation={"rule": rule, "clip_norm": 2.0})
        if rule != "krum"
        else a_plan(network={"channels": (8, 16)}, aggregation={"rule": rule})
    )
    small = a_waiting_federation(tmp_path / "one", sites=(A, B, C, D, E), plan=plan)
    other = copy_of(small, tmp_path / "other")
    expected = close(small).digest
    monkeypatch.setattr("os.cpu_count", lambda: n_threads)
    monkeypatch.setattr(walk, "MOST_VALUES", walk.PIECE)
    assert close(other).digest == expected


def test_a_state_that_was_changed_is_found_by_audit_and_stops_the_next_round(
    tmp_path: Path,
) -> None:
    small = a_federation(tmp_path, plan=a_plan(aggregation={"rule": "fedavgm"}))
    close_round(small)
    (path,) = small.coordinator.rounds.rglob("*.state.safetensors")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    done = audit([small.coordinator.root])
    assert done.verdict is Verdict.DIVERGES
    sign(path, small.coordinator)  # the coordinator itself can't change it either
    done = audit([small.coordinator.root])
    assert done.verdict is not Verdict.REDERIVED
    for site in small.sites.values():
        train(site)
        carry(site, small.coordinator, small.medium("two"))
    with pytest.raises(NotReadyError, match="state of the rule is missing"):
        close(small)


def test_a_global_file_that_the_rule_does_not_give_is_named_by_audit(tmp_path: Path) -> None:
    small = a_waiting_federation(
        tmp_path, sites=(A, B, C), plan=a_plan(aggregation={"rule": "median"})
    )
    done = close(small)
    assert done.path is not None
    assert done.record is not None
    data = bytearray(done.path.read_bytes())
    data[-4:] = np.float32(0.125).tobytes()
    done.path.write_bytes(data)
    sign(done.path, small.coordinator)
    digest = signature.digest_of(done.path).hex()
    record = record_of(done).model_copy(update={"global_digest": digest})
    done.record.write_bytes(record.dumps())
    sign(done.record, small.coordinator)
    for path in small.coordinator.outbox.iterdir():  # copies of what lay there before
        path.unlink()
    found = [f for f in audit([small.coordinator.root]).findings if f.kind.is_wrong]
    assert [f.kind for f in found] == [FindingKind.ARITHMETIC]
    assert "by median" in found[0].sentence
    assert "holds 0.125" in found[0].sentence


# --- weights -------------------------------------------------------------------------------------


def test_a_cap_lowers_the_largest_site_and_the_site_itself_agrees(tmp_path: Path) -> None:
    plan = a_plan(aggregation={"max_weight_fraction": 0.4})
    small = a_federation(tmp_path, sites=(A, B, C), plan=plan)
    for name, n in ((A, 90), (B, 10), (C, 20)):
        train(small.sites[name], n_patients=n)
        carry(small.sites[name], small.coordinator, small.medium(name))
    done = close(small)
    assert [entry.weight for entry in record_of(done).inputs] == [20, 10, 20]
    bring_back(small)
    assert rounds.records(small.sites[A], 1)
    assert is_rederived(small)


# --- who is left out -----------------------------------------------------------------------------


def test_a_site_is_left_out_for_a_reason_that_the_record_holds(waiting: Small) -> None:
    done = aggregate(
        waiting.coordinator,
        today=TODAY,
        wishes=Wishes({B: Reason.FAILED_SCREENING}),
        words="loss exploded",
    )
    (entry,) = (e for e in record_of(done).inputs if e.sender == B)
    assert (entry.status, entry.reason) == (InputStatus.EXCLUDED, Reason.FAILED_SCREENING)
    assert entry.digest is not None
    assert b"loss exploded" in waiting.coordinator.ledger_path.read_bytes()
    everything = b"".join(p.read_bytes() for p in waiting.coordinator.rounds.rglob("*.json"))
    assert b"loss exploded" not in everything
    (told,) = (
        f.what
        for f in carry(waiting.coordinator, waiting.sites[B], waiting.medium("back")).files
        if "record" in f.what
    )
    assert "LEFT OUT by the coordinator, reason: failed-screening" in told
    assert is_rederived(waiting)


def test_a_site_that_sent_nothing_can_be_left_out_too(tmp_path: Path) -> None:
    small = a_federation(tmp_path, sites=(A, B, C))
    for name in (A, B):
        train(small.sites[name])
        carry(small.sites[name], small.coordinator, small.medium(name))
    done = close(small, without={C: Reason.NOT_REACHABLE})
    entry = record_of(done).inputs[2]
    assert (entry.status, entry.digest) == (InputStatus.EXCLUDED, None)
    assert is_rederived(small)


def test_leaving_out_can_break_the_quorum(waiting: Small) -> None:
    with pytest.raises(QuorumError, match="Too few updates"):
        close(waiting, without={A: Reason.LATE, B: Reason.LATE})
    assert rounds.newest_round(waiting.coordinator) == 0


def test_a_quorum_of_patients_is_asked_for(tmp_path: Path) -> None:
    plan = a_plan(participation={"quorum_patients": 39})
    small = a_waiting_federation(tmp_path, sites=(A, B, C), plan=plan)
    with pytest.raises(QuorumError, match="Too few patients") as caught:
        close(small, without={A: Reason.OTHER})
    assert caught.value.found == "27 of 2 sites"
    assert caught.value.expected == "at least 39 (participation.quorum_patients)"
    assert sum(part.n_patients or 0 for part in close(small).parts) == 39


def test_krum_asks_for_its_own_quorum(tmp_path: Path) -> None:
    small = a_waiting_federation(
        tmp_path, sites=(A, B, C), plan=a_plan(aggregation={"rule": "krum"})
    )
    with pytest.raises(QuorumError) as caught:
        close(small)
    assert caught.value.expected == "at least 5 (rule krum, n_dishonest 1)"


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"without": {"hospital-z": Reason.LATE}}, "no active site of that name"),
        ({"without": {}, "taken_in": ("hospital-z",), "again": True}, "no active site"),
    ],
)
def test_a_wish_about_nobody_is_refused(wishes: dict, words: str, waiting: Small) -> None:
    if wishes.get("again"):
        close(waiting)
    with pytest.raises(UsageError, match=words):
        close(waiting, **wishes)


# --- screening -----------------------------------------------------------------------------------


def test_a_trial_writes_nothing_and_shows_what_closing_would(waiting: Small) -> None:
    def everything() -> dict[Path, bytes]:
        return {p: p.read_bytes() for p in waiting.coordinator.root.rglob("*") if p.is_file()}

    before = everything()
    trial = aggregate(waiting.coordinator, today=TODAY, dry_run=True)
    assert everything() == before
    done = close(waiting)
    assert all(part.distances for part in trial.parts)  # of a trial alone: they take long
    assert tuple(replace(part, distances=()) for part in trial.parts) == done.parts
    assert (trial.path, trial.record, trial.digest) == (None, None, None)


def test_more_patients_than_enrolled_and_a_sudden_change_are_flagged(tmp_path: Path) -> None:
    small = a_federation(tmp_path)
    close_round(small)
    for name, n in ((A, 12), (B, 900)):
        train(small.sites[name], n_patients=n)
        carry(small.sites[name], small.coordinator, small.medium(name))
    parts = {part.site: set(map(str, part.flags)) for part in close(small).parts}
    assert "other-count" in parts[B]
    assert "other-count" not in parts[A]


# --- a closed round is closed again --------------------------------------------------------------


def test_closing_again_makes_an_edition_that_supersedes_the_first(waiting: Small) -> None:
    first = close(waiting)
    bring_back(waiting)
    second = close(waiting, without={B: Reason.WITHDREW}, again=True)
    record = record_of(second)
    assert (record.edition, record.round) == (2, 1)
    assert first.record is not None
    assert record.supersedes == signature.digest_of(first.record).hex()
    assert first.path is not None
    assert first.path.exists()
    bring_back(waiting)
    for site in waiting.sites.values():
        path = rounds.global_path(site, 1)
        assert path is not None
        assert signature.digest_of(path).hex() == second.digest
    assert is_rederived(waiting)


def test_closing_again_must_change_something(waiting: Small) -> None:
    close(waiting)
    with pytest.raises(UsageError, match="change nothing"):
        close(waiting, again=True)


def test_nothing_can_be_closed_again_before_the_first_round(waiting: Small) -> None:
    with pytest.raises(QuorumError, match="No round is closed yet"):
        close(waiting, again=True)


def test_who_was_left_out_stays_out_until_taken_in(waiting: Small) -> None:
    close(waiting, without={B: Reason.ETHICS})
    with pytest.raises(QuorumError) as caught:
        close(waiting, again=True, without={C: Reason.OTHER})
    assert caught.value.found == "1 for round 1"
    second = close(waiting, again=True, without={C: Reason.OTHER}, taken_in=(B,))
    assert [str(part.status) for part in second.parts] == ["included", "included", "excluded"]
    third = close(waiting, again=True, taken_in=(C,))
    assert [str(part.status) for part in third.parts] == ["included"] * 3
    assert is_rederived(waiting)


def test_who_trained_from_a_superseded_edition_trains_again_and_counts(waiting: Small) -> None:
    close(waiting)
    bring_back(waiting)
    old = waiting.sites[A]
    train(old)
    carry(old, waiting.coordinator, waiting.medium("early"))
    again = close(waiting, again=True, without={C: Reason.WITHDREW})
    assert again.to_train_again == (A,)
    bring_back(waiting)
    for name in (A, B):
        changes = {"edition": 2} if name == A else {}
        train(waiting.sites[name], **changes)
        got = carry(waiting.sites[name], waiting.coordinator, waiting.medium(f"two-{name}"))
        assert not got.refused
    done = close(waiting)
    assert [(p.site, str(p.status)) for p in done.parts] == [
        (A, "included"),
        (B, "included"),
        (C, "absent"),
    ]
    assert is_rederived(waiting)


def test_a_late_update_counts_once_its_round_is_closed_again(tmp_path: Path) -> None:
    small = a_federation(tmp_path, sites=(A, B, C))
    for name in (A, B):
        train(small.sites[name])
        carry(small.sites[name], small.coordinator, small.medium(name))
    train(small.sites[C])
    export(small.sites[C], small.medium("late"))
    first = close(small)
    assert {p.site: str(p.status) for p in first.parts}[C] == "absent"
    got = take(small.coordinator, small.medium("late"))
    assert not got.refused
    assert any("late" in file.what for file in got.files)
    assert rounds.newest_round(small.coordinator) == 1
    second = close(small, again=True)
    assert [str(part.status) for part in second.parts] == ["included"] * 3
    assert is_rederived(small)


def test_a_site_that_leaves_between_rounds_is_none_of_the_next(tmp_path: Path) -> None:
    small = a_federation(tmp_path, sites=(A, B, C))
    close_round(small)
    revoke(small.coordinator, C)
    for name in (A, B):
        carry(small.coordinator, small.sites[name], small.medium("roster"))
        train(small.sites[name])
        carry(small.sites[name], small.coordinator, small.medium(f"2{name}"))
    assert [part.site for part in close(small).parts] == [A, B]
    assert is_rederived(small)


def test_a_second_edition_by_a_key_that_was_replaced_is_refused(waiting: Small) -> None:
    """The site still holds the first edition; the alarm is not silenced by a higher number."""
    close(waiting)
    bring_back(waiting)
    close(waiting, again=True, without={B: Reason.OTHER})
    stick = waiting.medium("stolen")
    export(waiting.coordinator, stick)
    for path in stick.glob("*.record.json"):
        sign(path, waiting.sites[C])
    got = take(waiting.sites[A], stick)
    errors: list[BrainfedError] = [f.error for f in got.refused if f.error is not None]
    assert errors
    assert not any(isinstance(error, ConflictError) for error in errors)
