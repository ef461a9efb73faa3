"""From the scans of one visit to one case on the plan's grid, in memory, each resampled once."""

# SimpleITK's wrapper has no types.
# mypy: disable-error-code="no-untyped-call, no-any-return"

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813 - the name that all of its documentation uses

from brainfed.core.labels import LabelProtocol, region_mask
from brainfed.core.volume import (
    Floats,
    Geometry,
    Mask,
    cropped,
    geometry_of,
    in_plane,
    outside_fraction,
    resample,
    to_image,
    z_score,
)
from brainfed.plan import Modality, Plan, Region


@dataclass(frozen=True, slots=True)
class Placed:
    """A scan in memory, and how it lies in the case's space."""

    image: sitk.Image
    """On its own grid."""
    transform: sitk.Transform | None = None
    """Maps a point of the case's space to the scan's, LPS, mm; None where they share it."""


@dataclass(frozen=True, slots=True)
class Assembled:
    """The arrays of a case."""

    volumes: Mapping[Modality, Floats]
    """Each `(z, y, x)`, in the scan's own units; the plan's modalities that there are."""
    image: npt.NDArray[np.float16]
    """`(modality, z, y, x)`, z-scored, the plan's modalities in order, a missing one zero."""
    label: npt.NDArray[np.uint8]
    """`(z, y, x)`; all 0 where there is none."""
    brain_mask: Mask
    """`(z, y, x)`."""
    geometry: Geometry
    """The grid of these arrays."""
    n_tumour_voxels: int
    """Whole tumour on this grid."""
    tumour_lost_fraction: float
    """Share of the whole tumour that lies outside the plan's grid, 0 to 1."""
    tumour_outside_brain_fraction: float
    """Share of the whole tumour on this grid that lies outside the brain mask, 0 to 1."""
    brain_lost_fraction: float
    """Share of the brain mask that lies outside the plan's grid, 0 to 1."""


def assemble(
    scans: Mapping[Modality, Placed],
    label: Placed | None,
    brain: Placed,
    plan: Plan,
    *,
    space: Geometry,
    protocol: LabelProtocol | None,
) -> Assembled:
    """Bring the scans of one visit onto the plan's grid, in one resampling each, and z-score them.

    Args:
        scans: The modalities that there are, 3-D float32.
        label: uint8, values of the protocol; None where there is none.
        brain: uint8, 1 inside the brain.
        plan: The plan; its tables `scans`, `grid` and `intensity` count.
        space: The grid of the case's space, along LPS; the plan's grid is cut from it.
        protocol: What the label's values mean; given with a label.

    Raises:
        ScanError: An image is empty or constant within the plan's grid.
    """
    geometry = cropped(in_plane(space, plan.grid), plan.grid.size)

    def onto(placed: Placed, *, nearest: bool = False) -> npt.NDArray[np.generic]:
        return sitk.GetArrayFromImage(
            resample(placed.image, geometry, placed.transform, nearest=nearest)
        )

    inside: Mask = onto(brain, nearest=True).astype(np.bool_)
    volumes: dict[Modality, Floats] = {
        m: onto(scans[m]).astype(np.float32, copy=False)
        for m in plan.scans.modalities
        if m in scans
    }

    def channel(modality: Modality) -> Floats:
        if modality not in volumes:
            return np.zeros(inside.shape, np.float32)
        return z_score(volumes[modality], inside, plan.intensity.zscore)

    label_here, tumour, lost = np.zeros(inside.shape, np.uint8), np.zeros_like(inside), 0.0
    if label is not None and protocol is not None:
        label_here = onto(label, nearest=True).astype(np.uint8)
        tumour = region_mask(label_here, protocol, Region.WT)
        native = sitk.GetArrayFromImage(label.image)
        native_tumour = to_image(
            region_mask(native, protocol, Region.WT).astype(np.uint8), geometry_of(label.image)
        )
        lost = outside_fraction(native_tumour, geometry, label.transform)
    n_tumour = int(np.count_nonzero(tumour))
    return Assembled(
        volumes=volumes,
        image=np.stack([channel(m) for m in plan.scans.modalities]).astype(np.float16),
        label=label_here,
        brain_mask=inside,
        geometry=geometry,
        n_tumour_voxels=n_tumour,
        tumour_lost_fraction=lost,
        tumour_outside_brain_fraction=(
            int(np.count_nonzero(tumour & ~inside)) / n_tumour if n_tumour else 0.0
        ),
        brain_lost_fraction=outside_fraction(brain.image, geometry, brain.transform),
    )
