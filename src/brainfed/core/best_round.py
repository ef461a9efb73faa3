"""Which round's global weights are best on validation, and which rounds can be compared at all.

One measure and one direction, fixed for every federation: 3-D Dice, higher is better; the mean over
the patients of all sites that tell, then the plain mean over the plan's regions. Of two rounds that
are equal the earlier one is best: it was reached with less training.

A mean over other patients is another mean. So rounds are compared only over one set of sites, and
only those that all of the set have told of: the set with the most patients that at least two
rounds share. Nothing else is asked: no loss, no test patient, no figure of another round.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations

from brainfed.plan import Region


@dataclass(frozen=True, slots=True)
class Figure:
    """What a site tells of one round's global weights in one region, over validation patients."""

    round: int
    site: str
    region: Region
    n: int
    """Patients; the most that it can be where the mean is held back."""
    mean: float | None
    """Mean Dice, 0 to 1; None where the floor holds it back."""


@dataclass(frozen=True, slots=True)
class SiteScore:
    """A site's figure of one round, over the regions."""

    site: str
    n: int
    """Patients; the most that it can be where the mean is held back."""
    mean: float | None
    """Mean Dice over the regions, 0 to 1; None where the floor holds one of them back."""


@dataclass(frozen=True, slots=True)
class RoundScore:
    """One round."""

    round: int
    sites: tuple[SiteScore, ...]
    """That tell of it, or that the floor lets say only that they have few, by name."""
    lacking: tuple[str, ...]
    """Sites of the compared set that don't tell of it; none: the round can be compared."""
    n: int | None
    """Patients of the compared set; None where it can't be compared."""
    mean: float | None
    """Dice over them, 0 to 1; None where it can't be compared."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """All rounds, and the best of those that can be compared."""

    rounds: tuple[RoundScore, ...]
    compared: tuple[str, ...]
    """The sites over whose patients rounds are compared; empty where nobody tells."""
    best: int | None
    """None where fewer than two rounds can be compared."""

    @property
    def can_compare(self) -> tuple[RoundScore, ...]:
        """The rounds that can be compared."""
        return tuple(entry for entry in self.rounds if entry.mean is not None)


def compare_rounds(
    figures: Iterable[Figure], rounds: Iterable[int], regions: Sequence[Region]
) -> Comparison:
    """Compare rounds by the figures of the sites.

    Args:
        figures: One of each round, site and region.
        rounds: All rounds with global weights, told of or not.
        regions: The plan's; a site tells of a round once it tells of all of them.
    """
    by_site: dict[tuple[int, str], dict[Region, Figure]] = {}
    for figure in figures:
        by_site.setdefault((figure.round, figure.site), {})[figure.region] = figure
    whole = {about: told for about, told in by_site.items() if set(told) >= set(regions)}
    numbers = sorted(set(rounds))
    telling = {
        number: frozenset(
            site
            for (of, site), told in whole.items()
            if of == number and all(told[region].mean is not None for region in regions)
        )
        for number in numbers
    }
    n_patients = {
        site: max(f.n for (_, name), told in whole.items() if name == site for f in told.values())
        for sites in telling.values()
        for site in sites
    }
    compared = _largest(telling.values(), n_patients)
    exact: dict[int, Fraction] = {}
    scores = []
    for number in numbers:
        sites = [
            _site_score(told, regions)
            for (of, _), told in sorted(whole.items(), key=_about)
            if of == number
        ]
        lacking = compared - telling[number]
        n = mean = None
        if compared and not lacking:
            group = [whole[number, site] for site in sorted(compared)]
            exact[number] = _mean(group, regions)
            n, mean = sum(_n(told, regions) for told in group), float(exact[number])
        scores.append(RoundScore(number, tuple(sites), tuple(sorted(lacking)), n, mean))
    best = None
    if len(exact) > 1:
        best = max(exact, key=lambda number: (exact[number], -number))
    return Comparison(tuple(scores), tuple(sorted(compared)), best)


def _about(entry: tuple[tuple[int, str], object]) -> tuple[int, str]:
    return entry[0]


def _largest(sets: Iterable[frozenset[str]], n_patients: dict[str, int]) -> frozenset[str]:
    """The set of sites with the most patients that two rounds share; that one round has, if none.

    Of sets with as many patients that with more sites counts, then the first by name.
    """
    there = [entry for entry in sets if entry]
    shared = {one & other for one, other in combinations(there, 2)} - {frozenset()}

    def rank(entry: frozenset[str]) -> tuple[int, int]:
        return sum(n_patients[site] for site in entry), len(entry)

    return max(sorted(shared or set(there), key=sorted), key=rank, default=frozenset())


def _site_score(told: dict[Region, Figure], regions: Sequence[Region]) -> SiteScore:
    site = told[regions[0]].site
    if any(told[region].mean is None for region in regions):
        return SiteScore(site, _n(told, regions), None)
    return SiteScore(site, _n(told, regions), float(_mean([told], regions)))


def _n(told: dict[Region, Figure], regions: Sequence[Region]) -> int:
    return max(told[region].n for region in regions)


def _mean(group: Sequence[dict[Region, Figure]], regions: Sequence[Region]) -> Fraction:
    """Over the patients of these sites, region by region, then over the regions; exact.

    Figures are whole millionths, so equal rounds are equal and not nearly so.
    """
    by_region = []
    for region in regions:
        total, n = Fraction(0), 0
        for told in group:
            total += told[region].n * Fraction(round((told[region].mean or 0.0) * 1e6), 10**6)
            n += told[region].n
        by_region.append(total / n)
    return sum(by_region, Fraction(0)) / len(regions)
