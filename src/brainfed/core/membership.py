"""How well the losses of patients tell those who were trained on from those who were not.

Whoever knows a patient's scans and has the weights can look at the loss: training makes it small
for its own patients (Yeom et al. 2018, "Privacy Risk in Machine Learning: Analyzing the Connection
to Overfitting", CSF; arXiv 1709.01604). An area under the curve of a half is chance. As Carlini et
al. 2022 ("Membership Inference Attacks From First Principles", IEEE S&P; arXiv 2112.03570) ask, the
share of true positives at few false positives stands beside it: a mean over all patients can hide
the few who are given away. This bounds one attack, that by one threshold for all; a stronger one
(shadow networks, a threshold for each patient) may find more.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

FEWEST = 10
"""Patients of either kind below which nothing is said."""
FALSE_POSITIVES = 0.01
"""The share at which true positives are counted, where there are patients enough to see it."""
N_RESAMPLES = 2000
_EPSILON = 1e-7
"""Probabilities are kept so far from 0 and 1 that every loss is finite."""


@dataclass(frozen=True, slots=True)
class Separation:
    """How well one number tells two groups of patients apart."""

    auc: float
    """Chance that a training patient has a smaller loss than one that was held out; ties half."""
    low: float
    """95 % interval of `auc`: percentiles of a bootstrap over the patients of each group."""
    high: float
    true_positives: float
    """Share of the training patients whose loss is below a threshold."""
    false_positives: float
    """Share of those held out below the same threshold: 1 in 100, or one patient if fewer."""


def case_loss(probability: NDArray[np.float32], truth: NDArray[np.bool_]) -> float:
    """Soft Dice loss plus cross-entropy of one case, the mean over its regions.

    As `core.losses` has it for `dice-ce`, over the whole case in place of a batch.

    Args:
        probability: (region, z, y, x), from 0 to 1.
        truth: (region, z, y, x).

    Returns:
        At least 0; cross-entropy in nats.
    """
    losses = []
    for found, true in zip(probability, truth, strict=True):
        p = np.clip(found.astype(np.float64), _EPSILON, 1 - _EPSILON)
        dice = (2 * p[true].sum() + 1) / (p.sum() + true.sum() + 1)
        entropy = -(np.log(p[true]).sum() + np.log1p(-p[~true]).sum()) / true.size
        losses.append(1 - dice + entropy)
    return float(np.mean(losses))


def separate(train: Sequence[float], held_out: Sequence[float], *, seed: int) -> Separation | None:
    """How well a threshold on the loss tells the groups apart; None for fewer than `FEWEST`.

    Args:
        train: Loss of each patient that was trained on.
        held_out: Loss of each that was not.
        seed: Of the bootstrap.
    """
    ours, others = np.asarray(train, np.float64), np.asarray(held_out, np.float64)
    if min(ours.size, others.size) < FEWEST:
        return None
    random = np.random.default_rng(seed)
    drawn = _auc(
        random.choice(ours, (N_RESAMPLES, ours.size)),
        random.choice(others, (N_RESAMPLES, others.size)),
    )
    low, high = np.percentile(drawn, [2.5, 97.5])
    true_positives, false_positives = _at_few_false(ours, others)
    return Separation(
        float(_auc(ours, others)), float(low), float(high), true_positives, false_positives
    )


def can_resolve(n_held_out: int) -> bool:
    """Whether so many patients can show a share of `FALSE_POSITIVES`."""
    return n_held_out * FALSE_POSITIVES >= 1


def _auc(ours: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mann-Whitney's U over the number of pairs, from midranks (Hanley and McNeil 1982).

    Args:
        ours: (..., patient) losses of those trained on.
        others: (..., patient) losses of those held out.
    """
    n, m = ours.shape[-1], others.shape[-1]
    ranks = stats.rankdata(np.concatenate((-ours, -others), axis=-1), axis=-1)
    found: NDArray[np.float64] = (ranks[..., :n].sum(-1) - n * (n + 1) / 2) / (n * m)
    return found


def _at_few_false(ours: NDArray[np.float64], others: NDArray[np.float64]) -> tuple[float, float]:
    """True positives at the most false positives that are allowed, and those false positives."""
    n_allowed = max(1, int(FALSE_POSITIVES * others.size))
    threshold = np.sort(others)[n_allowed]
    false_positives = np.mean(others < threshold)
    return float(np.mean(ours < threshold)), float(false_positives)
