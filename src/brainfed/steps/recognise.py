"""What lies in a folder of scans: the layout, the cases, and what couldn't be told.

Recognition is the same under every plan. `check_complete` and `check_protocol` then hold a case
against what one plan asks; who belongs to its cohort is for `steps.eligibility`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from brainfed.core.labels import LabelProtocol, check_regions
from brainfed.core.progress import Progress, silent
from brainfed.core.sequence_rule import SequenceRule
from brainfed.errors import ScanError
from brainfed.formats import bids, cases_csv, decathlon, dicom, scan_folder
from brainfed.formats.found_case import LABEL, WHOLE_CASE, FoundCase, LeftOver, ScanFile
from brainfed.formats.scan_folder import add_doubt
from brainfed.plan import Region, Scans


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
    table: Path | None = None
    """The table, where one was given."""


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
    try:
        scans = plain_path(scans)
        layout, table = _layout(scans), None
        if layout is Layout.TABLE:
            table = scans / cases_csv.FILE_NAME if scans.is_dir() else scans
        cases, left = _find_cases(layout, table or scans, rule, progress)
        return Found(layout, _compared(cases), left, table)
    except OSError as error:
        raise ScanError(
            "The folder of scans can't be read",
            found=error.strerror,
            where=scans,
            hint="check that you may read it and all folders in it",
        ) from error


def plain_path(scans: Path) -> Path:
    """The whole path of the scans, without `..` and links where they are a folder.

    A table's relative paths are taken from where it was named.
    """
    return scans.resolve() if scans.is_dir() else scans.absolute()


def _find_cases(
    layout: Layout, scans: Path, rule: SequenceRule, progress: Progress
) -> tuple[tuple[FoundCase, ...], tuple[LeftOver, ...]]:
    if layout is Layout.TABLE:
        return cases_csv.read(scans), ()
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
                hint="name the folder that holds one folder per case: `brainfed check SCANS`",
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
    """Whether a folder right below holds a NIfTI file under its name.

    Any other one says nothing: people put the label of a DICOM study beside its series.
    """
    return any(scan_folder.kind_of(path, path.parent.name) for path in scans.glob("*/*"))


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


def check_complete(found: FoundCase, scans: Scans, *, needs_label: bool = True) -> None:
    """Hold a case against what the plan asks of it: nothing in doubt, nothing missing.

    Args:
        found: The case.
        scans: The plan's table.
        needs_label: Whether its label counts.

    Raises:
        ScanError: The whole case, its label or a modality of the plan is in doubt, or the label or
            a required modality is missing.
    """
    labels = (LABEL,) if needs_label else ()
    asked = (WHOLE_CASE, *scans.modalities, *labels)
    doubts = dict.fromkeys(found.doubts[key] for key in asked if key in found.doubts)
    missing = [str(m) for m in scans.required if m not in found.images]
    missing += [] if found.label else labels
    if doubts:
        besides = [kind for kind in missing if kind not in found.doubts]
        raise ScanError(
            "; ".join([*doubts, *([f"Missing: {', '.join(besides)}"] if besides else [])]),
            where=found.folder,
            hint="`brainfed preprocess` with --dry-run writes data/cases.csv: mend the row there, "
            "empty its cell Doubt, and preprocess that file",
        )
    if missing:
        raise ScanError(
            f"Missing: {', '.join(missing)}",
            expected=", ".join(scans.required) + (" and a label" if needs_label else ""),
            found=", ".join(kind for kind, _ in _scans(found)) or "no file of a known name",
            where=found.folder,
            hint="complete the case, or leave it out with --skip-incomplete",
        )


def check_protocol(found: FoundCase, regions: Iterable[Region]) -> LabelProtocol:
    """What the values of a case's label mean.

    Raises:
        ScanError: Nobody has said it, or the protocol can't give these regions.
    """
    if found.protocol is None:
        raise ScanError(
            "Nobody has said what the label's values mean",
            expected="--labels or the column LabelProtocol to say "
            + " or ".join(str(known) for known in LabelProtocol),
            hint="name the protocol with --labels, or in the column LabelProtocol of cases.csv",
        )
    check_regions(found.protocol, regions)
    return found.protocol
