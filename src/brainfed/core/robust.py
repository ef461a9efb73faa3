"""Median and trimmed mean of each value by itself, by a sorting network over short stretches.

A network is a fixed list of comparisons, so all values of a stretch go through it at once; those
comparisons on which nothing that is asked for depends are left out. Elementwise only: the bits
depend neither on the machine nor on threads (`docs/formats/averaging.md`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Puts the smaller of two values into the place `low`, the larger into `high`."""

    low: int
    high: int
    needs_low: bool
    needs_high: bool


def merge_exchange(n: int) -> Iterator[tuple[int, int]]:
    """Comparisons that sort any `n` values.

    Source: Batcher's merge exchange, Knuth, The Art of Computer Programming 3, 5.2.2, algorithm M.
    """
    top = 1 << max(0, (n - 1).bit_length() - 1)
    p = top
    while p > 0:
        q, r, distance = top, 0, p
        while True:
            yield from ((i, i + distance) for i in range(n - distance) if i & p == r)
            if q == p:
                break
            distance, q, r = q - p, q // 2, p
        p //= 2


@lru_cache(maxsize=64)
def network(n: int, first: int, last: int) -> tuple[Comparison, ...]:
    """Comparisons after which the places `first` to `last` - 1 of `n` hold what sorting puts there.

    The other places hold anything.
    """
    needed = set(range(first, last))
    kept = []
    for low, high in reversed([*merge_exchange(n)]):
        if low in needed or high in needed:
            kept.append(Comparison(low, high, low in needed, high in needed))
            needed |= {low, high}
    return tuple(reversed(kept))


def _sorted_rows(updates: Sequence[Values], first: int, last: int) -> list[Values]:
    """The rows `first` to `last` - 1 of the values, sorted over the sites at each place."""
    rows = [np.array(row) for row in updates]
    spare = np.empty_like(rows[0])
    for step in network(len(rows), first, last):
        low, high = rows[step.low], rows[step.high]
        if step.needs_low and step.needs_high:
            np.minimum(low, high, out=spare)
            np.maximum(low, high, out=high)
            rows[step.low], spare = spare, low
        elif step.needs_low:
            np.minimum(low, high, out=low)
        else:
            np.maximum(low, high, out=high)
    return rows[first:last]


def n_trimmed(n_sites: int, fraction: float) -> int:
    """Sites that are cut off at each end; some always stay."""
    return min(int(n_sites * fraction + 1e-9), (n_sites - 1) // 2)


def trimmed_mean(updates: Sequence[Values], n_cut: int) -> npt.NDArray[np.float64]:
    """The mean of what stays when the `n_cut` smallest and largest values of a place are cut off.

    The rest is added in ascending order in float64, beginning with 0.0, and divided by its number;
    so there is no minus zero. All sites count alike.

    Source: Yin et al., Byzantine-robust distributed learning, ICML 2018 (arXiv 1803.01498),
    definition 2.

    Args:
        updates: float32 values of the sites, each of shape `(n,)`.
        n_cut: Fewer than half of the sites.
    """
    kept = _sorted_rows(updates, n_cut, len(updates) - n_cut)
    total = np.zeros(len(kept[0]), np.float64)
    for row in kept:
        total += row
    return np.divide(total, np.float64(len(kept)), out=total)


def median(updates: Sequence[Values]) -> npt.NDArray[np.float64]:
    """The median of each place; of an even number of sites the mean of the two in the middle.

    Source: Yin et al. 2018 (arXiv 1803.01498), definition 1. It is the trimmed mean of which one
    value or two are left.
    """
    return trimmed_mean(updates, (len(updates) - 1) // 2)
