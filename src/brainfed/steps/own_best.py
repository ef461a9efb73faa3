"""Train until a site's own validation Dice no longer rises, and give its best weights.

This is how a site trains in the relay `iil`. The weights that came are not among those that it may
hand on: untrained ones often outline everything, which scores above the first epochs, that outline
nothing, and the first site would pass on random numbers.

Source: Sheller et al. 2018, section 2.2, where a site's patience is 8 epochs.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from brainfed.core.metrics import Measure
from brainfed.core.progress import Progress
from brainfed.core.scoring import CaseScore, patient_scores
from brainfed.core.team import Team
from brainfed.core.training import State, Weights
from brainfed.formats.checkpoint import Best
from brainfed.plan import Plan
from brainfed.steps.keep_round import RoundKeeper


class GoOn(Protocol):
    """`core.training.train` of one round, from a state to a step."""

    def __call__(self, *, goes_on: State | None, until: int) -> State:
        """The state after the step."""


def train_to_own_best(
    plan: Plan,
    *,
    n_steps: int,
    go_on: GoOn,
    score: Callable[[Weights], Sequence[CaseScore]],
    keeper: RoundKeeper | None,
    team: Team,
    progress: Progress,
) -> tuple[State, Best | None]:
    """Train epoch by epoch until `training.patience` epochs have passed without a rise.

    Args:
        plan: The plan; `training.epochs_per_round` is the most.
        n_steps: Of all epochs.
        go_on: Trains from a state on, or from the beginning, until a step is done.
        score: Scores weights on the validation cases.
        keeper: Keeps the round on its way.
        team: The processes that share each batch; only the first scores, and knows the best.
        progress: Told of each epoch.

    Returns:
        The state after the last step, and the best of all epochs; None where others score.

    Raises:
        KeyboardInterrupt: Somebody stopped it; the state is kept.
    """
    settings, is_first = plan.training, team.rank == 0
    n_steps_of_epoch = n_steps // settings.epochs_per_round
    state, best = (None, None) if keeper is None else (keeper.state, keeper.best)
    while True:
        n_done = 0 if state is None else len(state.steps) // n_steps_of_epoch
        if is_first and state is not None and n_done > (0 if best is None else best.n_scored):
            best = _better(best, n_done, state.weights, tuple(score(state.weights)), plan)
            words = f"validation Dice at best {_dice(best.scores, plan):.3f}, of epoch {best.epoch}"
            progress("epoch", n_done, settings.epochs_per_round, words)
        if keeper is not None:
            keeper.best = best
        waited = 0 if best is None else n_done - best.epoch
        is_over = n_done >= settings.epochs_per_round or waited >= settings.patience
        if team.greatest(int(is_over and is_first)):
            break
        state = go_on(goes_on=state, until=(n_done + 1) * n_steps_of_epoch)
    assert state is not None  # a plan has at least one epoch
    if keeper is not None:
        keeper.keep(state)  # what is left to do is short, and may still be killed
    return state, best


def _better(
    best: Best | None, epoch: int, weights: Weights, scores: tuple[CaseScore, ...], plan: Plan
) -> Best:
    """The better of the best so far and an epoch's weights; of equal ones the earlier."""
    if best is None or _dice(scores, plan) > _dice(best.scores, plan):
        return Best(epoch=epoch, n_scored=epoch, weights=weights, scores=scores)
    return replace(best, n_scored=epoch)


def _dice(scores: Sequence[CaseScore], plan: Plan) -> float:
    """Mean over the patients, then over the plan's regions, 0 to 1."""
    return statistics.fmean(
        statistics.fmean(patient_scores(scores, region, Measure.DICE).values())
        for region in plan.scans.regions
    )
