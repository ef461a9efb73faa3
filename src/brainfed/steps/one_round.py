"""One round of training in memory: score the incoming weights, train, score the result.

For `train-round`, simulations and pooled training alike; nothing here knows of a workspace.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from brainfed import plan as plans
from brainfed.core.device import choose_device, choose_precision, room_for_cases
from brainfed.core.device import threads as cpu_threads
from brainfed.core.memory import training_bytes
from brainfed.core.metrics import Measure
from brainfed.core.optimiser import Moments
from brainfed.core.progress import Progress, silent
from brainfed.core.scoring import CaseScore, summarise
from brainfed.core.team import Alone, Team
from brainfed.core.training import Step, Weights, derived_seed, ignore, train
from brainfed.formats.dataset import Case
from brainfed.plan import Plan
from brainfed.steps.keep_round import RoundKeeper
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
    """The same under the weights that it ended with."""
    seconds: float
    """Of training alone, since this command began."""
    memory_bytes: int
    """Estimated before the first step: for training, and for the training set where it lies."""

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
        validation: Cases that are scored before and after; none are scored where empty.
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
        ScanError: A case is damaged, changed or of another plan; nobody, or no tumour, to train on.
        PlanError: The schedule has ended, or training diverged.
        ResourceError: The disk, the memory or the device.
        UsageError: More processes than samples in a batch.
    """
    chosen, team = choose_device(device), team or Alone()
    seed = derived_seed(plans.plan_digest(plan), round_number, site)
    with room_for_cases():
        held_out = list(validation) if team.rank == 0 else []
        cases = training if isinstance(training, StoredCases) else list(training)
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

    with cpu_threads(threads):
        incoming = None if keeper is None else keeper.incoming
        if incoming is None:
            scored = scores_of(weights, plan, held_out, device=chosen, progress=progress)
            incoming = tuple(scored)
        if incoming:
            progress("weights that came", 1, 1, _dice_words(incoming, plan))
        if keeper is not None:
            keeper.incoming = incoming
        start = time.perf_counter()
        with keeper or nullcontext():
            result = train(
                weights,
                plan,
                found.samples,
                round_number=round_number,
                seed=seed,
                device=chosen,
                precision=choose_precision(precision, chosen),
                moments=moments,
                goes_on=None if keeper is None else keeper.state,
                keeper=keeper,
                team=team,
                on_step=tell,
            )
        seconds = time.perf_counter() - start
        after = scores_of(result.weights, plan, held_out, device=chosen, progress=progress)
    return Trained(
        weights=result.weights,
        moments=result.moments,
        steps=result.steps,
        n_patients=found.n_patients,
        n_cases=found.samples.n_cases,
        n_slices=found.samples.n_slices,
        incoming=incoming,
        result=tuple(after),
        seconds=seconds,
        memory_bytes=memory_bytes,
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
