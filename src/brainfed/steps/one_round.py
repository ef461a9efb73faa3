"""One round of training in memory: score the incoming weights, train, score the result.

For `train-round`, simulations and pooled training alike; nothing here knows of a workspace.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

from brainfed import plan as plans
from brainfed.core.device import choose_device, choose_precision, room_for_cases
from brainfed.core.device import threads as cpu_threads
from brainfed.core.memory import training_bytes
from brainfed.core.metrics import Measure
from brainfed.core.optimiser import Moments
from brainfed.core.progress import Progress, silent
from brainfed.core.scoring import CaseScore, summarise
from brainfed.core.team import Alone, Team
from brainfed.core.training import Step, Weights, derived_seed, ignore, n_steps_of, train
from brainfed.errors import ScanError
from brainfed.formats.dataset import Case
from brainfed.plan import Plan
from brainfed.steps.keep_round import RoundKeeper
from brainfed.steps.own_best import train_to_own_best
from brainfed.steps.score_cases import scores_of
from brainfed.steps.training_set import (
    Residence,
    StoredCases,
    TrainingSet,
    free_bytes,
    training_set,
)


@dataclass(frozen=True, slots=True)
class Trained:
    """What one round of training in memory gave."""

    weights: Weights
    moments: Moments
    """The optimiser's, after the last step."""
    steps: tuple[Step, ...]
    n_patients: int
    """Trained on; likewise cases and slices."""
    n_cases: int
    n_slices: int
    incoming: tuple[CaseScore, ...]
    """Of the validation cases, under the weights that training began with."""
    result: tuple[CaseScore, ...]
    """The same under the weights of this result."""
    seconds: float
    """Of training alone, since this command began; with the scoring between epochs, if any."""
    memory_bytes: int
    """Estimated before the first step: for training, and for the training set where it lies."""
    best_epoch: int | None = None
    """Where the site stops by its own Dice: of which epoch the weights are, from 1."""

    @property
    def last_loss(self) -> float:
        """Mean over the last tenth of the steps."""
        return statistics.fmean(step.loss for step in self.steps[-max(1, len(self.steps) // 10) :])


def train_from(
    weights: Weights,
    plan: Plan,
    *,
    training: Iterable[Case] | StoredCases,
    validation: Iterable[Case] = (),
    round_number: int = 1,
    site: str = "pooled",
    device: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    moments: Moments | None = None,
    keeper: RoundKeeper | None = None,
    team: Team | None = None,
    on_step: Callable[[Step], None] = ignore,
    progress: Progress = silent,
) -> Trained:
    """One round of training in memory; the order of the cases doesn't matter.

    Args:
        weights: Where to start; not changed.
        plan: The plan.
        training: Cases to train on; of several sites for pooled training.
        validation: Cases that are scored before and after; none are scored where empty. Where the
            plan has a `training.patience` they decide when training stops.
        round_number: From 1; places the round on the rate's schedule, and goes into the seed.
        site: Goes into the seed.
        device: `cpu`, `cuda` or `cuda:1`; CUDA where there is one if None.
        precision: Of the convolutions; what suits the device if None.
        threads: CPU threads; torch's own choice if None. The bits of the result depend on it.
        moments: Of the optimiser after the round before; it starts anew if None.
        keeper: Keeps the round on its way, and says where to go on.
        team: The processes that share each batch; only the first scores.
        on_step: Told of each step of this command.
        progress: Told of cases, and of steps.

    Raises:
        ScanError: A case is damaged, changed or of another plan; nobody, or no tumour, to train on;
            no validation case, where those decide when training stops.
        PlanError: The schedule has ended, or training diverged.
        ResourceError: The disk, the memory or the device.
        UsageError: More processes than samples in a batch.
    """
    chosen, team = choose_device(device), team or Alone()
    seed = derived_seed(plans.plan_digest(plan), round_number, site)
    with room_for_cases():
        held_out = list(validation) if team.rank == 0 else []
        cases = training if isinstance(training, StoredCases) else list(training)
    if team.rank == 0:
        _check_held_out(held_out, plan)
    found = training_set(
        cases,
        plan,
        seed=seed,
        device=chosen,
        n_processes=team.n_ranks,
        progress=progress,
    )
    memory_bytes = training_bytes(plan, team.n_ranks) + _resident(found)
    progress("memory", 1, 1, _memory_words(memory_bytes, free_bytes(chosen)))

    def tell(step: Step) -> None:
        on_step(step)
        progress("training", step.number, step.n_steps, f"loss {step.loss:.3f}")

    score = partial(scores_of, plan=plan, cases=held_out, device=chosen, progress=progress)
    with cpu_threads(threads):
        incoming = None if keeper is None else keeper.incoming
        if incoming is None:
            incoming = tuple(score(weights))
        if incoming:
            progress("weights that came", 1, 1, _dice_words(incoming, plan))
        if keeper is not None:
            keeper.incoming = incoming
        go_on = partial(
            train,
            weights,
            plan,
            found.samples,
            round_number=round_number,
            seed=seed,
            device=chosen,
            precision=choose_precision(precision, chosen),
            moments=moments,
            keeper=keeper,
            team=team,
            on_step=tell,
        )
        start, best = time.perf_counter(), None
        with keeper or nullcontext():
            if plan.training.patience:
                result, best = train_to_own_best(
                    plan,
                    n_steps=n_steps_of(plan.training, found.samples.n_samples),
                    go_on=go_on,
                    score=score,
                    keeper=keeper,
                    team=team,
                    progress=progress,
                )
            else:
                result = go_on(goes_on=None if keeper is None else keeper.state)
        seconds = time.perf_counter() - start
        after = tuple(score(result.weights)) if best is None else best.scores
    return Trained(
        weights=result.weights if best is None else best.weights,
        moments=result.moments,
        steps=result.steps,
        n_patients=found.n_patients,
        n_cases=found.samples.n_cases,
        n_slices=found.samples.n_slices,
        incoming=incoming,
        result=after,
        seconds=seconds,
        memory_bytes=memory_bytes,
        best_epoch=None if best is None else best.epoch,
    )


def _check_held_out(cases: Sequence[Case], plan: Plan) -> None:
    if plan.training.patience and not cases:
        raise ScanError(
            "No validation patient says when training is to stop",
            expected=f"at least one, by training.patience = {plan.training.patience}",
            found="none in the validation part of the split",
            where="data/split.json",
            hint="preprocess more patients, then `brainfed split` again; if there are no more, the "
            "coordinator closes this turn with `brainfed aggregate --without`",
        )


def _dice_words(scores: Sequence[CaseScore], plan: Plan) -> str:
    told = [s for s in summarise(scores, plan) if s.measure is Measure.DICE and s.mean is not None]
    words = ", ".join(f"{summary.region} {summary.mean:.3f}" for summary in told)
    n = max((summary.n for summary in told), default=0)
    return f"Dice {words} on {n} validation patient{'' if n == 1 else 's'}"


def _resident(found: TrainingSet) -> int:
    return 0 if found.residence is Residence.FILES else found.n_bytes


def _memory_words(n_bytes: int, free_bytes: int) -> str:
    return f"about {n_bytes / 1e9:.1f} GB for training, {free_bytes / 1e9:.1f} GB free"
