"""The start of a federation: the frozen plan and the first roster (`docs/formats/start.md`).

The SHA-256 digest of this file is the federation's identity; every exchanged file names it.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from brainfed import plan as plans
from brainfed.core.architecture import network_digest
from brainfed.errors import PlanError
from brainfed.formats.document import Day, Digest, Header, Name, PlanVersion, Purpose
from brainfed.formats.roster import Roster


class Start(Header):
    """What all parties agree on before the first round."""

    kind: Literal["start"] = "start"
    purpose: Purpose
    nonce: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    """Random, so that two federations of one plan and roster differ."""
    coordinator: Name
    plan_text: str
    """The complete plan as TOML."""
    plan: PlanVersion
    data: Digest
    """Digest of the plan's tables that decide what a case holds."""
    network: Digest
    """Digest of the network and its tensor table."""
    weights_licence: str
    agreement: Digest | None
    """Digest of the agreement between the parties; null where there is none."""
    minimum_version: str
    """Oldest brainfed that may take part."""
    roster: Roster
    day: Day

    @model_validator(mode="after")
    def _sound(self) -> Self:
        try:
            plan = plans.parse(self.plan_text.encode(), "start.json")
        except PlanError as error:
            raise ValueError(str(error)) from None
        if plans.render(plan) != self.plan_text:
            raise ValueError("plan_text is complete, as `brainfed plan show` prints it")
        if self != make(
            plan,
            self.roster,
            purpose=self.purpose,
            nonce=self.nonce,
            day=self.day,
            checked=False,
        ):
            raise ValueError("coordinator, digests and terms are those of the plan and the roster")
        return self


def make(
    plan: plans.Plan,
    roster: Roster,
    *,
    purpose: Purpose,
    nonce: str,
    day: str,
    checked: bool = True,
) -> Start:
    """The start of a federation with this plan and roster.

    Args:
        plan: The plan.
        roster: The first roster.
        purpose: `real`, or a marked simulation or drill.
        nonce: 32 hexadecimal digits, random.
        day: ISO date.
        checked: Whether to validate; false only inside the validation itself.
    """
    fields = {
        "purpose": purpose,
        "nonce": nonce,
        "coordinator": roster.coordinator.name,
        "plan_text": plans.render(plan),
        "plan": PlanVersion(version=1, digest=plans.plan_digest(plan)),
        "data": plans.data_digest(plan),
        "network": network_digest(plan),
        "weights_licence": plan.terms.weights_licence,
        "agreement": plan.terms.agreement_sha256 or None,
        "minimum_version": plan.terms.minimum_version,
        "roster": roster,
        "day": day,
    }
    if checked:
        return Start.model_validate(fields)
    return Start.model_construct(format=1, kind="start", **fields)  # type: ignore[arg-type]
