"""Every measure of one region of one case, at threshold 0.5, in one call.

Cropped first to what holds both outlines; only the specificity and the largest distance know the
whole grid.
"""

from brainfed.core.lesions import find_lesions, lesion_dice, lesion_hd95
from brainfed.core.metrics import Measure, dice, sensitivity, specificity, volume_difference_ml
from brainfed.core.nearest import Mask, Spacing
from brainfed.core.surface import crop, farthest_mm, surface_scores
from brainfed.plan import LesionPreset


def measure_all(
    prediction: Mask,
    truth: Mask,
    *,
    spacing_mm: Spacing | None,
    tolerance_mm: float,
    lesions: LesionPreset,
) -> dict[Measure, float]:
    """Score one outline, by every measure but the paper's Dice, which needs probabilities.

    Args:
        prediction: `(z, y, x)`, the whole grid.
        truth: Of the same shape.
        spacing_mm: `(z, y, x)`; None where it is nominal.
        tolerance_mm: Of `nsd`.
        lesions: Rules of the lesion-wise scores.

    Returns:
        By measure. Nothing is left out because an outline is empty: a miss and a false alarm have
        Dice 0 and the largest distance of the grid, two empty outlines 1 and 0. Without a spacing
        only what needs neither mm nor ml: the shares but `nsd`.
    """
    p, t = crop(prediction, truth)
    found = find_lesions(p, t, lesions)
    values = {
        Measure.DICE: dice(p, t),
        Measure.SENSITIVITY: sensitivity(p, t),
        Measure.SPECIFICITY: specificity(prediction, truth),
        Measure.LESION_DICE: lesion_dice(found),
    }
    if spacing_mm is None:
        return values
    farthest = farthest_mm(truth.shape, spacing_mm)
    surface = surface_scores(
        p, t, spacing_mm=spacing_mm, tolerance_mm=tolerance_mm, farthest_mm=farthest
    )
    return values | {
        Measure.HD95_SURFACE: surface.hd95_surface_mm,
        Measure.HD95_POOLED: surface.hd95_pooled_mm,
        Measure.NSD: surface.nsd,
        Measure.VOLUME_DIFFERENCE: volume_difference_ml(p, t, spacing_mm),
        Measure.LESION_HD95: lesion_hd95(found, spacing_mm=spacing_mm, farthest_mm=farthest),
    }
