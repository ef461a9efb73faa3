"""`preprocess`: from folders of scans to cases on the plan's grid.

Each case is finished by itself and the index is written last, so an interrupted command loses at
most the case it was at; run again, it only makes what is missing or has changed.
"""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from brainfed.core import labels
from brainfed.core.labels import LabelProtocol
from brainfed.core.progress import Progress, silent
from brainfed.errors import ScanError
from brainfed.formats import atomic, dataset, federation, identities, scan_folder
from brainfed.formats.dataset import CaseEntry, Index, SkippedCase
from brainfed.formats.identities import Identities
from brainfed.formats.ledger import Event
from brainfed.formats.scan_folder import CaseFolder, printable
from brainfed.formats.workspace import Workspace
from brainfed.plan import Modality, Plan, data_digest
from brainfed.steps.make_cases import Made, Task, make_cases, refuse_duplicates


class CaseStatus(StrEnum):
    """What became of a case folder."""

    MADE = "made"
    KEPT = "kept"  # made before, from the same scans
    REFUSED = "refused"  # something is wrong with it; the command ends with an error
    SKIPPED = "skipped"  # wrong, but left out on demand; or not the first visit


@dataclass(frozen=True, slots=True)
class CaseRow:
    """One line of the table: real names, for the site's own screen only."""

    name: str
    """Folder name, unprintable characters escaped."""
    patient: str
    """Patient's name, unprintable characters escaped."""
    case_id: str
    status: CaseStatus
    reason: str | None = None
    """Why the case was refused or skipped."""
    warning: str | None = None
    """What is odd about a case that was made."""
    entry: CaseEntry | None = None
    """What the index holds of it."""

    @property
    def tumour_ml(self) -> float | None:
        """Volume of the whole tumour on the plan's grid; None where the spacing is nominal."""
        if self.entry is None or self.entry.spacing_nominal:
            return None
        z, y, x = self.entry.spacing_mm
        return self.entry.n_tumour_voxels * z * y * x / 1000


@dataclass(frozen=True, slots=True)
class PreprocessResult:
    """What became of each case folder."""

    rows: tuple[CaseRow, ...]
    """By folder name."""
    modalities: tuple[Modality, ...]
    """What the flags `entry.present` stand for."""
    n_cases: int
    """Cases in the index, those of earlier commands included."""
    dataset_digest: str
    """SHA-256 over all of them."""

    def count(self, status: CaseStatus) -> int:
        """Number of folders with this status."""
        return sum(row.status is status for row in self.rows)


class RefusedCasesError(ScanError):
    """Some cases were refused; all others are made. `result` has the whole table."""

    def __init__(self, result: PreprocessResult) -> None:
        refused = [row for row in result.rows if row.status is CaseStatus.REFUSED]
        shown = [f"{row.name}: {row.reason}" for row in refused[:5]]
        super().__init__(
            f"{len(refused)} of {len(result.rows)} cases refused",
            found=" | ".join(shown) + (" | ..." if len(refused) > len(shown) else ""),
            hint="mend them and run the command again, or leave them out with --skip-incomplete; "
            "the other cases are made",
        )
        self.result = result


def preprocess(
    workspace: Workspace,
    scans: Path,
    *,
    protocol: LabelProtocol,
    skip_incomplete: bool,
    jobs: int,
    spacing_nominal: bool = False,
    progress: Progress = silent,
) -> PreprocessResult:
    """Make cases of all folders in `scans`, under the federation's plan.

    Arguments and errors are those of `preprocess_folder`.

    Raises:
        NotReadyError: The site has not joined a federation yet.
    """
    result = preprocess_folder(
        workspace.data,
        scans,
        federation.load(workspace).first_plan,
        protocol=protocol,
        skip_incomplete=skip_incomplete,
        jobs=jobs,
        spacing_nominal=spacing_nominal,
        progress=progress,
    )
    if n_made := result.count(CaseStatus.MADE):
        workspace.note(Event.MADE, what="cases", n_made=n_made, digest=result.dataset_digest)
    return result


def preprocess_folder(
    data_folder: Path,
    scans: Path,
    plan: Plan,
    *,
    protocol: LabelProtocol,
    skip_incomplete: bool = False,
    jobs: int = 1,
    spacing_nominal: bool = False,
    progress: Progress = silent,
) -> PreprocessResult:
    """Make cases of all folders in `scans`.

    Cases of earlier commands from other folders stay. A case that is refused now leaves the index.

    Args:
        data_folder: Where the cases go.
        scans: Folder that holds one folder per case (`formats.scan_folder`).
        plan: The plan.
        protocol: What the label values mean.
        skip_incomplete: Go on without the cases that are refused, and record that.
        jobs: Processes; 1 works in this one.
        spacing_nominal: The spacing in the headers is a convention, not a measurement.
        progress: Told of each case.

    Raises:
        RefusedCasesError: Cases were refused and `skip_incomplete` is not set; a ScanError.
        ScanError: No case at all, a protocol that can't give the plan's regions, or cases that
            were made under another plan.
        ResourceError: Disk or memory ran out.
    """
    labels.check_regions(protocol, plan.scans.regions)
    folders = scan_folder.list_case_folders(scans)
    old = _old_index(data_folder, plan)
    known = _remember(data_folder, folders)
    first, later = _first_visits(folders, old, known, plan)
    tasks = [
        Task(
            folder=folder,
            case_id=known.case_id(folder.name),
            patient_id=known.patient_id(folder.patient),
            data_folder=data_folder,
            plan=plan,
            protocol=protocol,
            spacing_nominal=spacing_nominal,
            expected_digest=_digest_in(old, known.case_id(folder.name)),
        )
        for folder in first
    ]
    outcomes = make_cases(tasks, jobs=jobs, progress=progress)
    outcomes = refuse_duplicates(tasks, outcomes, old.cases)
    refused_as = CaseStatus.SKIPPED if skip_incomplete else CaseStatus.REFUSED
    rows = [_row(task, outcome, refused_as) for task, outcome in zip(tasks, outcomes, strict=True)]
    rows += [_later_visit(folder, known) for folder in later]
    index = _merge(old, rows, plan)
    if index.cases or index.skipped:
        dataset.write_index(data_folder, index)
    result = PreprocessResult(
        rows=tuple(sorted(rows, key=lambda row: row.name)),
        modalities=plan.scans.modalities,
        n_cases=len(index.cases),
        dataset_digest=dataset.dataset_digest(index.cases),
    )
    if result.count(CaseStatus.REFUSED):
        raise RefusedCasesError(result)
    return result


def _old_index(data_folder: Path, plan: Plan) -> Index:
    """The index of earlier commands, or an empty one."""
    digest = data_digest(plan)
    if not dataset.index_path(data_folder).exists():
        return Index(data_digest=digest, cases=())
    old = dataset.read_whole_index(data_folder)
    if old.data_digest != digest:
        raise ScanError(
            "The cases were made under another plan",
            expected=f"data digest {digest[:12]}",
            found=f"data digest {old.data_digest[:12]}",
            where=dataset.index_path(data_folder),
            hint="move the folder data away, then run `brainfed preprocess` again",
        )
    return old


def _remember(data_folder: Path, folders: Iterable[CaseFolder]) -> Identities:
    """Write down all names before the first case, so that every id can be told."""
    atomic.make_folder(data_folder / "cases")
    if identities.path_of(data_folder).exists():
        known = identities.read(data_folder)
    elif dataset.index_path(data_folder).exists():
        raise ScanError(
            "identities.json is gone, and with it the key of the case and patient ids",
            where=identities.path_of(data_folder),
            hint="restore it from a backup, or move the folder data away and make all cases again",
        )
    else:
        known = Identities(key=secrets.token_bytes(identities.KEY_BYTES))
    for folder in folders:
        known.cases[known.case_id(folder.name)] = folder.name
        known.patients[known.patient_id(folder.patient)] = folder.patient
    identities.write(data_folder, known)
    return known


def _first_visits(
    folders: tuple[CaseFolder, ...], old: Index, known: Identities, plan: Plan
) -> tuple[list[CaseFolder], list[CaseFolder]]:
    """The folders to take, and those of later visits where the plan takes the first visit only.

    Cases of earlier commands count too.
    """
    if not plan.cohort.first_visit_only:
        return list(folders), []
    names = {folder.name for folder in folders} | {known.cases[c.id] for c in old.cases}
    earliest: dict[str, int] = {}
    for patient, visit in map(scan_folder.patient_and_visit, names):
        earliest[patient] = min(visit, earliest.get(patient, visit))
    first: list[CaseFolder] = []
    later: list[CaseFolder] = []
    for folder in folders:
        (first if folder.visit == earliest[folder.patient] else later).append(folder)
    return first, later


def _digest_in(index: Index, case_id: str) -> str | None:
    return next((entry.digest for entry in index.cases if entry.id == case_id), None)


def _row(task: Task, outcome: Made | ScanError, refused_as: CaseStatus) -> CaseRow:
    name, patient = printable(task.folder.name), printable(task.folder.patient)
    if isinstance(outcome, ScanError):
        return CaseRow(name, patient, task.case_id, refused_as, reason=_reason(outcome))
    return CaseRow(
        name,
        patient,
        task.case_id,
        CaseStatus.KEPT if outcome.is_kept else CaseStatus.MADE,
        warning=None if outcome.entry.n_tumour_voxels else "no tumour on the plan's grid",
        entry=outcome.entry,
    )


def _reason(error: ScanError) -> str:
    parts = [error.message]
    parts += [f"found {error.found}"] if error.found else []
    parts += [f"expected {error.expected}"] if error.expected else []
    return printable("; ".join(parts))


def _later_visit(folder: CaseFolder, known: Identities) -> CaseRow:
    return CaseRow(
        printable(folder.name),
        printable(folder.patient),
        known.case_id(folder.name),
        CaseStatus.SKIPPED,
        reason="the plan takes the first visit only",
    )


def _merge(old: Index, rows: list[CaseRow], plan: Plan) -> Index:
    """The new index: what these rows say, and of all other cases what the old one said."""
    here = {row.case_id for row in rows}
    cases = [entry for entry in old.cases if entry.id not in here]
    cases += [row.entry for row in rows if row.entry is not None]
    skipped = [case for case in old.skipped if case.id not in here]
    skipped += [
        SkippedCase(id=row.case_id, reason=row.reason or "")
        for row in rows
        if row.status is CaseStatus.SKIPPED
    ]
    return Index(
        data_digest=data_digest(plan),
        cases=tuple(sorted(cases, key=lambda entry: entry.id)),
        skipped=tuple(sorted(skipped, key=lambda case: case.id)),
    )
