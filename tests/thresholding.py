"""Weights that make the U-Net find whatever is bright on FLAIR: real weights, known answer."""

import numpy as np
import numpy.typing as npt

from brainfed.core.architecture import tensor_table
from brainfed.plan import Modality, Plan

STEEPNESS = 20.0


def thresholding_weights(plan: Plan, *thresholds: float) -> dict[str, npt.NDArray[np.float32]]:
    """The FLAIR channel goes through the first level's skip to the heads, untouched where above 0.

    Args:
        plan: Its network has two levels and no norm.
        thresholds: By region, in z-scores, above 0; one for all where it is one.
    """
    weights = {name: np.zeros(s, np.float32) for name, s in tensor_table(plan).items()}
    middle = (1,) * plan.network.n_dimensions
    flair = plan.scans.modalities.index(Modality.FLAIR)
    below = plan.network.channels[1]
    weights["encoder.level1.conv1.weight"][(0, flair, *middle)] = 1
    weights["encoder.level1.conv2.weight"][(0, 0, *middle)] = 1
    weights["decoder.level1.conv1.weight"][(0, below, *middle)] = 1
    weights["decoder.level1.conv2.weight"][(0, 0, *middle)] = 1
    weights["head.weight"][:, 0] = STEEPNESS
    weights["head.bias"][:] = -STEEPNESS * np.array(thresholds, np.float32)
    return weights
