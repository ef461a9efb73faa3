"""From the scans of one visit to one case on the plan's grid, in memory."""

# SimpleITK's wrapper has no types.
# mypy: disable-error-code="no-untyped-call, no-any-return"

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813 - the name that all of its documentation uses

from brainfed.core import brainmask
from brainfed.core.labels import LabelProtocol, region_mask
from brainfed.core.volume import (
    Floats,
    Geometry,
    Mask,
    crop_or_pad,
    cropped_geometry,
    geometry_of,
    lost_fraction,
    to_image,
    to_plan_grid,
    z_score,
)
from brainfed.plan import Modality, Plan, Region


@dataclass(frozen=True, slots=True)
class Assembled:
    """The arrays of a case."""

    image: npt.NDArray[np.float16]
    """`(modality, z, y, x)`, z-scored, the plan's modalities in order, a missing one zero."""
    label: npt.NDArray[np.uint8]
    """`(z, y, x)`."""
    brain_mask: Mask
    """`(z, y, x)`."""
    geometry: Geometry
    """The grid of these arrays."""
    n_tumour_voxels: int
    """Whole tumour on this grid."""
    tumour_lost_fraction: float
    """Share of the whole tumour that the crop cut away, 0 to 1."""


def assemble(
    images: Mapping[Modality, sitk.Image],
    label: sitk.Image,
    plan: Plan,
    *,
    protocol: LabelProtocol,
) -> Assembled:
    """Turn, resample, crop and z-score the scans of one visit.

    Args:
        images: The modalities that there are, 3-D float32, all on one grid.
        label: On the same grid, uint8.
        plan: The plan; its tables `scans`, `grid` and `intensity` count.
        protocol: What the label's values mean.

    Raises:
        ScanError: An image is empty or constant within the plan's grid.
    """
    wanted = [modality for modality in plan.scans.modalities if modality in images]
    native = geometry_of(label)
    # The mask is taken before resampling, which would blur the edge of a background that was set.
    mask = to_image(
        brainmask.foreground([sitk.GetArrayFromImage(images[m]) for m in wanted]).astype(np.uint8),
        native,
    )
    resampled_label = to_plan_grid(label, plan.grid, nearest=True)
    whole_label = sitk.GetArrayFromImage(resampled_label)
    cropped_label = crop_or_pad(whole_label, plan.grid.size)
    whole_mask = sitk.GetArrayFromImage(to_plan_grid(mask, plan.grid, nearest=True))
    brain = crop_or_pad(whole_mask, plan.grid.size).astype(np.bool_)
    tumour = region_mask(cropped_label, protocol, Region.WT)

    def channel(modality: Modality) -> Floats:
        if modality not in images:
            return np.zeros(brain.shape, np.float32)
        whole = sitk.GetArrayFromImage(to_plan_grid(images[modality], plan.grid))
        return z_score(crop_or_pad(whole, plan.grid.size), brain, plan.intensity.zscore)

    return Assembled(
        image=np.stack([channel(m) for m in plan.scans.modalities]).astype(np.float16),
        label=cropped_label,
        brain_mask=brain,
        geometry=cropped_geometry(geometry_of(resampled_label), plan.grid.size),
        n_tumour_voxels=int(np.count_nonzero(tumour)),
        tumour_lost_fraction=lost_fraction(region_mask(whole_label, protocol, Region.WT), tumour),
    )
