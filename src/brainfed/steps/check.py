"""`check`: what lies in a folder of scans, and what is wrong with it, before any case is made.

The first day's command: it needs no plan and no federation, and makes no case. `survey` is its
first half, `preprocess --dry-run`: which file was recognised as what.
"""

# SimpleITK's wrapper has no types.
# mypy: disable-error-code="no-untyped-call, no-any-return"

from dataclasses import dataclass, replace
from pathlib import Path

import SimpleITK as sitk  # noqa: N813 - the name that all of its documentation uses

from brainfed.core import inspection
from brainfed.core.flaws import Severity
from brainfed.core.labels import LabelProtocol
from brainfed.core.pictures import draw_case
from brainfed.core.progress import Progress, silent
from brainfed.core.sequence_rule import default_rule
from brainfed.core.volume import resample
from brainfed.errors import ScanError
from brainfed.formats import atomic, cache, cases_csv, dataset, identities, quality_page
from brainfed.formats.cache import CaseCache
from brainfed.formats.found_case import LABEL, FoundCase, LeftOver
from brainfed.formats.identities import Identities
from brainfed.formats.quality_page import QualityEntry
from brainfed.formats.review import Verdict
from brainfed.formats.scan_folder import printable
from brainfed.plan import Cohort, Modality, Plan, Space
from brainfed.steps import align, case_page, read_scans
from brainfed.steps.case_rows import reason_of
from brainfed.steps.check_rows import BadCasesError, CheckResult, CheckRow
from brainfed.steps.make_cases import each
from brainfed.steps.preprocess import Wish
from brainfed.steps.recognise import check_cohort, check_complete, recognise

PAGE_NAME = "check.html"
HEADING = "Scans as they were found"


@dataclass(frozen=True, slots=True)
class _Look:
    """One case to look at."""

    found: FoundCase
    case_id: str
    folder: Path
    plan: Plan | None
    """Without one whatever there is will do."""

    def check_complete(self) -> None:
        """Raise a ScanError where something is in doubt or missing."""
        if self.plan is not None:
            check_complete(self.found, self.plan.scans)
        elif self.found.doubts:
            raise ScanError("; ".join(dict.fromkeys(self.found.doubts.values())))
        elif not self.found.images:
            raise ScanError("No scan of this case was recognised", hint="name them in cases.csv")

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Those to look at."""
        return self.plan.scans.modalities if self.plan else tuple(Modality)


def survey(folder: Path, scans: Path, plan: Plan | None, wish: Wish) -> CheckResult:
    """Recognise the cases and write `cases.csv`; no scan is read.

    Arguments and errors are those of `check`.
    """
    return _check(folder, scans, plan, wish, progress=silent, looks=False)


def check(
    folder: Path, scans: Path, plan: Plan | None, wish: Wish, *, progress: Progress = silent
) -> CheckResult:
    """Recognise the cases, read and inspect each scan, write `cases.csv` and the page.

    Args:
        folder: Where these two go.
        scans: As of `preprocess`.
        plan: Its modalities, regions and cohort count; without one all modalities do.
        wish: As of `preprocess`.
        progress: Told of each case.

    Raises:
        BadCasesError: Some can't be used; a ScanError. Table and page are written.
        ScanError: No case at all.
        NotReadyError: DICOM, and the extra that reads it isn't installed.
        ResourceError: The disk refuses.
    """
    return _check(folder, scans, plan, wish, progress=progress, looks=True)


def _check(
    folder: Path, scans: Path, plan: Plan | None, wish: Wish, *, progress: Progress, looks: bool
) -> CheckResult:
    found = recognise(scans, rule=wish.rule or default_rule(), progress=progress)
    atomic.make_folder(folder)
    known = identities.open_or_new(folder)
    cases = _not_excluded(folder, found.cases, known)
    tasks = [
        _Look(
            found=wish.fill_in(case),
            case_id=known.case_id(case.name),
            folder=folder,
            plan=plan,
        )
        for case in cases
    ]
    table = folder / cases_csv.FILE_NAME
    n_rows_added = _add_rows(table, cases)
    page = None
    entries: list[QualityEntry | None] = [None] * len(tasks)
    if looks:
        identities.write(folder, known)  # the cache of conversions goes by its key
        entries = list(each(_look, tasks, jobs=wish.jobs, progress=progress))
        page = folder / PAGE_NAME
        quality_page.write_page(page, [e for e in entries if e is not None], heading=HEADING)
    rows = [
        _row(task, entry, plan.cohort if plan else None, scans)
        for task, entry in zip(tasks, entries, strict=True)
    ]
    result = CheckResult(
        layout=found.layout,
        rows=tuple(sorted(rows, key=lambda row: row.name)),
        left_over=tuple(
            LeftOver(printable(_below(left.where, scans)), printable(left.reason))
            for left in found.left_over
        ),
        table=table,
        n_rows_added=n_rows_added,
        page=page,
    )
    if looks and result.n_refused:
        raise BadCasesError(result)
    return result


def _not_excluded(
    folder: Path, found: tuple[FoundCase, ...], known: Identities
) -> tuple[FoundCase, ...]:
    """The cases without those that `exclude` took out: nothing of them is to be made again."""
    if not dataset.index_path(folder).exists():
        return found
    index = dataset.read_whole_index(folder)
    return tuple(
        case
        for case in found
        if not index.why_excluded(known.case_id(case.name), known.patient_id(case.patient))
    )


def _add_rows(table: Path, found: tuple[FoundCase, ...]) -> int:
    """Write the cases that the table lacks into it; a person may have corrected the others."""
    there = cases_csv.read(table) if table.exists() else ()
    names = {case.name for case in there}
    new = [case for case in found if case.name not in names]
    if new or not table.exists():
        cases_csv.write(table, (*there, *new))
    return len(new)


def _row(task: _Look, entry: QualityEntry | None, cohort: Cohort | None, scans: Path) -> CheckRow:
    found, reason = task.found, None
    findings = (*found.remarks, *(entry.findings if entry else ()))
    if entry is None:
        reason = _incomplete(task)
    elif entry.verdict is Verdict.REFUSED:
        reason, findings = entry.findings[0], findings[1:]
    unanswered: tuple[str, ...] = ()
    if cohort is not None:
        answer = check_cohort(found, cohort)
        reason, unanswered = reason or answer.reason, answer.unanswered
    files = {str(modality): file for modality, file in found.images.items()}
    files |= {LABEL: found.label} if found.label else {}
    files |= {read_scans.BRAIN_MASK: found.brain_mask} if found.brain_mask else {}
    return CheckRow(
        name=printable(found.name),
        patient=printable(found.patient),
        visit=printable(found.visit),
        files={kind: printable(_below(str(file), scans)) for kind, file in files.items()},
        verdict=entry.verdict if entry else None,
        reason=printable(reason) if reason else None,
        findings=tuple(printable(finding) for finding in findings),
        unanswered=unanswered,
    )


def _below(file: str, scans: Path) -> str:
    return file.removeprefix(f"{scans.absolute()}/")


def _incomplete(task: _Look) -> str | None:
    try:
        task.check_complete()
    except ScanError as error:
        return reason_of(error)
    return None


def _look(task: _Look) -> QualityEntry:
    """Read and inspect the scans of one case."""
    entry = QualityEntry(
        case_id=task.case_id,
        name=task.found.name,
        patient=task.found.patient,
        verdict=Verdict.REFUSED,
    )
    try:
        task.check_complete()
        kept = CaseCache(cache.folder_of(task.folder, task.case_id))
        scans = read_scans.read_scans(
            task.found,
            task.modalities,
            others=tuple(m for m in Modality if m not in task.modalities),
            protocol=task.found.protocol,
            kept=kept,
        )
        if task.plan and task.plan.preparation.space is Space.SCAN and scans.label:
            align.refuse_other_grids(scans.images, scans.label)
        return _judged(entry, task, scans)
    except ScanError as error:
        return replace(entry, findings=(reason_of(error),))


def _judged(entry: QualityEntry, task: _Look, scans: read_scans.Scans) -> QualityEntry:
    """The entry with what the inspection says and with pictures, as the headers place the scans."""
    findings = list(scans.findings)
    reference = next(m for m in align.REFERENCES if m in scans.images)
    label = scans.label
    if label is None and task.found.label is not None:
        raise ScanError("Nobody has said what the label's values mean", hint="give --labels")
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
    if task.found.label is None:
        remarks = (*scans.remarks, "there is no label: training needs one")
    else:
        remarks = scans.remarks
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
