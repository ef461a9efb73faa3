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
    """Overlap of two outlines in 3-D."""
    SOFT_SLICE_DICE = "soft-slice-dice"
    """The paper's: of probabilities, slice by slice."""
    HD95_SURFACE = "hd95-surface"
    """mm: 95th percentile over the surface's area, the larger of the two directions."""
    HD95_POOLED = "hd95-pooled"
    """mm: 95th percentile of the distances of both directions' border voxels together."""
    NSD = "nsd"
    """Share of both surfaces that lies within the plan's tolerance of the other."""
    SENSITIVITY = "sensitivity"
    SPECIFICITY = "specificity"
    VOLUME_DIFFERENCE = "volume-difference"
    """ml: predicted less true."""
    LESION_DICE = "lesion-dice"
    """BraTS 2023's, with the plan's preset: mean over lesions, false ones count as 0."""
    LESION_HD95 = "lesion-hd95"
    """mm: likewise of hd95-surface; missed and false lesions count as the largest distance."""

    @property
    def unit(self) -> str:
        """`mm`, `ml`, or nothing for a share.

        Where the spacing is nominal only shares mean something, and of them not `nsd`, whose
        tolerance is in mm.
        """
        if self in (Measure.HD95_SURFACE, Measure.HD95_POOLED, Measure.LESION_HD95):
            return "mm"
        return "ml" if self is Measure.VOLUME_DIFFERENCE else ""


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
