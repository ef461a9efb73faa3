"""The split of a site's patients into train, validation and test.

By patient, seeded, stratified by tumour size, disjoint and exhaustive. Patients that join later
are assigned by the same rule; an assignment once made stays.

A site with fewer than 3 patients can't be split: all of them go to validation, and the site
evaluates but doesn't train.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from fractions import Fraction

import numpy as np

from brainfed.plan import Split, SplitRule

FEWEST_TO_SPLIT = 3


class Subset(StrEnum):
    """The three parts of a site's patients."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


def subset_counts(n_patients: int, split: Split) -> dict[Subset, int]:
    """How many patients each subset gets.

    `ceil` takes ceil(f n), as the paper holds out ceil(0.2 n) of each real institution;
    `fractions` takes f n rounded to the nearest (halves up), but at least one patient where f is
    not 0. At least one patient is left to train on.

    Args:
        n_patients: All patients of the site, n.
        split: The rule and the fractions f.

    Returns:
        Counts that sum to `n_patients`; all in validation below 3 patients.
    """
    if n_patients < FEWEST_TO_SPLIT:
        return {Subset.TRAIN: 0, Subset.VALIDATION: n_patients, Subset.TEST: 0}
    held_out = {
        Subset.VALIDATION: _share(split.validation, n_patients, split.rule),
        Subset.TEST: _share(split.test, n_patients, split.rule),
    }
    while sum(held_out.values()) >= n_patients:
        larger = max(held_out, key=lambda subset: held_out[subset])
        held_out[larger] -= 1
    return {Subset.TRAIN: n_patients - sum(held_out.values()), **held_out}


def _share(fraction: float, n: int, rule: SplitRule) -> int:
    # Exactly what the plan's text says: in floats, ceil(0.07 * 100) would be 8.
    exact = Fraction(repr(fraction)) * n
    if rule is SplitRule.CEIL:
        return math.ceil(exact)
    return max(math.floor(exact + Fraction(1, 2)), 1 if fraction > 0 else 0)


def assign(
    patients: Sequence[str], existing: Mapping[str, Subset], split: Split, *, seed: int
) -> dict[str, Subset]:
    """Give each patient a subset.

    New patients fill what the subsets lack of their counts: first one patient to train on where
    there is none, then test, then validation; all others train. For each subset the candidates, in
    order of tumour size, are cut into as many strata as patients are wanted; each gives one.

    Args:
        patients: All patients that have a case now, each once, from the smallest tumour to the
            largest.
        existing: Assignments made before; also of patients who have no case any more.
        split: Rule and fractions.
        seed: Root of the draw.

    Returns:
        Existing assignments unchanged, and one for each new patient.
    """
    new = [patient for patient in patients if patient not in existing]
    if len(patients) < FEWEST_TO_SPLIT:
        return {**existing, **dict.fromkeys(new, Subset.VALIDATION)}
    present = [existing[patient] for patient in patients if patient in existing]
    wanted = subset_counts(len(patients), split)
    n_free = len(new) if Subset.TRAIN in present else max(len(new) - 1, 0)
    random = np.random.default_rng([seed, len(existing)])
    result = dict(existing)
    for subset in (Subset.TEST, Subset.VALIDATION):
        n_drawn = min(max(wanted[subset] - present.count(subset), 0), n_free)
        drawn = _draw_from_strata(new, n_drawn, random)
        result.update(dict.fromkeys(drawn, subset))
        new = [patient for patient in new if patient not in drawn]
        n_free -= n_drawn
    return {**result, **dict.fromkeys(new, Subset.TRAIN)}


def _draw_from_strata(ordered: list[str], n: int, random: np.random.Generator) -> set[str]:
    edges = [len(ordered) * number // n for number in range(n + 1)] if n else []
    return {ordered[int(random.integers(first, end))] for first, end in itertools.pairwise(edges)}
