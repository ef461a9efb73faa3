"""A simulation is a federation by the real steps, and its figures are what its weights give."""

import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from brainfed import plan as plans
from brainfed.core.contenders import Contender, Run, Training, plan_of
from brainfed.core.inference import network_with, probabilities
from brainfed.core.metrics import dice
from brainfed.core.partition import Kind
from brainfed.errors import ConflictError
from brainfed.formats import federation, ledger, rounds, simulation, weights, workspace
from brainfed.formats.dataset import Case, Subset
from brainfed.formats.ledger import Event
from brainfed.formats.simulation import Outcome, RunResult
from brainfed.plan import Plan, Region
from brainfed.steps import simulate as step
from brainfed.steps import simulated_party as party
from brainfed.steps.audit import audit
from brainfed.steps.one_round import train_from
from brainfed.steps.processes import workers
from brainfed.steps.score_cases import read_cases, volume_of
from brainfed.steps.simulate import Simulated, simulate, to
from brainfed.steps.simulated_party import Call
from brainfed.steps.simulation_setting import Setting, set_up
from tests.small_simulation import (
    SITES,
    TODAY,
    a_request,
    a_simulated_plan,
    by_name,
    figures,
    global_tensors,
    here,
    lead_of,
    simulated_here,
    update_tensors,
    with_known_ids,
    write_scans,
)

RUNS = {
    Training.POOLED: "pooled-rate-0.03-repeat-1",
    Training.FL: "fl-1-epochs-rate-0.03-repeat-1",
    Training.CIIL: "ciil-rate-0.03-repeat-1",
    Training.IIL: "iil-rate-0.03-repeat-1",
    Training.ONCE: "once-rate-0.03-repeat-1",
}
SECONDS = 300  # the most that anything may take on a busy machine


@dataclass(frozen=True)
class Kept:
    """A simulation whose sites' workspaces were not tidied away."""

    out: Path
    setting: Setting
    simulated: Simulated
    calls: Sequence[Call]
    """All work, in the order in which it was done."""

    def result(self, training: Training, epochs: int = 1) -> RunResult:
        """Of a run."""
        (found,) = (
            r for r in self.simulated.results if (r.training, r.epochs) == (training, epochs)
        )
        return found

    def outcome(self, contender: Contender, site: str | None = None) -> Outcome:
        """Of a contender with an epoch a round."""
        (found,) = (
            one
            for result in self.simulated.results
            for one in result.outcomes
            if result.epochs == 1 and (one.contender, one.site) == (contender, site)
        )
        return found

    def cases(self, subset: Subset, *sites: str) -> list[Case]:
        """Of the patients of sites, of all of them if none is named."""
        places, prepared = self.setting.sites[0], self.setting.prepared
        entries = [
            entry
            for site in sites or SITES
            for patient, of in places[site].items()
            if of is subset
            for entry in prepared.entries[patient]
        ]
        return list(read_cases(prepared.data, entries, self.setting.request.plan))

    def plan(self, training: Training) -> Plan:
        """Of a run."""
        return plan_of(Run(training, 0, 1, 0.03), self.setting.request.plan, len(SITES))


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scans(tmp_path_factory.mktemp("scans"))


@pytest.fixture(scope="module")
def kept(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    """Everything compared once, in this process alone."""
    out, calls = with_known_ids(tmp_path_factory.mktemp("kept")), []

    def noted(call: Call) -> Future[tuple[Any, float]]:
        calls.append(call)
        return here(call)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step, "tidy", lambda folder, sites: None)
        setting = set_up(out, a_request(scans, epochs=(1, 2)))
        done = simulate(out, setting, noted, today=TODAY, at_once=1)
    yield Kept(out, setting, done, calls)


@pytest.fixture(scope="module")
def side_by_side(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Simulated:
    """Some of it by two processes, from two seeds, in a folder of its own."""
    out = with_known_ids(tmp_path_factory.mktemp("side-by-side"))
    request = a_request(scans, contenders=(Contender.FL, Contender.ENSEMBLE), n_repeats=2)
    setting = set_up(out, request)
    with workers(2) as executor:
        return simulate(out, setting, to(executor), today=TODAY, at_once=4)


def same_bits(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        one[name].tobytes() == other[name].tobytes() for name in one
    )


def test_all_methods_begin_with_the_same_weights_and_repeats_with_others(
    kept: Kept, side_by_side: Simulated
) -> None:
    first = [global_tensors(lead_of(kept.out, name), 0) for name in RUNS.values()]
    assert all(same_bits(first[0], tensors) for tensors in first)
    fl = RUNS[Training.FL]
    again = [
        global_tensors(lead_of(side_by_side.folder, name), 0)
        for name in (fl, fl.replace("repeat-1", "repeat-2"))
    ]
    assert same_bits(first[0], again[0])
    assert not same_bits(first[0], again[1])


def test_every_signed_file_says_that_it_is_of_a_simulation(kept: Kept) -> None:
    for name in RUNS.values():
        lead = lead_of(kept.out, name)
        assert federation.load(lead).start.purpose == "simulation"
        files = sorted(lead.rounds.glob("*/*.safetensors"))
        assert len(files) > 1
        assert {weights.read_manifest(path).purpose for path in files} == {"simulation"}
        papers = sorted(lead.rounds.glob("*/*.json"))
        assert papers
        assert all(b'"purpose":"simulation"' in path.read_bytes() for path in papers)


def test_the_coordinators_folder_audits_to_the_sentence_of_the_result(
    kept: Kept, side_by_side: Simulated
) -> None:
    for training, name in RUNS.items():
        sentence = audit([kept.out / "runs" / name / "lead"]).sentence
        assert sentence == kept.result(training).audit
        assert "to the bit from the signed updates" in sentence
    for result in side_by_side.results:
        run = Run(result.training, result.repeat, result.epochs, result.rate)
        tidied = side_by_side.folder / "runs" / run.name / "lead"
        assert audit([tidied]).sentence == result.audit


def test_of_a_run_that_has_ended_the_coordinators_workspace_alone_stays(
    side_by_side: Simulated,
) -> None:
    runs = sorted((side_by_side.folder / "runs").iterdir())
    assert len(runs) == 4
    for run in runs:
        assert sorted(path.name for path in run.iterdir()) == ["lead", "plan.toml", "told.json"]


def test_with_the_same_ids_the_bits_do_not_depend_on_the_processes(
    kept: Kept, side_by_side: Simulated
) -> None:
    one, other = figures(kept.out), figures(side_by_side.folder)
    both = {name for name in other if " 0 " in name}
    assert len(both) == 2
    assert {name: one[name] for name in both} == {name: other[name] for name in both}
    for training in (Training.FL, Training.ONCE):
        leads = [lead_of(out, RUNS[training]) for out in (kept.out, side_by_side.folder)]
        for number in range(kept.plan(training).rounds + 1):
            assert same_bits(*(global_tensors(lead, number) for lead in leads))


def test_fl_is_the_mean_of_each_site_trained_by_hand(kept: Kept) -> None:
    plan, lead = kept.plan(Training.FL), lead_of(kept.out, RUNS[Training.FL])
    tensors = global_tensors(lead, 0)
    for number in (1, 2):
        updates, n_patients = [], []
        for site in sorted(SITES):
            cases = kept.cases(Subset.TRAIN, site)
            trained = train_from(
                tensors,
                plan,
                training=cases,
                round_number=number,
                site=site,
                device="cpu",
                precision="float32",
                threads=1,
            )
            updates.append(trained.weights)
            n_patients.append(len({case.patient for case in cases}))
        tensors = mean_by_hand(updates, n_patients)
        assert same_bits(tensors, global_tensors(lead, number))


def mean_by_hand(updates: Sequence[Mapping[str, Any]], n: Sequence[int]) -> dict[str, Any]:
    mean = {}
    for name in updates[0]:
        total = updates[0][name].astype(np.float64) * n[0]
        for update, weight in zip(updates[1:], n[1:], strict=True):
            total = total + update[name].astype(np.float64) * weight
        mean[name] = (total / sum(n)).astype(np.float32)
    return mean


def test_pooled_is_one_training_over_all_patients_that_keeps_its_optimiser(kept: Kept) -> None:
    plan, lead = kept.plan(Training.POOLED), lead_of(kept.out, RUNS[Training.POOLED])
    tensors, moments = global_tensors(lead, 0), None
    for number in (1, 2):
        trained = train_from(
            tensors,
            plan,
            training=kept.cases(Subset.TRAIN),
            round_number=number,
            site="pooled",
            device="cpu",
            precision="float32",
            threads=1,
            moments=moments,
        )
        tensors, moments = dict(trained.weights), trained.moments
        assert same_bits(tensors, global_tensors(lead, number))


def test_ciil_hands_each_sites_weights_to_the_next_as_they_are(kept: Kept) -> None:
    plan, lead = kept.plan(Training.CIIL), lead_of(kept.out, RUNS[Training.CIIL])
    known, order = federation.load(lead), []
    for number in range(1, plan.rounds + 1):
        (site,) = (
            name for name in SITES if rounds.update_path(lead, known, number, name) is not None
        )
        order.append(site)
        trained = train_from(
            global_tensors(lead, number - 1),
            plan,
            training=kept.cases(Subset.TRAIN, site),
            round_number=number,
            site=site,
            device="cpu",
            precision="float32",
            threads=1,
        )
        assert same_bits(trained.weights, global_tensors(lead, number))
    assert sorted(order[:3]) == sorted(SITES)
    assert order[3:] == order[:3]


def test_average_once_is_the_mean_of_the_weights_that_local_scores(kept: Kept) -> None:
    lead = lead_of(kept.out, RUNS[Training.ONCE])
    updates = [update_tensors(lead, 1, site) for site in sorted(SITES)]
    n_patients = [len(kept.cases(Subset.TRAIN, site)) for site in sorted(SITES)]
    assert same_bits(mean_by_hand(updates, n_patients), global_tensors(lead, 1))


def scored_by_hand(
    kept: Kept, several: Sequence[Mapping[str, Any]], subset: Subset
) -> dict[str, float]:
    """Dice by patient of the mean of the probabilities."""
    plan, device = kept.setting.request.plan, torch.device("cpu")
    found = {}
    for case in kept.cases(subset):
        maps = [
            probabilities(network_with(one, plan, device), case.image, device) for one in several
        ]
        truth = volume_of(case, plan).regions[0]
        found[case.patient] = dice(np.mean(maps, axis=0)[0] > 0.5, truth)
    return found


def test_scores_are_those_of_the_weights_on_all_sites_patients(kept: Kept) -> None:
    lead = lead_of(kept.out, RUNS[Training.ONCE])
    updates = {site: update_tensors(lead, 1, site) for site in sorted(SITES)}
    asked = {
        (Contender.ENSEMBLE, None): list(updates.values()),
        (Contender.AVERAGE_ONCE, None): [global_tensors(lead, 1)],
        **{(Contender.LOCAL, site): [tensors] for site, tensors in updates.items()},
    }
    for (contender, site), several in asked.items():
        outcome = kept.outcome(contender, site)
        validation = {s.patient: s.dice for s in outcome.points[-1].validation}
        assert validation == pytest.approx(scored_by_hand(kept, several, Subset.VALIDATION))
        if contender is not Contender.AVERAGE_ONCE:  # its final may be of the round before
            test = {s.patient: s.dice for s in outcome.test}
            assert test == pytest.approx(scored_by_hand(kept, several, Subset.TEST))
    assert any(s.dice > 0 for s in kept.outcome(Contender.ENSEMBLE).test)


@pytest.mark.parametrize(
    "contender", [Contender.POOLED, Contender.FL, Contender.CIIL, Contender.IIL]
)
def test_the_chosen_point_has_the_best_mean_of_what_sites_may_tell(
    kept: Kept, contender: Contender
) -> None:
    """Each site tells its mean in hundredths; the earlier of equal points counts."""
    outcome = kept.outcome(contender)
    told, exact = [], []
    for point in outcome.points:
        by_site: dict[str, list[float]] = {}
        for score in point.validation:
            site = "pooled" if contender is Contender.POOLED else score.site
            by_site.setdefault(site, []).append(score.dice)
        n = sum(map(len, by_site.values()))
        told.append(
            sum(len(v) * round(100 * statistics.fmean(v)) for v in by_site.values()) / n / 100
        )
        exact.append(statistics.fmean(score.dice for score in point.validation))
    assert outcome.chosen == told.index(max(told))
    assert exact[outcome.chosen] >= max(exact) - 0.01


def test_test_patients_are_scored_once_at_the_end_for_the_final_alone(kept: Kept) -> None:
    for training, name in RUNS.items():
        folder = kept.out / "runs" / name
        own = [call for call in kept.calls if folder in call_paths(call)]
        scoring = [
            (number, call)
            for number, call in enumerate(own)
            if call.words.get("subset") is Subset.TEST
        ]
        (ended,) = (n for n, call in enumerate(own) if call.work is party.end)
        assert all(number > ended for number, _ in scoring)
        places = Counter(
            call.words["place"].name for _, call in scoring if call.work is party.score
        )
        expected = ["pooled"] if training is Training.POOLED else sorted(SITES)
        assert places == dict.fromkeys(expected, 1)
        for site in expected:
            entries = ledger.read(workspace.find(folder / site).ledger_path)
            (opened,) = (e for e in entries if e["event"] == Event.OPENED_TEST)
            (outcome, *_) = kept.result(training).outcomes
            if outcome.contender not in {Contender.LOCAL, Contender.ENSEMBLE}:
                assert opened["round"] == outcome.points[outcome.chosen].round
        n_own = 4 if training is Training.ONCE else 0  # three sites' own weights, and their mean
        assert kept.result(training).n_test_opened == len(expected) + len(SITES) * n_own
        lead = ledger.read(workspace.find(folder / "lead").ledger_path)
        of_updates = [e["updates_of"] for e in lead if e["event"] == Event.OPENED_TEST]
        assert of_updates == ([*sorted(SITES), ", ".join(sorted(SITES))] if n_own else [])


def call_paths(call: Call) -> set[Path]:
    """The run's folder, as a call names it."""
    return {path for word in ("folder", "place") if (path := call.words.get(word))} | {
        path.parent for word in ("place",) if (path := call.words.get(word))
    }


def test_each_point_says_its_passes_and_hand_overs(kept: Kept) -> None:
    def of(contender: Contender, site: str | None = None) -> list[tuple[int, float, int]]:
        return [(p.round, p.passes, p.hand_overs) for p in kept.outcome(contender, site).points]

    assert of(Contender.FL) == [(0, 0, 0), (1, 1, 6), (2, 2, 12)]
    assert of(Contender.CIIL) == [(0, 0, 0), (3, 1, 6), (6, 2, 12)]
    assert [entry[::2] for entry in of(Contender.IIL)] == [(0, 0), (1, 3), (2, 6), (3, 9)]
    assert of(Contender.IIL)[-1][1] <= 2
    assert [entry[:2] for entry in of(Contender.POOLED)] == [(0, 0), (1, 1), (2, 2)]
    assert of(Contender.POOLED)[-1][2] == 3
    assert of(Contender.AVERAGE_ONCE) == [(0, 0, 0), (1, 2, 6)]
    assert of(Contender.ENSEMBLE) == [(1, 2, 6)]
    assert of(Contender.LOCAL, "hospital-b") == [(1, 2, 0)]
    twice = kept.result(Training.FL, epochs=2).outcomes[0]
    assert [(p.round, p.passes, p.hand_overs) for p in twice.points] == [(0, 0, 0), (1, 2, 6)]


def test_steps_one_after_the_other_are_those_of_the_longest_site_or_of_all(kept: Kept) -> None:
    # Six slices a patient in batches of four: 5, 3 and 5 steps an epoch, 12 for all together.
    assert [s.n_slices for s in kept.setting.settings.sites[0]] == [18, 12, 18]
    assert kept.result(Training.FL).sequential_steps == 2 * 5
    assert kept.result(Training.FL, epochs=2).sequential_steps == 2 * 5
    assert kept.result(Training.ONCE).sequential_steps == 2 * 5
    assert kept.result(Training.CIIL).sequential_steps == 2 * (5 + 3 + 5)
    assert kept.result(Training.POOLED).sequential_steps == 2 * 12


def test_differences_between_methods_are_paired(kept: Kept) -> None:
    places = kept.setting.sites[0]
    wanted = {
        subset: {
            (site, patient, Region.WT)
            for site, patients in places.items()
            for patient, of in patients.items()
            if of is subset
        }
        for subset in (Subset.VALIDATION, Subset.TEST)
    }
    outcomes = [one for result in kept.simulated.results for one in result.outcomes]
    assert Counter(one.contender for one in outcomes) == {
        **dict.fromkeys(Contender, 1),
        Contender.FL: 2,
        Contender.LOCAL: 3,
    }
    for one in outcomes:
        told = [(s.site, s.patient, s.region) for s in one.test]
        assert len(told) == len(set(told)) == 4
        assert set(told) == wanted[Subset.TEST]
        for point in one.points:
            told = [(s.site, s.patient, s.region) for s in point.validation]
            assert len(told) == 7
            assert set(told) == wanted[Subset.VALIDATION]


def test_forgetting_is_the_training_dice_of_what_came_and_of_what_was_sent(kept: Kept) -> None:
    cases = kept.cases(Subset.TRAIN, "hospital-a")
    plan, device = kept.setting.request.plan, torch.device("cpu")
    lead, found = lead_of(kept.out, RUNS[Training.CIIL]), kept.result(Training.CIIL).forgetting
    assert [h.hand_over for h in found] == [1, 1, 2, 2]
    assert [h.is_own for h in found] == [False, True, False, True]
    for hand_over in found:
        model = network_with(global_tensors(lead, hand_over.round), plan, device)
        values = [
            dice(probabilities(model, c.image, device)[0] > 0.5, volume_of(c, plan).regions[0])
            for c in cases
        ]
        assert hand_over.dice == pytest.approx(statistics.fmean(values))
    assert len(kept.result(Training.FL).forgetting) == 4
    assert kept.result(Training.IIL).forgetting == ()


def test_a_simulation_that_has_ended_is_not_touched_again(
    side_by_side: Simulated, scans: Path
) -> None:
    out = side_by_side.folder

    def seen() -> dict[Path, tuple[bytes, int]]:
        """Content, and when it was written; what describes the cases is written as it was."""
        return {
            path: (
                path.read_bytes(),
                0 if out / "cases" in path.parents else path.stat().st_mtime_ns,
            )
            for path in out.rglob("*")
            if path.is_file()
        }

    def refuse(call: Call) -> Future[tuple[Any, float]]:
        raise AssertionError(call)

    before = seen()
    request = a_request(scans, contenders=side_by_side.settings.contenders, n_repeats=2)
    again = simulate(out, set_up(out, request), refuse, today=TODAY, at_once=4)
    assert again == side_by_side
    assert seen() == before


def test_a_folder_of_other_options_is_refused(side_by_side: Simulated, scans: Path) -> None:
    out = side_by_side.folder
    for changes, found in [
        ({"n_repeats": 3}, "--seeds or --folds"),
        ({"rates": (0.02,)}, "--rates"),
        ({"plan": a_simulated_plan(seed=4)}, "another plan"),
    ]:
        words: dict[str, Any] = {"contenders": side_by_side.settings.contenders, "n_repeats": 2}
        before = sorted(out.rglob("*"))
        with pytest.raises(ConflictError, match="another simulation") as caught:
            simulated_here(out, a_request(scans, **(words | changes)))
        assert found in str(caught.value)
        assert sorted(out.rglob("*")) == before


def test_damaged_notes_of_a_run_are_an_error_that_names_the_file(
    tmp_path: Path, scans: Path
) -> None:
    out, run = tmp_path / "out", "fl-1-epochs-rate-0.03-repeat-1"
    notes = out / "runs" / run / "told.json"
    notes.parent.mkdir(parents=True)
    notes.write_text('{"seconds": "long"}')
    request = a_request(scans, contenders=(Contender.FL,), n_repeats=1)
    with pytest.raises(ConflictError, match="damaged") as caught:
        simulated_here(out, request)
    assert str(caught.value.where) == str(notes)
    assert run in str(caught.value.hint)
    shutil.rmtree(notes.parent)
    assert [r.training for r in simulated_here(out, request).results] == [Training.FL]


@pytest.mark.parametrize(
    ("sizes", "n_comparing"),
    [({"hospital-a": 4, "hospital-b": 4}, 0), ({"hospital-a": 10, "hospital-b": 4}, 1)],
    ids=["every site validates on one patient", "all sites but one do"],
)
def test_sites_that_validate_on_one_patient_do_not_stop_the_choice(
    tmp_path: Path, sizes: dict[str, int], n_comparing: int
) -> None:
    """A mean over one patient never leaves a site, so signed scores can't compare them."""
    scans, out = write_scans(tmp_path / "scans", sizes), tmp_path / "out"
    plan = a_simulated_plan(split={"validation": 0.2, "test": 0.2})
    done = simulated_here(out, a_request(scans, plan=plan, contenders=(Contender.CIIL,)))
    assert [site.n_validation for site in done.settings.sites[0]] == [1 + n_comparing, 1]
    ((outcome,),) = (result.outcomes for result in done.results)
    assert len(outcome.test) == sum(site.n_test for site in done.settings.sites[0])
    if n_comparing == 0:
        means = [statistics.fmean(s.dice for s in p.validation) for p in outcome.points]
        assert outcome.chosen == means.index(max(means[1:]), 1)
    assert "to the bit" in done.results[0].audit


def test_in_folds_every_patient_is_tested_once(kept: Kept, scans: Path) -> None:
    request = a_request(scans, is_folded=True, n_repeats=3)
    setting = set_up(kept.out, request)  # nothing is written but what is there
    tested = [
        patient
        for places in setting.sites
        for patients in places.values()
        for patient, subset in patients.items()
        if subset is Subset.TEST
    ]
    assert Counter(tested) == dict.fromkeys(by_name(kept.out), 1)
    homes = [
        {patient: site for site, patients in places.items() for patient in patients}
        for places in setting.sites
    ]
    assert homes[0] == homes[1] == homes[2]


def test_a_drawn_partition_gives_the_scans_of_one_folder_to_sites(scans: Path) -> None:
    out = scans.parent / "drawn"
    setting = set_up(out, a_request(scans, partition=f"{Kind.EQUAL}:4"))
    assert sorted(setting.sites[0]) == ["site-01", "site-02", "site-03", "site-04"]
    assert sum(len(patients) for patients in setting.sites[0].values()) == sum(SITES.values())


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="the system has no process groups")
def test_a_simulation_that_is_killed_anywhere_goes_on_to_the_same_figures(
    tmp_path: Path, scans: Path, kept: Kept
) -> None:
    plan, out = tmp_path / "plan.toml", tmp_path / "out"
    plan.write_text(plans.render(a_simulated_plan()))
    shutil.copytree(kept.out / "cases", out / "cases")
    words = ["simulate", plan, "--data", scans, "--labels", "brats2017", "--methods", "fl,ciil"]
    words += ["--seeds", "1", "--jobs", "2", "--device", "cpu", "--precision", "float32"]
    moments = random.Random(8)
    with (tmp_path / "words").open("wb") as log:
        command = subprocess.Popen(
            [sys.executable, "-m", "brainfed", *map(str, words), "--out", str(out)],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + SECONDS
    while command.poll() is None and len(list(out.glob("runs/*/*/rounds/r0*"))) < 8:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(moments.uniform(0, 1))
    if command.poll() is None:
        os.killpg(command.pid, signal.SIGKILL)
    command.wait()
    assert command.returncode == -signal.SIGKILL, (tmp_path / "words").read_text()
    request = a_request(scans, contenders=(Contender.FL, Contender.CIIL))
    done = simulated_here(out, request)
    whole = figures(kept.out)
    assert figures(out) == {name: whole[name] for name in ("fl 1 0 fl None", "ciil 1 0 ciil None")}
    assert len(simulation.read_results(out)) == len(done.results) == 2
    assert not list(out.rglob(".tmp-*"))
    for training in (Training.FL, Training.CIIL):
        leads = [lead_of(place, RUNS[training]) for place in (kept.out, out)]
        last = kept.plan(training).rounds
        assert same_bits(*(global_tensors(lead, last) for lead in leads))
