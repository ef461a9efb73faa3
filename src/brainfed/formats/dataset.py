"""A site's cases, their index, and the split: local files, never exchanged.

`data/cases/<case id>.h5` holds one case, `data/cases.json` the index, `data/split.json` the split;
each has its page in `docs/formats/`. Case and patient ids are keyed hashes
(`formats.identities`), so none of these files holds a name.
"""

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from brainfed.core import canonical
from brainfed.core.cohort import Subset
from brainfed.core.labels import LabelProtocol, region_mask
from brainfed.errors import NotReadyError, ScanError
from brainfed.formats import atomic, identities
from brainfed.formats.case_file import Case, Source, read_case, write_case
from brainfed.plan import Region, SplitRule

# Case files have a module of their own; whoever works on a dataset needs only this one.
__all__ = ["Case", "Source", "Subset", "read_case", "write_case"]

INDEX_FORMAT = "brainfed-cases-0"
SPLIT_FORMAT = "brainfed-split-0"

Id = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]


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
    spacing_mm: tuple[float, float, float]
    """`(z, y, x)`."""
    spacing_nominal: bool
    """Whether the spacing is a convention, not a measurement."""
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


def entry_of(case: Case, digest: str) -> CaseEntry:
    """What the index says of a case whose file has this SHA-256."""
    tumour = region_mask(case.label, case.protocol, Region.WT)
    return CaseEntry(
        id=case.id,
        patient=case.patient,
        digest=digest,
        n_slices=int(case.label.shape[0]),
        n_tumour_voxels=int(tumour.sum()),
        protocol=case.protocol,
        spacing_mm=case.spacing_mm,
        spacing_nominal=case.spacing_nominal,
        tumour_lost_fraction=case.source.tumour_lost_fraction,
        present=case.present,
        source_digest=case.source.digest,
        scan_digests=case.source.scan_digests,
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
