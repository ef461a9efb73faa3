"""Scores of weights on a site's patients, at the site only."""

import csv
from pathlib import Path

import numpy as np
import pytest

from brainfed.core.metrics import Measure
from brainfed.core.unet import initial_weights
from brainfed.errors import (
    BrainfedError,
    NotReadyError,
    ScanError,
    StrangerError,
    UnsignedError,
    UsageError,
    WrongFederationError,
    WrongRoleError,
)
from brainfed.formats import dataset, federation, ledger, rounds, signature, weights
from brainfed.formats.dataset import Subset
from brainfed.formats.manifest import Kind
from brainfed.formats.workspace import Workspace
from brainfed.steps.evaluate import evaluate
from brainfed.steps.train import train_round
from tests.steps.joined import a_joined_site, a_quick_plan, joined


def opened(place: Workspace) -> list[dict[str, object]]:
    return [e for e in ledger.read(place.ledger_path) if e["event"] == "opened-test"]


def test_each_validation_case_is_scored_under_the_newest_global_weights(tmp_path: Path) -> None:
    place = a_joined_site(tmp_path)
    done = evaluate(place, threads=1)
    newest = rounds.newest_global(place, federation.load(place))
    entries = dataset.cases_of(place.data, Subset.VALIDATION)
    assert done.weights == newest
    assert done.subset is Subset.VALIDATION
    assert [row.case for row in done.rows] == [entry.id for entry in entries]
    assert [row.n_voxels for row in done.rows] == [entry.n_tumour_voxels for entry in entries]
    assert (done.n_patients, done.n_cases) == (2, 2)
    assert [s.measure for s in done.summaries] == ["dice", "soft-slice-dice"]
    assert done.summaries[0].mean == pytest.approx(np.mean([row.dice for row in done.rows]))


def test_the_table_lies_in_the_site_s_reports_for_its_owner_alone(tmp_path: Path) -> None:
    place = a_joined_site(tmp_path)
    done = evaluate(place, threads=1)
    assert done.report_path == place.reports / f"evaluate.{done.weights.digest[:8]}.validation.csv"
    assert done.report_path.stat().st_mode & 0o777 == 0o600
    with done.report_path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["case"] for row in rows] == [row.case for row in done.rows]
    assert [float(row["dice"]) for row in rows] == pytest.approx(
        [row.dice for row in done.rows], abs=1e-6
    )
    assert float(rows[0]["soft_slice_dice"]) > float(rows[0]["dice"])


def test_it_can_be_run_again(tmp_path: Path) -> None:
    place = a_joined_site(tmp_path)
    first = evaluate(place, threads=1)
    before = first.report_path.read_bytes()
    assert evaluate(place, threads=1).rows == first.rows
    assert first.report_path.read_bytes() == before


def test_the_score_before_training_is_the_one_in_the_update(tmp_path: Path) -> None:
    place = a_joined_site(tmp_path)
    before = evaluate(place, threads=1)
    trained = train_round(place, threads=1)
    after = evaluate(place, weights=trained.update.path, threads=1)
    assert trained.incoming == before.summaries
    assert trained.result == after.summaries


def test_a_site_scores_its_own_update_before_and_after_it_is_signed(tmp_path: Path) -> None:
    place = a_joined_site(tmp_path)
    path = train_round(place, threads=1).update.path
    unsigned = evaluate(place, weights=path, threads=1)
    signature.sign_file(path, place.private_key())
    signed = evaluate(place, weights=path, threads=1)
    assert unsigned.weights.manifest.kind is Kind.UPDATE
    assert signed.rows == unsigned.rows
    assert signed.weights.digest == unsigned.weights.digest


def test_another_site_s_weights_without_a_signature_are_refused(tmp_path: Path) -> None:
    places = joined(tmp_path, a_quick_plan(), "hospital-a", "hospital-b")
    path = train_round(places["hospital-b"], threads=1).update.path
    with pytest.raises(UnsignedError):
        evaluate(places["hospital-a"], weights=path)
    signature.sign_file(path, places["hospital-a"].private_key())
    with pytest.raises(StrangerError):
        evaluate(places["hospital-a"], weights=path)
    assert not places["hospital-a"].reports.exists()


def test_weights_of_another_federation_are_refused(tmp_path: Path) -> None:
    place, other = a_joined_site(tmp_path / "a"), a_joined_site(tmp_path / "b")
    path = train_round(other, threads=1).update.path
    with pytest.raises(WrongFederationError):
        evaluate(place, weights=path)


def test_a_weight_file_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such weight file"):
        evaluate(a_joined_site(tmp_path), weights=tmp_path / "nothing.safetensors")


def test_the_test_set_stays_shut_without_confirmation(tmp_path: Path) -> None:
    place = a_joined_site(tmp_path)
    with pytest.raises(UsageError, match="on purpose"):
        evaluate(place, subset=Subset.TEST)
    assert opened(place) == []
    assert not place.reports.exists()


def test_opening_the_test_set_is_written_to_the_ledger(tmp_path: Path) -> None:
    place = a_joined_site(tmp_path)
    done = evaluate(place, subset=Subset.TEST, confirmed=True, threads=1)
    (line,) = opened(place)
    assert (line["weights"], line["round"], line["n_cases"]) == (done.weights.digest, 0, 1)
    assert done.n_cases == 1
    assert done.report_path.name.endswith(".test.csv")


def test_an_evaluation_of_the_test_set_that_was_stopped_still_stands_in_the_ledger(
    tmp_path: Path,
) -> None:
    def stop(what: str, done: int, total: int, note: str = "") -> None:
        raise KeyboardInterrupt

    place = a_joined_site(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        evaluate(place, subset=Subset.TEST, confirmed=True, threads=1, progress=stop)
    assert len(opened(place)) == 1
    assert not place.reports.exists()


def test_the_training_cases_can_be_scored_too(tmp_path: Path) -> None:
    assert evaluate(a_joined_site(tmp_path), subset=Subset.TRAIN, threads=1).n_cases == 3


def test_a_subset_without_a_patient_is_said_plainly(tmp_path: Path) -> None:
    place = a_joined_site(tmp_path, n_validation=0)
    with pytest.raises(ScanError, match="no patient for validation"):
        evaluate(place)


def test_a_coordinator_has_nothing_to_evaluate_on(tmp_path: Path) -> None:
    with pytest.raises(WrongRoleError):
        evaluate(joined(tmp_path, a_quick_plan())["uni-lead"])


@pytest.mark.parametrize(
    ("gone", "kind"), [("cases.json", NotReadyError), ("split.json", NotReadyError)]
)
def test_what_must_come_before_is_named(
    tmp_path: Path, gone: str, kind: type[BrainfedError]
) -> None:
    place = a_joined_site(tmp_path)
    (place.data / gone).unlink()
    with pytest.raises(kind) as caught:
        evaluate(place)
    assert "brainfed" in (caught.value.hint or "")


def test_a_network_that_finds_nothing_misses_every_tumour(tmp_path: Path) -> None:
    place = a_joined_site(tmp_path, n_validation=1)
    known = federation.load(place)
    empty = {
        name: np.zeros_like(array) for name, array in initial_weights(known.first_plan).items()
    }
    empty["head.bias"][:] = -20
    manifest = rounds.new_manifest(
        known,
        1,
        kind=Kind.UPDATE,
        sender="hospital-a",
        parent="0" * 64,
        split="0" * 64,
        n_patients=1,
        n_cases=1,
        n_slices=1,
        n_validation=1,
        versions={},
    )
    path = tmp_path / "empty.safetensors"
    weights.write(path, manifest, empty)
    (row,) = evaluate(place, weights=path, threads=1).rows
    assert (row.n_voxels_predicted, row.dice) == (0, 0)
    assert row.values[Measure.SOFT_SLICE_DICE] < 0.7
