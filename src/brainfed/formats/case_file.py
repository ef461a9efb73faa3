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
from brainfed.core.volume import Geometry
from brainfed.errors import ScanError
from brainfed.formats import atomic

CASE_FORMAT = "brainfed-case-0"


@dataclass(frozen=True, slots=True)
class Source:
    """What a case was made from, by digest; decides whether it must be made again."""

    digest: str
    """SHA-256 over the bytes of all scan files."""
    scan_digests: tuple[str, ...]
    """SHA-256 of the voxels of each scan that must not occur twice (`formats.nifti`)."""
    tumour_lost_fraction: float
    """Share of the tumour's voxels outside the plan's grid."""


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
    spacing_mm: tuple[float, float, float]
    """Distance of the voxels, `(z, y, x)`."""
    spacing_nominal: bool
    """Whether the spacing is a convention, not a measurement; then volumes mean nothing."""
    present: tuple[bool, ...]
    """Whether each modality was there."""
    data_digest: str
    """Digest of the plan's data tables."""
    native: Geometry
    """The grid of the scans."""
    geometry: Geometry
    """The grid of this case."""
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
        "spacing_mm": case.spacing_mm,
        "spacing_nominal": case.spacing_nominal,
        "present": case.present,
        "data_digest": case.data_digest,
        "source_digest": case.source.digest,
        "scan_digests": " ".join(case.source.scan_digests),
        "tumour_lost_fraction": case.source.tumour_lost_fraction,
        **_geometry_attributes("native", case.native),
        **_geometry_attributes("geometry", case.geometry),
    }


def _geometry_attributes(name: str, geometry: Geometry) -> dict[str, Any]:
    return {
        f"{name}_size": geometry.size,
        f"{name}_spacing_mm": geometry.spacing_mm,
        f"{name}_origin_mm": geometry.origin_mm,
        f"{name}_direction": geometry.direction,
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
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise _damaged(path, error) from error
    shape = case.label.shape
    if (
        case.image.shape != (len(case.present), *shape)
        or case.brain_mask.shape != shape
        or case.geometry.size != shape[::-1]
    ):
        raise _damaged(path, "image, label and mask are not on one grid")
    return case


def _parse_case(file: h5py.File) -> Case:
    attributes = file.attrs
    if attributes["format"] != CASE_FORMAT:
        raise ValueError(f"format {attributes['format']!r}")
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
        spacing_mm=_three(attributes["spacing_mm"]),
        spacing_nominal=bool(attributes["spacing_nominal"]),
        present=tuple(bool(flag) for flag in attributes["present"]),
        data_digest=str(attributes["data_digest"]),
        native=_parse_geometry(attributes, "native"),
        geometry=_parse_geometry(attributes, "geometry"),
        source=Source(
            digest=str(attributes["source_digest"]),
            scan_digests=tuple(str(attributes["scan_digests"]).split()),
            tumour_lost_fraction=float(attributes["tumour_lost_fraction"]),
        ),
    )


def _parse_geometry(attributes: h5py.AttributeManager, name: str) -> Geometry:
    x, y, z = (int(n) for n in attributes[f"{name}_size"])
    return Geometry(
        size=(x, y, z),
        spacing_mm=_three(attributes[f"{name}_spacing_mm"]),
        origin_mm=_three(attributes[f"{name}_origin_mm"]),
        direction=tuple(float(v) for v in attributes[f"{name}_direction"]),
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
