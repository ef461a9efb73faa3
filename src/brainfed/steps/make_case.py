"""The work on one case: read, brought into the plan's space, put on its grid, judged, written."""

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from brainfed.core import assembly, flaws, inspection, labels
from brainfed.core.assembly import Assembled, assemble
from brainfed.core.flaws import Severity
from brainfed.core.inspection import TissueMean
from brainfed.core.labels import LabelProtocol
from brainfed.errors import ResourceError, ScanError
from brainfed.formats import (
    cache,
    dataset,
    nifti,
    nifti_header,
    nifti_space,
    quality_page,
    scan,
)
from brainfed.formats.cache import CaseCache
from brainfed.formats.case_file import Native
from brainfed.formats.dataset import Case, CaseEntry, Quality, Source, Verdict
from brainfed.formats.found_case import FoundCase
from brainfed.plan import BrainMask, Modality, Plan, Space, data_digest
from brainfed.steps import align, case_page, find_brain, read_scans
from brainfed.steps.aligned import Aligned
from brainfed.steps.read_scans import Scans
from brainfed.steps.recognise import check_complete, check_protocol

MAX_OUTSIDE_BRAIN_FRACTION = 0.01
"""Share of the tumour outside the brain mask above which a person must look."""


@dataclass(frozen=True, slots=True)
class Task:
    """One case to make."""

    found: FoundCase
    case_id: str
    patient_id: str
    data_folder: Path
    plan: Plan
    atlas_path: Path | None
    """The plan's atlas, its digest checked."""
    expected_digest: str | None
    """SHA-256 of the case file by the index, if it stands in there."""

    @property
    def others(self) -> tuple[Modality, ...]:
        """Modalities that the plan doesn't take, but on whose grid a label may have been drawn."""
        if self.plan.preparation.space is Space.SCAN:
            return ()  # all of them lie on one grid
        return tuple(m for m in Modality if m not in self.plan.scans.modalities)

    @property
    def is_nominal(self) -> bool:
        """Whether the voxel size is a convention."""
        return bool(self.found.spacing_nominal)


@dataclass(frozen=True, slots=True)
class Made:
    """A case that lies in its place."""

    entry: CaseEntry
    findings: tuple[str, ...]
    """What is odd about it, without a name."""
    is_kept: bool
    """Whether it was there already, from the same scans."""


def make_case(task: Task) -> Made | ScanError:
    """Make one case, unless it lies there already, made in the same way from the same scans.

    Its part of the quality page is written either way.

    Raises:
        NotReadyError: A package that its scans or the plan need is not installed.
        ResourceError: Disk or memory ran out.
    """
    try:
        check_complete(task.found, task.plan.scans)
        protocol = check_protocol(task.found, task.plan.scans.regions)
        read = (*task.plan.scans.modalities, *task.others)
        source_digest = read_scans.digest_of_files(task.found, read)
        recipe = _recipe(task, protocol)
        kept = _kept(task, source_digest, recipe)
        return kept or _make(task, protocol, source_digest=source_digest, recipe=recipe)
    except ScanError as error:
        if task.is_nominal:
            flaws.forget_millimetres(error)
        # Where the scans were read, the part with their pictures has been written already.
        if not isinstance(error, NotAlignedError):
            case_page.write_refused(task.data_folder, task.found, task.case_id, error)
        return error
    except MemoryError:
        raise ResourceError(
            "The memory is too small for this case",
            where=task.found.folder,
            hint="run again with --jobs 1; finished cases are kept",
        ) from None


class NotAlignedError(ScanError):
    """The registration of a case can't be trusted; the quality page shows it."""


def modules() -> tuple[ModuleType, ...]:
    """The code that decides what a case is and whether it is held, but for `align.MODULES`."""
    reads = (nifti, nifti_header, nifti_space, scan, read_scans)
    makes = (assembly, inspection, flaws, labels, align, find_brain)
    return (*reads, *makes, sys.modules[__name__])


def _recipe(task: Task, protocol: LabelProtocol) -> str:
    """SHA-256 over all but the scans that decides what a case holds."""
    libraries = find_brain.libraries_of(task.plan.preparation.brain)
    return cache.key(
        data=data_digest(task.plan),
        protocol=str(protocol),
        nominal=task.is_nominal,
        origin=str(task.found.label_origin or ""),
        code=cache.code_digest(*modules(), *align.MODULES, libraries=libraries),
    )


def _kept(task: Task, source_digest: str, recipe: str) -> Made | None:
    """The finished case, if it is what would be made now."""
    path = dataset.case_path(task.data_folder, task.case_id)
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        case = dataset.read_case(path, task.expected_digest)
    except (OSError, ScanError):
        return None
    as_wanted = (
        case.id == task.case_id
        and case.patient == task.patient_id
        and case.source.digest == source_digest
        and case.source.recipe == recipe
        and quality_page.entry_path(task.data_folder, task.case_id).exists()
    )
    entry = dataset.entry_of(case, digest)
    return Made(entry, case.quality.findings, is_kept=True) if as_wanted else None


def _make(task: Task, protocol: LabelProtocol, *, source_digest: str, recipe: str) -> Made:
    kept = CaseCache(cache.folder_of(task.data_folder, task.case_id))
    scans = read_scans.read_scans(
        task.found,
        task.plan.scans.modalities,
        others=task.others,
        protocol=protocol,
        kept=kept,
    )
    aligned = align.align(scans, task.plan.preparation, atlas_path=task.atlas_path, kept=kept)
    if task.is_nominal:
        aligned.forget_millimetres()
    if aligned.doubts:
        case_page.write_unaligned(task.data_folder, task.found, task.case_id, aligned)
        raise NotAlignedError(
            "The registration can't be trusted",
            found="; ".join(aligned.doubts),
            hint="look at it in data/quality.html; register the scans by hand, or leave the "
            "case out",
        )
    made = assemble(
        aligned.images,
        aligned.label,
        aligned.brain,
        task.plan,
        space=aligned.space,
        protocol=protocol,
    )
    means, quality = _judge(task, scans, aligned, made, protocol)
    case = Case(
        id=task.case_id,
        patient=task.patient_id,
        image=made.image,
        label=made.label,
        brain_mask=made.brain_mask,
        protocol=protocol,
        label_origin=task.found.label_origin,
        spacing_mm=made.geometry.spacing_mm[::-1],
        spacing_nominal=task.is_nominal,
        present=tuple(m in scans.images for m in task.plan.scans.modalities),
        data_digest=data_digest(task.plan),
        natives=tuple(
            Native(scans.images[m].geometry, aligned.matrices[m]) if m in scans.images else None
            for m in task.plan.scans.modalities
        ),
        geometry=made.geometry,
        quality=quality,
        source=Source(
            digest=source_digest, scan_digests=read_scans.distinctive(scans), recipe=recipe
        ),
    )
    case_page.write_made(task.data_folder, task.found, case, aligned, made, means)
    digest = dataset.write_case(dataset.case_path(task.data_folder, task.case_id), case)
    return Made(dataset.entry_of(case, digest), quality.findings, is_kept=False)


def _judge(
    task: Task, scans: Scans, aligned: Aligned, made: Assembled, protocol: LabelProtocol
) -> tuple[tuple[TissueMean, ...], Quality]:
    """All that a person should know, worst first, and whether one must look before it is used."""
    means = inspection.tissue_means(made.volumes, made.label, protocol, brain=made.brain_mask)
    findings = [*scans.findings, *inspection.inspect_means(means)]
    held = [str(f) for f in findings if f.severity is Severity.HELD] + aligned.held
    if task.is_nominal and task.plan.preparation.space is not Space.SCAN:
        held.append(
            "the spacing is nominal, and the plan brings the scans into a space of real distances"
        )
    outside = made.tumour_outside_brain_fraction
    extracted = task.plan.preparation.brain is not BrainMask.HEAD
    if extracted and outside > MAX_OUTSIDE_BRAIN_FRACTION:
        held.append(f"{100 * outside:.1f} % of the tumour lies outside the brain mask")
    said = [str(f) for f in findings if f.severity is not Severity.HELD]
    if not made.n_tumour_voxels:
        said.append("no tumour on the plan's grid")
    quality = Quality(
        verdict=Verdict.HELD if held else Verdict.OK,
        findings=(*held, *said),
        tumour_lost_fraction=made.tumour_lost_fraction,
        tumour_outside_brain_fraction=outside,
        brain_lost_fraction=made.brain_lost_fraction,
    )
    return means, quality
