"""An amendment: a new version of the plan, from a round on (`docs/formats/amendment.md`)."""

from dataclasses import dataclass
from typing import Literal, Self

from pydantic import model_validator

from brainfed import plan as plans
from brainfed.core.architecture import network_digest
from brainfed.errors import ConflictError, PlanError
from brainfed.formats.document import Belonging, Day, Digest, PlanVersion, Round
from brainfed.plan import Plan


class Amendment(Belonging):
    """A complete new plan; what it may change is all but name, seed, network and data tables."""

    kind: Literal["amendment"] = "amendment"
    plan_text: str
    """The complete plan as TOML."""
    plan: PlanVersion
    previous: Digest
    """Digest of the plan of the version before."""
    from_round: Round
    """First round under the new plan."""
    day: Day

    @model_validator(mode="after")
    def _sound(self) -> Self:
        try:
            plan = plans.parse(self.plan_text.encode(), "amendment")
        except PlanError as error:
            raise ValueError(str(error)) from None
        if plans.render(plan) != self.plan_text:
            raise ValueError("plan_text is complete, as `brainfed plan show` prints it")
        if self.plan.digest != plans.plan_digest(plan) or self.plan.version < 2:
            raise ValueError("the plan's digest is that of plan_text, its version 2 or more")
        if self.from_round < 1:
            raise ValueError("round 0 has the plan of the start")
        return self

    @property
    def content(self) -> Plan:
        """The plan, parsed."""
        return plans.parse(self.plan_text.encode(), "amendment")


@dataclass(frozen=True)
class Change:
    """One key of the plan that an amendment changes."""

    key: str
    before: str
    after: str


def changes(old: Plan, new: Plan) -> tuple[Change, ...]:
    """What differs between two plans, key by key, in the order of the file; values as in TOML."""
    lines = [plans.flat(plan) for plan in (old, new)]
    keys = list(dict.fromkeys([*lines[0], *lines[1]]))
    pairs = [(key, lines[0].get(key, "-"), lines[1].get(key, "-")) for key in keys]
    return tuple(Change(*pair) for pair in pairs if pair[1] != pair[2])


def check_may_follow(new: Plan, old: Plan) -> None:
    """Check that a plan changes nothing that an amendment can't change.

    Raises:
        PlanError: It changes the name, the seed, the method, the network, or what decides what a
            case holds.
    """
    for what, of in (
        ("name", lambda plan: plan.name),
        ("seed", lambda plan: plan.seed),
        ("method", lambda plan: plan.method),
        ("network", network_digest),
        ("data", plans.data_digest),
    ):
        if of(new) != of(old):
            tables = ", ".join(plans.DATA_SECTIONS)
            raise PlanError(
                f"An amendment can't change the {what} of a plan"
                + (f" (the tables {tables})" if what == "data" else ""),
                expected=str(of(old))[:16],
                found=str(of(new))[:16],
                hint="cases, weights and files are made for it; "
                "start a new federation for another one",
            )


def check_follows(new: Amendment, *, version: PlanVersion, from_round: int, plan: Plan) -> None:
    """Check that an amendment may come after the version of the plan before it.

    Args:
        new: The amendment.
        version: Version and digest of the plan before.
        from_round: First round of the plan before.
        plan: The plan before.

    Raises:
        ConflictError: It skips a version, follows another plan, or begins before it.
        PlanError: It changes what it can't change.
    """
    if new.plan.version != version.version + 1 or new.previous != version.digest:
        raise ConflictError(
            "The amendment doesn't follow the newest plan that lies here",
            expected=f"version {version.version + 1} after {version.digest[:16]}",
            found=f"version {new.plan.version} after {new.previous[:16]}",
            hint="import the amendments before it too; if they are there, "
            "keep all files and ask the coordinator: it may tell two stories",
        )
    if new.from_round < from_round:
        raise ConflictError(
            "The amendment begins before the one that it follows",
            expected=f"round {from_round} or later",
            found=f"round {new.from_round}",
        )
    check_may_follow(new.content, plan)
