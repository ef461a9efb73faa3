"""The manifest of a weight file: everything that travels beside the tensors.

It is the one metadata entry of the safetensors header, canonical JSON
(`docs/formats/manifest.md`). It holds no free text, no path, no host name and no time of day, so it
can't carry a patient's name or a pixel. The tensors are another matter: they are learned from
patients, and no check of numbers proves that nothing of a patient can be drawn out of them.
"""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from brainfed.core.metrics import Measure
from brainfed.formats.document import (
    FORMAT,
    Count,
    Digest,
    Document,
    Edition,
    Name,
    PlanVersion,
    Purpose,
    RosterVersion,
    Round,
)
from brainfed.plan import Region, WeightBy

Millionths = Annotated[int, Field(ge=0, le=1_000_000)]
FewerThan = Annotated[str, Field(pattern=r"^fewer than [1-9][0-9]{0,4}$")]
Versions = dict[
    Literal["brainfed", "numpy", "torch"],
    Annotated[str, Field(pattern=r"^[0-9A-Za-z.+]{1,32}$")],
]


UNDECLARED_SPLIT = 64 * "0"
"""In place of the split's digest where brainfed made no split: an external network whose counts the
site declared."""


class Kind(StrEnum):
    """What a weight file holds."""

    GLOBAL = "global"
    UPDATE = "update"
    STATE = "state"


class ScoredWeights(StrEnum):
    """Which weights a score is of."""

    INCOMING = "incoming"
    RESULT = "result"


class Score(Document):
    """One figure over a group of patients."""

    weights: ScoredWeights
    subset: Literal["train", "validation", "test"]
    measure: Literal[Measure.DICE, Measure.SOFT_SLICE_DICE]
    region: Region
    n: Annotated[int, Field(ge=1)] | FewerThan
    """Patients, or "fewer than" the floor."""
    mean: Millionths | None
    """In millionths; null below the floor."""
    sd: Millionths | None
    """Sample standard deviation in millionths; null below the floor."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if isinstance(self.n, str) and (self.mean is not None or self.sd is not None):
            raise ValueError("no mean and no sd below the floor")
        return self


class Manifest(Document):
    """All fields, always present; null where unused."""

    format: Literal[1] = FORMAT
    kind: Kind
    purpose: Purpose
    federation: Digest
    """Digest of start.json."""
    plan: PlanVersion
    round: Round
    """0 is the initial weights."""
    edition: Edition
    sender: Name
    roster_version: RosterVersion
    parent: Digest | None
    """Digest of the global weights that this was trained or averaged from; null in round 0."""
    split: Digest | None
    """Keyed digest of the site's split, `UNDECLARED_SPLIT` without one; null for global weights."""
    n_patients: Count | None
    """Patients trained on; null for global weights. With cases and slices: the averaging weight."""
    n_cases: Count | None
    n_slices: Count | None
    n_validation: Count | FewerThan | None
    """Validation patients, or "fewer than" the floor."""
    scores: tuple[Score, ...]
    versions: Versions
    """Versions of the libraries that made the file."""

    @property
    def are_given(self) -> bool:
        """Whether these are first weights that the coordinator brought, not drawn by torch."""
        return self.round == 0 and "torch" not in self.versions

    def weight_by(self, by: WeightBy) -> int:
        """The weight in the mean that an update declares for itself; 0 without one."""
        return 1 if by is WeightBy.EQUAL else int(getattr(self, f"n_{by}") or 0)

    @model_validator(mode="after")
    def _sound(self) -> Self:
        counts = (self.n_patients, self.n_cases, self.n_slices, self.n_validation, self.split)
        is_update = self.kind is Kind.UPDATE
        if any((count is not None) != is_update for count in counts):
            raise ValueError("counts and split exactly in updates")
        if (self.parent is None) != (self.round == 0):
            raise ValueError("a parent exactly after round 0")
        if is_update and self.round == 0:
            raise ValueError("no update in round 0")
        return self
