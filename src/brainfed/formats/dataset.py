"""A site's cases, their index, and the split: local files, never exchanged.

`data/cases/<case id>.h5` holds one case, `data/cases.json` the index, `data/split.json` the split;
`docs/formats/dataset.md` describes them. Case and patient ids are keyed hashes
(`formats.identities`), so none of these files holds a name.
"""

import hashlib
import hmac
import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar

import h5py
import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from brainfed.core import canonical
from brainfed.core.labels import LabelProtocol
from brainfed.core.volume import Geometry
from brainfed.errors import NotReadyError, ScanError
from brainfed.formats import atomic, identities
from brainfed.plan import SplitRule

CASE_FORMAT = "brainfed-case-0"
INDEX_FORMAT = "brainfed-cases-0"
SPLIT_FORMAT = "brainfed-split-0"

Id = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]


class Subset(StrEnum):
    """The three parts of a site's patients."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Source:
    """What a case was made from, by digest; decides whether it must be made again."""

    digest: str
    """SHA-256 over the bytes of all scan files."""
    scan_digests: tuple[str, ...]
    """SHA-256 of the voxels of each scan that must not occur twice (`formats.scan`)."""
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


@dataclass(frozen=True, slots=True)
class CaseEntry:
    """What the index holds of a case."""

    id: Id
    patient: Id
    digest: Digest
    """SHA-256 of the case file."""
    n_slices: Count
    n_tumour_voxels: Count
    """Voxels of the whole tumour on the plan's grid."""
    protocol: LabelProtocol
    tumour_lost_fraction: Annotated[float, Field(ge=0, le=1)]
    present: tuple[bool, ...]
    source_digest: Digest
    scan_digests: tuple[Digest, ...]

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True)
class SkippedCase:
    """A case that was left out with `--skip-incomplete`, and why, without its name."""

    id: Id
    reason: str

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """All cases of a site, in the order of their ids."""

    format: Annotated[str, Field(pattern=f"^{INDEX_FORMAT}$")] = INDEX_FORMAT
    data_digest: Digest
    """Digest of the plan's data tables, the same for all cases."""
    cases: tuple[CaseEntry, ...]
    skipped: tuple[SkippedCase, ...] = ()

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitFile:
    """Which subset each patient belongs to."""

    format: Annotated[str, Field(pattern=f"^{SPLIT_FORMAT}$")] = SPLIT_FORMAT
    rule: SplitRule
    seed: Annotated[int, Field(ge=0)]
    assignments: dict[Id, Subset] = field(default_factory=dict)
    """Subset by patient id; patients whose cases are gone keep theirs."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


_INDEX = TypeAdapter(Index)
_SPLIT = TypeAdapter(SplitFile)


def case_path(data_folder: Path, case_id: str) -> Path:
    """Where a case lies."""
    return data_folder / "cases" / f"{case_id}.h5"


def index_path(data_folder: Path) -> Path:
    """Where the index lies."""
    return data_folder / "cases.json"


def split_path(data_folder: Path) -> Path:
    """Where the split lies."""
    return data_folder / "split.json"


def write_case(path: Path, case: Case) -> str:
    """Write a case file, in place of an older one; gives its SHA-256.

    Raises:
        ResourceError: The disk refuses.
    """
    n_modalities, _, n_rows, n_columns = case.image.shape
    slice_chunk = (1, n_rows, n_columns)
    with atomic.new_path(path, mode=0o600, replace=True) as temporary:
        with h5py.File(temporary, "w") as file:
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
        with temporary.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()


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


def write_index(data_folder: Path, index: Index) -> None:
    """Write the index, in place of an older one.

    Raises:
        ResourceError: The disk refuses.
    """
    data = _INDEX.dump_json(index, indent=1) + b"\n"
    atomic.write_bytes(index_path(data_folder), data, mode=0o600, replace=True)


def read_whole_index(data_folder: Path) -> Index:
    """Read the index with what stands in it besides the cases.

    Raises:
        NotReadyError: There is none yet.
        ScanError: It is damaged.
    """
    index: Index = _read(index_path(data_folder), _INDEX, "brainfed preprocess")
    return index


def read_index(data_folder: Path) -> tuple[CaseEntry, ...]:
    """The cases in the index, in the order of their ids; errors as of `read_whole_index`."""
    return read_whole_index(data_folder).cases


def write_split(data_folder: Path, split: SplitFile) -> None:
    """Write the split, in place of an older one.

    Raises:
        ResourceError: The disk refuses.
    """
    data = _SPLIT.dump_json(split, indent=1) + b"\n"
    atomic.write_bytes(split_path(data_folder), data, mode=0o600, replace=True)


def read_split(data_folder: Path) -> SplitFile:
    """Read the split.

    Raises:
        NotReadyError: There is none yet.
        ScanError: It is damaged.
    """
    split: SplitFile = _read(split_path(data_folder), _SPLIT, "brainfed split")
    return split


def _read(path: Path, adapter: TypeAdapter[Any], command: str) -> Any:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise NotReadyError(
            f"There is no {path.name} yet", where=path, hint=f"run `{command}` first"
        ) from None
    except OSError as error:
        raise ScanError(f"{path.name} can't be read", found=error.strerror, where=path) from error
    try:
        return adapter.validate_json(data, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ScanError(
            f"{path.name} is damaged",
            expected=first["msg"],
            found=".".join(str(part) for part in first["loc"]),
            where=path,
            hint=f"move it away and run `{command}` again",
        ) from None


def cases_of(data_folder: Path, subset: Subset) -> tuple[CaseEntry, ...]:
    """The cases of one subset, in the order of their ids.

    Raises:
        NotReadyError: No index or split yet, or patients have joined since the split.
        ScanError: Index or split is damaged.
    """
    entries = read_index(data_folder)
    assignments = read_split(data_folder).assignments
    if any(entry.patient not in assignments for entry in entries):
        raise NotReadyError(
            "Patients have joined since the split was made",
            where=split_path(data_folder),
            hint="run `brainfed split`; those assigned before stay where they are",
        )
    return tuple(entry for entry in entries if assignments[entry.patient] is subset)


def dataset_digest(entries: Iterable[CaseEntry]) -> str:
    """SHA-256 (hexadecimal) over all cases and what is in them, independent of their order."""
    pairs = sorted([entry.id, entry.digest] for entry in entries)
    return hashlib.sha256(canonical.dumps(pairs)).hexdigest()


def split_digest(data_folder: Path) -> str:
    """HMAC-SHA256 (hexadecimal) of the assignments under the site's key.

    Keyed, so that nobody without the key can try out patient ids or assignments.

    Raises:
        NotReadyError: No split or identities yet.
        ScanError: They are damaged.
    """
    content = {patient: str(s) for patient, s in read_split(data_folder).assignments.items()}
    key = identities.read(data_folder).key
    return hmac.new(key, b"split\0" + canonical.dumps(content), hashlib.sha256).hexdigest()
