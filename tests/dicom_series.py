"""Synthetic DICOM series, as a scanner would write them: made by pydicom, no patient in them."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)

from brainfed.core.volume import Geometry

DAY = "20240131"


def uid(*parts: str) -> str:
    """A UID that is the same for the same words."""
    return str(generate_uid(entropy_srcs=list(parts) or ["none"]))


def a_turned_geometry(
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float] = (5.0, 0.9, 0.9),
    *,
    degrees: tuple[float, float, float] = (0, 0, 0),
    plane: str = "axial",
) -> Geometry:
    """The geometry of slices `(z, y, x)` in a plane, turned about x, y and z, around the origin."""
    axes = {
        "axial": np.eye(3),
        "sagittal": np.array([[0, 0, 1], [1, 0, 0], [0, -1, 0]], float),
        "coronal": np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], float),
    }[plane]
    for axis, angle in enumerate(np.radians(degrees)):
        turn = np.eye(3)
        first, second = (axis + 1) % 3, (axis + 2) % 3
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[second, first], turn[first, second] = np.sin(angle), -np.sin(angle)
        axes = turn @ axes
    size, spacing = tuple(reversed(shape)), tuple(reversed(spacing_mm))
    origin = -axes @ ((np.array(size) - 1) * spacing) / 2
    return Geometry(
        size=(size[0], size[1], size[2]),
        spacing_mm=(spacing[0], spacing[1], spacing[2]),
        origin_mm=(float(origin[0]), float(origin[1]), float(origin[2])),
        direction=tuple(float(v) for v in axes.ravel()),
    )


def write_series(
    folder: Path,
    array: npt.NDArray[np.generic],
    geometry: Geometry,
    *,
    patient: str = "P1",
    study: str = "one",
    series: str = "1",
    description: str = "t1_mprage",
    tags: Mapping[str, Any] | None = None,
    charset: str = "ISO_IR 100",
    name: str = "IM{:04d}.dcm",
) -> str:
    """Write one classic MR series: one file a slice.

    Args:
        folder: Made where it is missing; several series may lie in one.
        array: `(z, y, x)`, whole numbers from 0 (or from -32768).
        geometry: Of the array, any orientation.
        patient: PatientID.
        study: A word; its UID follows from it and the patient.
        series: A word or number; its UID follows from it, the study and the patient.
        description: SeriesDescription.
        tags: More elements by keyword, over those given here; None takes one away.
        charset: SpecificCharacterSet; `\\` parts several.
        name: Name of a file, from the number of the slice.

    Returns:
        The SeriesInstanceUID.
    """
    folder.mkdir(parents=True, exist_ok=True)
    axes = np.array(geometry.direction).reshape(3, 3)
    common = _common(array, geometry, patient, study, series)
    common.SpecificCharacterSet = charset.split("\\") if "\\" in charset else charset
    common.SeriesDescription = description
    for z, plane in enumerate(array):
        slice_ = Dataset()
        slice_.update(common)
        position = np.array(geometry.origin_mm) + axes[:, 2] * z * geometry.spacing_mm[2]
        slice_.SOPInstanceUID = uid(str(common.SeriesInstanceUID), str(z))
        slice_.InstanceNumber = z + 1
        slice_.ImagePositionPatient = [_decimal(v) for v in position]
        slice_.ImageOrientationPatient = [_decimal(v) for v in (*axes[:, 0], *axes[:, 1])]
        slice_.PixelData = plane.astype("<i2" if common.PixelRepresentation else "<u2").tobytes()
        _set(slice_, tags or {})
        save(slice_, folder / name.format(z + 1))
    return str(common.SeriesInstanceUID)


def write_enhanced(
    path: Path,
    array: npt.NDArray[np.generic],
    geometry: Geometry,
    *,
    patient: str = "P1",
    study: str = "one",
    series: str = "1",
    description: str = "t1_mprage",
    tags: Mapping[str, Any] | None = None,
) -> str:
    """Write one series as an enhanced multi-frame MR file; arguments as `write_series`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    axes = np.array(geometry.direction).reshape(3, 3)
    file = _common(array, geometry, patient, study, series)
    file.SpecificCharacterSet, file.SeriesDescription = "ISO_IR 192", description
    file.SOPClassUID, file.SOPInstanceUID = EnhancedMRImageStorage, uid("enhanced", series)
    file.InstanceNumber, file.NumberOfFrames = 1, len(array)
    measures, timing, echo, orientation = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = file.PixelSpacing, file.SliceThickness
    timing.RepetitionTime, timing.FlipAngle = file.RepetitionTime, 9
    echo.EffectiveEchoTime = float(file.EchoTime)
    orientation.ImageOrientationPatient = [_decimal(v) for v in (*axes[:, 0], *axes[:, 1])]
    shared = Dataset()
    shared.PixelMeasuresSequence = Sequence([measures])
    shared.MRTimingAndRelatedParametersSequence = Sequence([timing])
    shared.MREchoSequence = Sequence([echo])
    shared.PlaneOrientationSequence = Sequence([orientation])
    file.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for z in range(len(array)):
        place, content, frame = Dataset(), Dataset(), Dataset()
        position = np.array(geometry.origin_mm) + axes[:, 2] * z * geometry.spacing_mm[2]
        place.ImagePositionPatient = [_decimal(v) for v in position]
        content.StackID, content.InStackPositionNumber = "1", z + 1
        content.DimensionIndexValues = [1, z + 1]
        frame.PlanePositionSequence = Sequence([place])
        frame.FrameContentSequence = Sequence([content])
        frames.append(frame)
    file.PerFrameFunctionalGroupsSequence = Sequence(frames)
    for keyword in ("PixelSpacing", "SliceThickness", "RepetitionTime", "EchoTime"):
        del file[keyword]
    file.PixelData = array.astype("<i2" if file.PixelRepresentation else "<u2").tobytes()
    _set(file, tags or {})
    save(file, path)
    return str(file.SeriesInstanceUID)


def save(dataset: Dataset, path: Path) -> None:
    """Write a dataset as a DICOM file, explicit little endian."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID", uid("none"))
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset(str(path), dataset, file_meta=meta, preamble=bytes(128))
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():
        warnings.simplefilter("ignore")
        file.save_as(path, enforce_file_format=True)


def _common(
    array: npt.NDArray[np.generic], geometry: Geometry, patient: str, study: str, series: str
) -> Dataset:
    spacing = geometry.spacing_mm
    file = Dataset()
    file.SOPClassUID = MRImageStorage
    file.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
    file.Modality, file.Manufacturer = "MR", "BRAINFED"
    file.PatientName, file.PatientID = "Doe^Jane", patient
    file.PatientBirthDate, file.PatientAge = "19640101", "060Y"
    file.StudyInstanceUID = uid(patient, study)
    file.SeriesInstanceUID = uid(patient, study, series)
    file.FrameOfReferenceUID = uid(patient, study, "frame")
    file.StudyDate = file.SeriesDate = file.AcquisitionDate = DAY
    file.StudyTime, file.SeriesTime = "100000", "100000"
    file.SeriesNumber = int(series) if series.isdigit() else 1
    file.ProtocolName, file.BodyPartExamined = "Head", "BRAIN"
    file.RepetitionTime, file.EchoTime, file.InversionTime = "2000", "3", "900"
    file.ScanningSequence, file.SequenceVariant = ["GR", "IR"], ["SP", "MP"]
    file.MRAcquisitionType, file.MagneticFieldStrength = "3D", "3"
    file.Rows, file.Columns = array.shape[1], array.shape[2]
    file.PixelSpacing = [_decimal(spacing[1]), _decimal(spacing[0])]
    file.SliceThickness = file.SpacingBetweenSlices = _decimal(spacing[2])
    file.PatientPosition, file.SamplesPerPixel = "HFS", 1
    file.PhotometricInterpretation = "MONOCHROME2"
    file.BitsAllocated = file.BitsStored = 16
    file.HighBit, file.PixelRepresentation = 15, int(np.min(array) < 0)
    return file


def _set(dataset: Dataset, tags: Mapping[str, Any]) -> None:
    """Set elements by keyword; what a scanner should not write but does is let through."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for keyword, value in tags.items():
            if value is not None:
                setattr(dataset, keyword, value)
            elif keyword in dataset:
                del dataset[keyword]


def _decimal(value: float) -> str:
    """As a decimal string of DICOM: 16 characters at the most."""
    return f"{value:.9f}"[:16]
