"""The header of one DICOM file: what brainfed needs of it, read by pydicom; never the pixels.

Of a file nothing is believed: whatever pydicom stumbles over becomes a `ScanError` of that file.
"""

import functools
import importlib
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from brainfed.core.slice_stack import Slice
from brainfed.errors import NotReadyError, ScanError
from brainfed.formats import dicom_elements as elements

INSTALL_HINT = "pip install 'brainfed[dicom]'"
_MAGIC_AT = 128
_DEFLATED = "1.2.840.10008.1.2.1.99"
_TAGS = (
    "SpecificCharacterSet",
    "ImageType",
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyDate",
    "SeriesDate",
    "AcquisitionDate",
    "AcquisitionDateTime",
    "StudyTime",
    "SeriesTime",
    "AcquisitionTime",
    "Modality",
    "SeriesDescription",
    "PatientID",
    "PatientBirthDate",
    "PatientAge",
    "ContrastBolusAgent",
    "ContrastBolusAgentSequence",
    "ScanningSequence",
    "SliceThickness",
    "RepetitionTime",
    "EchoTime",
    "InversionTime",
    "ProtocolName",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BurnedInAnnotation",
    "PixelSpacing",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)
# What pydicom 3 raises on damaged files, as fuzzing found, beside errors of its own.
_PYDICOM_ERRORS = (
    OSError,
    EOFError,
    ValueError,  # also UnicodeError
    LookupError,
    AttributeError,
    TypeError,
    ArithmeticError,
    RuntimeError,  # also RecursionError and NotImplementedError
    AssertionError,
    MemoryError,  # a length that no file has
    struct.error,
)


@dataclass(frozen=True, slots=True)
class Header:
    """One file's header; a text that is missing is empty, a number None."""

    path: Path
    patient: str
    study: str
    series: str
    instance: str
    study_date: str
    """`YYYYMMDD`, of the study, else of the series or acquisition."""
    study_time: str
    age_years: int | None
    number: int | None
    description: str
    protocol: str
    modality: str
    sop_class: str
    image_type: tuple[str, ...]
    scanning_sequence: tuple[str, ...]
    photometric: str
    burned_in: bool
    contrast_agent: str
    echo_ms: float | None
    repetition_ms: float | None
    inversion_ms: float | None
    started: str
    rows: int
    columns: int
    thickness_mm: float | None
    slices: tuple[Slice, ...]
    """One, or one a frame of an enhanced file; none where the file doesn't say where it lies."""


@functools.cache
def pydicom() -> Any:
    """The library, which is an extra.

    Raises:
        NotReadyError: It isn't installed.
    """
    try:
        return importlib.import_module("pydicom")
    except ImportError:
        raise NotReadyError(
            "DICOM files are read by pydicom, which isn't installed", hint=INSTALL_HINT
        ) from None


def is_dicom(stream: BinaryIO) -> bool:
    """Whether a file begins as DICOM does: by its magic, or (old files) by a tag of group 8."""
    start = stream.read(_MAGIC_AT + 4)
    stream.seek(0)
    if start[_MAGIC_AT:] == b"DICM":
        return True
    return len(start) > _MAGIC_AT and start[:2] == b"\x08\x00" and start[2] < 0x40 and not start[3]


def read_header(path: Path) -> Header | None:
    """Read a file's header; None where it isn't a DICOM file, or lists others (DICOMDIR).

    Raises:
        ScanError: It is a DICOM file, but damaged, cut off, or belongs to no series.
        NotReadyError: pydicom isn't installed.
    """
    library = pydicom()
    try:
        with (
            path.open("rb") as stream,
            warnings.catch_warnings(),
            library.config.disable_value_validation(),
        ):
            warnings.simplefilter("ignore")  # what it warns of is judged here
            if not is_dicom(stream):
                return None
            _refuse_deflated(stream, library, path)
            dataset = library.dcmread(
                stream, stop_before_pixels=True, force=True, specific_tags=list(_TAGS)
            )
            if "DirectoryRecordSequence" in dataset or _is_directory(dataset):
                return None
            _refuse_cut_off(stream, dataset, path)
            return _header(dataset, path)
    except _errors_of(library) as error:
        raise ScanError(
            "The DICOM file is damaged or can't be read",
            found=f"{type(error).__name__}: {error}".splitlines()[0][: elements.MAX_TEXT],
            where=path,
            hint="export it again",
        ) from error


def _refuse_deflated(stream: BinaryIO, library: Any, path: Path) -> None:
    """Refuse what pydicom would unpack whole, however large; dcm2niix can't read it either."""
    has_magic = stream.read(_MAGIC_AT + 4).endswith(b"DICM")
    stream.seek(0)
    meta = library.filereader.read_file_meta_info(path) if has_magic else {}
    if str(meta.get("TransferSyntaxUID", "")) == _DEFLATED:
        raise ScanError(
            "The DICOM file is packed as a whole (deflated)",
            expected="a transfer syntax that dcm2niix reads",
            found=_DEFLATED,
            where=path,
            hint="export it without that packing",
        )


def _errors_of(library: Any) -> tuple[type[Exception], ...]:
    """All that it raises; two classes of its own derive from none of the usual ones."""
    own = (library.errors.InvalidDicomError, library.errors.BytesLengthException)
    return (*_PYDICOM_ERRORS, *own)


def _is_directory(dataset: Any) -> bool:
    meta = getattr(dataset, "file_meta", None)
    return str(getattr(meta, "MediaStorageSOPClassUID", "")) == "1.2.840.10008.1.3.10"


def _refuse_cut_off(stream: BinaryIO, dataset: Any, path: Path) -> None:
    """Hold the length of the pixels against what is left of the file behind the header."""
    implicit, little = dataset.original_encoding
    start = stream.tell()
    element = stream.read(12)
    order = "<" if little else ">"
    if len(element) == 12 and struct.unpack(f"{order}H", element[:2])[0] == 0x7FE0:
        first = start + (8 if implicit else 12)
        (length,) = struct.unpack_from(f"{order}I", element, 4 if implicit else 8)
        end = stream.seek(0, 2)
        if length != 0xFFFFFFFF and end - first < length:
            raise ScanError(
                "The DICOM file is cut off",
                expected=f"{length} bytes of pixels",
                found=f"{end - first} bytes",
                where=path,
                hint="export it again",
            )


def _header(dataset: Any, path: Path) -> Header:
    series, study = (
        elements.text(dataset, "SeriesInstanceUID"),
        elements.text(dataset, "StudyInstanceUID"),
    )
    if not series or not study:
        raise ScanError(
            "The DICOM file says of no series that it belongs to it",
            expected="SeriesInstanceUID and StudyInstanceUID",
            where=path,
            hint="it may be cut off: export it again",
        )
    groups = elements.Groups(dataset)
    dates_ = [
        elements.text(dataset, name) for name in ("StudyDate", "SeriesDate", "AcquisitionDate")
    ]
    day = next((date for date in dates_ if elements.date(date)), "")
    return Header(
        path=path,
        patient=elements.text(dataset, "PatientID"),
        study=study,
        series=series,
        instance=elements.text(dataset, "SOPInstanceUID"),
        study_date=day,
        study_time=elements.text(dataset, "StudyTime"),
        age_years=elements.age_years(dataset, day),
        number=elements.integer(dataset, "SeriesNumber"),
        description=elements.text(dataset, "SeriesDescription"),
        protocol=elements.text(dataset, "ProtocolName"),
        modality=elements.text(dataset, "Modality"),
        sop_class=elements.text(dataset, "SOPClassUID"),
        image_type=elements.texts(dataset, "ImageType"),
        scanning_sequence=elements.texts(dataset, "ScanningSequence"),
        photometric=elements.text(dataset, "PhotometricInterpretation"),
        burned_in=elements.text(dataset, "BurnedInAnnotation").upper() == "YES",
        contrast_agent=elements.agent(dataset),
        echo_ms=groups.number("EchoTime", "EffectiveEchoTime"),
        repetition_ms=groups.number("RepetitionTime"),
        inversion_ms=groups.number("InversionTime", "InversionTimes"),
        started=elements.started(dataset),
        rows=elements.integer(dataset, "Rows") or 0,
        columns=elements.integer(dataset, "Columns") or 0,
        thickness_mm=groups.number("SliceThickness"),
        slices=tuple(groups.slices()),
    )
