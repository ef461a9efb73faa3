"""A round on its way: what is kept of it, when it is taken up, and who erases it."""

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainfed.core.device import cpu_has_bf16
from brainfed.core.training import Step
from brainfed.errors import ResourceError, ScanError
from brainfed.formats import checkpoint, dataset, rounds
from brainfed.formats.dataset import Subset
from brainfed.formats.erasure import ErasureReason
from brainfed.formats.workspace import Workspace
from brainfed.steps import keep_round, one_round, purge
from brainfed.steps.aggregate import aggregate
from brainfed.steps.archive import archive
from brainfed.steps.exchange import export
from brainfed.steps.exclude import choose, exclude
from brainfed.steps.receive import receive
from brainfed.steps.train import TrainResult, train_round
from tests.steps.joined import a_joined_site, a_quick_plan, joined

TODAY = date(2026, 1, 3)


def trained(place: Workspace, **changes: Any) -> TrainResult:
    found = train_round(place, threads=1, **{"device": "cpu", "every_seconds": 0.0} | changes)
    assert found is not None
    return found


def stopped_after(place: Workspace, number: int, **changes: Any) -> None:
    """Train, and interrupt it as Ctrl-C does while a step runs; the step is finished."""

    def stop(step: Step) -> None:
        if step.number == number:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        trained(place, on_step=stop, **{"every_seconds": 1e9} | changes)


def kept(place: Workspace, number: int = 1) -> Path:
    return place.round_folder(number) / checkpoint.NAME


def copied(place: Workspace, to: Path) -> Workspace:
    shutil.copytree(place.root, to)
    return Workspace(to, place.role, place.name)


def told_by(place: Workspace, **changes: Any) -> tuple[TrainResult, dict[str, str], list[int]]:
    """The result, what was told besides, and the steps that were trained."""
    notes: dict[str, str] = {}
    steps: list[int] = []

    def progress(what: str, done: int, total: int, note: str = "") -> None:
        notes[what] = note

    found = trained(
        place, progress=progress, on_step=lambda step: steps.append(step.number), **changes
    )
    return found, notes, steps


def test_ctrl_c_lets_the_step_end_and_the_next_command_goes_on_to_the_same_digest(
    tmp_path: Path,
) -> None:
    place = a_joined_site(tmp_path / "a", a_quick_plan(training={"steps_per_round": 5}))
    whole = copied(place, tmp_path / "whole")
    before = signal.getsignal(signal.SIGINT)
    stopped_after(place, 2)
    assert signal.getsignal(signal.SIGINT) is before
    assert kept(place).stat().st_mode & 0o777 == 0o600
    assert rounds.newest_round(place) == 0
    done, notes, steps = told_by(place)
    assert notes["round"] == done.word == "continued after step 2"
    assert steps == [3, 4, 5]
    assert notes["weights that came"].startswith("Dice")
    assert done.update.digest == trained(whole).update.digest
    assert done.trained is not None
    assert [step.number for step in done.trained.steps] == [1, 2, 3, 4, 5]
    assert not kept(place).exists()


def test_the_weights_that_came_are_not_scored_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = a_joined_site(tmp_path)
    stopped_after(place, 2)
    scored: list[int] = []
    original = one_round.scores_of

    def count(*arguments: Any, **named: Any) -> Any:
        scored.append(1)
        return original(*arguments, **named)

    monkeypatch.setattr(one_round, "scores_of", count)
    done = trained(place)
    assert len(scored) == 1
    assert len(done.incoming) == len(done.result) == 2


def test_a_round_that_was_stopped_while_it_was_scored_is_not_trained_again(tmp_path: Path) -> None:
    place = a_joined_site(tmp_path)

    def stop(what: str, done: int, total: int, note: str = "") -> None:
        if what == "evaluating cases" and kept(place).exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(place, progress=stop)
    _, _, steps = told_by(place)
    assert steps == []


def test_an_interrupt_after_the_last_step_is_not_lost(tmp_path: Path) -> None:
    place = a_joined_site(tmp_path)
    stopped_after(place, 3)
    assert kept(place).exists()
    assert not list(place.round_folder(1).glob("*.update.safetensors"))


def of_other_cases(place: Workspace) -> None:
    index = dataset.read_whole_index(place.data)
    first = dataset.cases_of(place.data, Subset.TRAIN)[0]
    others = tuple(entry for entry in index.cases if entry.id != first.id)
    dataset.write_index(place.data, replace(index, cases=others))


def of_another_split(place: Workspace) -> None:
    split = dataset.read_split(place.data)
    patient = dataset.cases_of(place.data, Subset.TEST)[0].patient
    dataset.write_split(
        place.data, replace(split, assignments={**split.assignments, patient: Subset.TRAIN})
    )


def damaged(place: Workspace) -> None:
    data = kept(place).read_bytes()
    kept(place).write_bytes(data[:-9])


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (of_other_cases, "is of other weights, cases, plan or precision"),
        (of_another_split, "is of other weights, cases, plan or precision"),
        (damaged, "is damaged"),
    ],
)
def test_a_checkpoint_that_does_not_belong_is_thrown_away_with_a_word(
    tmp_path: Path, change: Callable[[Workspace], None], word: str
) -> None:
    place = a_joined_site(tmp_path / "a")
    stopped_after(place, 2)
    change(place)
    fresh = copied(place, tmp_path / "fresh")
    kept(fresh).unlink()
    done, notes, steps = told_by(place)
    assert word in notes["round"]
    assert steps == [1, 2, 3]
    assert done.update.digest == trained(fresh).update.digest


@pytest.mark.skipif(not cpu_has_bf16(), reason="this CPU has no units for bf16")
def test_a_checkpoint_of_another_precision_is_thrown_away(tmp_path: Path) -> None:
    place = a_joined_site(tmp_path)
    stopped_after(place, 2, precision="bf16")
    _, notes, steps = told_by(place, precision="float32")
    assert "precision" in notes["round"]
    assert steps == [1, 2, 3]


@pytest.mark.parametrize("change", [of_other_cases, of_another_split])
def test_cases_that_are_changed_in_the_middle_of_a_round_leave_no_update(
    tmp_path: Path, change: Callable[[Workspace], None]
) -> None:
    place = a_joined_site(tmp_path)

    def on_step(step: Step) -> None:
        if step.number == 2:
            change(place)

    with pytest.raises(ScanError, match="changed while the round was trained") as caught:
        trained(place, on_step=on_step)
    assert "train-round" in (caught.value.hint or "")
    assert not list(place.round_folder(1).glob("*.update.safetensors"))
    assert not kept(place).exists()
    _, _, steps = told_by(place)
    assert steps == [1, 2, 3]


def test_a_disk_that_fills_up_at_a_checkpoint_ends_the_round_and_keeps_the_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = a_joined_site(tmp_path)
    original, written = checkpoint.write, []

    def write(path: Path, content: checkpoint.Checkpoint) -> None:
        if len(written) == 2:
            raise ResourceError("The disk is full", where=path)
        original(path, content)
        written.append(path.read_bytes())

    with monkeypatch.context() as patch:
        patch.setattr(keep_round.checkpoint, "write", write)
        with pytest.raises(ResourceError, match="disk is full"):
            trained(place)
    assert kept(place).read_bytes() == written[-1]
    _, notes, steps = told_by(place)
    assert notes["round"] == "continued after step 2"
    assert steps == [3]


# --- the optimiser's moments ---------------------------------------------------------------------

KEEPS: dict[str, Any] = {"training": {"optimiser_state": "keep", "schedule": "constant"}}


def two_sites(root: Path, **changes: Any) -> tuple[Workspace, Workspace]:
    """The coordinator and its only site, which closes each round alone."""
    places = joined(root, a_quick_plan(rounds=9, **changes))
    return places["uni-lead"], places["hospital-a"]


def closed(coordinator: Workspace, site: Workspace) -> None:
    """The round's update to the coordinator, the mean back."""
    export(site, None)
    assert not receive(coordinator, [site.outbox], confirm=lambda request: True).refused
    aggregate(coordinator, today=TODAY)
    export(coordinator, None)
    assert not receive(site, [coordinator.outbox], confirm=lambda request: True).refused


@pytest.mark.parametrize("optimiser", ["sgd", "adam", "adamw"])
def test_moments_are_taken_up_by_the_next_round_and_never_leave(
    tmp_path: Path, optimiser: str
) -> None:
    changes = {"training": KEEPS["training"] | {"optimiser": optimiser}}
    coordinator, site = two_sites(tmp_path, **changes)
    trained(site)
    moments = site.round_folder(1) / checkpoint.OPTIMISER
    assert moments.stat().st_mode & 0o777 == 0o600
    closed(coordinator, site)
    sent = [path.name for folder in (site.outbox, coordinator.inbox) for path in folder.iterdir()]
    assert not [name for name in sent if "optimiser" in name or "checkpoint" in name]
    anew = copied(site, tmp_path / "anew")
    (anew.round_folder(1) / checkpoint.OPTIMISER).unlink()
    done, notes, _ = told_by(site)
    assert "optimiser" not in notes
    other, other_notes, _ = told_by(anew)
    assert "starts anew" in other_notes["optimiser"]
    assert done.update.digest != other.update.digest


def test_moments_of_a_round_go_when_the_one_after_the_next_is_trained(tmp_path: Path) -> None:
    coordinator, site = two_sites(tmp_path, **KEEPS)
    for _ in range(3):
        trained(site)
        closed(coordinator, site)
    there = [path.parent.name for path in sorted(site.rounds.glob(f"*/{checkpoint.OPTIMISER}"))]
    assert there == ["r0002", "r0003"]


def test_a_plan_that_resets_keeps_no_moments(tmp_path: Path) -> None:
    place = a_joined_site(tmp_path)
    trained(place)
    assert not list(place.rounds.rglob(checkpoint.OPTIMISER))


def test_a_checkpoint_of_a_round_that_others_closed_goes_with_the_next_update(
    tmp_path: Path,
) -> None:
    coordinator, site = two_sites(tmp_path)
    trained(site)
    closed(coordinator, site)
    shutil.copy(next(site.round_folder(1).glob("*.update.safetensors")), kept(site))
    trained(site)
    assert not list(site.rounds.rglob(checkpoint.NAME))


# --- what is learned from patients ---------------------------------------------------------------


def everything(place: Workspace) -> None:
    """A checkpoint and moments, beside an update that was never signed."""
    trained(place)
    tensors = {"head.weight": np.ones(2, np.float32)}
    folder = place.round_folder(1)
    checkpoint.write(folder / checkpoint.NAME, checkpoint.Checkpoint("a" * 64, tensors))
    checkpoint.write_moments(folder / checkpoint.OPTIMISER, tensors)


LOCAL = (checkpoint.NAME, checkpoint.OPTIMISER, checkpoint.CURVES, "training.jsonl")


def test_purge_erases_all_that_training_left(tmp_path: Path) -> None:
    place = a_joined_site(tmp_path)
    everything(place)
    assert {path.name for path in place.round_folder(1).iterdir()} >= set(LOCAL)
    purge.purge(place, reason=ErasureReason.LEFT, today=TODAY)
    assert not [path for name in LOCAL for path in place.root.rglob(name)]


def test_purge_sees_a_checkpoint_alone(tmp_path: Path) -> None:
    place = a_joined_site(tmp_path)
    purge.purge(place, reason=ErasureReason.LEFT, today=TODAY)
    kept(place).parent.mkdir(parents=True)
    checkpoint.write(kept(place), checkpoint.Checkpoint("a" * 64, {"a": np.ones(1, np.float32)}))
    assert purge.there_is(place) != ()


def test_exclude_erases_the_round_on_its_way_and_the_moments(tmp_path: Path) -> None:
    place = a_joined_site(tmp_path)
    everything(place)
    case = dataset.cases_of(place.data, Subset.TRAIN)[0].id
    exclude(place, choose(place, case, dataset.ExclusionReason.WITHDRAWN))
    assert not [path for name in LOCAL for path in place.root.rglob(name)]


def test_neither_export_nor_archive_takes_them(tmp_path: Path) -> None:
    place = a_joined_site(tmp_path / "a")
    everything(place)
    (tmp_path / "medium").mkdir()
    export(place, tmp_path / "medium")
    archive(place, tmp_path / "archive")
    taken = {
        path.name
        for folder in (place.outbox, tmp_path / "medium", tmp_path / "archive")
        for path in folder.rglob("*")
    }
    assert taken
    assert not taken & set(LOCAL)


def test_the_result_says_what_memory_was_estimated(tmp_path: Path) -> None:
    place = a_joined_site(tmp_path)
    done, notes, _ = told_by(place)
    assert done.trained is not None
    assert done.trained.memory_bytes > 100_000
    assert "GB for training" in notes["memory"]
