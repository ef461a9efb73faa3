"""What stops a round of training, and the words for it."""

import math

from brainfed.core.samples import Samples
from brainfed.core.team import Team
from brainfed.errors import PlanError, ResourceError, ScanError, UsageError
from brainfed.plan import Plan, Schedule


def check_samples(plan: Plan, samples: Samples, round_number: int) -> None:
    """Refuse what nothing can be learned from.

    Raises:
        ScanError: No sample, or no tumour in any of them.
        PlanError: The schedule has no rate left for this round.
    """
    if not samples.has_foreground:
        raise ScanError(
            "No training slice shows a tumour, so there is nothing to learn from",
            expected="at least one slice with one of " + ", ".join(plan.scans.regions),
            found=f"{samples.n_slices} slices without",
            hint="check --labels of `brainfed preprocess`, and the split",
        )
    if plan.training.schedule is not Schedule.CONSTANT and round_number > plan.rounds:
        raise PlanError(
            f"The {plan.training.schedule} schedule has come to its end, the learning rate is zero",
            expected=f"a round up to {plan.rounds}",
            found=f"round {round_number}",
            where="rounds",
            hint="the last global weights are the result; ask the coordinator",
        )


def check_team(plan: Plan, team: Team, n_steps: int) -> None:
    """Refuse processes that can't share a batch, or that go on from different steps.

    Raises:
        UsageError: More processes than samples in a batch.
        ResourceError: They don't see the same checkpoint.
    """
    if team.n_ranks > plan.training.batch:
        raise UsageError(
            "There are more processes than samples in a batch",
            expected=f"at most training.batch, {plan.training.batch}",
            found=team.n_ranks,
            where="torchrun",
            hint="start fewer processes",
        )
    if team.greatest(n_steps) != -team.greatest(-n_steps):
        raise ResourceError(
            "The processes of this round don't see the same checkpoint",
            expected="one workspace for all of them, on a disk that they share",
            found=f"{n_steps} finished steps at process {team.rank + 1}, others elsewhere",
            hint="put the workspace on such a disk and run the command again",
        )


def finite(loss: float, step: int, rate: float) -> float:
    """The loss of a step, which must be finite.

    Raises:
        PlanError: It isn't.
    """
    if math.isfinite(loss):
        return loss
    raise PlanError(
        f"Training went astray: the loss or the weights of step {step} are not finite",
        expected="a finite number",
        found=f"{loss} at a learning rate of {rate:.3g}",
        where="training.rate",
        hint="tell the coordinator: the plan needs a smaller training.rate; nothing was written",
    )
