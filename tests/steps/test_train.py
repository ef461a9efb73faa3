"""A round at a site: scored, trained, scored again, written once, and the same bits again."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainfed.core.architecture import tensor_table
from brainfed.core.labels import LabelProtocol
from brainfed.core.scoring import CaseScore
from brainfed.core.unet import initial_weights
from brainfed.errors import (
    BrainfedError,
    MalformedError,
    NotReadyError,
    PlanError,
    ResourceError,
    ScanError,
    WrongRoleError,
)
from brainfed.formats import dataset, federation, ledger, rounds, weights
from brainfed.formats.dataset import Case, Subset
from brainfed.formats.manifest import Kind, Measure, ScoredWeights
from brainfed.formats.workspace import Workspace
from brainfed.plan import Schedule
from brainfed.steps.one_round import train_from
from brainfed.steps.train import train_round
from tests.builders import a_case
from tests.scored import rows_of, score, scores_in
from tests.steps.joined import a_joined_site, a_quick_plan, joined


def files_of(place: Workspace) -> dict[str, bytes]:
    """Every file of a workspace but its lock."""
    return {
        str(path.relative_to(place.root)): path.read_bytes()
        for path in sorted(place.root.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def some_cases(n: int = 3) -> list[Case]:
    plan = a_quick_plan()
    return [a_case(plan, name=f"patient {i}", tumour_radius_mm=10 + i, seed=i) for i in range(n)]


def log_of(place: Workspace) -> list[dict[str, Any]]:
    text = (place.round_folder(1) / "training.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_a_round_gives_an_update_whose_manifest_names_its_parents(tmp_path: Path) -> None:
    place = a_joined_site(tmp_path)
    known = federation.load(place)
    incoming = rounds.newest_global(place, known)
    done = train_round(place, threads=1)
    manifest = done.update.manifest
    assert not done.already
    assert done.update.path == place.round_folder(1) / known.weights_name(manifest)
    assert weights.check(done.update.path, known.table) == manifest
    assert (manifest.kind, manifest.round, manifest.edition) == (Kind.UPDATE, 1, 1)
    assert manifest.sender == "hospital-a"
    assert manifest.federation == known.digest
    assert manifest.parent == incoming.digest
    assert manifest.split == dataset.split_digest(place.data)
    assert (manifest.n_patients, manifest.n_cases, manifest.n_slices) == (3, 3, 18)
    assert manifest.n_validation == 2
    assert set(manifest.versions) == {"brainfed", "numpy", "torch"}


def test_the_weights_have_changed_and_are_the_plan_s(tmp_path: Path) -> None:
    place = a_joined_site(tmp_path)
    known = federation.load(place)
    trained = weights.read_tensors(train_round(place, threads=1).update.path, known.table)
    before = initial_weights(known.first_plan)
    assert any(not np.array_equal(trained[name], before[name]) for name in before)


def test_two_runs_with_one_seed_and_thread_count_give_the_same_file(tmp_path: Path) -> None:
    place = a_joined_site(tmp_path / "a")
    copy = tmp_path / "copy"
    shutil.copytree(place.root, copy)
    first = train_round(place, threads=1)
    second = train_round(Workspace(copy, place.role, place.name), threads=1)
    assert first.update.digest == second.update.digest


def test_two_sites_with_the_same_data_train_differently(tmp_path: Path) -> None:
    places = joined(tmp_path, a_quick_plan(), "hospital-a", "hospital-b")
    table = tensor_table(a_quick_plan())
    found = [
        weights.read_tensors(train_round(places[name], threads=1).update.path, table)
        for name in ("hospital-a", "hospital-b")
    ]
    assert any(not np.array_equal(found[0][name], found[1][name]) for name in table)


def test_running_it_again_gives_the_same_update_and_changes_nothing(tmp_path: Path) -> None:
    place = a_joined_site(tmp_path)
    first = train_round(place, threads=1)
    before = files_of(place)
    again = train_round(place, threads=1)
    assert again.already
    assert again.update == first.update
    assert files_of(place) == before


def test_an_interrupted_round_leaves_no_update_and_can_be_run_again(tmp_path: Path) -> None:
    place = a_joined_site(tmp_path / "a")
    copy = tmp_path / "copy"
    shutil.copytree(place.root, copy)
    before = files_of(place)

    def stop(what: str, done: int, total: int, note: str = "") -> None:
        if what == "training" and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_round(place, threads=1, progress=stop)
    assert files_of(place) == before
    undisturbed = train_round(Workspace(copy, place.role, place.name), threads=1)
    assert train_round(place, threads=1).update.digest == undisturbed.update.digest


def test_a_log_that_a_kill_left_without_its_update_is_replaced(tmp_path: Path) -> None:
    place = a_joined_site(tmp_path)
    place.round_folder(1).mkdir(parents=True)
    (place.round_folder(1) / "training.jsonl").write_text("left over\n")
    train_round(place, threads=1)
    assert log_of(place)[-1]["n_steps"] == 3


def test_a_damaged_update_is_refused_and_not_replaced(tmp_path: Path) -> None:
    place = a_joined_site(tmp_path)
    path = train_round(place, threads=1).update.path
    path.write_bytes(path.read_bytes()[:-4])
    before = files_of(place)
    with pytest.raises(MalformedError, match="cut off"):
        train_round(place, threads=1)
    assert files_of(place) == before


def test_the_log_tells_scores_before_each_step_and_scores_after(tmp_path: Path) -> None:
    place = a_joined_site(tmp_path)
    done = train_round(place, threads=1)
    lines = log_of(place)
    assert [line.get("weights") for line in lines[:2]] == ["incoming", "incoming"]
    assert [line["step"] for line in lines[2:5]] == [1, 2, 3]
    assert all(line["loss"] > 0 and line["rate"] > 0 for line in lines[2:5])
    assert [line["measure"] for line in lines[5:7]] == ["dice", "soft-slice-dice"]
    assert lines[5]["weights"] == "result"
    assert lines[5]["mean"] == done.result[0].mean
    assert lines[7]["n_steps"] == 3
    assert len(lines) == 8
    assert (place.round_folder(1) / "training.jsonl").stat().st_mode & 0o777 == 0o600


def test_the_manifest_states_both_scores_in_whole_hundredths(tmp_path: Path) -> None:
    done = train_round(a_joined_site(tmp_path, n_validation=3), threads=1)
    scores = done.update.manifest.scores
    assert [(score.weights, score.measure) for score in scores] == [
        (ScoredWeights.INCOMING, Measure.DICE),
        (ScoredWeights.INCOMING, Measure.SOFT_SLICE_DICE),
        (ScoredWeights.RESULT, Measure.DICE),
        (ScoredWeights.RESULT, Measure.SOFT_SLICE_DICE),
    ]
    for stated, summary in zip(scores, done.incoming + done.result, strict=True):
        assert summary.mean is not None
        assert summary.sd is not None
        assert stated.n == 3
        assert stated.mean == 10_000 * round(100 * summary.mean)
        assert stated.sd == 10_000 * round(100 * summary.sd)


def test_below_the_floor_the_manifest_says_only_fewer_than(tmp_path: Path) -> None:
    plan = a_quick_plan(participation={"floor": 3})
    done = train_round(a_joined_site(tmp_path, plan), threads=1)
    manifest = done.update.manifest
    assert manifest.n_validation == "fewer than 3"
    assert len(manifest.scores) == 4
    assert {(s.n, s.mean, s.sd) for s in manifest.scores} == {("fewer than 3", None, None)}
    assert done.result[0].n == 2
    assert done.result[0].mean is not None


def test_of_a_single_validation_patient_no_score_leaves(tmp_path: Path) -> None:
    done = train_round(a_joined_site(tmp_path, n_validation=1), threads=1)
    scores = done.update.manifest.scores
    assert {(score.n, score.mean, score.sd) for score in scores} == {(1, None, None)}
    assert done.result[0].mean is not None


def test_a_site_s_own_higher_floor_holds_for_the_manifest(tmp_path: Path) -> None:
    place = replace(a_joined_site(tmp_path), floor=7)
    manifest = train_round(place, threads=1).update.manifest
    assert manifest.n_validation == "fewer than 7"
    assert {(s.n, s.mean) for s in manifest.scores} == {("fewer than 7", None)}


def told_of(number: int) -> list[CaseScore]:
    """Scores of as many validation patients."""
    return rows_of(range(number))


def test_manifest_and_score_file_of_one_round_are_over_the_same_patients(tmp_path: Path) -> None:
    place = a_joined_site(tmp_path, n_validation=5)
    manifest = train_round(place, threads=1).update.manifest
    assert {score.n for score in manifest.scores} == {5}
    entries = dataset.cases_of(place.data, Subset.VALIDATION)
    rows = [replace(r, patient=e.patient) for r, e in zip(told_of(5), entries, strict=True)]
    assert score(place, told_of(1) + rows, subset=Subset.VALIDATION) is None
    assert score(place, rows[1:], subset=Subset.VALIDATION) is None
    path = score(place, rows, subset=Subset.VALIDATION)
    assert {figure.n for figure in scores_in(path).figures} == {5}


def test_scores_over_other_patients_than_those_of_the_same_round_stay_out_of_the_manifest(
    tmp_path: Path,
) -> None:
    place = a_joined_site(tmp_path, n_validation=5)
    assert score(place, told_of(7), subset=Subset.VALIDATION) is not None
    manifest = train_round(place, threads=1).update.manifest
    assert manifest.scores == ()
    assert manifest.n_validation == 5


def test_a_site_without_validation_patients_trains_all_the_same(tmp_path: Path) -> None:
    done = train_round(a_joined_site(tmp_path, n_validation=0), threads=1)
    assert done.update.manifest.n_validation == "fewer than 1"
    assert {score.mean for score in done.update.manifest.scores} == {None}


def test_the_ledger_says_what_was_made(tmp_path: Path) -> None:
    place = a_joined_site(tmp_path)
    done = train_round(place, threads=1)
    last = ledger.read(place.ledger_path)[-1]
    assert (last["event"], last["what"], last["round"]) == ("made", "update", 1)
    assert last["digest"] == done.update.digest


def test_progress_tells_of_cases_and_steps(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    place = a_joined_site(tmp_path)
    train_round(
        place,
        threads=1,
        progress=lambda what, done, total, note="": told.append((what, done, total)),
    )
    assert ("training", 3, 3) in told
    assert {what for what, _, _ in told} == {
        "reading cases",
        "memory",
        "evaluating cases",
        "weights that came",
        "training",
    }


def test_a_coordinator_does_not_train(tmp_path: Path) -> None:
    with pytest.raises(WrongRoleError):
        train_round(joined(tmp_path, a_quick_plan())["uni-lead"])


def broken(place: Workspace, how: str) -> None:
    data = place.data
    first = dataset.cases_of(data, Subset.TRAIN)[0]
    path = dataset.case_path(data, first.id)
    if how == "no split":
        dataset.split_path(data).unlink()
    elif how == "no cases":
        dataset.index_path(data).unlink()
    elif how == "case changed":
        path.write_bytes(path.read_bytes() + b"x")
    elif how == "case gone":
        path.unlink()
    elif how == "other plan":
        index = dataset.read_whole_index(data)
        other = dataset.Index(data_digest="0" * 64, cases=index.cases)
        dataset.write_index(data, other)
    else:
        raise AssertionError(how)


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ("no split", NotReadyError),
        ("no cases", NotReadyError),
        ("case changed", ScanError),
        ("case gone", ScanError),
        ("other plan", ScanError),
    ],
)
def test_bad_data_is_refused_and_nothing_changes(
    tmp_path: Path, how: str, kind: type[BrainfedError]
) -> None:
    place = a_joined_site(tmp_path)
    broken(place, how)
    before = files_of(place)
    with pytest.raises(kind):
        train_round(place, threads=1)
    assert files_of(place) == before


def test_a_device_that_is_not_there_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    place = a_joined_site(tmp_path)
    with pytest.raises(ResourceError, match="no such device"):
        train_round(place, device="cuda:77")


def test_the_order_of_the_cases_does_not_matter() -> None:
    plan, cases = a_quick_plan(), some_cases()
    start = initial_weights(plan)
    first = train_from(start, plan, training=cases, threads=1).weights
    other = train_from(start, plan, training=reversed(cases), threads=1).weights
    assert all(first[name].tobytes() == other[name].tobytes() for name in first)


def test_pooled_training_counts_the_cases_of_all_sites() -> None:
    plan = a_quick_plan()
    done = train_from(
        initial_weights(plan), plan, training=some_cases(4), validation=some_cases(2), threads=1
    )
    assert (done.n_patients, done.n_cases, done.n_slices) == (4, 4, 24)
    assert len(done.incoming) == len(done.result) == 2
    assert len(done.steps) == 3


def test_rounds_in_memory_learn() -> None:
    plan = a_quick_plan(
        rounds=3,
        network={"norm": "instance"},
        training={
            "steps_per_round": 20,
            "rate": 5e-3,
            "foreground_fraction": 0.5,
            "schedule": Schedule.COSINE,
        },
    )
    current = initial_weights(plan)
    unseen = [a_case(plan, name="unseen", tumour_radius_mm=13, seed=77)]
    dices = []
    for number in (1, 2, 3):
        done = train_from(
            current,
            plan,
            training=some_cases(),
            validation=unseen,
            round_number=number,
            threads=1,
        )
        current = dict(done.weights)
        dices.append(done.result[0].dice)
    assert dices[-1] > 0.8


def test_several_cases_of_a_patient_count_once() -> None:
    plan = a_quick_plan()
    cases = some_cases(3)
    cases[1] = replace(cases[1], patient=cases[0].patient)
    done = train_from(initial_weights(plan), plan, training=cases, threads=1)
    assert (done.n_patients, done.n_cases) == (2, 3)


def test_no_case_to_train_on_is_said_plainly() -> None:
    plan = a_quick_plan()
    with pytest.raises(ScanError, match="no case to train on"):
        train_from(initial_weights(plan), plan, training=[])


def test_an_image_with_nan_is_refused_with_its_case() -> None:
    plan = a_quick_plan()
    cases = some_cases(1)
    cases[0].image[0, 0, 0, 0] = np.nan
    with pytest.raises(ScanError, match="NaN") as caught:
        train_from(initial_weights(plan), plan, training=cases)
    assert cases[0].id in (caught.value.where or "")


def test_labels_that_cannot_give_a_region_are_refused() -> None:
    plan = a_quick_plan(scans={"regions": ("WT", "ET")})
    cases = some_cases(1)
    cases = [replace(case, protocol=LabelProtocol.WHOLE_TUMOUR) for case in cases]
    with pytest.raises(ScanError, match="can't give"):
        train_from(initial_weights(plan), plan, training=cases)


def test_training_that_goes_astray_writes_nothing(tmp_path: Path) -> None:
    plan = a_quick_plan(
        training={"steps_per_round": 300, "rate": 10.0, "loss": "log-dice", "optimiser": "adam"},
        network={"channels": (64, 64, 64)},
    )
    start = {name: array * np.float32(1e12) for name, array in initial_weights(plan).items()}
    with pytest.raises(PlanError, match="went astray"):
        train_from(start, plan, training=some_cases(), threads=1)


def test_cases_that_do_not_fit_into_memory_are_said_plainly() -> None:
    def too_many() -> Iterator[Case]:
        yield some_cases(1)[0]
        bytearray(2**60)

    plan = a_quick_plan()
    with pytest.raises(ResourceError, match="don't fit into the memory"):
        train_from(initial_weights(plan), plan, training=too_many())


def test_cases_of_two_sites_under_one_id_are_both_trained_on() -> None:
    plan = a_quick_plan()
    cases = some_cases(2)
    cases[1] = replace(cases[1], id=cases[0].id)
    assert train_from(initial_weights(plan), plan, training=cases, threads=1).n_slices == 12
