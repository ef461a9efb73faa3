"""Averaging by specification: the same files, the same bits (`docs/formats/averaging.md`).

For every value: take the sites in name order; multiply each float32 value by its site's integer
weight in float64; the sum starts with the first product; divide once by the total; round once to
float32, nearest, ties to even. With a total weight under 2^29 every product is exact (24 + 29 = 53
bits), so the only roundings are those of the sum, the division and the end. Elementwise only, never
BLAS: the bits depend neither on the machine, nor on threads, nor on who arrived first.
"""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from brainfed.errors import MalformedError
from brainfed.plan import MAX_TOTAL_WEIGHT

Values = npt.NDArray[np.float32]


def check_weights(weights: Sequence[int]) -> int:
    """The total of the sites' weights.

    Raises:
        MalformedError: A weight is not positive, or the total is 2^29 or more.
    """
    total = sum(weights)
    if not weights or min(weights) < 1 or total >= MAX_TOTAL_WEIGHT:
        raise MalformedError(
            "The sites' weights can't be averaged exactly",
            expected="positive integers with a total under 2^29",
            found=list(weights),
        )
    return total


def capped(weights: Sequence[int], most: float) -> tuple[int, ...]:
    """Lower the largest weights until none has more than this share of their total.

    All above one level become that level: the largest integer for which it is so, at least 1. Where
    there are too few sites for that share, all weights become 1.

    Args:
        weights: Positive integers.
        most: Share, above 0 and at most 1; taken as the decimal number that it is written as.
    """
    if most >= 1:
        return tuple(weights)
    share = Fraction(repr(most))

    def fits(level: int) -> bool:
        return level <= share * sum(min(weight, level) for weight in weights)

    low, high = 1, max(weights)
    while low < high:  # if a level fits, so do all below it
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return tuple(min(weight, low) for weight in weights)


class Mean:
    """The weighted mean of blocks of values, one site after the other, in reused memory."""

    def __init__(self, n_values: int, total: int) -> None:
        self._sum = np.zeros(n_values, np.float64)
        self._product = np.zeros(n_values, np.float64)
        self._total = np.float64(total)
        self._first = True

    def add(self, values: Values, weight: int) -> None:
        """Take in one site's values, shape (n,) with n at most the block size."""
        target = self._sum if self._first else self._product
        np.multiply(values, np.float64(weight), out=target[: len(values)])
        if not self._first:
            self._sum[: len(values)] += self._product[: len(values)]
        self._first = False

    def take(self, n_values: int) -> npt.NDArray[np.float64]:
        """The mean of the first `n_values`, not yet rounded to float32; the next block can begin.

        It is valid until then.
        """
        self._first = True
        found = self._sum[:n_values]
        return np.divide(found, self._total, out=found)


def weighted_mean(values: Sequence[Values], weights: Sequence[int]) -> Values:
    """The mean of whole arrays of one shape, in the order given (name order of the sites).

    Source: Sheller et al. 2018, section 2.3; McMahan et al. 2017 (arXiv 1602.05629), with n_k / n.

    Raises:
        MalformedError: The weights can't be averaged exactly.
    """
    mean = Mean(values[0].size, check_weights(weights))
    for site_values, weight in zip(values, weights, strict=True):
        mean.add(site_values.ravel(), weight)
    return mean.take(values[0].size).astype(np.float32).reshape(values[0].shape)
