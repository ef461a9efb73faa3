"""What lies in a folder of scans: the layout, the cases, and what couldn't be told.

Recognition is the same under every plan. `check_complete` and `check_cohort` then hold a case
against what one plan asks.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from brainfed.core.labels import LabelProtocol
from brainfed.core.progress import Progress, silent
from brainfed.core.sequence_rule import SequenceRule
from brainfed.errors import ScanError
from brainfed.formats import bids, cases_csv, decathlon, dicom, scan_folder
from brainfed.formats.found_case import LABEL, WHOLE_CASE, FoundCase, LeftOver, ScanFile
from brainfed.formats.scan import ENDINGS
from brainfed.formats.scan_folder import add_doubt
from brainfed.plan import Cohort, Scans, Treatment


class Layout(StrEnum):
    """How scans may lie."""

    TABLE = "cases.csv"
    DECATHLON = "dataset.json"  # MSD or nnU-Net
    BIDS = "BIDS"
    FOLDERS = "a folder per case"  # as BraTS names them
    DICOM = "DICOM"


@dataclass(frozen=True, slots=True)
class Found:
    """All that was found."""

    layout: Layout
    cases: tuple[FoundCase, ...]
    """Complete or not; each under a name of its own."""
    left_over: tuple[LeftOver, ...]


def recognise(scans: Path, *, rule: SequenceRule, progress: Progress = silent) -> Found:
    """Find the cases of a folder or a table, whichever plan they may serve.

    Args:
        scans: A folder of scans in any layout, or a `.csv` file. A folder that holds a `cases.csv`
            means that table.
        rule: Names the sequences of DICOM series; no other layout asks it.
        progress: Told of DICOM files as they are read.

    Raises:
        ScanError: There is no such folder, no case in it, or a table that can't be understood.
        NotReadyError: DICOM, and the extra that reads it isn't installed.
    """
    scans = scans.absolute()
    try:
        layout = _layout(scans)
        cases, left = _find_cases(layout, scans, rule, progress)
        return Found(layout, _compared(cases), left)
    except OSError as error:
        raise ScanError(
            "The folder of scans can't be read",
            found=error.strerror,
            where=scans,
            hint="check that you may read it and all folders in it",
        ) from error


def _find_cases(
    layout: Layout, scans: Path, rule: SequenceRule, progress: Progress
) -> tuple[tuple[FoundCase, ...], tuple[LeftOver, ...]]:
    if layout is Layout.TABLE:
        return cases_csv.read(scans / cases_csv.FILE_NAME if scans.is_dir() else scans), ()
    if layout is Layout.DECATHLON:
        return decathlon.find_cases(scans)
    if layout is Layout.BIDS:
        return bids.find_cases(scans)
    if layout is Layout.DICOM:
        return dicom.find_cases(scans, rule, progress)
    return scan_folder.find_cases(scans)


def _layout(scans: Path) -> Layout:
    if not scans.is_dir():
        if scans.is_file() and scans.suffix.lower() != ".csv":
            raise ScanError(
                "This file is no table of cases",
                expected="a folder of scans, or a .csv file",
                found=f"a {scans.suffix} file" if scans.suffix else "a file without ending",
                where=scans,
                hint="name the folder that holds one folder per case",
            )
        return Layout.TABLE if scans.is_file() else Layout.FOLDERS
    if (scans / cases_csv.FILE_NAME).is_file():
        return Layout.TABLE
    if decathlon.is_here(scans):
        return Layout.DECATHLON
    if bids.is_here(scans):
        return Layout.BIDS
    if not _has_case_folder(scans) and dicom.holds_dicom(scans):
        return Layout.DICOM
    return Layout.FOLDERS


def _has_case_folder(scans: Path) -> bool:
    """Whether a NIfTI file lies in a folder right below."""
    return any(path.name.lower().endswith(ENDINGS) for path in scans.glob("*/*"))


def _compared(cases: Iterable[FoundCase]) -> tuple[FoundCase, ...]:
    """The cases, with what only shows when they are held against each other."""
    cases = tuple(cases)
    uses = Counter(key for case in cases for key in {_key(scan) for _, scan in _scans(case)})
    visits = Counter((case.patient, case.visit) for case in cases)
    return tuple(_with_shared(case, uses, visits) for case in cases)


def _with_shared(
    case: FoundCase, uses: Mapping[object, int], visits: Mapping[tuple[str, str], int]
) -> FoundCase:
    """The case with a doubt on each file that it shares, and a remark on a visit that it shares."""
    doubts = dict(case.doubts)
    shared = [kind for kind, scan in _scans(case) if uses[_key(scan)] > 1]
    if shared:
        words = f"The file for {' and '.join(shared)} is another case's file too: whose is it?"
        add_doubt(doubts, WHOLE_CASE, words)
    for kinds in _same_twice(case):
        for kind in kinds:
            add_doubt(doubts, kind, f"{' and '.join(kinds)} are one and the same file")
    remarks = case.remarks
    if visits[case.patient, case.visit] > 1:
        remarks += ("another case of this patient bears the same visit",)
    return replace(case, doubts=doubts, remarks=remarks)


def _scans(case: FoundCase) -> list[tuple[str, ScanFile]]:
    """Images and label, each with what it is. A brain mask may serve several cases."""
    scans = [(str(modality), scan) for modality, scan in case.images.items()]
    return scans + ([] if case.label is None else [(LABEL, case.label)])


def _key(scan: ScanFile) -> object:
    """The same for the same file under any path; a series bears its own name."""
    if scan.series is not None:
        return scan.series
    try:
        status = scan.path.stat()
    except (OSError, ValueError):
        return scan.path
    return status.st_dev, status.st_ino


def _same_twice(case: FoundCase) -> list[list[str]]:
    kinds: dict[object, list[str]] = {}
    for kind, scan in _scans(case):
        kinds.setdefault((_key(scan), scan.volume), []).append(kind)
    return [same for same in kinds.values() if len(same) > 1]


def check_complete(found: FoundCase, scans: Scans) -> None:
    """Hold a case against what the plan asks of it: nothing in doubt, nothing missing.

    Raises:
        ScanError: The whole case, its label or a modality of the plan is in doubt, or the label or
            a required modality is missing.
    """
    asked = (WHOLE_CASE, *scans.modalities, LABEL)
    doubts = dict.fromkeys(found.doubts[key] for key in asked if key in found.doubts)
    if doubts:
        raise ScanError(
            "; ".join(doubts),
            where=found.folder,
            hint="`brainfed preprocess` with --dry-run writes data/cases.csv: mend the row there, "
            "empty its cell Doubt, and preprocess that file",
        )
    missing = [str(m) for m in scans.required if m not in found.images]
    missing += [] if found.label else [LABEL]
    if missing:
        raise ScanError(
            f"Missing: {', '.join(missing)}",
            expected=f"{', '.join(scans.required)} and a label",
            found=", ".join(kind for kind, _ in _scans(found)) or "no file of a known name",
            where=found.folder,
            hint="complete the case, or leave it out with --skip-incomplete",
        )


@dataclass(frozen=True, slots=True)
class CohortAnswer:
    """What is known of a case's place in the cohort."""

    unanswered: tuple[str, ...] = ()
    """What the plan asks and nobody has answered: columns of `cases.csv`."""
    reason: str | None = None
    """Why the case is not in the cohort; None where it is, or nobody knows."""


def check_cohort(found: FoundCase, cohort: Cohort) -> CohortAnswer:
    """Hold what is known of a case against the plan's cohort.

    A question that the plan doesn't ask (any treatment, no minimum age) needs no answer. Labels of
    `brats2024-post` mark what surgery left, so they answer for the treatment.

    Args:
        found: The case, its label's protocol filled in if a command named it.
        cohort: The plan's cohort.
    """
    treatment, age = found.treatment, found.age_years
    if found.protocol is LabelProtocol.BRATS2024_POST:
        if treatment is Treatment.PRE_OPERATIVE:
            return CohortAnswer(
                reason="called pre-operative, but its labels are of brats2024-post: one is wrong"
            )
        treatment = Treatment.POST_OPERATIVE
    asks_treatment = cohort.treatment is not Treatment.ANY
    asks_age = cohort.minimum_age_years > 0
    reasons = []
    if asks_treatment and treatment not in (None, cohort.treatment):
        reasons.append(f"{treatment}, and the plan takes {cohort.treatment} scans")
    if asks_age and age is not None and age < cohort.minimum_age_years:
        reasons.append(f"{age} years old, and the plan takes {cohort.minimum_age_years} and over")
    unanswered = [
        word
        for word, is_open in (
            ("Treatment", asks_treatment and treatment is None),
            ("AgeYears", asks_age and age is None),
        )
        if is_open
    ]
    return CohortAnswer(tuple(unanswered), "; ".join(reasons) or None)
