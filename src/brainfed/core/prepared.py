"""What registration sees of a scan: 2 mm isotropic, flattened, clamped, with a mask of the head."""

# SimpleITK's wrapper has no types.
# mypy: disable-error-code="no-untyped-call, no-any-return"

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813 - the name that all of its documentation uses

from brainfed.core import bias, brainmask
from brainfed.core.volume import Floats, Geometry, Mask, geometry_of, to_image

SPACING_MM = 2.0
CLAMP_QUANTILE = 0.995
"""Brighter voxels, of vessels and fat, would stretch the histogram."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What registration sees of a scan."""

    values: Floats
    """`(z, y, x)`, 2 mm isotropic along the scan's own axes, flattened and clamped."""
    mask: Mask
    """The head, or the brain where the scan is skull-stripped."""
    geometry: Geometry

    def is_stripped(self) -> bool:
        """Whether there is nothing around the mask: its background was set, not measured."""
        outside = self.values[~self.mask]
        return outside.size > 0 and float(np.ptp(outside)) == 0

    def to_arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """As plain arrays by name, to be stored; `from_arrays` takes them back."""
        return {
            "values": self.values,
            "mask": self.mask,
            "spacing_mm": np.array(self.geometry.spacing_mm),
            "origin_mm": np.array(self.geometry.origin_mm),
            "direction": np.array(self.geometry.direction),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]]) -> "Prepared":
        """What `to_arrays` gave."""
        values = arrays["values"].astype(np.float32)
        return cls(
            values,
            arrays["mask"].astype(np.bool_),
            Geometry(
                size=values.shape[::-1],
                spacing_mm=tuple(arrays["spacing_mm"].tolist()),
                origin_mm=tuple(arrays["origin_mm"].tolist()),
                direction=tuple(arrays["direction"].tolist()),
            ),
        )


def prepare(image: sitk.Image, *, n4: bool) -> Prepared:
    """Bring a scan to what registration needs.

    Args:
        image: 3-D float32, finite, of any spacing and orientation.
        n4: Whether to estimate its bias field and divide it out.

    Returns:
        The scan on its own axes, 2 mm isotropic, over its whole field of view. A background that
        was set to one value is set to the darkest of the head's.
    """
    with bias.one_thread():
        coarse = _to_spacing(image, SPACING_MM)
        geometry, values = geometry_of(coarse), sitk.GetArrayFromImage(coarse)
        mask = brainmask.foreground([values])
        was_set = mask.any() and _is_constant(values[~mask])
        if n4:
            lifted = to_image(values - values.min(), geometry)  # N4 takes a logarithm
            inside = to_image(mask.astype(np.uint8), geometry)
            values = sitk.GetArrayFromImage(bias.flatten(lifted, inside))
    clamped = np.minimum(values, np.quantile(values, CLAMP_QUANTILE)).astype(np.float32)
    if was_set:
        clamped[~mask] = clamped[mask].min()
    return Prepared(clamped, mask, geometry)


def _is_constant(outside: Floats) -> bool:
    """All one value, but for specks."""
    if outside.size == 0:
        return False
    low, high = np.quantile(outside, (0.01, 0.99))
    return bool(low == high)


def _to_spacing(image: sitk.Image, spacing_mm: float) -> sitk.Image:
    """Resample to an isotropic spacing over the same field of view; averages where it shrinks."""
    factors = [max(1, int(spacing_mm / step + 1e-3)) for step in image.GetSpacing()]
    factors = [min(factor, n) for factor, n in zip(factors, image.GetSize(), strict=True)]
    shrunk = sitk.BinShrink(sitk.Cast(image, sitk.sitkFloat32), factors)
    old_size, old_mm = np.array(shrunk.GetSize()), np.array(shrunk.GetSpacing())
    new_size = np.maximum(1, np.rint(old_size * old_mm / spacing_mm)).astype(int)
    shift = ((new_size * -spacing_mm + old_size * old_mm) + spacing_mm - old_mm) / 2
    axes = np.array(shrunk.GetDirection()).reshape(3, 3)
    return sitk.Resample(
        shrunk,
        [int(n) for n in new_size],
        sitk.Transform(),
        sitk.sitkLinear,
        [float(v) for v in np.array(shrunk.GetOrigin()) + axes @ shift],
        [spacing_mm] * 3,
        shrunk.GetDirection(),
        0.0,
        sitk.sitkFloat32,
        useNearestNeighborExtrapolator=True,
    )
