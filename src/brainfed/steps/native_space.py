"""Outlines brought back onto the scan that a reader drew the label on, and that label itself."""

# SimpleITK's wrapper has no types.
# mypy: disable-error-code="no-untyped-call, no-any-return"

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813 - the name that all of its documentation uses

from brainfed.core.inference import THRESHOLD
from brainfed.core.labels import region_mask
from brainfed.core.rigid import Matrix, invert, transform
from brainfed.core.volume import Geometry, resample, to_image
from brainfed.errors import NotReadyError, ScanError
from brainfed.formats import cache, cases_csv, identities
from brainfed.formats.cache import CaseCache
from brainfed.formats.case_file import Native
from brainfed.formats.dataset import Case
from brainfed.formats.found_case import FoundCase
from brainfed.formats.scan import Scan
from brainfed.plan import Modality, Plan, Space
from brainfed.steps import align, read_scans
from brainfed.steps.read_scans import Scans

Mask = npt.NDArray[np.bool_]
AGAIN = "put the scans back as they were, or run `brainfed preprocess` again and then this"


@dataclass(frozen=True, slots=True)
class OnScan:
    """The outlines of one case on the grid of the scan that its label was drawn on."""

    predicted: tuple[Mask, ...]
    """By region, each `(z, y, x)`, axes along LPS."""
    true: tuple[Mask, ...]
    """The reader's own."""
    spacing_mm: tuple[float, float, float]
    """`(z, y, x)`."""


def scans_by_case(data_folder: Path) -> dict[str, FoundCase]:
    """Which file is what, by case id, as `data/cases.csv` says.

    Raises:
        NotReadyError: There is no such table.
        ScanError: The table or the identities are damaged.
    """
    table = data_folder / cases_csv.FILE_NAME
    if not table.exists():
        raise NotReadyError(
            "Nothing says where the scans of the cases are",
            expected="a table of cases",
            where=table,
            hint="`brainfed check SCANS --labels PROTOCOL` writes it",
        )
    known = identities.read(data_folder)
    return {known.case_id(case.name): case for case in cases_csv.read(table)}


def bring_back(
    probability: npt.NDArray[np.float32],
    case: Case,
    plan: Plan,
    *,
    data_folder: Path,
    scans: Mapping[str, FoundCase],
) -> OnScan:
    """Resample each region's probability onto the label's own grid, linearly, and cut it at 0.5.

    Args:
        probability: `(region, z, y, x)` on the grid of the case.
        case: The case.
        plan: The plan that it was made under.
        data_folder: Of the site.
        scans: Of `scans_by_case`.

    Raises:
        ScanError: The scans are not there any more, or are not those that the case was made from;
            or the label was drawn on a scan that the plan doesn't take.
        NotReadyError: DICOM, and no converter is installed.
    """
    read = _read(case, plan, data_folder, scans)
    assert read.label is not None
    native = _drawn_on(case, plan, read)
    onto = read.label.geometry
    predicted = outlines_on(onto, native.matrix, probability, case.geometry)
    label = sitk.GetArrayFromImage(read.label.image)
    return OnScan(
        predicted=predicted,
        true=tuple(region_mask(label, case.protocol, region) for region in plan.scans.regions),
        spacing_mm=onto.spacing_mm[::-1],
    )


def outlines_on(
    onto: Geometry,
    matrix: Matrix,
    probability: npt.NDArray[np.float32],
    geometry: Geometry,
) -> tuple[Mask, ...]:
    """The outline of each region on the grid of a scan.

    Args:
        onto: That grid, its axes in any direction.
        matrix: Maps a point of the case to the point of the scan.
        probability: `(region, z, y, x)` on the grid of the case.
        geometry: That grid.

    Returns:
        `(z, y, x)` each, along the axes of `onto`.
    """
    way = transform(invert(matrix))
    return tuple(
        sitk.GetArrayFromImage(resample(to_image(part, geometry), onto, way)) > THRESHOLD
        for part in probability
    )


def _read(case: Case, plan: Plan, data_folder: Path, scans: Mapping[str, FoundCase]) -> Scans:
    """The scans of a case, which must be those that it was made from."""
    where = f"case {case.id}"
    found = scans.get(case.id)
    if found is None or found.label is None:
        raise ScanError(
            "Nothing says where the label of a case is",
            expected=f"its row in {cases_csv.FILE_NAME}, with a label",
            where=where,
            hint="`brainfed check SCANS --labels PROTOCOL` adds what the table lacks",
        )
    others = [m for m in Modality if m not in plan.scans.modalities]
    read = read_scans.read_scans(
        found,
        plan.scans.modalities,
        others=[] if plan.preparation.space is Space.SCAN else others,
        protocol=case.protocol,
        kept=CaseCache(cache.folder_of(data_folder, case.id)),
    )
    if read.label is None or read_scans.distinctive(read) != case.source.scan_digests:
        raise ScanError(
            "The scans of a case are not those that it was made from",
            where=where,
            hint=AGAIN,
        )
    return read


def _drawn_on(case: Case, plan: Plan, read: Scans) -> Native:
    """The place of the scan that the label was drawn on; the rule is that of `steps.align`."""
    assert read.label is not None
    label: Scan = read.label
    reference = align.reference_of(read.images, plan.preparation)
    fitting = read_scans.fitting_grids(label.geometry, read.images, reference)
    if not fitting:
        raise read_scans.stray("label", label, read.images, reference)
    modalities = plan.scans.modalities
    native = case.natives[modalities.index(fitting[0])] if fitting[0] in modalities else None
    if native is None:
        raise ScanError(
            f"The label was drawn on the {fitting[0]}, whose place the case doesn't hold",
            expected=" or ".join(str(modality) for modality in modalities),
            where=f"case {case.id}",
            hint="such a case can be scored on the plan's grid alone: leave out --space native",
        )
    return native
