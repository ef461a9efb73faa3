"""Where the brain is, or at least the head; and whether a mask of it can be believed.

`foreground` is no brain extraction: of a skull-stripped image it is the brain, since nothing else
is left; of a whole head it is the head, skull and scalp included. `classical` (in
`brain_surface`) and `deepbet_mask` find the brain within a head.
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

PLAUSIBLE_ML = (700.0, 2200.0)
"""Volume of a brain with its fluid, from a small child's to a large man's."""
LEAST_STRIPPED_ML = 300.0
"""Less than this may be a label or a thin slab of a few slices: not called a stripped brain."""
CUT_FRACTION = 0.25
"""Largest share of a brain's mask that may lie on the frame of the image, of what would lie in its
widest slice."""
DARK_LAYER = 0.5
"""A layer this much darker than one above it is bone. (Fluid around a brain is the outermost.)"""


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
    largest = largest_part(np.logical_or.reduce([_rough(image) for image in images]))
    return np.stack([filled(slice_) for slice_ in largest])


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


def is_stripped(image: sitk.Image) -> bool:
    """Whether nothing is left of the image but the brain.

    Three signs must agree: the background is set to one value (0 or another, as z-scores have);
    what remains has the volume of a brain; and it has no layer of bone under a brighter
    one, as a head has whose background was zeroed or whose face was cut away.

    Args:
        image: A 3-D scan in any orientation and of any intensity; voxels of at most about 6 mm.
    """
    array = sitk.GetArrayViewFromImage(image)
    background = _set_background(array)
    if background is None:
        return False
    # A voxel in each 2.5 mm will do; three distances of a head in full take seconds.
    steps = [max(1, round(2.5 / mm)) for mm in image.GetSpacing()[::-1]]
    coarse = array[tuple(slice(None, None, step) for step in steps)].astype(np.float32) - background
    spacing = [float(mm * step) for mm, step in zip(image.GetSpacing(), steps[::-1], strict=True)]
    rest = largest_part(coarse != 0)
    volume_ml = np.count_nonzero(rest) * float(np.prod(spacing)) / 1000
    if rest.mean() > MAX_BRAIN_FRACTION or not LEAST_STRIPPED_ML <= volume_ml <= PLAUSIBLE_ML[1]:
        return False
    return not _has_dark_layer(coarse, filled(rest), spacing)


def _set_background(array: npt.NDArray[np.generic]) -> np.float32 | None:
    """The value that fills most of the image's faces; None where they show measured values."""
    faces = []
    for axis in range(3):
        pair = np.concatenate([np.take(array, end, axis).ravel() for end in (0, -1)])
        values, counts = np.unique(pair, return_counts=True)
        most = int(counts.argmax())
        faces.append((counts[most] / pair.size, np.float32(values[most])))
    # The first and last slice may lie within the brain, whichever way the slices go.
    (share, value), (_, other) = sorted(faces)[1:]
    return value if share >= SET_BORDER_FRACTION and value == other else None


def _has_dark_layer(array: npt.NDArray[np.float32], inside: Mask, spacing: list[float]) -> bool:
    deep = depths(inside, spacing)
    # Of at least 20 mm there is brain in either case.
    middle = float(np.median(array[deep > 20])) if np.any(deep > 20) else 0.0
    if middle == 0:
        return True
    # The outermost voxels are half background.
    tops = (2.5, 5.5, 8.5, 11.5, 14.5)
    layers = [array[(deep > top) & (deep <= top + 3)] / middle for top in tops]
    medians = [float(np.median(layer)) for layer in layers if layer.size]
    brightest = np.maximum.accumulate(medians)
    return bool(np.any(medians < DARK_LAYER * brightest))


def depths(inside: Mask, spacing_mm: Sequence[float]) -> npt.NDArray[np.float32]:
    """Distance in mm from each voxel to the nearest one outside; 0 outside.

    Args:
        inside: `(z, y, x)`. Beyond its frame it is taken to go on as at the frame.
        spacing_mm: `(x, y, z)`.
    """
    outside = sitk.GetImageFromArray(np.pad(~inside, 1, mode="edge").astype(np.uint8))
    outside.SetSpacing(spacing_mm)
    distances = sitk.SignedMaurerDistanceMap(
        outside, insideIsPositive=False, squaredDistance=False, useImageSpacing=True
    )
    return np.maximum(sitk.GetArrayFromImage(distances)[1:-1, 1:-1, 1:-1], 0)


def doubts(mask: sitk.Image, *, spacing_nominal: bool = False) -> tuple[str, ...]:
    """Why a brain mask can't be believed without a look at it; empty where nothing speaks for that.

    Args:
        mask: 1 in the brain.
        spacing_nominal: Its spacing is a convention, so that it has no volume.

    Returns:
        A sentence for each doubt: no brain, a volume no brain has, or much of it on the frame,
        where the scan cuts the brain off or the mask ran out through the neck.
    """
    array = sitk.GetArrayViewFromImage(mask) != 0
    if not array.any():
        return ("no brain was found",)
    found = []
    volume_ml = np.count_nonzero(array) * float(np.prod(mask.GetSpacing())) / 1000
    low, high = PLAUSIBLE_ML
    if not (spacing_nominal or low <= volume_ml <= high):
        found.append(f"the brain mask has {volume_ml:.0f} ml; a brain has {low:.0f} to {high:.0f}")
    for axis in range(3):
        areas = array.sum(axis=tuple(a for a in range(3) if a != axis))
        if max(areas[0], areas[-1]) > CUT_FRACTION * areas.max():
            found.append("the brain mask is cut off by the edge of the image")
            break
    return tuple(found)


def largest_part(rough: Mask) -> Mask:
    """The largest connected part of a mask, all false where it is empty."""
    parts = sitk.RelabelComponent(
        sitk.ConnectedComponent(sitk.GetImageFromArray(rough.astype(np.uint8))),
        sortByObjectSize=True,
    )
    return sitk.GetArrayViewFromImage(parts) == 1


def filled(mask: Mask) -> Mask:
    """A mask without the holes that it encloses on all sides; 2-D or 3-D."""
    image = sitk.BinaryFillhole(sitk.GetImageFromArray(mask.astype(np.uint8)))
    return sitk.GetArrayFromImage(image).astype(np.bool_)
