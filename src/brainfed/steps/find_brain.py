"""The brain mask of one case, from wherever the plan says, on the reference's grid."""

# SimpleITK's wrapper has no types.
# mypy: disable-error-code="no-untyped-call, no-any-return"

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name that all of its documentation uses

from brainfed.core import bias, brain_surface, brainmask, deepbet_mask, registration, volume
from brainfed.core.registration import Matrix
from brainfed.core.volume import geometry_of, to_image
from brainfed.errors import ScanError
from brainfed.formats import cache
from brainfed.formats.cache import CaseCache
from brainfed.formats.case_file import IDENTITY
from brainfed.formats.scan import Scan
from brainfed.plan import BrainMask, Modality
from brainfed.steps.read_scans import Scans, fitting_grids, identity_of, stray

CLASSICAL = (brain_surface, bias, brainmask, volume)
DEEPBET = (deepbet_mask, brainmask, volume)
"""The code that makes a mask; that of deepbet knows the digest of its network's weights."""


@dataclass(frozen=True, slots=True)
class Brain:
    """A brain mask, and what there is to say of it."""

    mask: sitk.Image
    """uint8, on the reference's grid."""
    remarks: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    """Why a person must look at it before the case is used."""


def libraries_of(wanted: BrainMask) -> tuple[str, ...]:
    """What a brain mask depends on besides SimpleITK and NumPy, by the names of the packages."""
    return ("torch",) if wanted is BrainMask.DEEPBET else ()


def find_brain(
    scans: Scans,
    to: Mapping[Modality, Matrix],
    wanted: BrainMask,
    *,
    reference: Modality,
    kept: CaseCache,
) -> Brain:
    """The brain mask that the plan wants.

    A mask that the site gives for a case counts before one that is made; a skull-stripped scan is
    its own mask.

    Args:
        scans: What was read.
        to: Map a point of the reference to the point of each scan.
        wanted: The plan's choice.
        reference: The scan on whose grid the mask is to lie.
        kept: Where a mask that was made is kept.

    Raises:
        ScanError: The plan wants a given mask and there is none, or it lies on the grid of no scan.
        NotReadyError: deepbet is not installed.
    """
    fixed = scans.images[reference]
    if wanted is BrainMask.HEAD:
        return Brain(_foreground(scans, to, fixed))
    if scans.brain_mask is not None:
        return _given(scans, scans.brain_mask, to, reference)
    if brainmask.is_stripped(fixed.image):
        remark = "brain mask left out: the scan is skull-stripped already"
        return Brain(_foreground(scans, to, fixed), (remark,))
    if wanted is BrainMask.GIVEN:
        raise ScanError(
            "The case has no brain mask",
            expected="a mask file of the site's own, since the plan says brain = given",
            hint="name it in the column BrainMask of cases.csv",
        )
    mask = _made(fixed, wanted, kept)
    return Brain(mask, doubts=brainmask.doubts(mask, spacing_nominal=scans.spacing_nominal))


def _foreground(scans: Scans, to: Mapping[Modality, Matrix], fixed: Scan) -> sitk.Image:
    """Whatever is not background, in all scans that lie on the reference's grid."""
    here = [
        sitk.GetArrayFromImage(read.image)
        for m, read in scans.images.items()
        if to[m] == IDENTITY and read.geometry.difference(fixed.geometry) is None
    ]
    return to_image(brainmask.foreground(here).astype(np.uint8), geometry_of(fixed.image))


def _given(scans: Scans, mask: Scan, to: Mapping[Modality, Matrix], reference: Modality) -> Brain:
    fitting = fitting_grids(mask.geometry, scans.images, reference)
    if not fitting:
        raise stray("brain mask", mask, scans.images, reference)
    here = volume.resample(
        mask.image,
        geometry_of(scans.images[reference].image),
        registration.transform(to[fitting[0]]),
        nearest=True,
    )
    return Brain(here, (f"brain mask: the site's own, on the grid of {fitting[0]}",))


def _made(fixed: Scan, wanted: BrainMask, kept: CaseCache) -> sitk.Image:
    modules = DEEPBET if wanted is BrainMask.DEEPBET else CLASSICAL
    code = cache.code_digest(*modules, libraries=libraries_of(wanted))
    step_key = cache.key(image=identity_of(fixed), brain=str(wanted), code=code)
    geometry = geometry_of(fixed.image)
    if content := kept.fetch("brain", step_key):
        return to_image(cache.unpack(content)["mask"], geometry)
    make = deepbet_mask.brain if wanted is BrainMask.DEEPBET else brain_surface.classical
    array = sitk.GetArrayFromImage(make(fixed.image)).astype(np.uint8)
    kept.store("brain", step_key, cache.pack({"mask": array}))
    return to_image(array, geometry)
