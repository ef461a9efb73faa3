"""The names of all measures, and those that count voxels.

Two scores share a name elsewhere and must not be compared; each has its own here. `dice` is the
overlap of two outlines of one patient in 3-D. `soft_slice_dice` is the score of the paper's code:
per slice, on probabilities, with smoothing. A slice without tumour that is predicted empty counts
as 1, which flatters; faint probabilities spread over such a slice cost nearly all of it, which
punishes. Neither score bounds the other.

Distances are in `core/surface` and `core/lesions`. They need SciPy; this module is read by commands
that must be quick, which name measures and compute none: NumPy is imported where one is computed.
"""

import math
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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


def dice(prediction: "NDArray[np.bool_]", truth: "NDArray[np.bool_]") -> float:
    """2 |P and T| / (|P| + |T|) of two outlines of the same shape, any number of axes.

    Returns:
        From 0 to 1: 1 where both are empty, 0 where one alone is (a miss, or a false alarm).
    """
    import numpy as np

    total = int(np.count_nonzero(prediction)) + int(np.count_nonzero(truth))
    if total == 0:
        return 1.0
    return 2 * int(np.count_nonzero(prediction & truth)) / total


def sensitivity(prediction: "NDArray[np.bool_]", truth: "NDArray[np.bool_]") -> float:
    """|P and T| / |T|: the share of the true outline that was found.

    Returns:
        From 0 to 1. As in the script of BraTS 2023, an empty truth gives 1 if nothing was predicted
        and 0 if something was.
    """
    import numpy as np

    n_true = int(np.count_nonzero(truth))
    if n_true == 0:
        return 0.0 if prediction.any() else 1.0
    return int(np.count_nonzero(prediction & truth)) / n_true


def specificity(prediction: "NDArray[np.bool_]", truth: "NDArray[np.bool_]") -> float:
    """|neither P nor T| / |not T|: the share of everything else that was left alone.

    It depends on how much air the grid holds and is near 1 for any tumour: given because it is
    asked for. Give it the whole grid.

    Returns:
        From 0 to 1; 0, as in the script of BraTS 2023, where the truth fills the grid.
    """
    import numpy as np

    n_outside = truth.size - int(np.count_nonzero(truth))
    if n_outside == 0:
        return 0.0
    return (truth.size - int(np.count_nonzero(prediction | truth))) / n_outside


def volume_difference_ml(
    prediction: "NDArray[np.bool_]",
    truth: "NDArray[np.bool_]",
    spacing_mm: tuple[float, float, float],
) -> float:
    """(|P| - |T|) times the volume of a voxel, in ml: positive where too much was predicted.

    Says nothing of overlap; differences of either sign cancel out in a mean over patients.
    """
    import numpy as np

    n = int(np.count_nonzero(prediction)) - int(np.count_nonzero(truth))
    return n * math.prod(spacing_mm) / 1000


def soft_slice_dice(probability: "NDArray[np.floating]", truth: "NDArray[np.bool_]") -> float:
    """Mean over slices of (2 sum PT + 1) / (sum P + sum T + 1), as the paper's code scores.

    Args:
        probability: (z, y, x), from 0 to 1.
        truth: (z, y, x).

    Returns:
        From 0 to 1, 1 only for a perfect answer; a slice that is rightly empty scores 1.
    """
    import numpy as np

    over = (1, 2)
    overlap = np.sum(probability * truth, axis=over, dtype=np.float64)
    total = np.sum(probability, axis=over, dtype=np.float64) + np.count_nonzero(truth, axis=over)
    return float(np.mean((2 * overlap + 1) / (total + 1)))
