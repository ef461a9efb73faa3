"""A case file, `data/cases/<case id>.h5`: one visit of a patient on the plan's grid, as HDF5.

Local to the site, never exchanged; `docs/formats/case.md` describes it. It holds no name.
"""

import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from brainfed.core.labels import LabelProtocol
from brainfed.core.rigid import Matrix
from brainfed.core.volume import Geometry
from brainfed.errors import ScanError
from brainfed.formats import atomic
from brainfed.formats.found_case import LabelOrigin
from brainfed.formats.review import Verdict

CASE_FORMAT = "brainfed-case-1"

IDENTITY: Matrix = (1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@dataclass(frozen=True, slots=True)
class Native:
    """Where a modality came from; with it an outline can be brought back to the scan."""

    geometry: Geometry
    """The scan's own grid."""
    matrix: Matrix
    """Maps a point of the case to the point of the scan."""


@dataclass(frozen=True, slots=True)
class Source:
    """What a case was made from, by digest; decides whether it must be made again."""

    digest: str
    """SHA-256 over the bytes of all scan files."""
    scan_digests: tuple[str, ...]
    """SHA-256 of the voxels of each scan that must not occur twice (`formats.nifti`)."""
    recipe: str
    """SHA-256 over the code, the libraries and the answers that made it."""


@dataclass(frozen=True, slots=True)
class Quality:
    """What a person should know of a case before it is used."""

    verdict: Verdict
    findings: tuple[str, ...]
    """In sentences, without a name."""
    tumour_lost_fraction: float
    """Share of the tumour outside the plan's grid, 0 to 1."""
    tumour_outside_brain_fraction: float
    """Share of the tumour outside the brain mask, 0 to 1."""
    brain_lost_fraction: float
    """Share of the brain outside the plan's grid, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Case:
    """One visit of a patient on the plan's grid."""

    id: str
    """Keyed hash, 16 hexadecimal digits."""
    patient: str
    """Keyed hash, 16 hexadecimal digits."""
    image: npt.NDArray[np.float16]
    """`(modality, z, y, x)`, z-scored; modalities in the plan's order, a missing one is zero."""
    label: npt.NDArray[np.uint8]
    """`(z, y, x)`, values of the protocol."""
    brain_mask: npt.NDArray[np.bool_]
    """`(z, y, x)`."""
    protocol: LabelProtocol
    label_origin: LabelOrigin | None
    """Who drew the label; None where nobody has said."""
    spacing_mm: tuple[float, float, float]
    """Distance of the voxels, `(z, y, x)`."""
    spacing_nominal: bool
    """Whether the spacing is a convention, not a measurement; then volumes mean nothing."""
    present: tuple[bool, ...]
    """Whether each modality was there."""
    data_digest: str
    """Digest of the plan's data tables."""
    natives: tuple[Native | None, ...]
    """Of each modality; None where it is missing."""
    geometry: Geometry
    """The grid of this case."""
    quality: Quality
    source: Source


def write_case(path: Path, case: Case) -> str:
    """Write a case file, in place of an older one; gives its SHA-256.

    Raises:
        ResourceError: The disk refuses.
    """
    n_modalities, _, n_rows, n_columns = case.image.shape
    slice_chunk = (1, n_rows, n_columns)
    # In memory: on a full disk HDF5 flushes into the void, says nothing, and then crashes.
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file.create_dataset(
            "image", data=case.image, chunks=(n_modalities, *slice_chunk), compression="lzf"
        )
        file.create_dataset("label", data=case.label, chunks=slice_chunk, compression="lzf")
        file.create_dataset(
            "brain_mask",
            data=case.brain_mask.astype(np.uint8),
            chunks=slice_chunk,
            compression="lzf",
        )
        file.attrs.update(_attributes(case))
    data = content.getvalue()
    atomic.write_bytes(path, data, mode=0o600, replace=True)
    return hashlib.sha256(data).hexdigest()


def _attributes(case: Case) -> dict[str, Any]:
    return {
        "format": CASE_FORMAT,
        "id": case.id,
        "patient": case.patient,
        "protocol": str(case.protocol),
        "label_origin": str(case.label_origin or ""),
        "spacing_mm": case.spacing_mm,
        "spacing_nominal": case.spacing_nominal,
        "present": case.present,
        "data_digest": case.data_digest,
        "source_digest": case.source.digest,
        "scan_digests": " ".join(case.source.scan_digests),
        "recipe": case.source.recipe,
        "verdict": str(case.quality.verdict),
        "findings": "\n".join(case.quality.findings),
        "tumour_lost_fraction": case.quality.tumour_lost_fraction,
        "tumour_outside_brain_fraction": case.quality.tumour_outside_brain_fraction,
        "brain_lost_fraction": case.quality.brain_lost_fraction,
        **_geometry_attributes("geometry", case.geometry),
        **_native_attributes(case.natives),
    }


def _geometry_attributes(name: str, geometry: Geometry) -> dict[str, Any]:
    return {
        f"{name}_size": geometry.size,
        f"{name}_spacing_mm": geometry.spacing_mm,
        f"{name}_origin_mm": geometry.origin_mm,
        f"{name}_direction": geometry.direction,
    }


def _native_attributes(natives: tuple[Native | None, ...]) -> dict[str, Any]:
    """A row for each modality; that of a missing one is zeros."""

    def rows(values: list[Matrix], width: int) -> npt.NDArray[np.float64]:
        return np.array([value or (0.0,) * width for value in values], np.float64)

    grids = [native.geometry if native else None for native in natives]
    return {
        "native_size": rows([g.size if g else () for g in grids], 3).astype(np.int64),
        "native_spacing_mm": rows([g.spacing_mm if g else () for g in grids], 3),
        "native_origin_mm": rows([g.origin_mm if g else () for g in grids], 3),
        "native_direction": rows([g.direction if g else () for g in grids], 9),
        "native_matrix": rows([native.matrix if native else () for native in natives], 12),
    }


def read_case(path: Path, digest: str | None = None) -> Case:
    """Read a whole case.

    Args:
        path: The case file.
        digest: SHA-256 that the file must have; not compared where None.

    Raises:
        ScanError: The file is missing, damaged, or not the one that the index names.
    """
    try:
        data = path.read_bytes()
        if digest is not None and hashlib.sha256(data).hexdigest() != digest:
            raise _damaged(path, "its digest is not the one in cases.json")
        with h5py.File(io.BytesIO(data), "r") as file:
            case = _parse_case(file)
    except (OSError, KeyError, ValueError, TypeError, IndexError, RuntimeError) as error:
        raise _damaged(path, error) from error
    shape = case.label.shape
    if (
        case.image.shape != (len(case.present), *shape)
        or case.brain_mask.shape != shape
        or case.geometry.size != shape[::-1]
        or len(case.natives) != len(case.present)
    ):
        raise _damaged(path, "image, label and mask are not on one grid")
    return case


def _parse_case(file: h5py.File) -> Case:
    attributes = file.attrs
    if attributes["format"] != CASE_FORMAT:
        raise ValueError(f"format {attributes['format']!r}")
    present = tuple(bool(flag) for flag in attributes["present"])
    image, label, mask = file["image"], file["label"], file["brain_mask"]
    if image.dtype != np.float16 or label.dtype != np.uint8 or mask.dtype != np.uint8:
        raise ValueError(f"types {image.dtype}, {label.dtype}, {mask.dtype}")
    return Case(
        id=str(attributes["id"]),
        patient=str(attributes["patient"]),
        image=image[()],
        label=label[()],
        brain_mask=mask[()].astype(np.bool_),
        protocol=LabelProtocol(attributes["protocol"]),
        label_origin=LabelOrigin(origin) if (origin := attributes["label_origin"]) else None,
        spacing_mm=_three(attributes["spacing_mm"]),
        spacing_nominal=bool(attributes["spacing_nominal"]),
        present=present,
        data_digest=str(attributes["data_digest"]),
        natives=tuple(
            _parse_native(attributes, row) if there else None for row, there in enumerate(present)
        ),
        geometry=_parse_geometry(attributes, "geometry"),
        quality=Quality(
            verdict=Verdict(attributes["verdict"]),
            findings=tuple(str(attributes["findings"]).splitlines()),
            tumour_lost_fraction=float(attributes["tumour_lost_fraction"]),
            tumour_outside_brain_fraction=float(attributes["tumour_outside_brain_fraction"]),
            brain_lost_fraction=float(attributes["brain_lost_fraction"]),
        ),
        source=Source(
            digest=str(attributes["source_digest"]),
            scan_digests=tuple(str(attributes["scan_digests"]).split()),
            recipe=str(attributes["recipe"]),
        ),
    )


def _parse_native(attributes: h5py.AttributeManager, row: int) -> Native:
    matrix = tuple(float(v) for v in attributes["native_matrix"][row])
    if len(matrix) != 12:
        raise ValueError(f"a matrix of {len(matrix)} numbers")
    return Native(_parse_geometry(attributes, "native", row), matrix)


def _parse_geometry(
    attributes: h5py.AttributeManager, name: str, row: int | None = None
) -> Geometry:
    def part(kind: str) -> Any:
        values = attributes[f"{name}_{kind}"]
        return values if row is None else values[row]

    x, y, z = (int(n) for n in part("size"))
    return Geometry(
        size=(x, y, z),
        spacing_mm=_three(part("spacing_mm")),
        origin_mm=_three(part("origin_mm")),
        direction=tuple(float(v) for v in part("direction")),
    )


def _three(values: Iterable[float]) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    return first, second, third


def _damaged(path: Path, reason: object) -> ScanError:
    return ScanError(
        "A case file is missing or damaged",
        found=reason,
        where=path,
        hint="run `brainfed preprocess` again; it makes again what is missing or damaged",
    )
