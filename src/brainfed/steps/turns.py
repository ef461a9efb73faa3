"""Whose turn it is in a relay, read from the records that lie here. No disk.

Every turn is a round. The first one follows from the plan's seed and the roster, every other one
from the record of the round before: what the coordinator signed is what counts.
"""

from collections.abc import Collection

from brainfed.core.schedule import next_site
from brainfed.errors import NotReadyError, QuorumError
from brainfed.formats.federation import Federation
from brainfed.formats.record import Record
from brainfed.formats.shelf import Shelf, records_of
from brainfed.plan import Method, Plan


def turn_after(plan: Plan, sites: Collection[str], before: Record | None) -> str | None:
    """Whose turn a round is, by the record of the round before.

    Args:
        plan: The plan of the round.
        sites: Those that take part in it.
        before: The newest record of the round before; None for round 1.

    Returns:
        The site that the record names or, where that has left since, the one that comes after it;
        None where all sites work at once, or all have had their turn.
    """
    if plan.method is Method.FL or (before is not None and before.next_site is None):
        return None
    named = None if before is None else before.next_site
    return named if named in sites else next_site(plan, sites, named)


def turn_of(known: Federation, shelf: Shelf, number: int) -> str | None:
    """Whose turn a round is, from the files of a party; None as in `turn_after`, and for round 0.

    Raises:
        NotReadyError: The record of the round before is missing.
    """
    if number == 0 or known.plan_of(number).method is Method.FL:
        return None
    found = records_of(shelf, number - 1) if number > 1 else []
    if number > 1 and not found:
        raise NotReadyError(
            f"The record of round {number - 1} is missing, which says whose turn it is",
            where="rounds",
            hint="`brainfed import FOLDER` with the coordinator's files",
        )
    sites = [site.name for site in known.roster.sites]
    return turn_after(known.plan_of(number), sites, found[-1][1] if found else None)


def check_turn(known: Federation, shelf: Shelf, number: int, site: str) -> None:
    """Refuse what a site does out of its turn; without a relay it is always its turn.

    Raises:
        QuorumError: It is another site's turn, or all have had theirs.
        NotReadyError: The record of the round before is missing.
    """
    if known.plan_of(number).method is Method.FL:
        return
    turn = turn_of(known, shelf, number)
    if turn is None:
        raise QuorumError(
            "All sites have had their turn",
            found=f"{site}, round {number}",
            hint=f"the weights of round {number - 1} are the last; "
            f"{known.roster.coordinator.name} runs `brainfed finish`",
        )
    if turn != site:
        raise QuorumError(
            f"It is the turn of {turn}, not of {site}",
            expected=f"{turn} in round {number}",
            found=site,
            hint=f"{site} waits for the round that is its turn, imports its weights and trains "
            "from them: `brainfed status` says whose turn it is",
        )
