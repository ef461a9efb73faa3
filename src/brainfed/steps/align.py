"""The scans of one case brought into one space: registered, masked, every step kept in a cache.

As BraTS does it: the others to the reference, the reference to an atlas, transforms composed, and
the images themselves left alone until `core.assembly` resamples each of them once. What is
registered or skull-stripped already is recognised, the step is left out, and that is said.
"""

# SimpleITK's wrapper has no types.
# mypy: disable-error-code="no-untyped-call, no-any-return"

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name that all of its documentation uses

from brainfed.core import (
    bias,
    brain_surface,
    brainmask,
    deepbet_mask,
    prepared,
    registration,
    rigid,
    similarity,
    volume,
)
from brainfed.core.assembly import Placed
from brainfed.core.registration import Matrix, Prepared, Registered
from brainfed.core.volume import geometry_of, isotropic, to_image
from brainfed.errors import ScanError
from brainfed.formats import atlas, cache
from brainfed.formats.cache import CaseCache
from brainfed.formats.case_file import IDENTITY
from brainfed.formats.scan import Scan
from brainfed.plan import Modality, Preparation, Space
from brainfed.steps import read_scans
from brainfed.steps.aligned import Aligned, Motion
from brainfed.steps.find_brain import find_brain
from brainfed.steps.read_scans import Scans

REGISTERS = (registration, prepared, rigid, similarity, bias, brainmask, volume)
MODULES = (*REGISTERS, brain_surface, deepbet_mask, atlas)
"""The code that decides where a scan comes to lie, and what of it is brain."""
STILL_MM = 0.7
"""Scans of one grid whose registration moves the brain by less are registered already; about the
error of registration itself."""
REFERENCES = (Modality.T1, Modality.FLAIR, Modality.T1CE, Modality.T2)
"""What stands in for the plan's reference where it is missing."""
HEAD_RADIUS_MM = 70.0
"""From the middle of the head to the cortex; turns a rotation into a distance."""
ATLAS_DICE = 0.85
"""Least overlap of two brains that is no chance: the scan lies in the atlas's space."""


def align(
    scans: Scans, preparation: Preparation, *, atlas_path: Path | None, kept: CaseCache
) -> Aligned:
    """Bring the scans of one case into one space.

    Args:
        scans: What was read.
        preparation: The plan's table.
        atlas_path: The atlas, checked by `formats.atlas`; None where the space is none.
        kept: Where each step's result is kept.

    Returns:
        The alignment; it is not to be used where it has `doubts`.

    Raises:
        ScanError: The scans lie on grids that the plan doesn't take, a label or mask on that of no
            scan, or there is no brain mask where the plan wants one.
        NotReadyError: deepbet is not installed.
    """
    return _Alignment(scans, preparation, atlas_path, kept).done()


def reference_of(images: Mapping[Modality, object], preparation: Preparation) -> Modality:
    """The scan that the others are registered to: the plan's, or the next best."""
    order = (preparation.reference, *REFERENCES)
    return next(modality for modality in order if modality in images)


class _Alignment:
    """One case on its way; every method does one step."""

    def __init__(
        self, scans: Scans, preparation: Preparation, atlas_path: Path | None, kept: CaseCache
    ) -> None:
        self.scans = scans
        self.label = scans.label
        self.preparation = preparation
        self.kept = kept
        self.atlas = atlas.read(atlas_path) if atlas_path else None
        self.reference = reference_of(scans.images, preparation)
        self.to: dict[Modality, Matrix] = {}
        """Map a point of the reference to the point of each scan."""
        self.result = Aligned(
            reference=self.reference,
            images={},
            matrices={},
            label=None,
            brain=Placed(self.fixed.image),
            space=geometry_of(self.fixed.image),
            atlas=self.atlas,
        )

    @property
    def fixed(self) -> Scan:
        """The reference."""
        return self.scans.images[self.reference]

    def done(self) -> Aligned:
        """All steps in their order."""
        result = self.result
        if self.preparation.space is Space.SCAN:
            if self.label is not None:
                refuse_other_grids(self.scans.images, self.label)
            else:
                refuse_other_grids(self.scans.images, self.fixed, str(self.reference))
            self.to = dict.fromkeys(self.scans.images, IDENTITY)
        else:
            for modality in self.scans.images:
                self.to[modality] = self._to_reference(modality)
        mask = self._brain()
        from_space = self._from_atlas(mask)
        if self.atlas is not None:
            result.space = geometry_of(self.atlas.image)
        elif self.preparation.space is Space.REFERENCE:
            result.space = isotropic(result.space)
        result.matrices = {
            m: registration.compose(from_space, matrix) for m, matrix in self.to.items()
        }
        result.images = {
            m: self._placed(self.scans.images[m].image, result.matrices[m])
            for m in self.scans.images
        }
        if self.label is not None:
            drawn_on = self._drawn_on(self.label)
            result.label = self._placed(self.label.image, result.matrices[drawn_on])
        result.brain = self._placed(mask, from_space)
        return result

    def _placed(self, image: sitk.Image, matrix: Matrix) -> Placed:
        if self.preparation.space is Space.SCAN:
            # One grid by `refuse_other_grids`; headers round differently, so it is made one.
            return Placed(to_image(sitk.GetArrayFromImage(image), self.result.space))
        return Placed(image, registration.transform(matrix))

    def _drawn_on(self, label: Scan) -> Modality:
        """The scan on whose grid the label was drawn."""
        fitting = read_scans.fitting_grids(label.geometry, self.scans.images, self.reference)
        if not fitting:
            raise read_scans.stray("label", label, self.scans.images, self.reference)
        first, *others = fitting
        apart = [
            m for m in others if _distance_mm(self.to[m], self.to[first], self.fixed.image) > 2
        ]
        if apart:
            self.result.held.append(
                f"The label fits the grids of {first} and {apart[0]}, between which the patient "
                f"moved; it is taken as drawn on {first}"
            )
        return first

    def _to_reference(self, modality: Modality) -> Matrix:
        name, reference = str(modality), str(self.reference)
        if modality is self.reference:
            return IDENTITY
        moving = self.scans.images[modality]
        if not self.preparation.registration:
            return self._left_out(name, reference, "the plan has registration off")
        same_grid = moving.geometry.difference(self.fixed.geometry) is None
        if same_grid and all(brainmask.is_stripped(s.image) for s in (moving, self.fixed)):
            return self._left_out(name, reference, "registered already: one grid, skull-stripped")
        found = self._registered(modality)
        if same_grid and found.doubts:
            self.result.held.append(
                f"{name} and {reference} share a grid; registration could not confirm that they "
                f"lie on each other ({'; '.join(found.doubts)})"
            )
            return self._left_out(name, reference, "one grid, taken as registered")
        if same_grid and _distance_mm(found.matrix, IDENTITY, self.fixed.image) < STILL_MM:
            return self._left_out(name, reference, "registered already: one grid, no motion found")
        return self._taken(name, reference, found)

    def _taken(self, moving: str, fixed: str, found: Registered) -> Matrix:
        self.result.motions.append(Motion(moving, fixed, found))
        self.result.doubts += [f"{moving} to {fixed}: {doubt}" for doubt in found.doubts]
        return found.matrix

    def _left_out(self, moving: str, fixed: str, reason: str) -> Matrix:
        self.result.motions.append(Motion(moving, fixed, None, reason))
        self.result.remarks.append(f"{moving} to {fixed} left out: {reason}")
        return IDENTITY

    def _registered(self, modality: Modality) -> Registered:
        step, fixed, moving = f"register-{modality}", self.fixed, self.scans.images[modality]
        step_key = cache.key(
            fixed=read_scans.identity_of(fixed),
            moving=read_scans.identity_of(moving),
            n4=self.preparation.n4,
            code=cache.code_digest(*REGISTERS),
        )
        found = _load_registered(self.kept.fetch(step, step_key))
        if found is None:
            found = registration.register(self._prepared(self.reference), self._prepared(modality))
            self.kept.store(step, step_key, json.dumps(asdict(found)).encode())
        return found

    def _prepared(self, modality: Modality) -> Prepared:
        """What registration sees of a scan."""
        return self._prepare(f"prepare-{modality}", self.scans.images[modality])

    def _prepare(self, step: str, read: Scan) -> Prepared:
        step_key = cache.key(
            image=read_scans.identity_of(read),
            n4=self.preparation.n4,
            code=cache.code_digest(*REGISTERS),
        )
        if content := self.kept.fetch(step, step_key):
            return Prepared.from_arrays(cache.unpack(content))
        made = registration.prepare(read.image, n4=self.preparation.n4)
        self.kept.store(step, step_key, cache.pack(made.to_arrays()))
        return made

    def _brain(self) -> sitk.Image:
        found = find_brain(
            self.scans, self.to, self.preparation.brain, reference=self.reference, kept=self.kept
        )
        self.result.remarks += found.remarks
        self.result.held += found.doubts
        return found.mask

    def _from_atlas(self, mask: sitk.Image) -> Matrix:
        """Maps a point of the case's space to the reference's."""
        if self.atlas is None:
            return IDENTITY
        fixed = self.fixed
        if self._lies_in_atlas(mask):
            return self._left_out(str(self.reference), "atlas", "it lies in the atlas's space")
        step_key = cache.key(
            fixed=self.atlas.digest,
            moving=read_scans.identity_of(fixed),
            mask=cache.digest_of(sitk.GetArrayFromImage(mask)),
            n4=self.preparation.n4,
            code=cache.code_digest(*REGISTERS, atlas),
        )
        found = _load_registered(self.kept.fetch("register-atlas", step_key))
        if found is None:
            found = registration.register(
                registration.prepare(self.atlas.image, n4=False),
                self._prepared(self.reference),
                fixed_mask=self.atlas.brain_mask,
                moving_mask=mask,
            )
            self.kept.store("register-atlas", step_key, json.dumps(asdict(found)).encode())
        return self._taken(str(self.reference), "atlas", found)

    def _lies_in_atlas(self, mask: sitk.Image) -> bool:
        assert self.atlas is not None
        if geometry_of(self.atlas.image).difference(self.fixed.geometry):
            return False
        one = sitk.GetArrayFromImage(self.atlas.brain_mask) > 0
        other = sitk.GetArrayFromImage(mask) > 0
        return bool(2 * np.count_nonzero(one & other) > ATLAS_DICE * (one.sum() + other.sum()))


def refuse_other_grids(
    scans: Mapping[Modality, Scan], other: Scan, name: str = "The label"
) -> None:
    """Refuse a case whose scans don't lie on the grid of its label, or of one among them.

    Raises:
        ScanError: Names the first that doesn't, and in what.
    """
    for modality, read in scans.items():
        difference = read.geometry.difference(other.geometry)
        if difference:
            raise ScanError(
                f"{name} and {modality} are on different grids",
                expected="one size, spacing, origin and direction, since the plan says "
                'space = "scan"',
                found=difference,
                hint="a plan with another space registers them; this one takes registered scans",
            )


def _distance_mm(one: Matrix, other: Matrix, image: sitk.Image) -> float:
    """How far two rigid matrices move a head in this image apart, in mm, at most about."""
    middle = image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()])
    rows = np.array(one).reshape(3, 4) - np.array(other).reshape(3, 4)
    shift = np.linalg.norm(rows @ np.array([*middle, 1.0]))
    return float(shift + HEAD_RADIUS_MM * np.linalg.norm(rows[:, :3], 2))


def _load_registered(content: bytes | None) -> Registered | None:
    if content is None:
        return None
    fields = json.loads(content)
    for name in ("matrix", "doubts"):
        fields[name] = tuple(fields[name])
    return Registered(**fields)
