"""DICOM: the cases in a folder, and a series made a NIfTI file.

Files may lie in any nesting under any name; what isn't DICOM is passed over. `dicom_header` reads
one file, `dicom_series` and `dicom_study` group them, `core.sequences` tells what a series is,
`dcm2niix` converts; what comes out is held against the headers.
"""

import contextlib
import gzip
import struct
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from brainfed.core.progress import Progress, silent
from brainfed.core.sequence_rule import SequenceRule
from brainfed.core.sequences import choose
from brainfed.core.series import wrong_kind
from brainfed.core.slice_stack import ANOTHER, distance_mm, stack
from brainfed.core.volume import Geometry
from brainfed.errors import ScanError
from brainfed.formats import atomic, dcm2niix, nifti
from brainfed.formats.dicom_header import Header, is_dicom, read_header
from brainfed.formats.dicom_series import (
    by_series,
    facts_of,
    files_in,
    scan_file,
)
from brainfed.formats.dicom_study import make_case, name_visits, of_two_patients
from brainfed.formats.found_case import FoundCase, LeftOver, ScanFile

CORNER_TOLERANCE_MM = 0.1
"""Largest distance of a corner of the volume from where the DICOM headers put it."""
_TWO_PATIENTS = "holds images of two patients or studies, or its study does"
_NIFTI = "NIfTI among DICOM: if it is a label, name it in the column Label of cases.csv"
_START_BYTES = 65_536


def holds_dicom(folder: Path) -> bool:
    """Whether there is a DICOM file in a folder or those in it; needs no pydicom.

    Raises:
        ScanError: A folder can't be read.
    """
    for path in files_in(folder):
        # One that can't be read is said by `find_cases`; it must not stop the other cases.
        with contextlib.suppress(OSError), path.open("rb") as stream:
            if is_dicom(stream):
                return True
    return False


def find_cases(
    folder: Path, rule: SequenceRule, progress: Progress = silent
) -> tuple[tuple[FoundCase, ...], tuple[LeftOver, ...]]:
    """Find the studies in a folder of DICOM files, one case each.

    Args:
        folder: Files in any nesting.
        rule: Names the sequences.
        progress: Told of each file whose header was read.

    Returns:
        Cases by patient and visit, and what became no part of one, with the reason.

    Raises:
        ScanError: The folder can't be read.
        NotReadyError: pydicom isn't installed.
    """
    headers, left = _read_all(folder, progress)
    mixed = of_two_patients(headers)
    studies: dict[tuple[str, str], dict[str, list[Header]]] = defaultdict(dict)
    for series, members in by_series(headers).items():
        if series in mixed:
            left.append(LeftOver(str(scan_file(members)), f"{facts_of(members)} {_TWO_PATIENTS}"))
        for header in members:
            study = studies[header.patient, header.study]
            if series not in mixed:
                study.setdefault(series, []).append(header)
    visits = name_visits(headers)
    cases = []
    for key in sorted(studies, key=lambda key: (key[0], visits[key])):
        study = studies[key]
        choice = choose([facts_of(members) for members in study.values()], rule)
        left += [
            LeftOver(str(scan_file(study[facts.series])), f"{facts}: {reason}")
            for facts, reason in choice.left_over
        ]
        if choice.images or choice.doubts:
            is_mixed = any(h.series in mixed for h in headers if (h.patient, h.study) == key)
            cases.append(make_case(key[0], visits[key], study, choice, is_mixed=is_mixed))
    return tuple(cases), tuple(left)


def converter_version() -> str:
    """The version of dcm2niix, on which a converted file depends.

    Raises:
        NotReadyError: It isn't installed.
        ResourceError: It can't be started.
    """
    return dcm2niix.version()


def files_of(scan: ScanFile) -> tuple[Path, ...]:
    """The files of a series, in order of name.

    Raises:
        ScanError: There is no such series, or a file of it is damaged or can't be read.
        NotReadyError: pydicom isn't installed.
    """
    return tuple(header.path for header in _series(scan))


def convert(scan: ScanFile, target: Path, *, replace: bool = False) -> tuple[str, ...]:
    """Convert one series to a NIfTI-1 file, packed where the name ends in `.gz`; mode 0600.

    dcm2niix sees links to the files of this series in a private folder beside the target.

    Args:
        scan: A folder, and the UID of a series in it.
        target: The file to make.
        replace: Whether a file that is there already may be replaced.

    Returns:
        What dcm2niix warned of.

    Raises:
        ScanError: No such series, a damaged file, files of two patients, a series that must not be
            used (burned-in text, secondary capture, other than MR), a slice missing, uneven gaps,
            or dcm2niix fails or puts the volume elsewhere than the headers do.
        NotReadyError: dcm2niix or pydicom isn't installed.
        ConflictError: The target exists and `replace` is false.
        ResourceError: The disk refuses.
    """
    dcm2niix.find_program()
    if not replace:
        atomic.refuse_existing(target)
    members = _series(scan)
    expected = _volume(members, scan)
    with atomic.scratch_folder(target) as scratch:
        for name in ("in", "out"):
            atomic.make_folder(scratch / name)
        for number, header in enumerate(members):
            atomic.point_to(header.path, scratch / "in" / f"{number:06d}.dcm")
        data, warned = dcm2niix.volume_of(scratch, str(scan))
    _compare(data, expected, scan)
    with atomic.new_file(target, mode=0o600, replace=replace) as stream:
        if target.name.endswith(".gz"):
            with gzip.GzipFile("", "wb", compresslevel=3, fileobj=stream, mtime=0) as packed:
                packed.write(data)
        else:
            stream.write(data)
    return warned


def _read_all(folder: Path, progress: Progress) -> tuple[list[Header], list[LeftOver]]:
    headers: list[Header] = []
    left: list[LeftOver] = []
    paths = list(files_in(folder))
    for n_done, path in enumerate(paths, start=1):
        try:
            header = read_header(path)
        except ScanError as error:
            found = f" ({error.found})" if error.found else ""
            left.append(LeftOver(str(path), f"{error.message}{found}"))
        else:
            headers += [header] if header else []
            if header is None and path.name.lower().endswith(nifti.ENDINGS):
                left.append(LeftOver(str(path), _NIFTI))
        progress("DICOM headers", n_done, len(paths))
    return headers, left


def _series(scan: ScanFile) -> list[Header]:
    """The headers of exactly the series' files; a damaged file of it refuses the series."""
    uid = scan.series or ""
    headers = [read_header(path) for path in files_in(scan.path) if _may_be_of(path, uid)]
    members = by_series(header for header in headers if header is not None).get(uid, [])
    if not members:
        raise ScanError(
            "There is no such DICOM series in the folder",
            expected="FOLDER#SERIES, where SERIES is a SeriesInstanceUID",
            where=str(scan),
            hint="was it moved? mend its name in cases.csv",
        )
    return members


def _may_be_of(path: Path, series: str) -> bool:
    """Whether a file may belong to a series, by a look at its start: a folder holds thousands."""
    try:
        with path.open("rb") as stream:
            start = stream.read(_START_BYTES)
    except OSError as error:
        raise ScanError(
            "The file can't be read",
            found=error.strerror,
            where=path,
            hint="check the path and who may read it, then run the command again",
        ) from error
    return series.encode("ascii", "replace") in start


def _volume(members: Sequence[Header], scan: ScanFile) -> Geometry:
    """The geometry that the headers say; refuses a series that can't be one volume of a patient."""
    facts = facts_of(members)
    refused = wrong_kind(facts)
    if len({(h.patient, h.study) for h in members}) > 1:
        refused = "it holds images of two patients or studies"
    if facts.n_sizes > 1:
        refused = "it holds images of several sizes"
    if facts.n_echoes > 1:
        refused = f"it holds {facts.n_echoes} echo times"
    if any(not header.slices for header in members):
        refused = "it doesn't say where each slice lies"
    if refused:
        raise ScanError(
            f"The DICOM series can't be used: {refused}",
            where=str(scan),
            hint=ANOTHER,
        )
    slices = [s for header in members for s in header.slices]
    return stack(slices, rows=facts.rows, columns=facts.columns, where=str(scan))


def _compare(data: bytes, expected: Geometry, scan: ScanFile) -> None:
    """Hold size and corners of a NIfTI file against what the DICOM headers say."""
    order = "<" if data[:4] == struct.pack("<I", 348) else ">"
    size = struct.unpack_from(f"{order}3h", data, 42)
    (sform_code,) = struct.unpack_from(f"{order}h", data, 254)
    if size != expected.size or sform_code <= 0:
        raise ScanError(
            "dcm2niix made another size than the DICOM headers say",
            expected=" x ".join(map(str, expected.size)),
            found=" x ".join(map(str, size)) if sform_code > 0 else "no geometry",
            where=str(scan),
            hint=ANOTHER,
        )
    affine = np.array(struct.unpack_from(f"{order}12f", data, 280)).reshape(3, 4)
    to_lps = affine * np.array([[-1], [-1], [1]])  # NIfTI says RAS
    away_mm = distance_mm(expected, to_lps)
    if not away_mm <= CORNER_TOLERANCE_MM:
        raise ScanError(
            "dcm2niix put the volume where the DICOM headers don't",
            expected=f"corners within {CORNER_TOLERANCE_MM} mm",
            found=f"{away_mm:.3f} mm",
            where=str(scan),
            hint=ANOTHER,
        )
