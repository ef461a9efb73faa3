"""The final: which global weights a federation ends with (`docs/formats/final.md`)."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from brainfed.formats.document import Belonging, Day, Digest, Edition, PlanVersion, Round


class Final(Belonging):
    """The coordinator names the weights that are to be used."""

    kind: Literal["final"] = "final"
    plan: PlanVersion
    round: Round
    edition: Edition
    weights: Digest
    """Digest of the global weight file."""
    record: Digest | None
    """Digest of its record; null for round 0."""
    weights_licence: Annotated[str, Field(pattern=r"^[A-Za-z0-9.+-]{1,64}$")]
    day: Day

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if (self.record is None) != (self.round == 0):
            raise ValueError("a record exactly after round 0")
        return self
