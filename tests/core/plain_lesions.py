"""The lesion-wise scores of BraTS 2023 once more, word by word: uncropped, slow, easy to check."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from tests.core.peers import hd95

DILATIONS = {"gli": 3, "ssa": 3, "ped": 3, "men": 1, "met": 1}
IGNORED = {"gli": 50, "ssa": 50, "ped": 50, "men": 50, "met": 2}
TOUCHING = np.ones((3, 3, 3))
FACES_AND_EDGES = ndimage.generate_binary_structure(3, 2)


@dataclass
class Plain:
    dice: float
    hd95_mm: float
    n_kept: int
    n_ignored: int
    n_missed: int
    n_false: int
    n_matched_by_many: int


def plain_lesions(
    prediction: np.ndarray,
    truth: np.ndarray,
    preset: str,
    *,
    spacing_mm: tuple[float, float, float],
    farthest_mm: float,
) -> Plain:
    n_dilations, ignored = DILATIONS[preset], IGNORED[preset]
    grown = ndimage.binary_dilation(truth, FACES_AND_EDGES, n_dilations)
    lesions, n_lesions = ndimage.label(grown, TOUCHING)
    lesions[~truth] = 0
    pieces, n_pieces = ndimage.label(prediction, TOUCHING)
    dices, distances, matched, n_ignored, n_missed, n_many = [], [], set(), 0, 0, 0
    for number in range(1, n_lesions + 1):
        lesion = lesions == number
        around = ndimage.binary_dilation(lesion, FACES_AND_EDGES, n_dilations)
        matches = set(np.unique(pieces[around])) - {0}
        matched |= matches
        if lesion.sum() <= ignored:
            n_ignored += 1
            continue
        predicted = np.isin(pieces, list(matches))
        dices.append(2 * (predicted & lesion).sum() / (predicted.sum() + lesion.sum()))
        distances.append(hd95(predicted, lesion, spacing_mm) if matches else farthest_mm)
        n_missed += not matches
        n_many += len(matches) > 1
    n_false = n_pieces - len(matched)
    n = len(dices) + n_false
    return Plain(
        dice=sum(dices) / n if n else 1.0,
        hd95_mm=(sum(distances) + n_false * farthest_mm) / n if n else 0.0,
        n_kept=len(dices),
        n_ignored=n_ignored,
        n_missed=n_missed,
        n_false=n_false,
        n_matched_by_many=n_many,
    )
