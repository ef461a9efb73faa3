"""Where the brain is, or at least the head: a simple foreground mask.

This is no brain extraction. Of a skull-stripped image the mask is the brain, since nothing else is
left; of a whole head it is the head, skull and scalp included, and z-scores `brain` are then over
the head. A true extraction is to replace it.
"""

# SimpleITK's wrapper has no types.
# mypy: disable-error-code="no-untyped-call, no-any-return"

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813 - the name that all of its documentation uses

Mask = npt.NDArray[np.bool_]

SET_BORDER_FRACTION = 0.8
"""Share of the border that one single value fills where the background was set, not measured."""
MAX_BRAIN_FRACTION = 0.75
"""A brain fills about half of the tightest box around it; more means that only a frame was set."""


def foreground(images: Sequence[npt.NDArray[np.float32]]) -> Mask:
    """Mask of the head, or of the brain in skull-stripped images.

    An image whose border is filled by one value has a background that was set: what differs from
    that value is foreground. Any other has a measured background: foreground is what lies above
    half of Otsu's threshold (Otsu 1979), which keeps dark brain and the skull too. The foregrounds
    of all modalities are united, the largest connected part is taken, and holes within a slice
    (fluid, bone) are filled.

    Args:
        images: One or more modalities, each `(z, y, x)` on one grid, not constant.

    Returns:
        `(z, y, x)`.
    """
    return _largest_filled(np.logical_or.reduce([_rough(image) for image in images]))


def _rough(image: npt.NDArray[np.float32]) -> Mask:
    # Not the first and last slice: those may lie within the head.
    border = np.concatenate(
        [image[:, 0].ravel(), image[:, -1].ravel(), image[:, :, 0].ravel(), image[:, :, -1].ravel()]
    )
    values, counts = np.unique(border, return_counts=True)
    most = int(counts.argmax())
    if counts[most] >= SET_BORDER_FRACTION * border.size:
        different: Mask = image != values[most]
        if different.mean() <= MAX_BRAIN_FRACTION:
            return different
    # A few very bright voxels would stretch the histogram until all else is background.
    capped = np.minimum(image, np.quantile(image, 0.99))
    otsu = sitk.OtsuThresholdImageFilter()
    otsu.Execute(sitk.GetImageFromArray(capped))
    lowest = float(capped.min())
    above: Mask = image > lowest + (otsu.GetThreshold() - lowest) / 2
    return above


def _largest_filled(rough: Mask) -> Mask:
    """The largest connected part, each slice without holes."""
    parts = sitk.RelabelComponent(
        sitk.ConnectedComponent(sitk.GetImageFromArray(rough.astype(np.uint8))),
        sortByObjectSize=True,
    )
    largest = parts == 1
    filled = [
        sitk.GetArrayFromImage(sitk.BinaryFillhole(largest[:, :, z]))
        for z in range(largest.GetSize()[2])
    ]
    return np.stack(filled).astype(np.bool_)
