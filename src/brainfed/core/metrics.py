"""Two scores that share a name elsewhere and must not be compared: each has its own here.

`dice` is the overlap of two outlines of one patient in 3-D. `soft_slice_dice` is the score of the
paper's code: per slice, on probabilities, with smoothing. A slice without tumour that is predicted
empty counts as 1, which flatters; faint probabilities spread over such a slice cost nearly all of
it, which punishes. Neither score bounds the other.
"""

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray


class Measure(StrEnum):
    """How a score is computed, as files and tables name it."""

    DICE = "dice"
    SOFT_SLICE_DICE = "soft-slice-dice"


def dice(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """2 |P and T| / (|P| + |T|) of two outlines of the same shape, any number of axes.

    Returns:
        From 0 to 1: 1 where both are empty, 0 where one alone is (a miss, or a false alarm).
    """
    total = int(np.count_nonzero(prediction)) + int(np.count_nonzero(truth))
    if total == 0:
        return 1.0
    return 2 * int(np.count_nonzero(prediction & truth)) / total


def soft_slice_dice(probability: NDArray[np.floating], truth: NDArray[np.bool_]) -> float:
    """Mean over slices of (2 sum PT + 1) / (sum P + sum T + 1), as the paper's code scores.

    Args:
        probability: (z, y, x), from 0 to 1.
        truth: (z, y, x).

    Returns:
        From 0 to 1, 1 only for a perfect answer; a slice that is rightly empty scores 1.
    """
    over = (1, 2)
    overlap = np.sum(probability * truth, axis=over, dtype=np.float64)
    total = np.sum(probability, axis=over, dtype=np.float64) + np.count_nonzero(truth, axis=over)
    return float(np.mean((2 * overlap + 1) / (total + 1)))
