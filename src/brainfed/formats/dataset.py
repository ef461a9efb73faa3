"""A site's cases, their index, and the split: local files, never exchanged.

`data/cases/<case id>.h5` holds one case, `data/cases.json` the index, `data/split.json` the split;
each has its page in `docs/formats/`. Case and patient ids are keyed hashes
(`formats.identities`), so none of these files holds a name.
"""

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from brainfed.core import canonical
from brainfed.core.cohort import Subset
from brainfed.core.labels import LabelProtocol, region_mask
from brainfed.errors import NotReadyError, ScanError
from brainfed.formats import atomic, identities, review
from brainfed.formats.case_file import Case, Quality, Source, read_case, write_case
from brainfed.formats.review import Decision, Verdict
from brainfed.plan import Region, SplitRule

# Case files have a module of their own; whoever works on a dataset needs only this one.
__all__ = ["Case", "Quality", "Source", "Subset", "Verdict", "read_case", "write_case"]

INDEX_FORMAT = "brainfed-cases-0"
SPLIT_FORMAT: Literal["brainfed-split-1"] = "brainfed-split-1"

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
    verdict: Verdict = Verdict.OK
    """A held case is not used until a person accepts it (`formats.review`)."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True)
class SkippedCase:
    """A case that was left out with `--skip-incomplete`, and why, without its name."""

    id: Id
    reason: str

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


class ExclusionReason(StrEnum):
    """Why a case was taken out for good."""

    WITHDRAWN = "withdrawn"
    """The patient took the consent back."""
    OPTED_OUT = "opted-out"
    """The patient objected, where none had been asked for consent."""
    DUPLICATE = "duplicate"
    BAD_LABEL = "bad-label"
    BAD_SCAN = "bad-scan"

    @property
    def is_of_the_patient(self) -> bool:
        """Whether it holds for all cases of the patient, those to come included."""
        return self in {ExclusionReason.WITHDRAWN, ExclusionReason.OPTED_OUT}


@dataclass(frozen=True, slots=True)
class ExcludedCase:
    """A case that was erased, and is not made again: by keyed ids, which need the site's key."""

    id: Id
    patient: Id | None
    """None where only the case was known, since it had been refused."""
    reason: ExclusionReason

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """All cases of a site, in the order of their ids."""

    format: Annotated[str, Field(pattern=f"^{INDEX_FORMAT}$")] = INDEX_FORMAT
    data_digest: Digest
    """Digest of the plan's data tables, the same for all cases."""
    cases: tuple[CaseEntry, ...]
    skipped: tuple[SkippedCase, ...] = ()
    excluded: tuple[ExcludedCase, ...] = ()
    """In the order of their ids; each command that writes the index keeps them."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def why_excluded(self, case_id: str, patient_id: str) -> ExclusionReason | None:
        """Why a case must not be made, be it a new one of a patient who withdrew; None if it may.

        The ids are those of `identities`, so a renamed folder is not recognised.
        """
        return next(
            (
                entry.reason
                for entry in self.excluded
                if entry.id == case_id
                or (entry.patient == patient_id and entry.reason.is_of_the_patient)
            ),
            None,
        )


class LeftOut(StrEnum):
    """Why a case is in no subset."""

    HELD = "held"  # and nobody has accepted it as it is now
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitFile:
    """Which subset each patient belongs to, and which cases are in none."""

    format: Literal["brainfed-split-0", "brainfed-split-1"] = SPLIT_FORMAT
    """Version 0 had no `left_out`."""
    rule: SplitRule
    seed: Annotated[int, Field(ge=0)]
    assignments: dict[Id, Subset] = field(default_factory=dict)
    """Subset by patient id; patients whose cases are gone or left out keep theirs."""
    left_out: dict[Id, LeftOut] = field(default_factory=dict)
    """Cases that a person rejected or hasn't accepted, by case id."""

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
        tumour_lost_fraction=case.quality.tumour_lost_fraction,
        present=case.present,
        source_digest=case.source.digest,
        scan_digests=case.source.scan_digests,
        verdict=case.quality.verdict,
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
    index: Index = _read(index_path(data_folder), _INDEX, PREPROCESS)
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
    # Without cases there is nothing to divide yet.
    command = "brainfed split" if index_path(data_folder).exists() else PREPROCESS
    split: SplitFile = _read(split_path(data_folder), _SPLIT, command)
    return split


PREPROCESS = "brainfed preprocess SCANS --labels PROTOCOL"


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


def left_out(data_folder: Path, entries: Iterable[CaseEntry]) -> dict[str, LeftOut]:
    """The cases that must not be used, by what the review says now, and why.

    Raises:
        ScanError: The review is damaged.
    """
    rows = review.read(data_folder)
    result: dict[str, LeftOut] = {}
    for entry in entries:
        row = rows.get(entry.id)
        # Accepted is what was looked at, not whatever the file holds by now.
        is_accepted = row is not None and row.accepts(entry.digest)
        if row is not None and row.decision is Decision.REJECT:
            result[entry.id] = LeftOut.REJECTED
        elif entry.verdict is not Verdict.OK and not is_accepted:
            result[entry.id] = LeftOut.HELD
    return result


def cases_of(data_folder: Path, subset: Subset) -> tuple[CaseEntry, ...]:
    """The cases of one subset, in the order of their ids; never one that was left out.

    Raises:
        NotReadyError: No index or split yet; or patients have joined, or a person has decided
            about cases, since the split.
        ScanError: Index, split or review is damaged.
    """
    entries = read_index(data_folder)
    split = read_split(data_folder)
    out = left_out(data_folder, entries)
    if any(out.get(entry.id) is not split.left_out.get(entry.id) for entry in entries):
        raise NotReadyError(
            "Cases are held, rejected or accepted now that were not when the split was made",
            where=review.path_of(data_folder),
            hint="run `brainfed split`; it obeys the review",
        )
    used = [entry for entry in entries if entry.id not in out]
    if any(entry.patient not in split.assignments for entry in used):
        raise NotReadyError(
            "Patients have joined since the split was made",
            where=split_path(data_folder),
            hint="run `brainfed split`; those assigned before stay where they are",
        )
    return tuple(entry for entry in used if split.assignments[entry.patient] is subset)


def dataset_digest(entries: Iterable[CaseEntry]) -> str:
    """SHA-256 (hexadecimal) over all cases and what is in them, independent of their order."""
    pairs = sorted([entry.id, entry.digest] for entry in entries)
    return hashlib.sha256(canonical.dumps(pairs)).hexdigest()


def split_digest(data_folder: Path) -> str:
    """HMAC-SHA256 (hexadecimal) of the split under the site's key.

    Over the assignments, and the cases that are left out if there are any.

    Keyed, so that nobody without the key can try out patient ids or assignments.

    Raises:
        NotReadyError: No split or identities yet.
        ScanError: They are damaged.
    """
    split = read_split(data_folder)
    content: dict[str, Any] = {patient: str(s) for patient, s in split.assignments.items()}
    if split.left_out:
        content = {"assignments": content, "left_out": sorted(split.left_out)}
    key = identities.read(data_folder).key
    return hmac.new(key, b"split\0" + canonical.dumps(content), hashlib.sha256).hexdigest()
