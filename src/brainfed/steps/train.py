"""Train: the newest global weights become this site's update of the open round."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from brainfed.core import charts
from brainfed.core.architecture import check_own
from brainfed.core.curves import training_curves
from brainfed.core.device import Precision, choose_device, choose_precision
from brainfed.core.progress import Progress, silent
from brainfed.core.scoring import CaseScore, Summary, summarise
from brainfed.core.team import Alone, Team
from brainfed.core.training import Step, ignore
from brainfed.errors import ScanError
from brainfed.formats import (
    atomic,
    checkpoint,
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
from brainfed.formats.shelf import DiskShelf
from brainfed.formats.weights import WeightsFile
from brainfed.formats.workspace import Workspace
from brainfed.plan import OptimiserState, Plan
from brainfed.steps import local_layers
from brainfed.steps.keep_round import (
    EVERY_SECONDS,
    RoundKeeper,
    digest_of_round,
    kept_moments,
    moments_before,
)
from brainfed.steps.one_round import Trained, train_from
from brainfed.steps.score_cases import entries_of, read_cases
from brainfed.steps.score_file import may_tell
from brainfed.steps.training_set import StoredCases
from brainfed.steps.turns import check_turn


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
    precision: Precision | None = None
    log_path: Path | None = None
    """`training.jsonl`; `training.png` lies beside it."""
    word: str = ""
    """What became of a checkpoint that lay there."""


def train_round(
    place: Workspace,
    *,
    device: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    team: Team | None = None,
    every_seconds: float = EVERY_SECONDS,
    draws: bool = True,
    on_step: Callable[[Step], None] = ignore,
    progress: Progress = silent,
) -> TrainResult | None:
    """Train on this site's cases and put the update, unsigned, into the folder of its round.

    Beside it lie `training.jsonl` and `training.png`. On the way a checkpoint is written every few
    minutes; run again after any kill it goes on from there, with the same bits. The update comes
    last; once it is there, it is given back as it is.

    Args:
        place: A site's workspace.
        device: `cpu`, `cuda` or `cuda:1`; CUDA where there is one if None.
        precision: `float32`, `bf16` or `fp16`; what suits the device if None.
        threads: CPU threads; torch's own choice if None. The bits of the result depend on it.
        team: The processes that share each batch; the first alone writes, and has a result.
        every_seconds: Between two checkpoints.
        draws: Whether `training.png` is drawn; in a simulation nobody would see it.
        on_step: Told of each step.
        progress: Told of cases and steps.

    Raises:
        WorkspaceError: The other role, not joined, no cases, split or global weights yet.
        QuorumError: In a relay it is not this site's turn.
        ScanError: A case is damaged or of another plan; nobody, or no tumour, to train on; cases
            or split were changed while it trained.
        PlanError: The schedule has ended, or training diverged.
        FileRefusedError: Weights or own layers are damaged, or the roster has no such site.
        ResourceError: The disk, the memory or the device.
        KeyboardInterrupt: Somebody stopped it; the checkpoint is written.
    """
    place.require(Role.SITE)
    known = federation.load(place)
    known.principal(Role.SITE, place.name)
    chosen, team = choose_device(device), team or Alone()
    numbers = choose_precision(precision, chosen)
    incoming = rounds.newest_global(place, known)
    number = incoming.manifest.round + 1
    federation.check_accepted(place, known, number)
    plan = known.plan_of(number)
    check_own(plan, "train")
    check_turn(known, DiskShelf(place), number, place.name)
    there = _update_there(place, known, number)
    made_from = (incoming.digest, known.in_force(number).version)
    if there is not None and (there.manifest.parent, there.manifest.plan) == made_from:
        if team.rank == 0:
            _forget(place)
        return TrainResult(there, number, already=True)
    split = dataset.split_digest(place.data)
    begun_with = local_layers.whole(place, known, incoming, progress)
    origin = local_layers.digest_of(place, known, incoming)
    belongs = digest_of_round(place, plan, origin, numbers)
    folder = place.round_folder(number)
    keeper = RoundKeeper(
        folder / checkpoint.NAME,
        belongs,
        writes=team.rank == 0,
        every_seconds=every_seconds,
        beside=lambda keeper, state: _write_log(
            folder, plan, OnItsWay(state.steps, keeper.incoming or ()), device=str(chosen)
        ),
    )
    if keeper.word:
        progress("round", 1, 1, keeper.word)
    trained = train_from(
        begun_with,
        plan,
        training=StoredCases(place.data, entries_of(place.data, plan, Subset.TRAIN)),
        validation=_cases(place, plan, Subset.VALIDATION),
        round_number=number,
        site=place.name,
        device=str(chosen),
        precision=numbers,
        threads=threads,
        moments=moments_before(place, plan, number, begun_with, progress),
        keeper=keeper,
        team=team,
        on_step=on_step,
        progress=progress,
    )
    if team.rank > 0:
        return None
    origin = local_layers.digest_of(place, known, incoming)
    if digest_of_round(place, plan, origin, numbers) != belongs:
        atomic.remove(folder / checkpoint.NAME)  # learned from what is perhaps to be forgotten
        raise ScanError(
            "Cases or split were changed while the round was trained",
            expected="the cases that it began with",
            where=dataset.index_path(place.data),
            hint="no update was written; run `brainfed train-round` again, it begins this round "
            "anew",
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
    update, log_path = _put(place, known, manifest, trained, device=str(chosen), draws=draws)
    return TrainResult(
        update=update,
        round_number=number,
        already=False,
        trained=trained,
        incoming=summarise(trained.incoming, plan),
        result=summarise(trained.result, plan),
        device=str(chosen),
        precision=numbers,
        log_path=log_path,
        word=keeper.word,
    )


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
    place: Workspace,
    known: Federation,
    manifest: Manifest,
    trained: Trained,
    *,
    device: str,
    draws: bool,
) -> tuple[WeightsFile, Path]:
    """Write what lies beside it, then the update: only the update counts, so it comes last."""
    folder = place.round_folder(manifest.round)
    plan = known.plan_of(manifest.round)
    log_path = _write_log(folder, plan, trained, device=device)
    if draws:
        _draw(folder / checkpoint.CURVES, plan, trained)
    if plan.training.optimiser_state is OptimiserState.KEEP:
        checkpoint.write_moments(folder / checkpoint.OPTIMISER, trained.moments)
    path = folder / known.weights_name(manifest)
    weights.write(path, manifest, local_layers.keep(folder, known, manifest, trained.weights))
    digest = signature.digest_of(path).hex()
    place.note(Event.MADE, what="update", round=manifest.round, digest=digest)
    _forget(place)
    return WeightsFile(path, digest, manifest), log_path


def _forget(place: Workspace) -> None:
    """Remove what no later round needs: checkpoints, and moments but the last two rounds'."""
    for path in sorted(place.rounds.glob(f"r*/{checkpoint.NAME}")):
        atomic.remove(path)
    for path in kept_moments(place)[:-2]:
        atomic.remove(path)


@dataclass(frozen=True, slots=True)
class OnItsWay:
    """What is known of a round before its end."""

    steps: tuple[Step, ...]
    incoming: tuple[CaseScore, ...]
    result: tuple[CaseScore, ...] = ()
    seconds: float = 0.0


def _write_log(folder: Path, plan: Plan, known: Trained | OnItsWay, *, device: str) -> Path:
    """`training.jsonl`, of what has been done so far."""
    atomic.make_folder(folder)
    training_log.write(
        folder / training_log.NAME,
        incoming=summarise(known.incoming, plan),
        steps=known.steps,
        result=summarise(known.result, plan),
        seconds=known.seconds,
        device=device,
    )
    return folder / training_log.NAME


def _draw(path: Path, plan: Plan, trained: Trained) -> None:
    """`training.png`, of the whole round."""
    with atomic.scratch_folder(path) as scratch, charts.private_cache(scratch):
        picture = training_curves(
            trained.steps,
            incoming=summarise(trained.incoming, plan),
            result=summarise(trained.result, plan),
        )
    atomic.write_bytes(path, picture, mode=0o600, replace=True)


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
