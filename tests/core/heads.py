"""Heads with a known brain, for the tests of the brain masks."""

import numpy as np
import SimpleITK as sitk  # noqa: N813

from brainfed.core import phantom
from brainfed.core.phantom import Scanner, Tissue
from brainfed.plan import Modality


def phantom_head(
    seed: int,
    modality: Modality,
    *,
    shape: tuple[int, int, int] = (48, 88, 80),
    spacing_mm: tuple[float, float, float] = (4.0, 2.6, 2.6),
    scanner: Scanner | None = None,
) -> tuple[sitk.Image, sitk.Image]:
    """A phantom's scan and its brain, as far as it can be told from bone.

    In T2 that is all within the skull; elsewhere fluid is nearly as dark as bone, and the brain is
    its tissue, tumour included, without gaps.
    """
    head = phantom.make_phantom(
        np.random.default_rng(seed), scanner or Scanner(), shape=shape, spacing_mm=spacing_mm
    )
    # The same generator draws the same tissues.
    canvas = phantom._Canvas(np.random.default_rng(seed), shape, spacing_mm)
    phantom._draw_head(canvas)
    phantom._draw_distractors(canvas)
    phantom._draw_tumour(canvas)
    beyond = [Tissue.AIR, Tissue.SCALP, Tissue.SKULL]
    if modality is not Modality.T2:
        beyond += [Tissue.FLUID, Tissue.VESSEL]
    inside = canvas.fractions[beyond].sum(axis=0) < 0.5
    image = sitk.GetImageFromArray(head.images[modality])
    brain = sitk.GetImageFromArray(inside.astype(np.uint8))
    brain = sitk.BinaryFillhole(sitk.BinaryMorphologicalClosing(brain, [2, 2, 1]))
    for made in (image, brain):
        made.SetSpacing(spacing_mm[::-1])
    return image, brain


def dice(one: sitk.Image, other: sitk.Image) -> float:
    """Overlap of two masks on one grid, 0 to 1."""
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(sitk.Cast(one != 0, sitk.sitkUInt8), sitk.Cast(other != 0, sitk.sitkUInt8))
    return float(overlap.GetDiceCoefficient())
