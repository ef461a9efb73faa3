"""Scores of weights on a site's patients: tables and pictures at the site, a score file."""

import csv
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from brainfed.cli.console import Table
from brainfed.cli.score_words import weights_words
from brainfed.core.metrics import Measure
from brainfed.core.scoring import Summary
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
from brainfed.formats import (
    atomic,
    dataset,
    document,
    federation,
    ledger,
    rounds,
    score_journal,
    score_table,
    signature,
    weights,
    workspace,
)
from brainfed.formats.dataset import CaseEntry, Subset
from brainfed.formats.manifest import Kind
from brainfed.formats.score_journal import MeasuredCase
from brainfed.formats.score_table import ScoredSpace
from brainfed.formats.scores import Group, Scores
from brainfed.formats.workspace import Workspace
from brainfed.steps import measure_outlines
from brainfed.steps.aggregate import aggregate
from brainfed.steps.choose_weights import Wish
from brainfed.steps.evaluate import EvaluateResult
from brainfed.steps.evaluate import evaluate as evaluate_step
from brainfed.steps.exchange import export
from brainfed.steps.measure_outlines import Outlines
from brainfed.steps.receive import receive
from brainfed.steps.train import train_round
from brainfed.steps.training_set import Room, StoredCases, training_set
from tests.steps.joined import a_joined_site, a_quick_plan, finished, joined

TODAY = date(2026, 11, 28)
TRAINED = (Measure.DICE, Measure.SOFT_SLICE_DICE)
WISHES = ("weights", "round", "against", "subset", "space")


def evaluate(place: Workspace, **options: Any) -> EvaluateResult:
    wish = Wish(**{name: options.pop(name) for name in WISHES if name in options})
    return evaluate_step(place, wish, today=TODAY, **options)


def quick(summaries: tuple[Summary, ...]) -> tuple[Summary, ...]:
    return tuple(summary for summary in summaries if summary.measure in TRAINED)


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
    assert [s.measure for s in done.summaries] == list(Measure)
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
    assert trained.incoming == quick(before.summaries)
    assert trained.result == quick(after.summaries)


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


def test_the_test_set_stays_shut_without_a_final(tmp_path: Path) -> None:
    place = a_joined_site(tmp_path)
    with pytest.raises(NotReadyError, match="until the coordinator's final is here") as caught:
        evaluate(place, subset=Subset.TEST, confirmed=True)
    assert "brainfed finish" in str(caught.value.hint)
    assert opened(place) == []
    assert not place.reports.exists()


def test_the_test_set_is_scored_with_the_weights_of_the_final_whatever_newer_ones_lie_here(
    tmp_path: Path,
) -> None:
    place = a_joined_site(tmp_path)
    train_round(place, threads=1)
    coordinator = workspace.find(tmp_path / "uni-lead")
    export(place, None)
    receive(coordinator, [place.outbox], confirm=lambda request: True)
    aggregate(coordinator, today=TODAY)
    finished(place, 0)
    assert rounds.newest_round(place) == 1
    done = evaluate(place, subset=Subset.TEST, confirmed=True, threads=1)
    assert done.weights.manifest.round == 0
    assert [line["round"] for line in opened(place)] == [0]
    assert evaluate(place, threads=1).weights.manifest.round == 1
    for wish in ({"round": 1}, {"weights": rounds.global_path(place, 0)}):
        with pytest.raises(UsageError, match="and no others"):
            evaluate(place, subset=Subset.TEST, confirmed=True, **wish)
    assert len(opened(place)) == 1


def test_the_test_set_stays_shut_while_the_weights_of_the_final_are_lost(tmp_path: Path) -> None:
    place = finished(a_joined_site(tmp_path))
    path = rounds.global_path(place, 0)
    assert path is not None
    signature.signature_path(path).unlink()
    with pytest.raises(NotReadyError, match="don't lie here"):
        evaluate(place, subset=Subset.TEST, confirmed=True)
    assert opened(place) == []


def test_the_test_set_stays_shut_without_confirmation(tmp_path: Path) -> None:
    place = finished(a_joined_site(tmp_path))
    with pytest.raises(UsageError, match="on purpose"):
        evaluate(place, subset=Subset.TEST)
    assert opened(place) == []
    assert not place.reports.exists()


def test_opening_the_test_set_is_written_to_the_ledger(tmp_path: Path) -> None:
    place = finished(a_joined_site(tmp_path))
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

    place = finished(a_joined_site(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        evaluate(place, subset=Subset.TEST, confirmed=True, threads=1, progress=stop)
    assert len(opened(place)) == 1
    assert [path.suffix for path in place.reports.iterdir()] == [".part"]


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


def a_stop_after(n_cases: int) -> Any:
    def stop(what: str, done: int, total: int, note: str = "") -> None:
        if done == n_cases:
            raise KeyboardInterrupt

    return stop


def count_measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The cases that are measured from now on, in this process."""
    cases: list[str] = []
    original = measure_outlines.measure

    def counting(outlines: Outlines) -> MeasuredCase:
        cases.append(outlines.case)
        return original(outlines)

    monkeypatch.setattr(measure_outlines, "measure", counting)
    return cases


def test_an_interrupted_evaluation_goes_on_and_gives_the_same_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = a_joined_site(tmp_path, n_validation=4)
    whole = evaluate(place, threads=1)
    table = whole.report_path.read_bytes()
    whole.report_path.unlink()
    with pytest.raises(KeyboardInterrupt):
        evaluate(place, threads=1, progress=a_stop_after(3))
    assert not whole.report_path.exists()
    measured = count_measured(monkeypatch)
    again = evaluate(place, threads=1)
    assert len(measured) == 1
    assert again.n_kept == 3
    assert again.rows == whole.rows
    assert again.report_path.read_bytes() == table
    assert not score_journal.path_of(again.report_path).exists()


def test_a_case_that_changed_since_is_scored_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = a_joined_site(tmp_path, n_validation=3)
    with pytest.raises(KeyboardInterrupt):
        evaluate(place, threads=1, progress=a_stop_after(3))
    entry = dataset.cases_of(place.data, Subset.VALIDATION)[0]
    path = dataset.case_path(place.data, entry.id)
    old = dataset.read_case(path)
    digest = dataset.write_case(path, replace(old, label=np.roll(old.label, 3, axis=1)))
    index = dataset.read_whole_index(place.data)
    cases = tuple(replace(e, digest=digest) if e.id == entry.id else e for e in index.cases)
    dataset.write_index(place.data, replace(index, cases=cases))
    measured = count_measured(monkeypatch)
    evaluate(place, threads=1)
    assert measured == [entry.id]


def test_a_journal_of_other_weights_or_rules_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = a_joined_site(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        evaluate(place, threads=1, progress=a_stop_after(2))
    (journal,) = place.reports.glob("*.part")
    lines = journal.read_bytes().splitlines()
    lines[0] = lines[0].replace(lines[0][8:16], b"00000000")
    atomic.write_bytes(journal, b"\n".join(lines) + b"\n", replace=True)
    measured = count_measured(monkeypatch)
    assert evaluate(place, threads=1).n_kept == 0
    assert len(measured) == 2


def test_the_rows_are_the_same_however_many_processes_measure(tmp_path: Path) -> None:
    place = a_joined_site(tmp_path, n_validation=4)
    one = evaluate(place, threads=1)
    table = one.report_path.read_bytes()
    assert evaluate(place, threads=1, jobs=2).rows == one.rows
    assert one.report_path.read_bytes() == table


def test_the_table_says_what_it_is_about(tmp_path: Path) -> None:
    place = a_joined_site(tmp_path)
    done = evaluate(place, threads=1)
    about = score_table.read_about(done.report_path)
    assert about.weights == done.weights.digest
    assert (about.space, about.subset, about.kind) == (ScoredSpace.PLAN, "validation", "global")
    assert (about.round, about.edition, about.sender) == (0, 1, "uni-lead")
    assert (about.n_patients, about.n_cases, about.n_nominal) == (2, 2, 0)


def test_the_best_the_median_and_the_worst_case_are_drawn_for_the_owner_alone(
    tmp_path: Path,
) -> None:
    place = a_joined_site(tmp_path, n_validation=5)
    done = evaluate(place, threads=1)
    ranked = sorted(done.rows, key=lambda row: (row.dice, row.case))
    wanted = [ranked[4].case, ranked[2].case, ranked[0].case]
    assert [path.name.split(".")[-2] for path in done.pictures] == wanted
    assert {path.stat().st_mode & 0o777 for path in done.pictures} == {0o600}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in done.pictures)
    assert list(score_table.pictures_of(done.report_path)) == sorted(done.pictures)


def test_scores_of_global_weights_go_into_a_score_file_and_those_of_an_update_do_not(
    tmp_path: Path,
) -> None:
    place = a_joined_site(tmp_path, n_validation=3)
    done = evaluate(place, threads=1)
    assert done.score_path is not None
    scores = document.read(done.score_path, Scores)
    assert scores.weights == done.weights.digest
    assert {figure.measure for figure in scores.figures} == set(Measure)
    update = train_round(place, threads=1).update.path
    assert evaluate(place, weights=update, threads=1).score_path is None
    assert evaluate(place, subset=Subset.TRAIN, threads=1).score_path is None


def test_the_global_weights_of_a_round_are_named_by_its_number(tmp_path: Path) -> None:
    place = a_joined_site(tmp_path)
    assert evaluate(place, round=0, threads=1).weights.manifest.round == 0
    with pytest.raises(NotReadyError, match="no global weights of round 7") as caught:
        evaluate(place, round=7)
    assert caught.value.expected == "one of the rounds 0"


def test_two_weight_files_are_compared_on_the_same_patients(tmp_path: Path) -> None:
    place = a_joined_site(tmp_path, n_validation=6)
    update = train_round(place, threads=1).update.path
    done = evaluate(place, against=update, threads=1)
    assert done.against is not None
    assert done.against.weights.path == update
    assert {path.name for path in place.reports.glob("*.csv")} == {
        done.report_path.name,
        done.against.report_path.name,
    }
    difference = next(d for d in done.differences if d.measure is Measure.DICE)
    pairs = zip(done.rows, done.against.rows, strict=True)
    by_hand = [one.dice - other.dice for one, other in pairs]
    assert difference.mean == pytest.approx(np.mean(by_hand))
    assert difference.n == 6
    assert difference.p is not None
    assert list(place.reports.glob("*.part")) == []


def test_a_file_is_not_compared_with_itself(tmp_path: Path) -> None:
    place = a_joined_site(tmp_path)
    path = rounds.global_path(place, 0)
    with pytest.raises(UsageError, match="one and the same"):
        evaluate(place, against=path)


def test_on_the_test_set_nothing_is_compared(tmp_path: Path) -> None:
    place = finished(a_joined_site(tmp_path))
    update = train_round(place, threads=1).update
    with pytest.raises(UsageError, match="and no others"):
        evaluate(place, against=update.path, subset=Subset.TEST, confirmed=True, threads=1)
    assert opened(place) == []


def test_a_case_of_nominal_spacing_has_no_mm_and_no_ml(tmp_path: Path) -> None:
    place = a_joined_site(tmp_path, n_validation=3)
    index = dataset.read_whole_index(place.data)
    first = dataset.cases_of(place.data, Subset.VALIDATION)[0]
    path = dataset.case_path(place.data, first.id)
    digest = dataset.write_case(path, replace(dataset.read_case(path), spacing_nominal=True))
    cases = tuple(
        replace(e, digest=digest, spacing_nominal=True) if e.id == first.id else e
        for e in index.cases
    )
    dataset.write_index(place.data, replace(index, cases=cases))
    done = evaluate(place, threads=1)
    assert done.n_nominal == 1
    nominal = next(row for row in done.rows if row.case == first.id)
    assert not any(m.unit or m is Measure.NSD for m in nominal.values)
    n_of = {s.measure: s.n for s in done.summaries}
    assert (n_of[Measure.DICE], n_of[Measure.HD95_SURFACE]) == (3, 2)
    line = done.report_path.read_text().splitlines()[1 + done.rows.index(nominal)]
    assert ",," in line


def lacking_a_modality(place: Workspace, which: CaseEntry) -> None:
    """Make one case of the workspace one without its second modality."""
    path = dataset.case_path(place.data, which.id)
    case = dataset.read_case(path)
    image = case.image.copy()
    image[1] = 0
    changed = replace(case, image=image, present=(True, False), natives=(case.natives[0], None))
    digest = dataset.write_case(path, changed)
    index = dataset.read_whole_index(place.data)
    cases = tuple(
        replace(e, digest=digest, present=(True, False)) if e.id == which.id else e
        for e in index.cases
    )
    dataset.write_index(place.data, replace(index, cases=cases))


def test_patients_who_lack_a_modality_are_reported_apart(tmp_path: Path) -> None:
    plan = a_quick_plan(scans={"required": ("flair",), "optional": ("t1",)})
    place = a_joined_site(tmp_path, plan, n_validation=4)
    assert evaluate(place, threads=1).apart == {}
    first = dataset.cases_of(place.data, Subset.VALIDATION)[0]
    lacking_a_modality(place, first)
    done = evaluate(place, threads=1)
    dices = {
        group: next(s for s in summaries if s.measure is Measure.DICE)
        for group, summaries in done.apart.items()
    }
    assert {group: s.n for group, s in dices.items()} == {Group.COMPLETE: 3, Group.INCOMPLETE: 1}
    of_first = next(row for row in done.rows if row.case == first.id)
    assert not of_first.is_complete
    assert dices[Group.INCOMPLETE].mean == of_first.dice
    others = [row.dice for row in done.rows if row.case != first.id]
    assert dices[Group.COMPLETE].mean == pytest.approx(np.mean(others))
    shown = [part for part in weights_words(done) if isinstance(part, Table)]
    assert [row[0] for row in shown[1].rows] == ["every modality", "a modality missing"]


def test_a_case_that_lacks_a_modality_is_trained_on_as_a_channel_of_zeros(tmp_path: Path) -> None:
    plan = a_quick_plan(scans={"required": ("flair",), "optional": ("t1",)})
    place = a_joined_site(tmp_path, plan)
    entries = dataset.cases_of(place.data, Subset.TRAIN)
    lacking_a_modality(place, entries[0])
    stored = StoredCases(place.data, dataset.cases_of(place.data, Subset.TRAIN))
    for room in (Room(10**9), Room(0)):
        found = training_set(stored, plan, seed=1, device=torch.device("cpu"), room=room)
        batches = [found.samples.batch(step) for step in range(6)]
        present = torch.cat([batch.present for batch in batches])
        image = torch.cat([batch.image for batch in batches])
        assert present[:, 0].all()
        assert not present[:, 1].all()
        assert torch.equal(image[:, 1].flatten(1).any(1), present[:, 1])
    assert train_round(place, threads=1).trained is not None
