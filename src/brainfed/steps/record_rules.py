"""What a record must be by its plan: for the site that gets it, and for the auditor. No disk."""

from collections.abc import Collection, Iterator, Sequence

from brainfed.core.averaging import capped
from brainfed.core.schedule import next_site
from brainfed.formats.manifest import Manifest
from brainfed.formats.record import Input, InputStatus, Record
from brainfed.plan import Aggregation, Method, Plan
from brainfed.steps.turns import turn_after


def shares(manifests: Collection[Manifest], settings: Aggregation) -> tuple[int, ...]:
    """The sites' integer weights by the plan, in the order given."""
    weights = [manifest.weight_by(settings.weights) for manifest in manifests]
    return capped(weights, settings.max_weight_fraction) if weights else ()


def included_in(record: Record) -> list[str]:
    """Sites whose updates it combines."""
    return [entry.sender for entry in record.inputs if entry.status is InputStatus.INCLUDED]


def plan_faults(record: Record, plan: Plan) -> Iterator[str]:
    """Where the record itself is not as the plan has it, in words."""
    ruled = (plan.aggregation.rule, plan.aggregation.weights)
    if (record.rule, record.weights_by) != ruled:
        yield "The record aggregates by another rule than the plan's"
    if (record.state_digest is None) != (not plan.aggregation.rule.state):
        yield f"The record and the plan's rule, {plan.aggregation.rule}, don't agree on a state"
    if plan.method is not Method.FL:
        return
    if record.next_site is not None:
        yield "The record says whose turn is next, but all sites work at once"
    n_included = len(included_in(record))
    if n_included < plan.participation.quorum_sites:
        yield f"Only {n_included} sites are included, fewer than the quorum"


def turn_fault(
    record: Record, plan: Plan, sites: Collection[str], before: Record | None
) -> str | None:
    """In a relay the one site counts whose turn it was, or it is left out for a reason.

    Args:
        record: The record.
        plan: The plan of its round.
        sites: The active ones of its roster.
        before: The record of the round before; where it is missing nothing can be said.
    """
    if plan.method is Method.FL or (before is None and record.round > 1):
        return None
    turn = turn_after(plan, sites, before)
    included = included_in(record)
    left_out = {e.sender for e in record.inputs if e.status is InputStatus.EXCLUDED}
    if turn is None:
        return "All sites had had their turn before this round"
    if set(included) - {turn} or turn not in {*included, *left_out}:
        told = ", ".join(sorted(included)) or "nobody"
        return f"It was the turn of {turn}, but the record includes {told}"
    if record.next_site != next_site(plan, sites, turn):
        return f"The turn after {turn} is not that of {record.next_site}"
    return None


def share_faults(included: Sequence[tuple[Input, Manifest | None]], plan: Plan) -> Iterator[str]:
    """Where a site's weight, or all patients together, are not what follows from the updates.

    Args:
        included: What the record says of each included site, and its update; None where missing.
        plan: The plan of the round.
    """
    told = [(entry, about) for entry, about in included if about is not None]
    is_whole = len(told) == len(included)
    settings = plan.aggregation
    right = shares([about for _, about in told], settings)
    for (entry, about), share in zip(told, right, strict=True):
        is_exact = is_whole or settings.max_weight_fraction == 1
        most = about.weight_by(settings.weights)  # a cap of all may lower it further
        if entry.weight != share if is_exact else entry.weight > most:
            yield (
                f"The weight of {entry.sender} in the record is {entry.weight}, but from its "
                f"update follows {share}"
            )
    n_patients = sum(about.n_patients or 0 for _, about in told)
    if is_whole and plan.method is Method.FL and n_patients < plan.participation.quorum_patients:
        yield f"Only {n_patients} patients are included, fewer than the quorum"
