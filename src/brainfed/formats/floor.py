"""What may be said about groups of patients: every figure that leaves goes through here.

Below the floor a group is only "fewer than", from it on it has a mean and a standard deviation,
from 20 patients also quartiles, all rounded to a hundredth of the measure's unit. Nothing here is
of one patient: no minimum, no maximum, no list, and whatever the floor, no mean over one and no
spread over two, which would give both away. Cases with and without all modalities are told apart
only where both parts are so large that neither can be subtracted from the whole.

Which groups may be told about which weights is another question: `formats.sent`.
"""

import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence

from brainfed.core.metrics import Measure
from brainfed.core.scoring import CaseScore, patient_scores
from brainfed.formats.manifest import Score, ScoredWeights
from brainfed.formats.scores import Figure, Group, SubsetName
from brainfed.plan import Plan, Region

ROUNDED_TO = 10_000
"""Millionths: a hundredth of the measure's unit."""
FEWEST_FOR_MEAN = 2
FEWEST_FOR_SD = 3
FEWEST_FOR_QUARTILES = 20
DICE = (Measure.DICE, Measure.SOFT_SLICE_DICE)
"""What a manifest states."""

Groups = Mapping[Group, frozenset[str]]
"""The keyed ids of the patients in each group."""


def holding(plan: Plan, own: int) -> int:
    """The floor that holds: the plan's, or the site's own where that is higher."""
    return max(plan.participation.floor, own)


def count(n_patients: int, floor: int) -> int | str:
    """The number of patients, or that it is below the floor."""
    return n_patients if n_patients >= floor else f"fewer than {floor}"


def groups_of(rows: Iterable[CaseScore]) -> Groups:
    """Who is in which group; complete is a patient whose scored cases all are."""
    complete: dict[str, bool] = {}
    for row in rows:
        complete[row.patient] = complete.get(row.patient, True) and row.is_complete
    return {
        Group.ALL: frozenset(complete),
        Group.COMPLETE: frozenset(p for p, is_complete in complete.items() if is_complete),
        Group.INCOMPLETE: frozenset(p for p, is_complete in complete.items() if not is_complete),
    }


def figures(
    rows: Sequence[CaseScore],
    plan: Plan,
    *,
    subset: SubsetName,
    floor: int,
    groups: Collection[Group] = tuple(Group),
) -> tuple[Figure, ...]:
    """The figures of one subset as a score file states them, in its order.

    Args:
        rows: Of all cases of the subset.
        plan: Gives the regions.
        subset: Whose patients they are.
        floor: The one that holds.
        groups: Those that may be told (`formats.sent`).
    """
    taken = {measure for row in rows for measure in row.values}
    found = [
        Figure(
            subset=subset,
            group=group,
            measure=measure,
            region=region,
            n=count(len(values), floor),
            **_statistics(values, floor),
        )
        for measure in taken or set(DICE)
        for region in plan.scans.regions
        for group, values in _told(rows, region, measure, floor).items()
        if group in groups
    ]
    return tuple(sorted(found, key=Figure.key))


def scores(
    rows: Sequence[CaseScore],
    plan: Plan,
    *,
    weights: ScoredWeights,
    subset: SubsetName,
    floor: int,
) -> tuple[Score, ...]:
    """The Dice scores of one subset as a manifest states them, over all its patients."""
    found = figures(rows, plan, subset=subset, floor=floor, groups=(Group.ALL,))
    by_place = {(figure.measure, figure.region): figure for figure in found}
    return tuple(
        Score(
            weights=weights,
            subset=subset,
            measure=measure,
            region=region,
            n=figure.n,
            mean=figure.mean,
            sd=figure.sd,
        )
        for measure in DICE
        for region in plan.scans.regions
        if (figure := by_place.get((measure, region))) is not None
    )


def _told(
    rows: Sequence[CaseScore], region: Region, measure: Measure, floor: int
) -> dict[Group, list[float]]:
    """The patients' scores of each group that the sizes of all groups let us tell of.

    A measure may be missing where the spacing is nominal. Where it is missing for so few that they
    would be told by a difference of counts, the group is left out.
    """
    by_patient = patient_scores(rows, region, measure)
    whole = groups_of(rows)
    values = {g: [v for p, v in by_patient.items() if p in who] for g, who in whole.items()}
    without = {group: len(who) - len(values[group]) for group, who in whole.items()}

    def is_small(n: int) -> bool:
        return 0 < n < floor

    if is_small(without[Group.ALL]):
        return {}
    parts = (Group.COMPLETE, Group.INCOMPLETE)
    # Whatever is told of the whole and of one part, is told of the other part too.
    fewest = max(floor, FEWEST_FOR_SD)
    if any(len(values[part]) < fewest or is_small(without[part]) for part in parts):
        del values[Group.COMPLETE], values[Group.INCOMPLETE]
    return values


def _statistics(values: Sequence[float], floor: int) -> dict[str, int | None]:
    """Mean, standard deviation and quartiles in millionths, as far as so many let us tell."""
    found: dict[str, int | None] = dict.fromkeys(("mean", "sd", "q1", "median", "q3"))
    n = len(values)
    if n >= max(floor, FEWEST_FOR_MEAN):
        found["mean"] = _rounded(statistics.fmean(values))
    if n >= max(floor, FEWEST_FOR_SD):
        found["sd"] = _rounded(statistics.stdev(values))
    if n >= max(floor, FEWEST_FOR_QUARTILES):
        quartiles = statistics.quantiles(values, n=4, method="inclusive")
        found |= zip(("q1", "median", "q3"), map(_rounded, quartiles), strict=True)
    return found


def _rounded(value: float) -> int:
    """In millionths of the unit, a whole number of hundredths."""
    return ROUNDED_TO * round(value * 1_000_000 / ROUNDED_TO)
