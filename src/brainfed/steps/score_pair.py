"""One ready label map against a reader's: both files read, held against each other, scored."""

# SimpleITK's wrapper has no types.
# mypy: disable-error-code="no-untyped-call, no-any-return"

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813 - the name that all of its documentation uses

from brainfed.core.flaws import Flaw, FlawedScanError
from brainfed.core.labels import LabelProtocol, region_mask
from brainfed.core.metrics import Measure
from brainfed.core.surface import farthest_mm
from brainfed.core.volume import Geometry, geometry_of, resample, turned
from brainfed.errors import ScanError
from brainfed.formats import nifti, scan
from brainfed.formats.found_case import ScanFile
from brainfed.formats.scan_folder import patient_and_visit
from brainfed.formats.score_journal import MeasuredCase
from brainfed.plan import Evaluation, Region
from brainfed.steps.measure_outlines import Outlines, measure, packed

Labels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Pair:
    """One case: its two files."""

    case: str
    prediction: Path | None
    """None where there is none: a miss."""
    truth: Path
    protocol: LabelProtocol
    """What the values mean, in both files."""
    resample: bool
    """Whether a prediction on another grid is brought onto that of the truth, to the nearest voxel;
    else it is refused."""
    is_nominal: bool
    """Whether the spacing in the headers is a convention."""
    regions: tuple[Region, ...]
    evaluation: Evaluation


def score_pair(pair: Pair) -> MeasuredCase | ScanError:
    """Score one case, or say what is wrong with its files."""
    try:
        digest, truth, prediction = digest_of(pair), *_read(pair)
    except ScanError as error:
        return error
    labels, geometry = truth
    if prediction is None:
        prediction = np.zeros_like(labels)
    protocol, regions = pair.protocol, pair.regions
    measured = measure(
        Outlines(
            case=pair.case,
            patient=patient_and_visit(pair.case)[0],
            digest=digest,
            is_complete=True,
            is_nominal=pair.is_nominal,
            regions=regions,
            shape=labels.shape,
            predicted=packed([region_mask(prediction, protocol, region) for region in regions]),
            true=packed([region_mask(labels, protocol, region) for region in regions]),
            besides=tuple({} for _ in regions),
            spacing_mm=geometry.spacing_mm[::-1],
            evaluation=pair.evaluation,
        )
    )
    return measured if pair.prediction else _as_missed(measured, labels.shape, geometry)


def digest_of(pair: Pair) -> str:
    """SHA-256 (hexadecimal) over both files.

    Raises:
        FlawedScanError: One can't be read.
    """
    digest = hashlib.sha256()
    for path in (pair.truth, pair.prediction):
        with nifti.located(path):
            digest.update((nifti.digest_of_file(path) if path else "none").encode())
    return digest.hexdigest()


def _read(pair: Pair) -> tuple[tuple[Labels, Geometry], Labels | None]:
    """The true labels and where they lie, and the predicted ones on the same grid."""
    true = _labels(pair.truth, pair.protocol)
    there = geometry_of(true)
    predicted = None
    if pair.prediction is not None:
        image = _labels(pair.prediction, pair.protocol)
        here = geometry_of(image)
        difference = here.difference(there)
        if difference is not None and not pair.resample:
            raise _other_grid(pair.prediction, here, there)
        if difference is not None:
            image = resample(image, there, nearest=True)
        predicted = sitk.GetArrayFromImage(image)
    return (sitk.GetArrayFromImage(true), there), predicted


def _labels(path: Path, protocol: LabelProtocol) -> sitk.Image:
    """A label map, axes along LPS."""
    try:
        return turned(scan.read_label(ScanFile(path), protocol).image)
    except FlawedScanError as error:
        if error.flaw is Flaw.LABEL_VALUES:
            _refuse_probabilities(path, error)
        raise


def _refuse_probabilities(path: Path, error: FlawedScanError) -> None:
    """Say it of a map of probabilities that it is one, not that its values are unknown."""
    stored = nifti.read(path).stored
    if stored.dtype.kind == "f" and not np.array_equal(stored, np.rint(stored)):
        refused = ScanError(
            "This is a map of probabilities or scores, not of labels",
            expected="whole numbers, as the protocol has them",
            found=f"values from {stored.min():.3g} to {stored.max():.3g}, with fractions",
            where=path,
            hint="have the other software write label maps, or cut the probabilities and give each "
            "voxel its label",
        )
        raise refused from error


def _other_grid(path: Path, here: Geometry, there: Geometry) -> ScanError:
    return ScanError(
        "Prediction and truth lie on different grids",
        expected=_words(there),
        found=_words(here),
        where=path,
        hint="export both on one grid; or --resample brings each prediction onto the grid of the "
        "truth, to the nearest voxel, which changes the scores",
    )


def _words(geometry: Geometry) -> str:
    def numbers(values: Iterable[float]) -> str:
        return ", ".join(f"{value:.6g}" for value in values)

    return (
        f"size {numbers(geometry.size)}; spacing {numbers(geometry.spacing_mm)} mm; "
        f"origin {numbers(geometry.origin_mm)} mm; direction {numbers(geometry.direction)}"
    )


def _as_missed(measured: MeasuredCase, shape: tuple[int, ...], geometry: Geometry) -> MeasuredCase:
    """The scores of a case without a prediction: nobody said that a region is empty there.

    Where the truth has tumour an empty prediction is a miss already. Where it has none, an empty
    prediction would be perfect, and a missing one must not be.
    """
    worst: dict[Measure, float] = {
        Measure.DICE: 0.0,
        Measure.NSD: 0.0,
        Measure.SENSITIVITY: 0.0,
        Measure.LESION_DICE: 0.0,
    }
    farthest = farthest_mm(shape, geometry.spacing_mm[::-1])
    worst |= dict.fromkeys(
        (Measure.HD95_SURFACE, Measure.HD95_POOLED, Measure.LESION_HD95), farthest
    )
    rows = tuple(
        replace(row, values={m: worst.get(m, value) for m, value in row.values.items()})
        for row in measured.rows
    )
    return replace(measured, rows=rows)
