"""Whose turn it is in a relay: one fixed order of the sites, drawn by the plan's seed."""

import hashlib
from collections.abc import Iterable

from brainfed.plan import Method, Plan


def next_site(plan: Plan, sites: Iterable[str], last: str | None) -> str | None:
    """The site that trains after another one.

    The order is that of SHA-256 of "SEED NAME", so a site that joins or leaves changes no other's
    place. Source: Sheller et al. 2018, section 2.2, where the order is fixed and not said how.

    Args:
        plan: The plan; its method is a relay.
        sites: Those that take part.
        last: Who trained last, also if it has left since; None where nobody has.

    Returns:
        None where all have had their turn (iil), or there are no sites.
    """

    def place(name: str) -> tuple[str, str]:
        return hashlib.sha256(f"{plan.seed} {name}".encode()).hexdigest(), name

    order = sorted(sites, key=place)
    after = [name for name in order if last is None or place(name) > place(last)]
    if not after and plan.method is Method.CIIL:
        after = order
    return after[0] if after else None
