"""What a way to learn costs: passes, steps one after the other, hand-overs, bytes.

With couriers the scarce unit is the hand-over, one file carried one way between a site and the
coordinator, not the megabyte. Source: Sheller et al. 2018, section 4; ten sites and 20 rounds of
federated learning make 400.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from brainfed.core.contenders import Contender, Run, Training, passes_of, plan_of
from brainfed.plan import Method, Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The cost of one contender in one run, or of one federation."""

    passes: int
    """Over every training patient; of `iil` the most."""
    rounds: int
    hand_overs: int
    """Of `pooled` the scans themselves, once from each site."""
    scoring_hand_overs: int
    """Besides, of `ciil`: the weights after every cycle, to each site, to be scored."""
    bytes_carried: int
    """Of weights, in these hand-overs; `pooled` carries scans, which aren't counted."""
    sequential_steps: int
    """Optimiser steps one after the other, 0 where nobody told how many a site takes; what sites
    do at the same time counts once. Of `pooled` and `iil` the most: pooled patients fill batches
    better, and a site of `iil` may stop early."""


def hand_overs_of(training: Training, n_sites: int, rounds: int) -> int:
    """Files carried one way until so many rounds have closed.

    `fl`: down and up at every site each round; `ciil`: down and up each turn; `iil`: besides the
    last weights come to every site; `pooled`: the scans of each site, once.
    """
    return {
        Training.POOLED: n_sites,
        Training.FL: 2 * n_sites * rounds,
        Training.CIIL: 2 * rounds,
        Training.IIL: 3 * rounds,
        Training.ONCE: 2 * n_sites * rounds,
    }[training]


def budget_of(
    run: Run,
    plan: Plan,
    contender: Contender,
    *,
    steps_per_epoch: Mapping[str, int],
    weight_bytes: int,
) -> Budget:
    """The cost of one contender in one run.

    Args:
        run: The run that it is read off.
        plan: The plan that is simulated.
        contender: Whose cost.
        steps_per_epoch: Optimiser steps of an epoch at each site.
        weight_bytes: Of one weight file.

    Raises:
        PlanError: As of `core.contenders.plan_of`.
    """
    n_sites = len(steps_per_epoch)
    own = plan_of(run, plan, n_sites)
    hand_overs = hand_overs_of(run.training, n_sites, own.rounds)
    n_files = {Contender.POOLED: 0, Contender.LOCAL: 0}.get(contender, hand_overs)
    if contender is Contender.ENSEMBLE:
        n_files = n_sites + n_sites**2  # each site's up, then all of them down to each
    return Budget(
        passes=passes_of(plan),
        rounds=own.rounds,
        hand_overs=0 if contender is Contender.LOCAL else hand_overs,
        scoring_hand_overs=own.rounds if contender is Contender.CIIL else 0,
        bytes_carried=n_files * weight_bytes,
        sequential_steps=_sequential(run, own, steps_per_epoch),
    )


def _sequential(run: Run, own: Plan, steps_per_epoch: Mapping[str, int]) -> int:
    """All sites' steps where one waits for the other, else those of the site with most."""
    epochs = own.rounds * own.training.epochs_per_round
    if run.training in {Training.CIIL, Training.IIL}:
        return sum(steps_per_epoch.values()) * epochs // len(steps_per_epoch)
    if run.training is Training.POOLED:
        return sum(steps_per_epoch.values()) * epochs
    return max(steps_per_epoch.values()) * epochs


def for_plan(plan: Plan, n_sites: int, weight_bytes: int) -> Budget:
    """The cost of a real federation of this plan, from the first weights down to the last ones up.

    Args:
        plan: The plan; in a relay every turn of a site is one of its rounds.
        n_sites: Sites that take part in every round.
        weight_bytes: Of one weight file.
    """
    hand_overs = hand_overs_of(Training(plan.method), n_sites, plan.rounds)
    in_turn = 1 if plan.method is Method.FL else n_sites
    return Budget(
        passes=plan.rounds * plan.training.epochs_per_round // in_turn,
        rounds=plan.rounds,
        hand_overs=hand_overs,
        scoring_hand_overs=plan.rounds if plan.method is Method.CIIL else 0,
        bytes_carried=hand_overs * weight_bytes,
        sequential_steps=0,
    )


def courier_days(plan: Plan, days: float) -> float:
    """Days on the road from the first weights to the last global ones at every site.

    A round is a way down and a way up; all couriers of a round travel at once, those of a relay
    one after the other. The last global weights take one more way.

    Args:
        plan: The plan.
        days: Of one way.
    """
    return days * (2 * plan.rounds + 1)
