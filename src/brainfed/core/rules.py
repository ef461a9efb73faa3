"""The rules of aggregation on a stretch of values: updates in, new global values and state out.

Each rule is one function and one member of `plan.Rule`. All that they do is elementwise in float64
and rounded once to float32, so a stretch may have any length and stretches can be computed in any
order and by any number of threads (`docs/formats/averaging.md`). What a rule must know of whole
updates before the first stretch, norms and distances, is summed in a written order by `Whole`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from brainfed.core.averaging import Mean, check_weights
from brainfed.core.robust import median, n_trimmed, trimmed_mean
from brainfed.errors import PlanError, QuorumError
from brainfed.plan import Aggregation, Rule

PIECE = 2**13
"""Values whose squares are summed at a time, by specification."""
CHUNK = 2**15
"""Values that are combined at a time, a multiple of `PIECE`; no bit depends on it. Smaller ones let
threads wait for Python's lock, larger ones leave a processor's cache."""
LANES = 2**8

Values = npt.NDArray[np.float32]
State = tuple[Values, ...]


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of whole updates before any stretch of them is combined."""

    scales: tuple[float, ...]
    """By which each site's change is shortened; 1 leaves it."""
    chosen: int | None = None
    """The site whose weights krum takes."""


def fewest_sites(settings: Aggregation) -> int:
    """Fewest updates that the rule can work with.

    Krum, Blanchard et al. 2017, theorem: 2 f + 3 sites withstand f dishonest ones.
    """
    return 2 * settings.n_dishonest + 3 if settings.rule is Rule.KRUM else 1


def needs_whole(settings: Aggregation) -> bool:
    """Whether the updates must be gone through once before they can be combined."""
    return settings.clip_norm > 0 or settings.rule is Rule.KRUM


def needs_parent(settings: Aggregation, n_sites: int) -> bool:
    """Whether the result depends on the values that the updates were trained from."""
    return n_sites == 0 or settings.clip_norm > 0 or settings.rule in STEPS


class Whole:
    """Squared norms of the sites' changes and, for krum, squared distances between their updates.

    A piece of 8,192 squares (the last one filled up with zeros) is folded by halves to 256 sums,
    which are added to 256 running ones, piece after piece; at the end these are folded to one.
    """

    def __init__(self, settings: Aggregation, n_sites: int) -> None:
        self._settings, self._n_sites = settings, n_sites
        is_krum = settings.rule is Rule.KRUM
        self.pairs = tuple(combinations(range(n_sites), 2)) if is_krum else ()
        self._sums = np.zeros((n_sites + len(self.pairs), LANES))

    @property
    def n_sums(self) -> int:
        """Sums that `add` can add to, each by itself, in any order and by any thread."""
        return len(self._sums)

    def add(self, index: int, parent: Values, updates: Sequence[Values]) -> None:
        """Add a stretch to one sum; its length is a multiple of `PIECE`, but at the end."""
        if index < self._n_sites:
            a, b = updates[index], parent
        else:
            i, j = self.pairs[index - self._n_sites]
            a, b = updates[i], updates[j]
        for start in range(0, len(parent), PIECE):
            piece = slice(start, start + PIECE)
            square = np.subtract(a[piece], b[piece], dtype=np.float64)
            np.square(square, out=square)
            if len(square) < PIECE:
                square = np.pad(square, (0, PIECE - len(square)))
            self._sums[index] += _folded(square, LANES)

    def known(self) -> Known:
        """What the rule must know.

        Raises:
            QuorumError: Too few sites for krum.
        """
        sums = [float(_folded(lanes.copy(), 1)[0]) for lanes in self._sums]
        most, norms = self._settings.clip_norm, np.sqrt(np.array(sums[: self._n_sites]))
        scales = tuple(most / n if 0 < most < n else 1.0 for n in norms.tolist())
        chosen = None
        if self._settings.rule is Rule.KRUM:
            squared = np.zeros((self._n_sites, self._n_sites))
            for (i, j), value in zip(self.pairs, sums[self._n_sites :], strict=True):
                squared[i, j] = squared[j, i] = value
            chosen = krum(squared, self._settings.n_dishonest)
        return Known(scales, chosen)


def _folded(values: npt.NDArray[np.float64], n_left: int) -> npt.NDArray[np.float64]:
    while len(values) > n_left:
        half = len(values) // 2
        values = np.add(values[:half], values[half:], out=values[:half])
    return values


def krum(squared: npt.NDArray[np.float64], n_dishonest: int) -> int:
    """The site that is nearest to its n - f - 2 nearest others; of equals the first in name order.

    Source: Blanchard et al., Machine learning with adversaries, NIPS 2017, section 4.

    Args:
        squared: `(site, site)`: squared distances between updates, 0 on the diagonal.
        n_dishonest: f.

    Raises:
        QuorumError: Fewer than 2 f + 3 sites.
    """
    n_sites = len(squared)
    if n_sites < 2 * n_dishonest + 3:
        raise QuorumError(
            "Too few updates for krum",
            expected=f"at least {2 * n_dishonest + 3}, for {n_dishonest} dishonest sites",
            found=n_sites,
            where="aggregation.n_dishonest",
            hint="wait for more updates: `brainfed status` says whose are missing",
        )
    scores = []
    for site, row in enumerate(squared):
        nearest = np.sort(np.delete(row, site))[: n_sites - n_dishonest - 2]
        # One after the other: since Python 3.12 `sum` of floats rounds otherwise.
        scores.append(float(np.cumsum(nearest)[-1]))
    return scores.index(min(scores))


def combine(
    settings: Aggregation,
    parent: Values,
    updates: Sequence[Values],
    weights: Sequence[int],
    state: State,
    *,
    known: Known,
) -> tuple[Values, State]:
    """Combine a stretch of the updates by the plan's rule.

    Args:
        settings: The rule and its numbers.
        parent: Values that the updates were trained from, shape `(n,)`.
        updates: Of the sites in name order, likewise; none passes the parent's values on.
        weights: Their integer weights.
        state: The rule's from the round before, for each word of `Rule.state`; of the first round
            if empty.
        known: Of the whole updates.

    Returns:
        The new global values, and the new state.

    Raises:
        PlanError: The coordinator's step leaves the range of float32.
    """
    if not updates:
        return parent.copy(), ()
    result = np.empty(len(parent), np.float32)
    kept = tuple(np.empty(len(parent), np.float32) for _ in settings.rule.state)
    mean = Mean(min(CHUNK, len(parent)), check_weights(weights))
    for start in range(0, len(parent), CHUNK):
        piece = slice(start, start + CHUNK)
        p = parent[piece]
        u = [
            _shortened(p, update[piece], scale)
            for update, scale in zip(updates, known.scales, strict=True)
        ]
        match settings.rule:
            case Rule.MEDIAN:
                result[piece] = median(u)
            case Rule.TRIMMED_MEAN:
                result[piece] = trimmed_mean(u, n_trimmed(len(u), settings.trim_fraction))
            case Rule.KRUM:
                assert known.chosen is not None
                result[piece] = u[known.chosen]
            case Rule.FEDAVG | Rule.FEDAVGM | Rule.FEDADAM:
                for values, weight in zip(u, weights, strict=True):
                    mean.add(values, weight)
                found = mean.take(len(p))
                if settings.rule is Rule.FEDAVG:
                    result[piece] = found
                else:
                    step = STEPS[settings.rule]
                    before = tuple(array[piece] for array in state)
                    with np.errstate(over="ignore"):
                        moved, after = step(settings, p, found - p, before)
                        moved = moved.astype(np.float32)
                    _check_finite(moved, *after)
                    result[piece] = moved
                    for array, values in zip(kept, after, strict=True):
                        array[piece] = values
    return result, kept


def _check_finite(*arrays: Values) -> None:
    if not all(np.isfinite(array).all() for array in arrays):
        raise PlanError(
            "The coordinator's step leads out of the range of float32",
            where="aggregation.server_rate",
            hint="a smaller rate in an amendment of the plan: `brainfed amend`",
        )


def _shortened(parent: Values, update: Values, scale: float) -> Values:
    """The update with its change shortened, rounded to float32."""
    if scale == 1.0:
        return update
    change = np.subtract(update, parent, dtype=np.float64)
    change *= scale
    change += parent
    return change.astype(np.float32)


Changes = npt.NDArray[np.float64]


def momentum_step(
    settings: Aggregation, parent: Values, change: Changes, state: State
) -> tuple[Changes, State]:
    """FedAvgM: v = beta v + change; parent + rate v. v begins as 0 and is kept as float32.

    Source: Hsu et al., Measuring the effects of non-identical data distribution, 2019 (arXiv
    1909.06335).
    """
    kept = change
    if state:
        kept = settings.server_momentum * state[0].astype(np.float64) + change
    momentum = kept.astype(np.float32)
    return parent + settings.server_rate * momentum.astype(np.float64), (momentum,)


def adam_step(
    settings: Aggregation, parent: Values, change: Changes, state: State
) -> tuple[Changes, State]:
    """FedAdam: parent + rate m / (sqrt(v) + tau).

    m = b1 m + (1 - b1) change, beginning as 0; v = b2 v + (1 - b2) change^2, beginning as tau^2.
    Both are kept as float32, and the step is computed from what is kept; no bias is corrected.

    Source: Reddi et al., Adaptive federated optimization, ICLR 2021 (arXiv 2003.00295),
    algorithm 2.
    """
    b1, b2, tau = settings.server_momentum, settings.second_momentum, settings.adaptivity
    first = np.zeros(len(parent)) if not state else state[0].astype(np.float64)
    start = np.float64(np.float32(tau * tau))
    second = np.full(len(parent), start) if not state else state[1].astype(np.float64)
    m = (b1 * first + (1 - b1) * change).astype(np.float32)
    v = (b2 * second + (1 - b2) * (change * change)).astype(np.float32)
    step = settings.server_rate * m.astype(np.float64) / (np.sqrt(v.astype(np.float64)) + tau)
    return parent + step, (m, v)


Step = Callable[[Aggregation, Values, Changes, State], tuple[npt.NDArray[Any], State]]
STEPS: dict[Rule, Step] = {Rule.FEDAVGM: momentum_step, Rule.FEDADAM: adam_step}


def apply(
    settings: Aggregation,
    parent: Values,
    updates: Sequence[Values],
    weights: Sequence[int],
    state: Sequence[Values] = (),
) -> tuple[Values, State]:
    """Combine whole updates in memory; arguments as `combine` has them.

    Raises:
        QuorumError: Too few sites for krum.
        MalformedError: The weights can't be averaged exactly.
    """
    known = Known((1.0,) * len(updates))
    if updates and needs_whole(settings):
        whole = Whole(settings, len(updates))
        for index in range(whole.n_sums):
            whole.add(index, parent, updates)
        known = whole.known()
    return combine(settings, parent, updates, weights, tuple(state), known=known)
