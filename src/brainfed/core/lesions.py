"""Lesion-wise scores of BraTS 2023: each true lesion counts the same, and so does a false one.

After the challenge's script (R. Saluja, BraTS-2023-Metrics) and A. W. Moawad et al., The Brain
Tumor Segmentation - Metastases challenge 2023, arXiv 2306.00838. Voxels of the truth belong to one
lesion where they are one piece (faces, edges or corners touch) once the truth is dilated. The
prediction falls into pieces as it is. A lesion's matches are the predicted pieces that touch the
dilated lesion; it is scored against all of them together, and a piece may match several lesions.
Pieces without a lesion are false. Lesions up to a number of voxels don't count, but what matches
them isn't false.

The script counts mm3 on a grid of 1 mm; here voxels count, and dilation is in voxels too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from brainfed.core.nearest import Mask, Spacing
from brainfed.core.surface import hd95_surface, surfaces
from brainfed.plan import LesionPreset

Labels = NDArray[np.int32]
Box = tuple[slice, ...]


@dataclass(frozen=True, slots=True)
class Rules:
    """How a challenge tells lesions apart."""

    n_dilations: int
    """Each by the voxels that touch with a face or an edge."""
    n_voxels_ignored: int
    """A lesion must have more voxels to count."""


RULES: Mapping[LesionPreset, Rules] = MappingProxyType(
    {
        LesionPreset.GLI: Rules(3, 50),
        LesionPreset.SSA: Rules(3, 50),
        LesionPreset.PED: Rules(3, 50),
        LesionPreset.MEN: Rules(1, 50),
        LesionPreset.MET: Rules(1, 2),
    }
)


@dataclass(frozen=True, slots=True)
class Lesions:
    """The lesions of one region of one case and what was predicted of them."""

    truth: Labels
    """`(z, y, x)`: number of the true lesion, from 1; 0 outside."""
    prediction: Labels
    """Likewise of the predicted piece."""
    matches: Mapping[int, NDArray[np.int64]]
    """Of each lesion that counts, the predicted pieces; none if it was missed."""
    dice: Mapping[int, float]
    """Of each lesion that counts, with its matches; 0 if it was missed."""
    n_false: int
    """Predicted pieces without a lesion."""


def find_lesions(prediction: Mask, truth: Mask, preset: LesionPreset) -> Lesions:
    """Tell lesions apart and match them.

    Args:
        prediction: `(z, y, x)`.
        truth: Of the same grid. Cropping to what holds both changes nothing.
        preset: The challenge whose rules count.
    """
    rules = RULES[preset]
    pieces, n_pieces = _pieces(prediction)
    grown = truth
    for _ in range(rules.n_dilations):
        grown = _dilate(grown)
    lesions, n_lesions = _pieces(grown)
    at_lesion, at_piece = lesions[prediction], pieces[prediction]
    pairs = np.unique(at_lesion.astype(np.int64) * (n_pieces + 1) + at_piece)
    lesion_of, piece_of = np.divmod(pairs[pairs > n_pieces], n_pieces + 1)
    n_of_piece = np.bincount(at_piece, minlength=n_pieces + 1)
    n_overlap = np.bincount(at_lesion[truth[prediction]], minlength=n_lesions + 1)
    lesions *= truth
    n_true = np.bincount(lesions[truth], minlength=n_lesions + 1)
    n_matched = np.bincount(lesion_of, weights=n_of_piece[piece_of], minlength=n_lesions + 1)
    kept = [int(lesion) for lesion in np.flatnonzero(n_true > rules.n_voxels_ignored)]
    return Lesions(
        truth=lesions,
        prediction=pieces,
        matches={lesion: piece_of[lesion_of == lesion] for lesion in kept},
        dice={
            lesion: float(2 * n_overlap[lesion] / (n_true[lesion] + n_matched[lesion]))
            for lesion in kept
        },
        n_false=n_pieces - len(np.unique(piece_of)),
    )


def lesion_dice(lesions: Lesions) -> float:
    """Mean Dice of the lesions that count and the false pieces, which are 0 each.

    Returns:
        From 0 to 1; 1 where there is neither.
    """
    n = len(lesions.dice) + lesions.n_false
    return sum(lesions.dice.values()) / n if n else 1.0


def lesion_hd95(lesions: Lesions, *, spacing_mm: Spacing, farthest_mm: float) -> float:
    """Mean `hd95_surface` in mm of the lesions that count and the false pieces.

    Args:
        lesions: What `find_lesions` found.
        spacing_mm: `(z, y, x)`.
        farthest_mm: What a missed lesion and a false piece get.

    Returns:
        From 0 to `farthest_mm`; 0 where there is neither lesion nor false piece.
    """
    n = len(lesions.matches) + lesions.n_false
    boxes = ndimage.find_objects(lesions.truth), ndimage.find_objects(lesions.prediction)
    total = farthest_mm * lesions.n_false
    for lesion, matched in lesions.matches.items():
        if not len(matched):
            total += farthest_mm
            continue
        box = _around([boxes[0][lesion - 1], *(boxes[1][piece - 1] for piece in matched)])
        is_matched = np.zeros(len(boxes[1]) + 1, np.bool_)
        is_matched[matched] = True
        both = surfaces(
            is_matched[lesions.prediction[box]], lesions.truth[box] == lesion, spacing_mm
        )
        total += hd95_surface(both)
    return total / n if n else 0.0


def _around(boxes: list[Box]) -> Box:
    """The smallest box that holds them all."""
    return tuple(
        slice(min(span.start for span in spans), max(span.stop for span in spans))
        for spans in zip(*boxes, strict=True)
    )


def _pieces(mask: Mask) -> tuple[Labels, int]:
    """Numbers of the pieces whose voxels touch by face, edge or corner, and how many there are."""
    labels = np.zeros(mask.shape, np.int32)
    return labels, int(ndimage.label(mask, np.ones((3, 3, 3)), output=labels))


def _dilate(mask: Mask) -> Mask:
    """By the voxels that touch with a face or an edge: a square in each of the three planes."""
    z, y, x = (_widen(mask, axis) for axis in range(3))
    return _widen(y, 0) | _widen(x, 1) | _widen(z, 2)


def _widen(mask: Mask, axis: int) -> Mask:
    """By one voxel to either side along an axis."""
    wide = mask.copy()
    to, source = np.moveaxis(wide, axis, 0), np.moveaxis(mask, axis, 0)
    to[1:] |= source[:-1]
    to[:-1] |= source[1:]
    return wide
