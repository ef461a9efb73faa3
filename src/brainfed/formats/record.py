"""The record of one aggregation: who took part, by which file (`docs/formats/record.md`).

With the record and the files that it names anyone can compute the global weights again.
"""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from brainfed.formats.document import (
    Belonging,
    Count,
    Day,
    Digest,
    Document,
    Edition,
    Name,
    PlanVersion,
)
from brainfed.plan import MAX_TOTAL_WEIGHT, Rule, WeightBy


class InputStatus(StrEnum):
    """What became of a site's update."""

    INCLUDED = "included"
    EXCLUDED = "excluded"
    ABSENT = "absent"


class Reason(StrEnum):
    """Why the coordinator left an update out."""

    LATE = "late"
    WITHDREW = "withdrew"
    FAILED_SCREENING = "failed-screening"
    NOT_REACHABLE = "not-reachable"
    ETHICS = "ethics"
    REVOKED = "revoked"
    """Its key, or that of its approver, was revoked after it had come."""
    OTHER = "other"


class Input(Document):
    """One site's part in an aggregation."""

    sender: Name
    digest: Digest | None
    """Digest of its update; null where none was there."""
    weight: Count
    """Its integer weight in the mean; 0 where not included."""
    status: InputStatus
    reason: Reason | None

    @model_validator(mode="after")
    def _sound(self) -> Self:
        included = self.status is InputStatus.INCLUDED
        if included != (self.weight > 0) or (included and self.digest is None):
            raise ValueError("a weight and a digest exactly where included")
        if self.status is InputStatus.ABSENT and self.digest is not None:
            raise ValueError("no digest of what is absent")
        if (self.reason is None) != (self.status is not InputStatus.EXCLUDED):
            raise ValueError("a reason exactly where excluded")
        return self


class Record(Belonging):
    """One aggregation; the inputs are sorted by sender."""

    kind: Literal["record"] = "record"
    plan: PlanVersion
    """The version in force in this round."""
    round: Annotated[int, Field(ge=1, le=9999)]
    edition: Edition
    """1, and one more each time that a round is closed again."""
    supersedes: Digest | None
    """Digest of the record of the edition before; null for edition 1."""
    rule: Rule
    weights_by: WeightBy
    parent: Digest
    """Digest of the global weights that the updates were trained from."""
    inputs: tuple[Input, ...]
    next_site: Name | None
    """Whose turn is next in a relay; null where all sites work at once."""
    global_digest: Digest
    """Digest of the new global weight file."""
    state_digest: Digest | None
    """Digest of the rule's state file; null for rules without a state."""
    day: Day

    @model_validator(mode="after")
    def _sound(self) -> Self:
        senders = [entry.sender for entry in self.inputs]
        if senders != sorted(set(senders)):
            raise ValueError("inputs sorted by sender, each once")
        if sum(entry.weight for entry in self.inputs) >= MAX_TOTAL_WEIGHT:
            raise ValueError("weights with a total under 2^29")
        if (self.supersedes is None) != (self.edition == 1):
            raise ValueError("supersedes exactly where the edition is above 1")
        return self
