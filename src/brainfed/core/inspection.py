"""Whether a scan can be trusted: arrays and geometries in, findings out; a grave flaw is raised.

What only a file can have wrong (cut off, of another format) is `formats.nifti`'s.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from brainfed.core.flaws import Finding, Flaw, FlawedScanError, finding
from brainfed.core.labels import LabelProtocol, Tissue, allowed_values, can_give, region_mask
from brainfed.core.volume import Geometry
from brainfed.plan import Modality, Region

SPACING_MM = (0.2, 10.0)
"""Least and largest distance of two voxels along any axis."""
FIELD_MM = (90.0, 500.0)
"""Least and largest extent of the volume along any axis: a brain is 100 to 200 mm."""
FEWEST_SLICES = 10
FEWEST_VALUES = 9
"""An image with fewer different values is a label or a mask, not a scan."""
FURTHEST_MM = 10_000.0
"""Largest distance of the first voxel from the scanner's centre: no scanner is that long."""
UNDERSHOOT_FRACTION = 0.25
"""How far below zero, as a share of the brightest, resampling with splines may throw a voxel."""
FEWEST_VOXELS = 10
"""A tissue of fewer voxels has no mean worth judging."""

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class TissueMean:
    """How bright one labelled tissue is in one modality."""

    modality: Modality
    tissue: Tissue | None
    """None for what lies outside the label; `TUMOUR` for all tumour together."""
    n_voxels: int
    mean: float
    """In the image's own unit."""
    contrast: float
    """Mean less the median outside, in standard deviations of what lies outside."""


def inspect_grid(geometry: Geometry, modality: Modality | None = None) -> list[Finding]:
    """Hold spacing, extent and position against what a scanner of heads can give.

    Raises:
        FlawedScanError: Spacing or position out of range.
    """
    least, largest = SPACING_MM
    if not all(least * (1 - 1e-6) <= mm <= largest * (1 + 1e-6) for mm in geometry.spacing_mm):
        raise FlawedScanError(
            Flaw.SPACING,
            "The distance of the voxels is out of range",
            expected=f"{least:g} to {largest:g} mm along each axis",
            found=f"{_by(geometry.spacing_mm)} mm",
            hint="export the scan again; are the units of its header millimetres?",
        )
    if not all(abs(mm) <= FURTHEST_MM for mm in geometry.origin_mm):
        raise FlawedScanError(
            Flaw.POSITION,
            "The scan lies where no scanner is",
            expected=f"at most {FURTHEST_MM:g} mm from the scanner's centre",
            found=", ".join(f"{mm:g}" for mm in geometry.origin_mm) + " mm",
            hint="export the scan again",
        )
    extent = [n * mm for n, mm in zip(geometry.size, geometry.spacing_mm, strict=True)]
    findings = []
    least, largest = FIELD_MM
    if max(extent) > largest:
        words = f"The field of view is larger than {largest:g} mm: {_by(extent)} mm."
        findings.append(finding(Flaw.LARGE_FIELD, words, modality))
    if min(extent) < least:
        words = f"The field of view is smaller than {least:g} mm: {_by(extent)} mm."
        findings.append(finding(Flaw.SMALL_FIELD, words, modality))
    if min(geometry.size) < FEWEST_SLICES:
        words = f"There are few slices: {_by(geometry.size)} voxels."
        findings.append(finding(Flaw.FEW_SLICES, words, modality))
    return findings


def inspect_image(values: Floats, modality: Modality | None = None) -> list[Finding]:
    """Look at the voxels of one image.

    A magnitude image is never negative. Two kinds of worked-over images are: those resampled with
    splines, a little; and those z-scored already, mean 0 and standard deviation near 1.

    Args:
        values: `(z, y, x)`, any unit.
        modality: Whose, for the findings.

    Raises:
        FlawedScanError: Not finite, of one single value, or negative as no magnitude image is.
    """
    lowest, highest = float(values.min()), float(values.max())
    if not np.isfinite([lowest, highest]).all():  # both see NaN and infinity
        raise not_finite()
    if lowest == highest:
        raise FlawedScanError(
            Flaw.CONSTANT,
            "The image is all zero" if lowest == 0 else "The image has one single value",
            found=f"{lowest:.6g} everywhere",
            hint="if the modality was not acquired, remove this file: "
            "an optional modality may be missing, an empty one is a mistake",
        )
    findings = []
    n_values = np.unique(values[::2, ::2, ::2]).size
    if n_values < FEWEST_VALUES:
        words = f"The image has {n_values} different values: is it a label or a mask?"
        findings.append(finding(Flaw.FEW_VALUES, words, modality))
    if lowest < 0:
        findings.append(_negative(values, lowest, highest, modality))
    return findings


def not_finite() -> FlawedScanError:
    """The error for a scan with NaN or infinity in it."""
    return FlawedScanError(
        Flaw.NOT_FINITE,
        "The image holds voxels that are not finite",
        expected="numbers",
        found="NaN or infinity",
        hint="export the scan again, with 0 where there is no data",
    )


def _negative(values: Floats, lowest: float, highest: float, modality: Modality | None) -> Finding:
    inside = _without_background(values)
    mean, deviation = float(inside.mean(dtype=np.float64)), float(inside.std(dtype=np.float64))
    if abs(mean) <= 0.5 and 0.5 <= deviation <= 2:
        words = (
            "The image is normalised already: mean "
            f"{mean:.2g}, standard deviation {deviation:.2g} (background apart)."
        )
        return finding(Flaw.NORMALISED, words, modality)
    if -lowest <= UNDERSHOOT_FRACTION * highest:
        share = float(np.count_nonzero(values < 0)) / values.size
        words = f"{share:.1%} of the voxels are negative, down to {lowest:.3g}, as resampling does."
        return finding(Flaw.UNDERSHOOT, words, modality)
    raise FlawedScanError(
        Flaw.NEGATIVE,
        "The image is negative where no MR image can be",
        expected="a magnitude image, or one that was z-scored",
        found=f"{lowest:.6g} to {highest:.6g}",
        hint="is it a phase image, a CT or a difference? give the scanner's magnitude image",
    )


def _without_background(values: Floats) -> Floats:
    """The voxels that differ from a background that was set; all, where none was."""
    border = np.concatenate([values[:, [0, -1]].ravel(), values[:, :, [0, -1]].ravel()])
    different, counts = np.unique(border, return_counts=True)
    if counts.max() < border.size / 2:
        return values.ravel()
    inside = values[values != different[counts.argmax()]]
    return inside if inside.size else values.ravel()


def inspect_label(values: npt.NDArray[np.generic], protocol: LabelProtocol) -> list[Finding]:
    """Hold label values, of any type, against their protocol.

    Raises:
        FlawedScanError: A value is not one of the protocol's; halves and negatives never are.
    """
    found = np.unique(values)
    allowed = sorted(allowed_values(protocol))
    strange = found[~np.isin(found, allowed)]
    if strange.size:
        raise FlawedScanError(
            Flaw.LABEL_VALUES,
            f"The label has values outside the protocol {protocol}",
            expected=", ".join(str(value) for value in allowed),
            found=", ".join(f"{value:g}" for value in strange[:8]),
            hint="name the protocol that these labels follow with --labels, or mend the label",
        )
    if not found.any():
        return [finding(Flaw.EMPTY_LABEL, "The label is empty: no tumour anywhere.")]
    return []


def inspect_mask(values: npt.NDArray[np.generic]) -> None:
    """Make sure that a mask of the brain is one: zero, and one other value.

    Raises:
        FlawedScanError: It is not.
    """
    found = np.unique(values)
    if found.size != 2 or 0 not in found:
        raise FlawedScanError(
            Flaw.MASK_VALUES,
            "The brain mask is no mask",
            expected="two values: 0 outside the brain, one other within",
            found=", ".join(f"{value:g}" for value in found[:8]),
            hint="give a mask of the brain, or none",
        )


def inspect_tumour(
    images: Mapping[Modality, Floats],
    label: npt.NDArray[np.uint8],
    protocol: LabelProtocol,
    *,
    brain: Mask | None = None,
) -> list[Finding]:
    """Warn where a label and its images contradict each other; arguments as `tissue_means`."""
    return inspect_means(tissue_means(images, label, protocol, brain=brain))


def tissue_means(
    images: Mapping[Modality, Floats],
    label: npt.NDArray[np.uint8],
    protocol: LabelProtocol,
    *,
    brain: Mask | None = None,
) -> tuple[TissueMean, ...]:
    """Mean FLAIR, T1ce and so on of each label's tissue, beside that outside the label.

    Args:
        images: Each `(z, y, x)`, on the label's grid, any unit.
        label: `(z, y, x)`.
        protocol: What its values mean; tissues that it doesn't tell apart are left out.
        brain: Mask of the brain; without one, what is nearer to the image's mean than to its
            darkest counts, which is the head and not the air, or the brain of a stripped image.

    Returns:
        For each modality a row for outside, if there is any, then one per tissue that has voxels.
    """
    tissues = _tissues(label, protocol)
    rows = []
    for modality, image in images.items():
        darkest, mean_of_all = float(image.min()), float(image.mean(dtype=np.float64))
        inside = image > (darkest + mean_of_all) / 2 if brain is None else brain
        outside = image[inside & (label == 0)].astype(np.float64)
        if outside.size < FEWEST_VOXELS:
            continue
        middle, deviation = float(np.median(outside)), float(outside.std()) or 1.0
        for tissue, where in ((None, None), *tissues.items()):
            values = outside if where is None else image[where]
            if values.size:
                mean = float(values.mean(dtype=np.float64))
                contrast = (mean - middle) / deviation
                rows.append(TissueMean(modality, tissue, values.size, mean, contrast))
    return tuple(rows)


def _tissues(label: npt.NDArray[np.uint8], protocol: LabelProtocol) -> dict[Tissue, Mask]:
    """Where each tissue is; a cavity left by surgery is none of the tumour."""
    whole = region_mask(label, protocol, Region.WT)
    tissues = {Tissue.TUMOUR: whole}
    if can_give(protocol, Region.TC) and can_give(protocol, Region.ET):
        core = region_mask(label, protocol, Region.TC)
        enhancing = region_mask(label, protocol, Region.ET)
        tissues |= {
            Tissue.OEDEMA: whole & ~core,
            Tissue.ENHANCING: enhancing,
            Tissue.CORE: core & ~enhancing,
        }
    return tissues


def inspect_means(means: tuple[TissueMean, ...]) -> list[Finding]:
    """Hold the means against what every glioma shows: bright in FLAIR, its rim bright in T1ce."""
    contrast = {
        (row.modality, row.tissue): row.contrast for row in means if row.n_voxels >= FEWEST_VOXELS
    }
    flair = contrast.get((Modality.FLAIR, Tissue.TUMOUR), math.inf)
    oedema = contrast.get((Modality.T1CE, Tissue.OEDEMA), -math.inf)
    enhancing = contrast.get((Modality.T1CE, Tissue.ENHANCING), math.inf)
    before = contrast.get((Modality.T1, Tissue.ENHANCING), -math.inf)
    findings = []
    if flair <= 0:
        words = f"The tumour is not brighter in FLAIR than what lies outside it ({flair:+.1f} SD)."
        findings.append(finding(Flaw.TUMOUR_DARK, words, Modality.FLAIR))
    if oedema > enhancing:
        words = (
            f"Oedema enhances more ({oedema:+.1f} SD in T1ce) than enhancing tumour "
            f"({enhancing:+.1f} SD): do the label's values follow another protocol?"
        )
        findings.append(finding(Flaw.OEDEMA_ENHANCES, words, Modality.T1CE))
    if enhancing <= 0:
        words = f"Enhancing tumour is dark in T1ce ({enhancing:+.1f} SD): is it another modality?"
        findings.append(finding(Flaw.ENHANCING_DARK, words, Modality.T1CE))
    if before > enhancing:
        words = (
            f"Enhancing tumour is brighter in T1 ({before:+.1f} SD) than in T1ce "
            f"({enhancing:+.1f} SD): are the two swapped?"
        )
        findings.append(finding(Flaw.CONTRAST_SWAPPED, words, Modality.T1CE))
    return findings


def _by(numbers: tuple[float, ...] | list[float]) -> str:
    return " x ".join(f"{number:g}" for number in numbers)
