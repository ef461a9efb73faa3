"""Compare rounds: a table of what each site tells of each round's global weights on validation.

The rule is `core.best_round`. What a figure is of is decided in `steps.standings`: scores are bound
to the digest of the weights, and those of a superseded edition are not taken.
"""

from dataclasses import dataclass

from brainfed.core import best_round
from brainfed.core.best_round import Comparison, Figure, RoundScore
from brainfed.core.metrics import Measure
from brainfed.formats import federation
from brainfed.formats.dataset import Subset
from brainfed.formats.federation import Federation
from brainfed.formats.roster import Role
from brainfed.formats.scores import Group
from brainfed.formats.workspace import Workspace
from brainfed.plan import Region
from brainfed.steps.standings import globals_in_force, limited, standings


@dataclass(frozen=True, slots=True)
class Unseen:
    """A site whose patients the comparison doesn't see, and why, in words."""

    site: str
    why: str


@dataclass(frozen=True, slots=True)
class RoundsCompared:
    """The rounds of a workspace, compared as far as its files allow."""

    regions: tuple[Region, ...]
    """Over which the mean Dice is taken."""
    sites: tuple[str, ...]
    """The active sites of the roster, elsewhere this party alone: the columns of the table."""
    rounds: tuple[RoundScore, ...]
    compared: tuple[str, ...]
    """The sites over whose patients rounds are compared."""
    best: int | None
    """At a site always None: it has no other's figures."""
    best_edition: int | None
    unseen: tuple[Unseen, ...]
    not_compared: tuple[str, ...]
    """One sentence for each round that can't be compared."""
    left_out: tuple[str, ...]
    """Names of files that could not be used."""
    is_whole: bool
    """Whether this is the coordinator's workspace, where all sites' figures lie."""

    @property
    def best_score(self) -> RoundScore | None:
        """The best round's score."""
        return next((entry for entry in self.rounds if entry.round == self.best), None)


def compare_rounds(place: Workspace, known: Federation | None = None) -> RoundsCompared:
    """Read the sites' figures and compare the rounds; changes nothing.

    Evaluators are not asked: they are there to judge what was chosen. Neither are sites that are no
    longer active, for what is chosen is for those who go on.

    Raises:
        NotReadyError: The federation hasn't started here.
        FileRefusedError: A file of the federation was changed after it was accepted.
    """
    known = known or federation.load(place)
    regions = known.first_plan.scans.regions
    at_least = max(entry.plan.participation.floor for entry in known.plans)
    is_whole = place.role is Role.COORDINATOR
    active = {p.name for p in known.roster.principals if p.role is Role.SITE and p.is_active}
    sites = tuple(sorted(active)) if is_whole else (place.name,)
    told = standings(place, known)
    figures = [
        Figure(row.round, row.site, row.region, row.n_at_most, row.mean)
        for row in limited(told.rows, at_least)
        if row.site in sites
        and (row.subset, row.group, row.measure) == (Subset.VALIDATION, Group.ALL, Measure.DICE)
    ]
    editions = dict(globals_in_force(place))
    found = best_round.compare_rounds(figures, [number for number, _ in editions], regions)
    best = found.best if is_whole else None
    return RoundsCompared(
        regions=regions,
        sites=sites,
        rounds=found.rounds,
        compared=found.compared,
        best=best,
        best_edition=next((edition for number, edition in editions if number == best), None),
        unseen=_unseen(found, sites) if is_whole else (),
        not_compared=_not_compared(found),
        left_out=told.left_out,
        is_whole=is_whole,
    )


def _unseen(found: Comparison, sites: tuple[str, ...]) -> tuple[Unseen, ...]:
    """Every site outside the compared set, with the reason."""
    unseen = []
    for site in sites:
        if site in found.compared:
            continue
        told = [(r.round, s) for r in found.rounds for s in r.sites if s.site == site]
        means = [number for number, score in told if score.mean is not None]
        if means:
            why = f"it tells of {_rounds(means)} alone"
        elif told:
            why = f"fewer than {max(s.n for _, s in told) + 1} patients: the floor holds them back"
        else:
            why = "it has not reported"
        unseen.append(Unseen(site, why))
    return tuple(unseen)


def _not_compared(found: Comparison) -> tuple[str, ...]:
    return tuple(
        f"Round {entry.round}: no figure of {', '.join(entry.lacking)}."
        if entry.lacking
        else f"Round {entry.round}: no site has told of it."
        for entry in found.rounds
        if entry.mean is None
    )


def _rounds(numbers: list[int]) -> str:
    listed = ", ".join(str(number) for number in numbers)
    return f"round {listed}" if len(numbers) == 1 else f"rounds {listed}"
