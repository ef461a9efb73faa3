"""The acceptance: a site has seen a version of the plan and agrees."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from brainfed.formats.document import Belonging, Day, Digest, PlanVersion, Round


class Acceptance(Belonging):
    """A site's consent to one version of the plan."""

    kind: Literal["acceptance"] = "acceptance"
    plan: PlanVersion
    """The version that was shown."""
    from_round: Round
    """First round under it; 0 for the plan of the start."""
    weights_licence: Annotated[str, Field(pattern=r"^[A-Za-z0-9.+-]{1,64}$")]
    """Licence of the global weights under it."""
    agreement: Digest | None
    """Digest of the agreement between the parties under it; null where there is none."""
    day: Day

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if (self.plan.version == 1) != (self.from_round == 0):
            raise ValueError("from round 0 exactly for version 1 of the plan")
        return self
