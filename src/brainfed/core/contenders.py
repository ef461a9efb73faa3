"""What a simulation compares: seven ways to learn from several sites, each as a plan of its own.

Pure: which rounds, epochs and sites a way means. All begin with the same initial weights (those of
the plan's seed), and each passes over every training patient as often: `plan.rounds` times
`training.epochs_per_round`. Source: Sheller et al. 2018, section 2.2; `ensemble` and `average-once`
are not the paper's.
"""

from dataclasses import dataclass
from enum import StrEnum

from brainfed import plan as plans
from brainfed.errors import PlanError
from brainfed.plan import Encryption, Method, OptimiserState, Plan, Rule, Schedule

PATIENCE = 8
"""Epochs without a better Dice after which a site of `iil` hands on (the paper)."""


class Contender(StrEnum):
    """A way to learn from the patients of several sites."""

    POOLED = "pooled"
    """All patients in one place."""
    FL = "fl"
    """All sites at once, averaged every round."""
    CIIL = "ciil"
    """From site to site, round and round."""
    IIL = "iil"
    """From site to site, once."""
    LOCAL = "local"
    """Each site alone; its weights are tried on every site's patients."""
    ENSEMBLE = "ensemble"
    """The mean of the probabilities of all sites' own weights."""
    AVERAGE_ONCE = "average-once"
    """The mean of all sites' own weights, taken once."""


class Training(StrEnum):
    """What is trained; three contenders are read off one of them."""

    POOLED = "pooled"
    FL = "fl"
    CIIL = "ciil"
    IIL = "iil"
    ONCE = "once"
    """Each site alone from the initial weights, and their mean: one round as long as all."""


TRAINED_AS = {
    Contender.POOLED: Training.POOLED,
    Contender.FL: Training.FL,
    Contender.CIIL: Training.CIIL,
    Contender.IIL: Training.IIL,
    Contender.LOCAL: Training.ONCE,
    Contender.ENSEMBLE: Training.ONCE,
    Contender.AVERAGE_ONCE: Training.ONCE,
}


@dataclass(frozen=True, slots=True, order=True)
class Run:
    """One training of a simulation: a federation of its own, from start to audit."""

    training: Training
    repeat: int
    """From 0; goes into the plan's seed, and says which fold is held out where there are folds."""
    epochs: int
    """Per round of `fl`; 1 for the others (see `plan_of`)."""
    rate: float
    """Learning rate."""

    @property
    def name(self) -> str:
        """The name of its folder, such as fl-2-epochs-rate-0.003-repeat-1."""
        epochs = f"-{self.epochs}-epochs" if self.training is Training.FL else ""
        return f"{self.training}{epochs}-rate-{self.rate:g}-repeat-{self.repeat + 1}"


def passes_of(plan: Plan) -> int:
    """Passes over every training patient that each contender has.

    Raises:
        PlanError: The plan counts steps, so that there are none.
    """
    if not plan.training.epochs_per_round:
        raise PlanError(
            "A simulation compares by passes over the patients",
            expected="training.epochs_per_round above 0",
            found=f"training.steps_per_round = {plan.training.steps_per_round}",
            hint="give epochs_per_round in the plan",
        )
    return plan.rounds * plan.training.epochs_per_round


def plan_of(run: Run, plan: Plan, n_sites: int) -> Plan:
    """The plan of one run.

    `fl`: as many rounds as give the passes. `ciil`: one epoch a visit, as many cycles as passes.
    `iil`: each site at most as many epochs as passes, and the rate constant. `pooled`: one site, an
    epoch a round, its optimiser state kept, which makes it one training without a break. `once`:
    one round. Floors and quorums that guard patients are not wanted among throw-away parties.

    Args:
        run: The run.
        plan: The plan that is simulated.
        n_sites: Sites of the partition.

    Raises:
        PlanError: It counts steps, its passes are no multiple of the run's epochs, or the rate,
            or what the way makes of the rounds, is out of range.
    """
    passes = passes_of(plan)
    if passes % run.epochs:
        raise PlanError(
            "The passes of the plan don't divide into rounds of so many epochs",
            expected=f"a divisor of {passes} (rounds times training.epochs_per_round)",
            found=f"{run.epochs} epochs a round",
            hint="choose other --epochs, or other rounds in the plan",
        )
    turns = n_sites * passes
    rounds, epochs = {
        Training.POOLED: (passes, 1),
        Training.FL: (passes // run.epochs, run.epochs),
        Training.CIIL: (turns, 1),
        Training.IIL: (n_sites, passes),
        Training.ONCE: (1, passes),
    }[run.training]
    is_relay = run.training in {Training.CIIL, Training.IIL}
    training: dict[str, object] = {"epochs_per_round": epochs, "rate": run.rate, "patience": 0}
    if run.training is Training.POOLED:
        training["optimiser_state"] = OptimiserState.KEEP
    if run.training is Training.IIL:
        training["patience"] = plan.training.patience or PATIENCE
        training |= {"schedule": Schedule.CONSTANT, "warm_up": 0.0}
    rule = Rule.FEDAVG if run.training is not Training.FL else plan.aggregation.rule
    quorum = 1 if is_relay or run.training is Training.POOLED else n_sites
    changed = plan.model_dump() | {
        "format": 3,
        "seed": plan.seed + run.repeat,
        "rounds": rounds,
        "method": Method(run.training) if is_relay else Method.FL,
    }
    changed["training"] |= training
    changed["aggregation"] |= {"rule": rule}
    changed["participation"] |= {"quorum_sites": quorum, "quorum_patients": 0, "floor": 1}
    changed["exchange"] |= {"encryption": Encryption.OFF, "approval": False}
    return plans.build(changed, f"the plan of {run.name}")
