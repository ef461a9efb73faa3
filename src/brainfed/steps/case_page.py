"""A case's part of the quality page: what was found, measured and drawn."""

# SimpleITK's wrapper has no types.
# mypy: disable-error-code="no-untyped-call, no-any-return"

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813 - the name that all of its documentation uses

from brainfed.core.assembly import Assembled, Placed
from brainfed.core.inspection import TissueMean
from brainfed.core.labels import Tissue, region_mask
from brainfed.core.pictures import Drawing, draw_case, tissue_masks
from brainfed.core.png import encode
from brainfed.core.volume import Geometry, isotropic, resample
from brainfed.errors import ScanError
from brainfed.formats import quality_page
from brainfed.formats.case_file import Case
from brainfed.formats.found_case import FoundCase
from brainfed.formats.quality_page import Picture, QualityEntry
from brainfed.formats.review import Verdict
from brainfed.plan import Modality, Region
from brainfed.steps.aligned import Aligned, Motion

Facts = list[tuple[str, str]]
_IN_FULL = {Tissue.TUMOUR: "whole tumour", Tissue.CORE: "core that doesn't enhance"}
"""The region core holds what enhances too; the tissue doesn't."""
REFUSED_EDGE_MM = 2.0
"""Voxels of the pictures of a case that was refused; enough to see that two scans don't fit."""


def write_made(
    data_folder: Path,
    found: FoundCase,
    case: Case,
    aligned: Aligned,
    made: Assembled,
    means: Iterable[TissueMean],
) -> None:
    """Write the part of a case that was made.

    Raises:
        ResourceError: The disk refuses.
    """
    atlas = None
    if aligned.atlas is not None:
        atlas = _onto(Placed(aligned.atlas.image), made.geometry)
    drawings = draw_case(
        made.volumes,
        spacing_mm=case.spacing_mm,
        brain_mask=made.brain_mask,
        label=made.label,
        protocol=case.protocol,
        atlas=atlas,
    )
    facts = [
        *_label_facts(case),
        *volume_facts(case),
        *_share_facts(case),
        *_motion_facts(aligned.motions, in_mm=not case.spacing_nominal),
        *mean_facts(means),
        *((f"Left out {n}", remark) for n, remark in enumerate(aligned.remarks, start=1)),
    ]
    entry = QualityEntry(
        case_id=case.id,
        name=found.name,
        patient=found.patient,
        verdict=case.quality.verdict,
        findings=(*case.quality.findings, *found.remarks),
        facts=tuple(facts),
        pictures=pictures_of(drawings),
    )
    quality_page.write_entry(data_folder, entry)


def write_refused(data_folder: Path, found: FoundCase, case_id: str, error: ScanError) -> None:
    """Write the part of a case that was refused before there was anything to see.

    Raises:
        ResourceError: The disk refuses.
    """
    words = (error.message, error.found and f"found {error.found}", error.hint)
    entry = QualityEntry(
        case_id=case_id,
        name=found.name,
        patient=found.patient,
        verdict=Verdict.REFUSED,
        findings=("; ".join(word for word in words if word),),
    )
    quality_page.write_entry(data_folder, entry)


def write_unaligned(data_folder: Path, found: FoundCase, case_id: str, aligned: Aligned) -> None:
    """Write the part of a case whose registration isn't trusted, with pictures of how it lies.

    Raises:
        ResourceError: The disk refuses.
    """
    geometry = isotropic(aligned.space, REFUSED_EDGE_MM)
    atlas = None
    if aligned.atlas is not None:
        atlas = _onto(Placed(aligned.atlas.image), geometry)
    drawings = draw_case(
        {modality: _onto(placed, geometry) for modality, placed in aligned.images.items()},
        spacing_mm=geometry.spacing_mm[::-1],
        atlas=atlas,
    )
    entry = QualityEntry(
        case_id=case_id,
        name=found.name,
        patient=found.patient,
        verdict=Verdict.REFUSED,
        findings=tuple(f"Registration not trusted: {doubt}" for doubt in aligned.doubts),
        facts=tuple(_motion_facts(aligned.motions, in_mm=not found.spacing_nominal)),
        pictures=pictures_of(drawings),
    )
    quality_page.write_entry(data_folder, entry)


def pictures_of(drawings: Iterable[Drawing]) -> tuple[Picture, ...]:
    """The drawings as files."""
    return tuple(Picture(d.title, encode(d.pixels), d.note) for d in drawings)


def _onto(placed: Placed, geometry: Geometry) -> npt.NDArray[np.float32]:
    return sitk.GetArrayFromImage(resample(placed.image, geometry, placed.transform))


def _label_facts(case: Case) -> Facts:
    origin = f", drawn {str(case.label_origin).replace('-', ' ')}" if case.label_origin else ""
    return [("Label", f"protocol {case.protocol}{origin}")]


def volume_facts(case: Case) -> Facts:
    """The volumes of tumour, tissues and brain mask; nothing where the spacing is nominal."""
    if case.spacing_nominal:
        return []
    whole = region_mask(case.label, case.protocol, Region.WT)
    tissues = tissue_masks(case.label, case.protocol)
    shown = {"whole tumour": whole} | {_IN_FULL.get(t, str(t)): m for t, m in tissues.items()}
    z, y, x = case.spacing_mm
    return [
        (f"Volume of {name}", f"{np.count_nonzero(mask) * z * y * x / 1000:.1f} ml")
        for name, mask in (shown | {"brain mask": case.brain_mask}).items()
    ]


def _share_facts(case: Case) -> Facts:
    quality = case.quality
    return [
        ("Tumour outside the brain mask", f"{100 * quality.tumour_outside_brain_fraction:.1f} %"),
        ("Tumour outside the grid", f"{100 * quality.tumour_lost_fraction:.1f} %"),
        ("Brain outside the grid", f"{100 * quality.brain_lost_fraction:.1f} %"),
    ]


def mean_facts(means: Iterable[TissueMean]) -> Facts:
    """How bright each tissue is in FLAIR and T1ce, against what lies outside the label."""
    shown: dict[Modality, list[str]] = {Modality.FLAIR: [], Modality.T1CE: []}
    for mean in means:
        if mean.tissue is not None and mean.modality in shown:
            shown[mean.modality].append(f"{mean.tissue} {mean.contrast:+.1f}")
    return [
        (f"{modality} of the label", f"{', '.join(words)} deviations from the rest")
        for modality, words in shown.items()
        if words
    ]


def _motion_facts(motions: Iterable[Motion], *, in_mm: bool) -> Facts:
    return [
        (f"{motion.moving} to {motion.fixed}", _motion_words(motion, in_mm=in_mm))
        for motion in motions
    ]


def _motion_words(motion: Motion, *, in_mm: bool) -> str:
    found = motion.found
    if found is None:
        return f"left out: {motion.remark}"
    parts = [f"{found.rotation_degrees:.1f} degrees"]
    parts += [f"{found.translation_mm:.1f} mm"] if in_mm else []
    parts += [
        f"information {found.information_gain:+.3f}",
        f"overlap {100 * found.overlap_fraction:.0f} %",
    ]
    parts += [f"{found.n_starts} starts"] if found.n_starts > 1 else []
    return ", ".join(parts)
