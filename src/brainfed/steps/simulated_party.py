"""One piece of work of a simulated site or coordinator, as another process does it.

Each takes folders and numbers and gives numbers back, so it can be sent anywhere that sees the
same folder; each can be killed and done again, since the workspaces are the state.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from brainfed.core.device import choose_device
from brainfed.core.device import threads as cpu_threads
from brainfed.core.metrics import Measure
from brainfed.core.scoring import CaseScore, patient_scores
from brainfed.core.training import Weights
from brainfed.core.unet import initial_weights
from brainfed.formats import atomic, federation, rounds, training_log, weights, workspace
from brainfed.formats.dataset import CaseEntry, Subset
from brainfed.formats.ledger import Event
from brainfed.formats.roster import Role
from brainfed.formats.shelf import DiskShelf
from brainfed.formats.weights import WeightsFile
from brainfed.formats.workspace import Workspace
from brainfed.plan import Plan, Region
from brainfed.steps import local_layers, turns
from brainfed.steps.accept import JoinRequest
from brainfed.steps.admit import Candidate, admit
from brainfed.steps.aggregate import aggregate
from brainfed.steps.audit import audit
from brainfed.steps.choose_weights import check_finished
from brainfed.steps.compare_rounds import compare_rounds
from brainfed.steps.exchange import export
from brainfed.steps.finish import finish
from brainfed.steps.initialise import initialise
from brainfed.steps.receive import receive
from brainfed.steps.score_cases import entries_of, read_cases, scores_of
from brainfed.steps.score_file import put_scores
from brainfed.steps.start import start_federation
from brainfed.steps.train import train_round

STICK = ".stick-"
THREADS = 1
"""Of each piece of work on a CPU, so that its bits don't depend on how many are done at once."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Where training and scoring compute."""

    device: str | None = None
    precision: str | None = None

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU was asked for."""
        return self.device is not None and self.device != "cpu"


@dataclass(frozen=True, slots=True)
class Row:
    """One region of one patient, the mean over its cases."""

    patient: str
    region: Region
    dice: float
    soft_slice_dice: float


@dataclass(frozen=True, slots=True)
class Call:
    """A piece of work: a function of this module and what it is given."""

    work: Callable[..., Any]
    words: Mapping[str, Any]
    computes: bool = False
    """Whether it trains or scores, so that it belongs on a GPU where there is one."""


def call(one: Call) -> tuple[Any, float]:
    """Do it; gives the result and the seconds of the processor that it took."""
    start = time.process_time()
    return one.work(**one.words), time.process_time() - start


def begin(folder: Path, lead: str, sites: Sequence[str], today: date) -> None:
    """Workspaces with throw-away keys, roster and start, under `folder/plan.toml`; all joined."""
    for name in (lead, *sites):
        if not (folder / name / workspace.MARKER).exists():
            initialise(folder / name, Role.COORDINATOR if name == lead else Role.SITE, name)
    parties = {name: workspace.find(folder / name) for name in (lead, *sites)}
    fingerprints = {name: place.public_key().fingerprint for name, place in parties.items()}

    def is_known(candidate: Candidate) -> bool:
        return candidate.fingerprint == fingerprints[candidate.name]

    coordinator = parties[lead]
    if not federation.has_started(coordinator):
        enrolments = [parties[name].outbox / f"{name}.enrolment.json" for name in sites]
        admit(coordinator, enrolments, confirm=is_known)
    start_federation(
        coordinator,
        folder / "plan.toml",
        initial_weights=initial_weights,
        today=today,
        purpose="simulation",
    )
    _hand_over(folder, lead, sites, fingerprint=fingerprints[lead])


def train(place: Path, machine: Machine) -> int:
    """One round of a site; gives its optimiser steps."""
    done = train_round(
        workspace.find(place),
        device=machine.device,
        precision=machine.precision,
        threads=THREADS,
        draws=False,
    )
    assert done is not None
    return training_log.n_steps(done.update.path.parent / training_log.NAME)


def close_round(
    folder: Path,
    lead: str,
    number: int,
    *,
    senders: Sequence[str],
    receivers: Sequence[str],
    today: date,
) -> None:
    """Updates to the coordinator, the mean unless it was made before, and its weights to sites.

    Without receivers they go to the site whose turn is next, and to nobody else: of a long relay
    every site would hold the weights of all turns.
    """
    coordinator = workspace.find(folder / lead)
    if rounds.open_round(coordinator) <= number:
        for name in senders:
            _hand_over(folder, name, [lead])
        aggregate(coordinator, today=today)
    following = None if receivers else turn(folder, lead, number + 1)
    _hand_over(folder, lead, receivers or ([following] if following else []))


def turn(folder: Path, lead: str, number: int) -> str | None:
    """Whose turn a round is, in a relay."""
    place = workspace.find(folder / lead)
    return turns.turn_of(federation.load(place), DiskShelf(place), number)


def score(
    place: Path, number: int, subset: Subset, machine: Machine, today: date
) -> tuple[Row, ...]:
    """The global weights of a round on a site's held-out patients; what may leave is to be sent.

    The test subset opens only once the final is here, and for its weights alone.
    """
    site = workspace.find(place)
    known = federation.load(site)
    entries = entries_of(site.data, known.first_plan, subset)
    if not entries:
        return ()
    if subset is Subset.TEST:
        number = check_finished(site, known).round
    path = rounds.global_path(site, number)
    assert path is not None
    file = rounds.verify_weights(path, known)
    if subset is Subset.TEST:
        site.note(Event.OPENED_TEST, weights=file.digest, round=number, n_cases=len(entries))
    rows = _rows(site, [file], entries, known.first_plan, machine)
    put_scores(site, known, file, subset, rows, today=today)
    return _by_patient(rows, known.first_plan)


def score_trained(place: Path, number: int, machine: Machine, *, is_own: bool) -> float:
    """Mean Dice of the patients a site trains on, of the weights of a round that it got or sent."""
    site = workspace.find(place)
    known = federation.load(site)
    path = (
        rounds.update_path(site, known, number, site.name)
        if is_own
        else rounds.global_path(site, number)
    )
    assert path is not None
    file = WeightsFile(path, "", weights.read_manifest(path))
    entries = entries_of(site.data, known.first_plan, Subset.TRAIN)
    found = _by_patient(_rows(site, [file], entries, known.first_plan, machine), known.first_plan)
    return statistics.fmean(row.dice for row in found)


def score_updates(
    folder: Path, lead: str, of: Sequence[str], data: Path, subset: Subset, machine: Machine
) -> tuple[Row, ...]:
    """The mean of the probabilities of sites' own weights of round 1, on all sites' patients."""
    coordinator = workspace.find(folder / lead)
    known = federation.load(coordinator)
    plan = known.first_plan
    found = [
        local_layers.whole(workspace.find(folder / name), known, rounds.verify_weights(path, known))
        for name in of
        if (path := rounds.update_path(coordinator, known, 1, name)) is not None
    ]
    assert len(found) == len(of)
    entries = entries_of(data, plan, subset)
    if not entries:
        return ()
    if subset is Subset.TEST:
        of_whom = ", ".join(of)
        coordinator.note(Event.OPENED_TEST, updates_of=of_whom, round=1, n_cases=len(entries))
    return _by_patient(_scored(found, data, entries, plan, machine), plan)


def end(folder: Path, lead: str, sites: Sequence[str], best: int, today: date) -> int:
    """All scores to the coordinator, the final to the sites; gives the round that it names.

    That is the one which the signed scores tell, as in a real federation. Where they can't, since
    no site may tell of its single validation patient, it is `best`.
    """
    for name in sites:
        _hand_over(folder, name, [lead])
    coordinator = workspace.find(folder / lead)
    named = best if compare_rounds(coordinator).best is None else None
    done = finish(coordinator, round_number=named, today=today)
    _hand_over(folder, lead, sites)
    return done.final.round


def audited(folder: Path, lead: str) -> str:
    """The verdict on the coordinator's folder."""
    return audit([folder / lead]).sentence


def _hand_over(
    folder: Path, sender: str, receivers: Iterable[str], *, fingerprint: str | None = None
) -> None:
    """Put the sender's outbox on an empty stick, and import it at each receiver."""
    stick = folder / f"{STICK}{sender}"
    atomic.remove_tree(stick)
    atomic.make_folder(stick)
    export(workspace.find(folder / sender), stick)

    def is_coordinator(request: JoinRequest) -> bool:
        return request.fingerprint == fingerprint

    for name in receivers:
        receive(workspace.find(folder / name), [stick], confirm=is_coordinator)


def _rows(
    site: Workspace,
    files: Sequence[WeightsFile],
    entries: Sequence[CaseEntry],
    plan: Plan,
    machine: Machine,
) -> list[CaseScore]:
    known = federation.load(site)
    found = [local_layers.whole(site, known, file) for file in files]
    return _scored(found, site.data, entries, plan, machine)


def _scored(
    loaded: Sequence[Weights],
    data: Path,
    entries: Sequence[CaseEntry],
    plan: Plan,
    machine: Machine,
) -> list[CaseScore]:
    first, *besides = loaded
    with cpu_threads(THREADS):
        return scores_of(
            first,
            plan,
            read_cases(data, entries, plan),
            device=choose_device(machine.device),
            besides=besides,
        )


def _by_patient(rows: Sequence[CaseScore], plan: Plan) -> tuple[Row, ...]:
    found = []
    for region in plan.scans.regions:
        soft = patient_scores(rows, region, Measure.SOFT_SLICE_DICE)
        for patient, dice in patient_scores(rows, region, Measure.DICE).items():
            found.append(Row(patient, region, dice, soft[patient]))
    return tuple(found)
