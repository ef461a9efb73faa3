"""`preprocess`: from scans as the hospital has them to cases on the plan's grid.

Each case is finished by itself and the index is written last, so an interrupted command loses at
most the step it was at; run again, it only makes what is missing or has changed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from brainfed.core.labels import LabelProtocol, check_regions
from brainfed.core.progress import Progress, silent
from brainfed.core.sequence_rule import SequenceRule, default_rule
from brainfed.errors import ScanError
from brainfed.formats import (
    atlas,
    atomic,
    cases_csv,
    dataset,
    federation,
    identities,
    quality_page,
    review,
    scan_folder,
)
from brainfed.formats.dataset import Index, SkippedCase, Verdict
from brainfed.formats.found_case import FoundCase
from brainfed.formats.identities import Identities
from brainfed.formats.ledger import Event
from brainfed.formats.review import ReviewRow
from brainfed.formats.workspace import Workspace
from brainfed.plan import Plan, data_digest
from brainfed.steps import eligibility
from brainfed.steps.case_rows import (
    CaseRow,
    CaseStatus,
    PreprocessResult,
    RefusedCasesError,
    by_name,
    row_of,
    skipped_row,
)
from brainfed.steps.eligibility import CohortAnswer
from brainfed.steps.make_case import Task
from brainfed.steps.make_cases import make_cases, refuse_duplicates
from brainfed.steps.recognise import Found, recognise


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How scans are to be taken, besides what the plan says."""

    protocol: LabelProtocol | None = None
    """What the labels mean, where `cases.csv` or the layout doesn't say."""
    spacing_nominal: bool = False
    """The spacing in the headers is a convention, not a measurement; where nothing else says."""
    skip_incomplete: bool = False
    """Go on without the cases that are refused, and record that."""
    jobs: int = 1
    """Processes; 1 works in this one."""
    atlas: Path | None = None
    """The plan's atlas, where it isn't at the site yet."""
    rule: SequenceRule | None = None
    """How DICOM series are named; brainfed's own rule where None."""

    def fill_in(self, found: FoundCase) -> FoundCase:
        """The case, with what this wish says where the case itself says nothing."""
        nominal = found.spacing_nominal
        return replace(
            found,
            protocol=found.protocol or self.protocol,
            spacing_nominal=self.spacing_nominal if nominal is None else nominal,
        )


def preprocess(
    workspace: Workspace, scans: Path, wish: Wish, *, progress: Progress = silent
) -> PreprocessResult:
    """Make cases of all scans in a folder or `cases.csv`, under the federation's plan.

    Arguments and errors are those of `preprocess_folder`.

    Raises:
        NotReadyError: The site has not joined a federation yet.
    """
    plan = federation.load(workspace).first_plan
    result = preprocess_folder(workspace.data, scans, plan, wish, progress=progress)
    if n_made := result.count(CaseStatus.MADE):
        workspace.note(Event.MADE, what="cases", n_made=n_made, digest=result.dataset_digest)
    return result


def preprocess_folder(
    data_folder: Path, scans: Path, plan: Plan, wish: Wish, *, progress: Progress = silent
) -> PreprocessResult:
    """Make cases of all scans in a folder or `cases.csv`.

    Cases of earlier commands from other folders stay. A case that is refused now leaves the index.

    Args:
        data_folder: Where the cases go.
        scans: A folder in a layout that `steps.recognise` knows, or a `cases.csv`.
        plan: The plan.
        wish: How they are to be taken.
        progress: Told of each case.

    Raises:
        RefusedCasesError: Cases were refused and `skip_incomplete` is not set; a ScanError.
        ScanError: No case at all, a protocol that can't give the plan's regions, cases that were
            made under another plan, or the wrong atlas.
        NotReadyError: A package or the atlas is missing that the scans or the plan need.
        ResourceError: Disk or memory ran out.
    """
    if wish.protocol is not None:
        check_regions(wish.protocol, plan.scans.regions)
    if wish.atlas is not None:
        atlas.lay_down(data_folder, wish.atlas, plan.preparation)
    atlas_path = atlas.find(data_folder, plan.preparation)
    recognised = recognise(scans, rule=wish.rule or default_rule(), progress=progress)
    found = tuple(wish.fill_in(case) for case in recognised.cases)
    if not found:
        raise _no_case(recognised, scans)
    n_rows_other = 0
    if recognised.table is None:
        n_rows_other = cases_csv.n_other(data_folder / cases_csv.FILE_NAME, recognised.cases)
    review.read(data_folder)  # a damaged one must be known before the work, not after it
    old = _old_index(data_folder, plan)
    known = _remember(data_folder, found, old)
    there = [case for case in found if not _why_excluded(case, old, known)]
    answers = eligibility.check_all(there, plan.cohort, old, known)
    skipped = _not_to_make(found, answers, old, known)
    digests = {entry.id: entry.digest for entry in old.cases}
    tasks = [
        Task(
            found=case,
            case_id=known.case_id(case.name),
            patient_id=known.patient_id(case.patient),
            data_folder=data_folder,
            plan=plan,
            atlas_path=atlas_path,
            expected_digest=digests.get(known.case_id(case.name)),
        )
        for case in found
        if case.name not in skipped
    ]
    outcomes = make_cases(tasks, jobs=wish.jobs, progress=progress)
    outcomes = refuse_duplicates(tasks, outcomes, old.cases)
    refused_as = CaseStatus.SKIPPED if wish.skip_incomplete else CaseStatus.REFUSED
    rows = [
        row_of(task, outcome, refused_as) for task, outcome in zip(tasks, outcomes, strict=True)
    ]
    rows += [
        skipped_row(case, known.case_id(case.name), skipped[case.name])
        for case in found
        if case.name in skipped
    ]
    gone = {known.case_id(c.name) for c in found if _why_excluded(c, old, known)}
    index = _merge(old, rows, plan, gone)
    _write(data_folder, index, rows)
    result = PreprocessResult(
        rows=by_name(rows),
        modalities=plan.scans.modalities,
        unanswered=_unanswered(found, rows, known, answers),
        n_cases=len(index.cases),
        dataset_digest=dataset.dataset_digest(index.cases),
        n_rows_other=n_rows_other,
    )
    if result.count(CaseStatus.REFUSED):
        raise RefusedCasesError(result)
    return result


def _no_case(recognised: Found, scans: Path) -> ScanError:
    shown = [f"{left.where}: {left.reason}" for left in recognised.left_over[:3]]
    return ScanError(
        "There is no case in these scans",
        expected="folders of scans, DICOM series of MR images, or rows of a cases.csv",
        found="; ".join(shown) or None,
        where=scans,
        hint="`brainfed check` says what was found there",
    )


def _write(data_folder: Path, index: Index, rows: list[CaseRow]) -> None:
    """Index, review and quality page, in this order: the index is what the others stand on."""
    if index.cases or index.skipped or index.excluded:
        dataset.write_index(data_folder, index)
    review.merge(
        data_folder,
        [
            ReviewRow(
                case=row.case_id,
                name=row.name,
                verdict=row.entry.verdict if row.entry else Verdict.REFUSED,
                digest=row.entry.digest[: review.DIGEST_DIGITS] if row.entry else "",
            )
            for row in rows
            if row.entry is not None or row.status is CaseStatus.REFUSED
        ],
    )
    entries = quality_page.read_entries(data_folder)
    quality_page.write_page(quality_page.page_path(data_folder), entries)


def _old_index(data_folder: Path, plan: Plan) -> Index:
    """The index of earlier commands, or an empty one."""
    digest = data_digest(plan)
    if not dataset.index_path(data_folder).exists():
        return Index(data_digest=digest, cases=())
    old = dataset.read_whole_index(data_folder)
    if old.data_digest != digest:
        if not any((data_folder / "cases").glob("*.h5")):
            return Index(data_digest=digest, cases=(), excluded=old.excluded)
        raise ScanError(
            "The cases were made under another plan",
            expected=f"data digest {digest[:12]}",
            found=f"data digest {old.data_digest[:12]}",
            where=dataset.index_path(data_folder),
            hint="move data/cases and data/split.json away, then run `brainfed preprocess` again; "
            "what both plans share is in data/cache, and who was excluded stays so",
        )
    return old


def _remember(data_folder: Path, found: Iterable[FoundCase], old: Index) -> Identities:
    """Write down all names before the first case, so that every id can be told."""
    atomic.make_folder(data_folder / "cases")
    if dataset.index_path(data_folder).exists() and not identities.path_of(data_folder).exists():
        raise ScanError(
            "identities.json is gone, and with it the key of the case and patient ids",
            where=identities.path_of(data_folder),
            hint="restore it from a backup, or move the folder data away and make all cases again",
        )
    known = identities.open_or_new(data_folder)
    for case in found:
        case_id, patient_id = known.case_id(case.name), known.patient_id(case.patient)
        if old.why_excluded(case_id, patient_id) is None:  # their names were erased and stay so
            known.cases[case_id] = case.name
            known.visits[case_id] = case.visit
            known.patients[patient_id] = case.patient
    identities.write(data_folder, known)
    return known


def _not_to_make(
    found: tuple[FoundCase, ...],
    answers: Mapping[str, CohortAnswer],
    old: Index,
    known: Identities,
) -> dict[str, str]:
    """Cases that are no part of the cohort, by name, and why."""
    reasons: dict[str, str] = {}
    for case in found:
        if excluded := _why_excluded(case, old, known):
            reasons[case.name] = f"excluded: {excluded}"
        elif reason := answers[case.name].reason:
            reasons[case.name] = reason
    return reasons


def _why_excluded(case: FoundCase, old: Index, known: Identities) -> str | None:
    return old.why_excluded(known.case_id(case.name), known.patient_id(case.patient))


def _unanswered(
    found: Iterable[FoundCase],
    rows: Iterable[CaseRow],
    known: Identities,
    answers: Mapping[str, CohortAnswer],
) -> tuple[str, ...]:
    made = {row.case_id for row in rows if row.entry is not None}
    return tuple(
        scan_folder.printable(case.name)
        for case in found
        if known.case_id(case.name) in made and answers[case.name].unanswered
    )


def _merge(old: Index, rows: list[CaseRow], plan: Plan, excluded: set[str]) -> Index:
    """The new index: what these rows say, and of all other cases what the old one said."""
    here = {row.case_id for row in rows}
    cases = [entry for entry in old.cases if entry.id not in here]
    cases += [row.entry for row in rows if row.entry is not None]
    skipped = [case for case in old.skipped if case.id not in here]
    skipped += [
        SkippedCase(id=row.case_id, reason=row.reason or "")
        for row in rows
        if row.status is CaseStatus.SKIPPED and row.case_id not in excluded
    ]
    return Index(
        data_digest=data_digest(plan),
        cases=tuple(sorted(cases, key=lambda entry: entry.id)),
        skipped=tuple(sorted(skipped, key=lambda case: case.id)),
        excluded=old.excluded,
    )
