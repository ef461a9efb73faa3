"""One case predicted: read and aligned as `preprocess` does, then the outlines on its own scan."""

# SimpleITK's wrapper has no types.
# mypy: disable-error-code="no-untyped-call"

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name that all of its documentation uses
import torch
from numpy.typing import NDArray

from brainfed.core.assembly import assemble
from brainfed.core.device import memory_errors
from brainfed.core.inference import probabilities
from brainfed.core.labels import LabelProtocol, can_give, label_of, region_mask
from brainfed.core.panels import titled
from brainfed.core.pictures import Scene, tissue_masks
from brainfed.core.png import Pixels
from brainfed.core.unet import UNet
from brainfed.core.volume import Geometry, to_image, turned
from brainfed.errors import ScanError
from brainfed.formats.cache import CaseCache
from brainfed.formats.found_case import FoundCase
from brainfed.plan import Modality, Plan, Region, Space
from brainfed.steps import align, native_space, read_scans
from brainfed.steps.read_scans import Scans
from brainfed.steps.recognise import check_complete

RESEARCH_ONLY = "For research only, not for diagnosis"
N_DIGITS = 12
"""Of the digest of weights: enough to tell two files apart."""
SHOWN = (Modality.FLAIR, Modality.T1CE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """What a network finds in one case, on the grid of one of its scans."""

    label: NDArray[np.uint8]
    """`(z, y, x)`, along the axes of the scan's file."""
    geometry: Geometry
    """The scan's own."""
    picture: Pixels
    reference: Modality
    """The scan."""
    modalities: tuple[Modality, ...]
    """All that the network saw."""
    volumes_ml: Mapping[Region, float | None]
    """None where the spacing is a convention."""
    remarks: tuple[str, ...]
    """What a person should know before looking at it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictor:
    """Weights in the plan's network on a device, and how their answer is to be written."""

    model: UNet
    plan: Plan
    device: torch.device
    digest: str
    """Of the weight file; where layers stay at the site, of these and the file."""
    protocol: LabelProtocol
    mirror: bool
    atlas_path: Path | None

    @property
    def description(self) -> str:
        """What stands in the header of a label map; 79 characters at most."""
        return f"{RESEARCH_ONLY}. Weights {self.digest[:N_DIGITS]}, {self.protocol}"

    def predict(self, found: FoundCase, kept: CaseCache) -> Predicted:
        """Predict one case; a label of its own is not looked at.

        Raises:
            ScanError: A required modality is missing, a scan can't be trusted, or the scans can't
                be brought onto each other.
            NotReadyError: A package is missing that the scans or the plan need.
            ResourceError: The memory is too small.
        """
        plan = self.plan
        check_complete(found, plan.scans, needs_label=False)
        in_scan_space = plan.preparation.space is Space.SCAN
        scans = read_scans.read_scans(
            found,
            plan.scans.modalities,
            others=[] if in_scan_space else [m for m in Modality if m not in plan.scans.modalities],
            protocol=None,
            kept=kept,
        )
        aligned = align.align(scans, plan.preparation, atlas_path=self.atlas_path, kept=kept)
        if scans.spacing_nominal:
            aligned.forget_millimetres()
        if aligned.doubts:
            raise ScanError(
                "The registration can't be trusted",
                found="; ".join(aligned.doubts),
                hint="register the scans by hand, or leave the case out",
            )
        made = assemble(
            aligned.images, None, aligned.brain, plan, space=aligned.space, protocol=None
        )
        if not np.isfinite(made.image).all():
            raise ScanError(
                "The image of the case holds NaN or infinity on the plan's grid",
                hint="`brainfed check SCANS` says which scan; leave it out, or convert it anew",
            )
        with memory_errors(plan):
            probability = probabilities(self.model, made.image, self.device, mirror=self.mirror)
        scan = scans.images[aligned.reference]
        geometry = scan.stored or scan.geometry
        outlines = native_space.outlines_on(
            geometry, aligned.matrices[aligned.reference], probability, made.geometry
        )
        label = label_of(dict(zip(plan.scans.regions, outlines, strict=True)), self.protocol)
        return Predicted(
            label=label,
            geometry=geometry,
            picture=self._picture(scans, aligned.reference, to_image(label, geometry)),
            reference=aligned.reference,
            modalities=tuple(m for m in plan.scans.modalities if m in scans.images),
            volumes_ml=self._volumes(label, geometry, is_nominal=scans.spacing_nominal),
            remarks=(*(str(f) for f in scans.findings), *aligned.held, *aligned.remarks),
        )

    def _volumes(
        self, label: NDArray[np.uint8], geometry: Geometry, *, is_nominal: bool
    ) -> dict[Region, float | None]:
        ml = float(np.prod(geometry.spacing_mm)) / 1000
        return {
            region: None
            if is_nominal
            else ml * int(np.count_nonzero(region_mask(label, self.protocol, region)))
            for region in self.plan.scans.regions
            if can_give(self.protocol, region)
        }

    def _picture(self, scans: Scans, reference: Modality, label: sitk.Image) -> Pixels:
        """The label map in colours on the scan that it lies on, and on those of the same grid."""
        here = sitk.GetArrayFromImage(turned(label))
        geometry = scans.images[reference].geometry
        fitting = read_scans.fitting_grids(geometry, scans.images, reference)
        shown = [m for m in SHOWN if m in fitting] or [reference]
        scene = Scene(here.shape, geometry.spacing_mm[::-1], tumour=here > 0)
        pixels = scene.label(
            {m: sitk.GetArrayFromImage(scans.images[m].image) for m in shown},
            tissue_masks(here, self.protocol),
        ).pixels
        words = RESEARCH_ONLY.replace(",", " -")
        return titled(titled(pixels, f"weights {self.digest[:N_DIGITS]}"), words)
