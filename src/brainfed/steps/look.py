"""A look at one case before anything is made of it: its scans read, inspected and drawn."""

# SimpleITK's wrapper has no types.
# mypy: disable-error-code="no-untyped-call, no-any-return"

from dataclasses import dataclass, replace
from pathlib import Path

import SimpleITK as sitk  # noqa: N813 - the name that all of its documentation uses

from brainfed.core import inspection
from brainfed.core.flaws import Severity, forget_millimetres
from brainfed.core.labels import LabelProtocol
from brainfed.core.pictures import draw_case
from brainfed.core.volume import resample
from brainfed.errors import ScanError
from brainfed.formats import cache, quality_page
from brainfed.formats.cache import CaseCache
from brainfed.formats.found_case import FoundCase
from brainfed.formats.quality_page import QualityEntry
from brainfed.formats.review import Verdict
from brainfed.plan import Modality, Plan, Space
from brainfed.steps import align, case_page, read_scans
from brainfed.steps.case_rows import reason_of
from brainfed.steps.recognise import check_complete, check_protocol


@dataclass(frozen=True, slots=True)
class Look:
    """One case to look at."""

    found: FoundCase
    case_id: str
    folder: Path
    plan: Plan | None
    """Without one whatever there is will do."""

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Those to look at."""
        return self.plan.scans.modalities if self.plan else tuple(Modality)

    @property
    def reason(self) -> str | None:
        """Why nothing can be made of it, as far as that shows without reading a scan."""
        try:
            self._check()
        except ScanError as error:
            return reason_of(error)
        return None

    def _check(self) -> None:
        if self.plan is not None:
            check_complete(self.found, self.plan.scans)
        elif self.found.doubts:
            raise ScanError("; ".join(dict.fromkeys(self.found.doubts.values())))
        elif not self.found.images:
            raise ScanError("No scan of this case was recognised", hint="name them in cases.csv")
        if self.found.label is not None:
            check_protocol(self.found, self.plan.scans.regions if self.plan else ())


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look at a case gave."""

    entry: QualityEntry
    """Its part of the page; where it is refused, the first finding says why."""
    scan_digests: tuple[str, ...] = ()
    """As `read_scans.distinctive` has them; none where the scans couldn't be read."""


def look(task: Look) -> Seen:
    """Read and inspect the scans of one case, though something of it may be missing or in doubt.

    Raises:
        NotReadyError: DICOM, and the extra that reads it isn't installed.
        ResourceError: The disk refuses.
    """
    entry = QualityEntry(
        case_id=task.case_id,
        name=task.found.name,
        patient=task.found.patient,
        verdict=Verdict.REFUSED,
    )
    reasons, remarks = ((task.reason,) if task.reason else ()), task.found.remarks
    if reasons and not any(modality in task.found.images for modality in task.modalities):
        return Seen(replace(entry, findings=(*reasons, *remarks)))
    try:
        scans = _read(task)
        entry = _judged(entry, task, scans)
    except ScanError as error:
        if task.found.spacing_nominal:
            forget_millimetres(error)
        return Seen(replace(entry, findings=(*reasons, reason_of(error), *remarks)))
    if reasons:
        entry = replace(entry, verdict=Verdict.REFUSED, findings=(*reasons, *entry.findings))
    return Seen(entry, read_scans.distinctive(scans))


def _read(task: Look) -> read_scans.Scans:
    scans = read_scans.read_scans(
        task.found,
        task.modalities,
        others=tuple(m for m in Modality if m not in task.modalities),
        protocol=task.found.protocol,
        kept=CaseCache(cache.folder_of(task.folder, task.case_id)),
    )
    if task.plan and task.plan.preparation.space is Space.SCAN and scans.label:
        align.refuse_other_grids(scans.images, scans.label)
    return scans


def _judged(entry: QualityEntry, task: Look, scans: read_scans.Scans) -> QualityEntry:
    """The entry with what the inspection says and with pictures, as the headers place the scans."""
    findings = list(scans.findings)
    reference = next(m for m in align.REFERENCES if m in scans.images)
    label = scans.label
    means: tuple[inspection.TissueMean, ...] = ()
    if label is not None and task.found.protocol is not None:
        fitting = read_scans.fitting_grids(label.geometry, scans.images, reference)
        if not fitting:
            raise read_scans.stray("label", label, scans.images, reference)
        reference = fitting[0]
        here = {m: sitk.GetArrayFromImage(scans.images[m].image) for m in fitting}
        values = sitk.GetArrayFromImage(label.image)
        means = inspection.tissue_means(here, values, task.found.protocol)
        findings += inspection.inspect_means(means)
    remarks = (*task.found.remarks, *scans.remarks)
    if task.found.label is None and task.plan is None:
        remarks += ("there is no label: training needs one",)
    held = [str(f) for f in findings if f.severity is Severity.HELD]
    said = [str(f) for f in findings if f.severity is not Severity.HELD]
    return replace(
        entry,
        verdict=Verdict.HELD if held else Verdict.OK,
        findings=(*held, *said, *remarks),
        facts=(
            *_grid_facts(scans, nominal=bool(task.found.spacing_nominal)),
            *case_page.mean_facts(means),
        ),
        pictures=_pictures(scans, reference, task.found.protocol),
    )


def _grid_facts(scans: read_scans.Scans, *, nominal: bool) -> list[tuple[str, str]]:
    facts = []
    for modality, read in scans.images.items():
        words = " x ".join(str(n) for n in read.geometry.size) + " voxels"
        if not nominal:
            words += " of " + " x ".join(f"{mm:.3g}" for mm in read.geometry.spacing_mm) + " mm"
        facts.append((str(modality), words))
    return facts


def _pictures(
    scans: read_scans.Scans, reference: Modality, protocol: LabelProtocol | None
) -> tuple[quality_page.Picture, ...]:
    geometry = scans.images[reference].geometry
    label = None
    if scans.label is not None:
        label = sitk.GetArrayFromImage(resample(scans.label.image, geometry, nearest=True))
    drawings = draw_case(
        {
            modality: sitk.GetArrayFromImage(resample(read.image, geometry))
            for modality, read in scans.images.items()
        },
        spacing_mm=geometry.spacing_mm[::-1],
        label=label,
        protocol=protocol,
    )
    return case_page.pictures_of(drawings)
