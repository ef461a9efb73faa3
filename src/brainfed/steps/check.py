"""`check`: what lies in a folder of scans, and what is wrong with it, before any case is made.

The first day's command: it needs no plan and no federation, and makes no case. `survey` is its
first half, `preprocess --dry-run`: which file was recognised as what.
"""

from collections import Counter
from dataclasses import replace
from pathlib import Path

from brainfed.core.progress import Progress, silent
from brainfed.core.sequence_rule import default_rule
from brainfed.formats import atomic, cases_csv, dataset, identities, quality_page
from brainfed.formats.dataset import Index
from brainfed.formats.found_case import LABEL, FoundCase, LeftOver
from brainfed.formats.identities import Identities
from brainfed.formats.quality_page import QualityEntry
from brainfed.formats.review import Verdict
from brainfed.formats.scan_folder import printable
from brainfed.plan import Plan
from brainfed.steps import eligibility, read_scans
from brainfed.steps.check_rows import BadCasesError, CheckResult, CheckRow
from brainfed.steps.eligibility import CohortAnswer
from brainfed.steps.look import Look, Seen, look
from brainfed.steps.make_cases import SAME_IMAGE, each
from brainfed.steps.preprocess import Wish
from brainfed.steps.recognise import plain_path, recognise

PAGE_NAME = "check.html"
HEADING = "Scans as they were found"


def survey(folder: Path, scans: Path, plan: Plan | None, wish: Wish) -> CheckResult:
    """Recognise the cases and write `cases.csv`; no scan is read.

    Arguments and errors are those of `check`.
    """
    return _check(folder, scans, plan, wish, progress=silent, looks=False)


def check(
    folder: Path, scans: Path, plan: Plan | None, wish: Wish, *, progress: Progress = silent
) -> CheckResult:
    """Recognise the cases, read and inspect each scan, write `cases.csv` and the page.

    Where a table was given, that is the one to correct, and no other is written.

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
    index = dataset.read_whole_index(folder) if dataset.index_path(folder).exists() else None
    cases = _not_excluded(found.cases, index, known)
    tasks = [
        Look(wish.fill_in(case), known.case_id(case.name), folder=folder, plan=plan)
        for case in cases
    ]
    table = found.table or folder / cases_csv.FILE_NAME
    is_given = found.table is not None
    page = None
    entries: list[QualityEntry | None] = [None] * len(tasks)
    if looks:
        identities.write(folder, known)  # the cache of conversions goes by its key
        seen = each(look, tasks, jobs=wish.jobs, progress=progress)
        looked = _refuse_same_images(tasks, seen, index)
        page = folder / PAGE_NAME
        quality_page.write_page(page, looked, heading=HEADING, is_made=False)
        entries = list(looked)
    answers: dict[str, CohortAnswer] = {}
    if plan is not None:
        looked_at = [task.found for task in tasks]
        answers = eligibility.check_all(looked_at, plan.cohort, index, known)
    rows = [
        _row(task, entry, answers.get(task.found.name), scans)
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
        n_rows_added=0 if is_given else cases_csv.add(table, cases),
        n_rows_other=0 if is_given else cases_csv.n_other(table, cases),
        page=page,
    )
    if looks and result.n_refused:
        raise BadCasesError(result)
    return result


def _not_excluded(
    found: tuple[FoundCase, ...], index: Index | None, known: Identities
) -> tuple[FoundCase, ...]:
    """The cases without those that `exclude` took out: nothing of them is to be made again."""
    if index is None:
        return found
    return tuple(
        case
        for case in found
        if not index.why_excluded(known.case_id(case.name), known.patient_id(case.patient))
    )


def _refuse_same_images(
    tasks: list[Look], seen: list[Seen], index: Index | None
) -> list[QualityEntry]:
    """The parts of the page; cases that share an image are refused, with those made before too."""
    here = {task.case_id for task in tasks}
    made = [entry.scan_digests for entry in index.cases if entry.id not in here] if index else []
    uses = Counter(d for ds in (*made, *(one.scan_digests for one in seen)) for d in set(ds))
    return [
        replace(one.entry, verdict=Verdict.REFUSED, findings=(SAME_IMAGE, *one.entry.findings))
        if any(uses[digest] > 1 for digest in one.scan_digests)
        else one.entry
        for one in seen
    ]


def _row(
    task: Look, entry: QualityEntry | None, answer: CohortAnswer | None, scans: Path
) -> CheckRow:
    found, findings = task.found, entry.findings if entry else task.found.remarks
    reason = task.reason if entry is None else None
    if entry is not None and entry.verdict is Verdict.REFUSED:
        reason, *findings_behind = findings
        findings = tuple(findings_behind)
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
        left_out=answer.reason if answer else None,
        findings=tuple(printable(finding) for finding in findings),
        unanswered=answer.unanswered if answer else (),
    )


def _below(file: str, scans: Path) -> str:
    return file.removeprefix(f"{plain_path(scans)}/")
