"""Train: the newest global weights become this site's update of the open round.

Score the incoming weights on the validation patients, train, score the result. `train_from` is
the whole of it in memory, for simulations and pooled training too; `train_round` adds the
workspace.
"""

import statistics
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from brainfed import plan as plans
from brainfed.core.device import choose_device, room_for_cases
from brainfed.core.device import threads as cpu_threads
from brainfed.core.progress import Progress, silent
from brainfed.core.scoring import CaseScore, Summary, summarise
from brainfed.core.slices import Slices, Volume
from brainfed.core.training import Step, Weights, derived_seed, train
from brainfed.errors import ScanError
from brainfed.formats import (
    atomic,
    dataset,
    federation,
    floor,
    rounds,
    signature,
    training_log,
    weights,
)
from brainfed.formats.dataset import Case, Subset
from brainfed.formats.federation import Federation
from brainfed.formats.ledger import Event
from brainfed.formats.manifest import Kind, Manifest, ScoredWeights
from brainfed.formats.roster import Role
from brainfed.formats.scores import Group
from brainfed.formats.weights import WeightsFile
from brainfed.formats.workspace import Workspace
from brainfed.plan import Plan
from brainfed.steps.score_cases import entries_of, read_cases, scores_of, volume_of
from brainfed.steps.score_file import may_tell


@dataclass(frozen=True, slots=True)
class Trained:
    """What one round of training in memory gave."""

    weights: Weights
    steps: tuple[Step, ...]
    n_patients: int
    """Trained on; likewise cases and slices."""
    n_cases: int
    n_slices: int
    incoming: tuple[CaseScore, ...]
    """Of the validation cases, under the weights that training began with."""
    result: tuple[CaseScore, ...]
    """The same under the weights that it ended with."""
    seconds: float
    """Of training alone."""

    @property
    def last_loss(self) -> float:
        """Mean over the last tenth of the steps."""
        return statistics.fmean(step.loss for step in self.steps[-max(1, len(self.steps) // 10) :])


@dataclass(frozen=True, slots=True)
class TrainResult:
    """An update and how it came about."""

    update: WeightsFile
    round_number: int
    already: bool
    """Whether it was there already; then nothing was trained and the fields below are empty."""
    trained: Trained | None = None
    incoming: tuple[Summary, ...] = ()
    """Of the validation patients; for this site alone, the floor is not applied."""
    result: tuple[Summary, ...] = ()
    device: str = ""
    log_path: Path | None = None


def train_round(
    place: Workspace,
    *,
    device: str | None = None,
    threads: int | None = None,
    progress: Progress = silent,
) -> TrainResult:
    """Train on this site's cases and put the update, unsigned, into the folder of its round.

    Beside it lies `training.jsonl`. The update comes last, so a killed command leaves none, and
    running it again trains again with the same seed; once it is there, it is given back as it is.

    Args:
        place: A site's workspace.
        device: `cpu`, `cuda` or `cuda:1`; CUDA where there is one if None.
        threads: CPU threads; torch's own choice if None. The bits of the result depend on it.
        progress: Told of cases and steps.

    Raises:
        WorkspaceError: The other role, not joined, no cases, split or global weights yet.
        ScanError: A case is damaged or of another plan; nobody, or no tumour, to train on.
        PlanError: The schedule has ended, or training diverged.
        FileRefusedError: Weights are damaged, or the roster has no such site.
        ResourceError: The disk, the memory or the device.
    """
    place.require(Role.SITE)
    known = federation.load(place)
    known.principal(Role.SITE, place.name)
    chosen = choose_device(device)
    incoming = rounds.newest_global(place, known)
    number = incoming.manifest.round + 1
    federation.check_accepted(place, known, number)
    plan = known.plan_of(number)
    there = _update_there(place, known, number)
    made_from = (incoming.digest, known.in_force(number).version)
    if there is not None and (there.manifest.parent, there.manifest.plan) == made_from:
        return TrainResult(there, number, already=True)
    split = dataset.split_digest(place.data)
    trained = train_from(
        weights.read_tensors(incoming.path, known.table),
        plan,
        training=_cases(place, plan, Subset.TRAIN),
        validation=_cases(place, plan, Subset.VALIDATION),
        round_number=number,
        site=place.name,
        device=str(chosen),
        threads=threads,
        progress=progress,
    )
    manifest = rounds.new_manifest(
        known,
        number,
        kind=Kind.UPDATE,
        edition=1 if there is None else there.manifest.edition + 1,
        sender=place.name,
        parent=incoming.digest,
        split=split,
        versions={name: version(name) for name in ("brainfed", "numpy", "torch")},
        **_figures(place, trained, plan, incoming.manifest.round),
    )
    return _put(place, known, manifest, trained, device=str(chosen))


def train_from(
    weights: Weights,
    plan: Plan,
    *,
    training: Iterable[Case],
    validation: Iterable[Case] = (),
    round_number: int = 1,
    site: str = "pooled",
    device: str | None = None,
    threads: int | None = None,
    progress: Progress = silent,
) -> Trained:
    """One round of training in memory; the order of the cases doesn't matter.

    Args:
        weights: Where to start; not changed.
        plan: The plan.
        training: Cases to train on; of several sites for pooled training.
        validation: Cases that are scored before and after; none are scored where empty.
        round_number: From 1; places the round on the rate's schedule, and goes into the seed.
        site: Goes into the seed.
        device: As for `train_round`, likewise `threads`, `progress` and what is raised.
        threads: See `device`.
        progress: See `device`.
    """
    chosen = choose_device(device)
    with room_for_cases():
        held_out = list(validation)
        slices, n_patients = _training_set(training, plan, progress)
    steps: list[Step] = []

    def on_step(step: Step) -> None:
        steps.append(step)
        progress("training", step.number, step.n_steps, f"loss {step.loss:.3f}")

    with cpu_threads(threads):
        incoming = scores_of(weights, plan, held_out, device=chosen, progress=progress)
        start = time.perf_counter()
        result = train(
            weights,
            plan,
            slices,
            round_number=round_number,
            seed=derived_seed(plans.plan_digest(plan), round_number, site),
            device=chosen,
            on_step=on_step,
        )
        seconds = time.perf_counter() - start
        after = scores_of(result, plan, held_out, device=chosen, progress=progress)
    return Trained(
        weights=result,
        steps=tuple(steps),
        n_patients=n_patients,
        n_cases=len(slices.volumes),
        n_slices=len(slices),
        incoming=tuple(incoming),
        result=tuple(after),
        seconds=seconds,
    )


def _training_set(cases: Iterable[Case], plan: Plan, progress: Progress) -> tuple[Slices, int]:
    """All slices in the order of the case ids, and the number of patients."""
    volumes: list[tuple[str, Volume]] = []
    patients = set()
    for number, case in enumerate(cases, start=1):
        volumes.append((case.id, volume_of(case, plan)))
        patients.add(case.patient)
        progress("reading cases", number, number)
    if not volumes:
        raise ScanError(
            "There is no case to train on",
            expected="at least one patient in the training part of the split",
            hint="a site of one or two patients can only evaluate; see data/split.json",
        )
    volumes.sort(key=lambda named: named[0])
    return Slices([volume for _, volume in volumes]), len(patients)


def _cases(place: Workspace, plan: Plan, subset: Subset) -> Iterator[Case]:
    """The cases of a subset as they are read; index and split are checked at once."""
    return read_cases(place.data, entries_of(place.data, plan, subset), plan)


def _update_there(place: Workspace, known: Federation, number: int) -> WeightsFile | None:
    """This site's update of the round if it was made before, checked; signed or not yet."""
    path = rounds.update_path(place, known, number, place.name)
    if path is None:
        return None
    manifest = weights.check(path, known.table)
    return WeightsFile(path, signature.digest_of(path).hex(), manifest)


def _put(
    place: Workspace, known: Federation, manifest: Manifest, trained: Trained, *, device: str
) -> TrainResult:
    """Write the log, then the update: only the update counts, so it comes last."""
    folder = place.round_folder(manifest.round)
    log_path, path = folder / training_log.NAME, folder / known.weights_name(manifest)
    plan = known.plan_of(manifest.round)
    incoming, result = summarise(trained.incoming, plan), summarise(trained.result, plan)
    atomic.make_folder(folder)
    training_log.write(
        log_path,
        incoming=incoming,
        steps=trained.steps,
        result=result,
        seconds=trained.seconds,
        device=device,
    )
    weights.write(path, manifest, trained.weights)
    digest = signature.digest_of(path).hex()
    place.note(Event.MADE, what="update", round=manifest.round, digest=digest)
    return TrainResult(
        update=WeightsFile(path, digest, manifest),
        round_number=manifest.round,
        already=False,
        trained=trained,
        incoming=incoming,
        result=result,
        device=device,
        log_path=log_path,
    )


def _figures(place: Workspace, trained: Trained, plan: Plan, round_before: int) -> dict[str, Any]:
    """The manifest's figures: of training exact, as they weigh the mean; of scores by the floor.

    The validation patients are remembered as told of; where they may not be now, no score stands.
    """
    smallest = floor.holding(plan, place.floor)
    told = may_tell(
        place, Subset.VALIDATION, trained.result, round_number=round_before, smallest=smallest
    )
    scores = tuple(
        score
        for which, rows in (
            (ScoredWeights.INCOMING, trained.incoming),
            (ScoredWeights.RESULT, trained.result),
        )
        for score in floor.scores(
            rows, plan, weights=which, subset=Subset.VALIDATION.value, floor=smallest
        )
        if Group.ALL in told
    )
    return {
        "n_patients": trained.n_patients,
        "n_cases": trained.n_cases,
        "n_slices": trained.n_slices,
        "n_validation": floor.count(len({row.patient for row in trained.result}), smallest),
        "scores": scores,
    }
