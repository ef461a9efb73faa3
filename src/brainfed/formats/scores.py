"""Scores: what one site measured of one weight file (`docs/formats/scores.md`)."""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from brainfed.core.metrics import Measure
from brainfed.formats.document import (
    Belonging,
    Count,
    Day,
    Digest,
    Document,
    Edition,
    PlanVersion,
    Round,
)
from brainfed.formats.manifest import FewerThan
from brainfed.plan import Region

SubsetName = Literal["train", "validation", "test"]
Value = Annotated[int, Field(ge=-(10**12), le=10**12)]
"""In millionths of the measure's unit: of 1, of a millimetre, of a millilitre."""


class Group(StrEnum):
    """Which cases a figure is over."""

    ALL = "all"
    COMPLETE = "complete"
    """All modalities of the plan present."""
    INCOMPLETE = "incomplete"


class Figure(Document):
    """One measure over one group of patients."""

    subset: SubsetName
    group: Group
    measure: Measure
    region: Region
    n: Annotated[int, Field(ge=1)] | FewerThan
    """Patients, or "fewer than" the floor."""
    mean: Value | None
    """Null below the floor, as all that follows."""
    sd: Value | None
    """Sample standard deviation."""
    q1: Value | None
    """Lower quartile; null also where the group is too small for quartiles, as the next two."""
    median: Value | None
    q3: Value | None

    def key(self) -> tuple[str, ...]:
        """What tells a figure from the others of its file, in whose order they stand."""
        return self.subset, self.group, self.measure, self.region

    @model_validator(mode="after")
    def _sound(self) -> Self:
        quartiles = (self.q1, self.median, self.q3)
        if isinstance(self.n, str) and any(v is not None for v in (self.mean, self.sd, *quartiles)):
            raise ValueError("no figure below the floor")
        if len({value is None for value in quartiles}) != 1:
            raise ValueError("all three quartiles or none")
        return self


class Scores(Belonging):
    """All figures of one site about one weight file."""

    kind: Literal["scores"] = "scores"
    plan: PlanVersion
    round: Round
    """Round of the weights."""
    edition: Edition
    weights: Digest
    """Digest of the weight file that was scored."""
    split: Digest | None
    """Keyed digest of the site's split; null where all its cases were scored without one."""
    n_cases: Count | None
    """Cases scored; null below the floor."""
    figures: tuple[Figure, ...]
    day: Day

    @model_validator(mode="after")
    def _sound(self) -> Self:
        keys = [figure.key() for figure in self.figures]
        if keys != sorted(set(keys)):
            raise ValueError("figures sorted by subset, group, measure and region, each once")
        return self

    def keeps(self, other: "Scores") -> bool:
        """Whether all figures of another file stand here, over the same weights, unchanged."""
        return self.weights == other.weights and set(other.figures) <= set(self.figures)
