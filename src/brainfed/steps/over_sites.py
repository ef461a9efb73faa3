"""Over sites: from each site's mean to that of all patients, the worst site, and the spread."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from brainfed.core.metrics import Measure
from brainfed.formats.dataset import Subset
from brainfed.formats.scores import Group
from brainfed.plan import Region
from brainfed.steps.standings import Standing, What


@dataclass(frozen=True, slots=True)
class Unseen:
    """A site whose patients a mean doesn't see, because they are too few to be told of."""

    site: str
    n_at_most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Overall:
    """One measure of one round's global weights over the patients of all sites that state it."""

    round: int
    edition: int
    subset: Subset
    group: Group
    measure: Measure
    region: Region
    n: int
    """Patients behind the mean."""
    mean: float | None
    """Over patients, so a site counts by its patients; None where no site states one."""
    sd: float | None
    """Over patients, within and between sites; None where a site states none."""
    n_sites: int
    worst_site: str | None
    worst_mean: float | None
    spread: float | None
    """Between the best and the worst site's mean."""
    unseen: tuple[Unseen, ...]

    @property
    def what(self) -> What:
        """What it is about, as of a standing."""
        return (self.round, self.edition, self.subset, self.group, self.measure, self.region)


def overall(rows: Sequence[Standing]) -> tuple[Overall, ...]:
    """Over all sites, for each thing that was measured, in the order of the rows."""
    groups: dict[What, list[Standing]] = {}
    for row in rows:
        groups.setdefault(row.what, []).append(row)
    return tuple(_overall(what, group) for what, group in groups.items())


def worse(measure: Measure, value: float) -> float:
    """How bad a mean is: the higher, the worse."""
    if measure is Measure.VOLUME_DIFFERENCE:
        return abs(value)
    return value if measure.unit == "mm" else -value


def _overall(what: What, rows: Sequence[Standing]) -> Overall:
    number, edition, subset, group, measure, region = what
    seen = [(row.site, row.n, row.mean, row.sd) for row in rows if row.mean is not None]
    means = {site: mean for site, n, mean, _ in seen if isinstance(n, int)}
    parts = [(n, mean, sd) for _, n, mean, sd in seen if isinstance(n, int)]
    n_patients = sum(n for n, _, _ in parts)
    mean = sum(n * m for n, m, _ in parts) / n_patients if parts else None
    worst = max(means, key=lambda site: worse(measure, means[site]), default=None)
    return Overall(
        round=number,
        edition=edition,
        subset=subset,
        group=group,
        measure=measure,
        region=region,
        n=n_patients,
        mean=mean,
        sd=_sd(parts, mean),
        n_sites=len(means),
        worst_site=worst,
        worst_mean=None if worst is None else means[worst],
        spread=max(means.values()) - min(means.values()) if means else None,
        unseen=tuple(Unseen(row.site, row.n_at_most) for row in rows if row.mean is None),
    )


def _sd(parts: Sequence[tuple[int, float, float | None]], mean: float | None) -> float | None:
    """Sample standard deviation of all patients, from the n, mean and sd of each site."""
    n_patients = sum(n for n, _, _ in parts)
    if mean is None or n_patients < 2:
        return None
    squares = 0.0
    for n, site_mean, sd in parts:
        if sd is None and n > 1:
            return None
        squares += (n - 1) * (sd or 0.0) ** 2 + n * (site_mean - mean) ** 2
    return math.sqrt(squares / (n_patients - 1))
