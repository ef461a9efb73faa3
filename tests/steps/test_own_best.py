"""A site of the relay iil stops by its own validation Dice and hands on its best weights."""

import os
import shutil
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from brainfed.core.metrics import Measure
from brainfed.core.scoring import CaseScore, summarise
from brainfed.core.team import Alone
from brainfed.core.training import State, Step
from brainfed.errors import QuorumError, ScanError
from brainfed.formats import checkpoint, federation, weights
from brainfed.formats.checkpoint import Best
from brainfed.formats.dataset import Subset
from brainfed.formats.manifest import ScoredWeights
from brainfed.formats.workspace import Workspace
from brainfed.plan import Plan, Region
from brainfed.steps.aggregate import aggregate
from brainfed.steps.audit import Verdict, audit
from brainfed.steps.exchange import export
from brainfed.steps.own_best import train_to_own_best
from brainfed.steps.receive import receive
from brainfed.steps.score_cases import entries_of, read_cases, scores_of
from brainfed.steps.train import TrainResult, train_round
from tests.federation import TODAY
from tests.steps.joined import a_quick_plan, joined

N_STEPS_OF_EPOCH = 5


def iil(patience: int = 2, epochs: int = 6, **changes: Any) -> Plan:
    training = {
        "patience": patience,
        "epochs_per_round": epochs,
        "steps_per_round": 0,
        "schedule": "constant",
        "rate": 0.005,
        **changes,
    }
    return a_quick_plan(method="iil", rounds=9, training=training)


# --- when to stop, and what to hand on: without a network -----------------------------------------


def of_epoch(number: int) -> dict[str, np.ndarray]:
    return {"a": np.float32([number])}


def a_score(dice: float, patient: str = "one") -> CaseScore:
    return CaseScore(f"case {patient}", patient, Region.WT, 1, 1, {Measure.DICE: dice})


def course(dices: Sequence[float], plan: Plan) -> tuple[int, Best]:
    """Train along a course of Dice, one for each epoch."""

    def go_on(*, goes_on: State | None, until: int) -> State:
        steps = () if goes_on is None else goes_on.steps
        more = tuple(Step(n + 1, 99, 0.5, 0.1) for n in range(len(steps), until))
        return State(of_epoch(until // N_STEPS_OF_EPOCH), {}, {}, steps + more)

    def score(some: Any) -> list[CaseScore]:
        return [a_score(dices[int(some["a"][0]) - 1])]

    state, best = train_to_own_best(
        plan,
        n_steps=N_STEPS_OF_EPOCH * plan.training.epochs_per_round,
        go_on=go_on,
        score=score,
        keeper=None,
        team=Alone(),
        progress=lambda *_: None,
    )
    assert best is not None
    return len(state.steps) // N_STEPS_OF_EPOCH, best


@pytest.mark.parametrize(
    ("dices", "n_epochs", "best"),
    [
        ([0.5, 0.4, 0.3, 0.9], 3, 1),  # two without a rise; the fourth is never seen
        ([0.5, 0.4, 0.6, 0.5, 0.5, 0.9], 5, 3),  # a rise begins the count anew
        ([0.5, 0.5, 0.5, 0.9], 3, 1),  # as good is no rise, and the earlier one stays
        ([0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8], 6, 6),  # epochs_per_round is the most
        ([0.0, 0.1, 0.0, 0.0], 4, 2),
    ],
)
def test_it_stops_after_two_epochs_without_a_rise_and_hands_on_the_best(
    dices: list[float], n_epochs: int, best: int
) -> None:
    found_epochs, found = course(dices, iil())
    assert (found_epochs, found.epoch) == (n_epochs, best)
    assert found.weights["a"] == best
    assert found.scores[0].dice == dices[best - 1]
    assert found.n_scored == n_epochs


def test_a_patient_with_many_visits_counts_once_and_regions_count_alike() -> None:
    """By cases the second epoch would be better; by patients it is worse."""
    plan = a_quick_plan(
        method="iil",
        scans={"regions": ("WT", "TC")},
        training={
            "patience": 1,
            "epochs_per_round": 2,
            "steps_per_round": 0,
            "schedule": "constant",
        },
    )

    def rows(many: float, one: float, tc: float) -> tuple[CaseScore, ...]:
        wt = [replace(a_score(many), case=f"visit {i}") for i in range(5)] + [a_score(one, "two")]
        return (*wt, replace(a_score(tc), region=Region.TC))

    epochs = {1: rows(0.6, 0.2, 0.5), 2: rows(0.9, 0.0, 0.4)}
    _, best = train_to_own_best(
        plan,
        n_steps=2,
        go_on=lambda *, goes_on, until: State(
            of_epoch(until), {}, {}, tuple(Step(n + 1, 2, 0.5, 0.1) for n in range(until))
        ),
        score=lambda some: epochs[int(some["a"][0])],
        keeper=None,
        team=Alone(),
        progress=lambda *_: None,
    )
    assert best is not None
    assert best.epoch == 1  # (0.4 + 0.5) / 2 and (0.45 + 0.4) / 2


# --- at a site ------------------------------------------------------------------------------------


def trained(place: Workspace, **changes: Any) -> TrainResult:
    found = train_round(place, threads=1, **{"device": "cpu", "every_seconds": 0.0} | changes)
    assert found is not None
    return found


def copied(place: Workspace, to: Path) -> Workspace:
    shutil.copytree(place.root, to)
    return Workspace(to, place.role, place.name)


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, TrainResult]:
    """A site before its turn, and what its turn gives without any interruption."""
    place = joined(tmp_path_factory.mktemp("iil"), iil())["hospital-a"]
    return place, trained(copied(place, place.root.parent / "whole"))


def test_the_update_holds_the_weights_whose_scores_its_manifest_tells(
    once: tuple[Workspace, TrainResult],
) -> None:
    place, done = once
    assert done.trained is not None
    n_epochs = len(done.trained.steps) // (done.trained.steps[0].n_steps // 6)
    assert done.trained.best_epoch is not None
    assert done.trained.best_epoch < n_epochs, "the course should end after its best epoch"
    known = federation.load(place)
    plan = known.first_plan
    again = scores_of(
        weights.read_tensors(done.update.path, known.table),
        plan,
        read_cases(place.data, entries_of(place.data, plan, Subset.VALIDATION), plan),
        device=torch.device("cpu"),
    )
    assert summarise(again, plan) == done.result
    told = [s for s in done.update.manifest.scores if s.weights is ScoredWeights.RESULT]
    assert [score.n for score in told] == [2, 2]
    assert done.result[0].mean is not None
    assert told[0].mean == pytest.approx(round(done.result[0].mean * 1e6), abs=5000)


@pytest.mark.parametrize("every_seconds", [0.0, 1e9])
@pytest.mark.parametrize("number", [1, 7, 10, 18])
def test_ctrl_c_in_any_epoch_changes_no_bit(
    once: tuple[Workspace, TrainResult], tmp_path: Path, number: int, every_seconds: float
) -> None:
    place, whole = copied(once[0], tmp_path / "site"), once[1]
    assert whole.trained is not None
    assert number < len(whole.trained.steps)

    def stop(step: Step) -> None:
        if step.number == number:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        trained(place, on_step=stop, every_seconds=every_seconds)
    steps: list[int] = []
    done = trained(place, on_step=lambda step: steps.append(step.number))
    assert steps == list(range(number + 1, len(whole.trained.steps) + 1))
    assert done.update.digest == whole.update.digest
    assert done.trained is not None
    assert done.trained.best_epoch == whole.trained.best_epoch


@pytest.mark.parametrize("nth", [3, 4, 7])
def test_a_kill_while_an_epoch_is_scored_changes_no_bit(
    once: tuple[Workspace, TrainResult], tmp_path: Path, nth: int
) -> None:
    place, whole = copied(once[0], tmp_path / "site"), once[1]
    n_told = 0

    def stop(what: str, done: int, total: int, note: str = "") -> None:
        nonlocal n_told
        n_told += what == "evaluating cases"
        if n_told == nth:
            raise MemoryError  # as sudden as a kill: nothing is written on the way out

    with pytest.raises(MemoryError):
        trained(place, progress=stop)
    assert trained(place).update.digest == whole.update.digest


def test_a_kill_after_the_last_epoch_costs_no_training(
    once: tuple[Workspace, TrainResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, whole = copied(once[0], tmp_path / "site"), once[1]
    with monkeypatch.context() as patch:
        patch.setattr(weights, "write", lambda *_: (_ for _ in ()).throw(MemoryError()))
        with pytest.raises(MemoryError):
            trained(place, every_seconds=1e9)
    steps: list[int] = []
    done = trained(place, on_step=lambda step: steps.append(step.number))
    assert steps == []
    assert done.update.digest == whole.update.digest
    assert not list(place.rounds.rglob(checkpoint.NAME))


def test_without_a_validation_patient_it_is_refused_before_training(tmp_path: Path) -> None:
    place = joined(tmp_path, iil(), n_validation=0)["hospital-a"]
    steps: list[Step] = []
    with pytest.raises(ScanError, match="No validation patient") as caught:
        trained(place, on_step=steps.append)
    assert not steps
    assert "brainfed split" in str(caught.value.hint)
    assert not list(place.round_folder(1).glob("*.update.*"))


# --- whole relays ---------------------------------------------------------------------------------


def handed_over(from_: Workspace, to: Workspace) -> None:
    export(from_, None)
    taken = receive(to, [from_.outbox], confirm=lambda request: True)
    assert not taken.refused, taken.refused


ORDER = ("hospital-b", "hospital-a")
"""By the seed 1."""


def a_ciil_plan(**training: Any) -> Plan:
    settings = {"epochs_per_round": 1, "steps_per_round": 0, **training}
    return a_quick_plan(method="ciil", rounds=4, training=settings)


@pytest.mark.parametrize(
    ("plan", "n_turns"), [(iil(1, 2), 2), (a_ciil_plan(), 4)], ids=["iil", "ciil"]
)
def test_a_whole_relay_is_trained_and_audited(plan: Plan, n_turns: int, tmp_path: Path) -> None:
    places = joined(tmp_path, plan, *ORDER)
    coordinator = places.pop("uni-lead")
    for number in range(1, n_turns + 1):
        turn, other = ORDER[(number - 1) % 2], ORDER[number % 2]
        with pytest.raises(QuorumError, match=f"turn of {turn}, not of {other}"):
            trained(places[other])
        done = trained(places[turn])
        assert done.round_number == number
        handed_over(places[turn], coordinator)
        closed = aggregate(coordinator, today=TODAY)
        is_last = number == n_turns and plan.training.patience > 0
        assert closed.next_site == (None if is_last else other)
        for place in places.values():
            handed_over(coordinator, place)
        known = federation.load(coordinator)
        assert closed.path is not None
        passed_on = weights.read_tensors(closed.path, known.table)
        sent = weights.read_tensors(done.update.path, known.table)
        assert all(passed_on[name].tobytes() == sent[name].tobytes() for name in sent)
    if plan.training.patience:
        with pytest.raises(QuorumError, match="All sites have had their turn"):
            trained(places["hospital-a"])
    found = audit([coordinator.root, *(place.root for place in places.values())])
    assert found.verdict is Verdict.REDERIVED, found.findings


def test_ciil_keeps_each_site_s_moments_for_its_next_turn(tmp_path: Path) -> None:
    places = joined(tmp_path, a_ciil_plan(optimiser_state="keep"), *ORDER)
    coordinator = places.pop("uni-lead")
    notes: list[tuple[int, str]] = []
    for number in range(1, 4):
        turn = places[ORDER[(number - 1) % 2]]

        def note(what: str, done: int, total: int, note: str = "", number: int = number) -> None:
            if what == "optimiser":
                notes.append((number, note))

        trained(turn, progress=note)
        handed_over(turn, coordinator)
        aggregate(coordinator, today=TODAY)
        for place in places.values():
            handed_over(coordinator, place)
    assert [number for number, _ in notes] == [2]  # the second site's first turn
    kept = [path.parent.name for path in places["hospital-b"].rounds.glob("r*/optimiser.state")]
    assert sorted(kept) == ["r0001", "r0003"]
