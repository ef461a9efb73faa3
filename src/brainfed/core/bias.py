"""The smooth shading that coils lay over a scan, estimated and divided out (N4).

For registration only: the field is fitted coarsely and quickly, and no case ever holds an image
that was divided by it. N. Tustison et al., N4ITK: Improved N3 Bias Correction, IEEE TMI 2010.
"""

# SimpleITK's wrapper has no types.
# mypy: disable-error-code="no-untyped-call, no-any-return"

from collections.abc import Iterator
from contextlib import contextmanager

import SimpleITK as sitk  # noqa: N813 - the name that all of its documentation uses

FIT_MM = 8.0
"""Voxels that the field is fitted on: it bends over centimetres, and the time is one to the third
power."""
ITERATIONS = (40, 40)
"""At most so many per level; the second has half the distance between the spline's nodes. With a
third, contrast between tissues is taken for shading, and more of a known field is left."""
SHARPENING = 0.3
"""Width of what is taken out of the histogram in a step; the filter's own 0.15 stops too early."""
MIN_VOXELS = 4
"""The spline needs as many along each axis."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Let ITK use one thread, filters within filters too: with more, sums differ in the last bits.

    It is a setting of the whole process; it is put back afterwards.
    """
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def flatten(image: sitk.Image, mask: sitk.Image) -> sitk.Image:
    """Divide an image by its bias field.

    Args:
        image: 3-D float32, of any spacing; values at or below 0 count as background.
        mask: uint8 on the same grid, 1 where the field is fitted: the head or the brain.

    Returns:
        The image on its own grid. One with less than four voxels along an axis, or nothing within
        the mask, comes back as it is: no field can be fitted.
    """
    if min(image.GetSize()) < MIN_VOXELS:
        return image
    factors = [
        max(1, min(round(FIT_MM / step), n // MIN_VOXELS))
        for step, n in zip(image.GetSpacing(), image.GetSize(), strict=True)
    ]
    with one_thread():
        small = sitk.BinShrink(image, factors)
        covered = sitk.BinShrink(sitk.Cast(mask, sitk.sitkFloat32), factors) > 0.5
        inside = sitk.And(covered, small > 0)
        if not sitk.GetArrayViewFromImage(inside).any():
            return image
        n4 = sitk.N4BiasFieldCorrectionImageFilter()
        n4.SetMaximumNumberOfIterations(ITERATIONS)
        n4.SetBiasFieldFullWidthAtHalfMaximum(SHARPENING)
        n4.Execute(small, inside)
        field = sitk.Exp(n4.GetLogBiasFieldAsImage(small))
        return image / sitk.Resample(field, image, useNearestNeighborExtrapolator=True)
