"""Who belongs to the plan's cohort: what is known of a case, held against what the plan asks."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from brainfed.core.labels import LabelProtocol
from brainfed.formats.dataset import Index
from brainfed.formats.found_case import FoundCase, visit_order
from brainfed.formats.identities import Identities
from brainfed.plan import Cohort, Treatment

_DAY_FIRST = re.compile(r"[0-9]{1,2}([./-])[0-9]{1,2}\1[0-9]{2,4}")
"""A day that begins with the day or the month: it doesn't sort."""


@dataclass(frozen=True, slots=True)
class CohortAnswer:
    """What is known of a case's place in the cohort."""

    unanswered: tuple[str, ...] = ()
    """What the plan asks and nobody has answered: columns of `cases.csv`."""
    reason: str | None = None
    """Why the case is not in the cohort; None where it is, or nobody knows."""


def check_cohort(
    found: Iterable[FoundCase], cohort: Cohort, *, earlier: Iterable[tuple[str, str]] = ()
) -> dict[str, CohortAnswer]:
    """Hold what is known of cases against the plan's cohort.

    A question that the plan doesn't ask (any treatment, no minimum age) needs no answer.

    Args:
        found: The cases, their labels' protocol filled in if a command named it.
        cohort: The plan's cohort.
        earlier: Patient and visit of other cases.

    Returns:
        An answer for each case, by its name.
    """
    found = tuple(found)
    answers = {case.name: _check_case(case, cohort) for case in found}
    if not cohort.first_visit_only:
        return answers
    belonging = [case for case in found if answers[case.name].reason is None]
    visits: dict[str, set[str]] = defaultdict(set)
    for patient, visit in (*earlier, *((case.patient, case.visit) for case in belonging)):
        visits[patient].add(visit)
    for case in belonging:
        answer = answers[case.name]
        first = first_visit(visits[case.patient])
        if first is None:
            answer = replace(answer, unanswered=(*answer.unanswered, "Visit"))
        elif case.visit != first:
            answer = replace(answer, reason="the plan takes the first visit only")
        answers[case.name] = answer
    return answers


def check_all(
    found: Iterable[FoundCase], cohort: Cohort, index: Index | None, known: Identities
) -> dict[str, CohortAnswer]:
    """`check_cohort`, beside the visits that were made cases before.

    Args:
        found: The cases that are looked at now, without excluded ones.
        cohort: The plan's cohort.
        index: The cases that were made, if there are any.
        known: The way back to names.
    """
    found = tuple(found)
    here = {known.case_id(case.name) for case in found}
    earlier = [
        (known.patients[entry.patient], known.visits[entry.id])
        for entry in (index.cases if index else ())
        if entry.id not in here and entry.id in known.visits and entry.patient in known.patients
    ]
    return check_cohort(found, cohort, earlier=earlier)


def first_visit(visits: Collection[str]) -> str | None:
    """The earliest of a patient's visits; None where their names don't tell.

    >>> first_visit({"20240601", "20240131"})
    '20240131'
    >>> first_visit({"post", "pre"})
    """
    first = min(visits, key=visit_order)
    return first if all(_tells_order(first, other) for other in visits) else None


def _tells_order(one: str, other: str) -> bool:
    """Whether two visits differ first in a number, or not at all: words have no order in time."""
    if one != other and (_DAY_FIRST.fullmatch(one) or _DAY_FIRST.fullmatch(other)):
        return False
    pairs = zip(visit_order(one), visit_order(other), strict=False)
    differing = next(((mine, theirs) for mine, theirs in pairs if mine != theirs), None)
    return differing is None or not (differing[0][0] or differing[1][0])


def _check_case(found: FoundCase, cohort: Cohort) -> CohortAnswer:
    """Treatment and age of one case.

    Labels of `brats2024-post` mark what surgery left, so they answer for the treatment.
    """
    treatment, age = found.treatment, found.age_years
    if found.protocol is LabelProtocol.BRATS2024_POST:
        if treatment is Treatment.PRE_OPERATIVE:
            return CohortAnswer(
                reason="called pre-operative, but its labels are of brats2024-post: one is wrong"
            )
        treatment = Treatment.POST_OPERATIVE
    asks_treatment = cohort.treatment is not Treatment.ANY
    asks_age = cohort.minimum_age_years > 0
    reasons = []
    if asks_treatment and treatment not in (None, cohort.treatment):
        reasons.append(f"{treatment}, and the plan takes {cohort.treatment} scans")
    if asks_age and age is not None and age < cohort.minimum_age_years:
        reasons.append(f"{age} years old, and the plan takes {cohort.minimum_age_years} and over")
    unanswered = [
        word
        for word, is_open in (
            ("Treatment", asks_treatment and treatment is None),
            ("AgeYears", asks_age and age is None),
        )
        if is_open
    ]
    return CohortAnswer(tuple(unanswered), "; ".join(reasons) or None)
