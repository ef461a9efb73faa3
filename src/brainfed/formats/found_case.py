"""A case as it was found: which file is what, before any plan is held against it.

Each layout of scans (BraTS folders, `cases.csv`, MSD, nnU-Net, BIDS, DICOM) has a module that makes
these. They hold real names, so they stay at the site.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from brainfed.core.labels import LabelProtocol
from brainfed.plan import Modality, Treatment

LABEL = "seg"
"""Key of `FoundCase.doubts` for the label, beside the modalities."""
WHOLE_CASE = "case"
"""Key of `FoundCase.doubts` for what concerns the whole case."""


class LabelOrigin(StrEnum):
    """Who drew a label."""

    BY_HAND = "by-hand"
    CORRECTED = "corrected"  # a model's, corrected by a person
    BY_MODEL = "by-model"


@dataclass(frozen=True, slots=True)
class ScanFile:
    """One scan, wherever it lies."""

    path: Path
    """A NIfTI file, or the folder of a DICOM series."""
    volume: int | None = None
    """Which volume of a 4-D file, from 0; None where the file is 3-D."""
    series: str | None = None
    """SeriesInstanceUID where `path` is a folder of DICOM files."""

    def __str__(self) -> str:
        """As `cases.csv` has it: `path`, `path#volume` or `folder#series`."""
        part = self.series if self.volume is None else str(self.volume)
        return str(self.path) if part is None else f"{self.path}#{part}"


@dataclass(frozen=True, slots=True)
class FoundCase:
    """One visit of a patient: what lies where, and what is known of it."""

    name: str
    """Real name of the case, unique among all; its keyed hash is the case id."""
    patient: str
    """Real name of the patient."""
    visit: str
    """Number, word or date of the visit; `visit_order` sorts them."""
    folder: Path
    """Where it was found, for messages."""
    images: Mapping[Modality, ScanFile]
    label: ScanFile | None = None
    brain_mask: ScanFile | None = None
    """A mask that the site made itself."""
    protocol: LabelProtocol | None = None
    """What the label's values mean, where the layout says so; else the command does."""
    label_origin: LabelOrigin | None = None
    treatment: Treatment | None = None
    """Pre- or post-operative; None where nobody has answered."""
    age_years: int | None = None
    """Age at the scan; None where nobody has answered."""
    spacing_nominal: bool | None = None
    """Whether the voxel size is a convention; None where nobody has answered."""
    doubts: Mapping[str, str] = field(default_factory=dict)
    """What could not be told, in a sentence, by modality, `LABEL` or `WHOLE_CASE`. A doubt about a
    modality that the plan doesn't take does no harm; any other refuses the case."""
    remarks: tuple[str, ...] = ()
    """What a person should know, though it does no harm."""


@dataclass(frozen=True, slots=True)
class LeftOver:
    """A file or series that became no part of a case."""

    where: str
    reason: str


def visit_order(visit: str) -> tuple[tuple[bool, int, str], ...]:
    """Key that sorts visits as a person would: 2 before 10, dates by day, words after numbers."""
    return tuple(
        (not part.isdigit(), int(part) if part.isdigit() else 0, part)
        for part in re.findall(r"[0-9]+|[^0-9]+", visit)
    )
