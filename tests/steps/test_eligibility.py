from pathlib import Path
from typing import Any

import pytest

from brainfed.core.labels import LabelProtocol
from brainfed.formats.found_case import FoundCase
from brainfed.plan import Cohort, Treatment
from brainfed.steps.eligibility import CohortAnswer, check_cohort, first_visit

PRE, POST, ANY = Treatment.PRE_OPERATIVE, Treatment.POST_OPERATIVE, Treatment.ANY
FIRST_ONLY = Cohort(treatment=ANY, minimum_age_years=0, first_visit_only=True)
LATER = "the plan takes the first visit only"


def a_case(patient: str = "p", visit: str = "1", **known: Any) -> FoundCase:
    name = f"{patient}_{visit}"
    return FoundCase(
        name=name, patient=patient, visit=visit, folder=Path("/s") / name, images={}, **known
    )


def only(case: FoundCase, cohort: Cohort) -> CohortAnswer:
    (answer,) = check_cohort([case], cohort).values()
    return answer


@pytest.mark.parametrize(
    ("known", "asked", "unanswered", "is_out"),
    [
        ({}, (PRE, 18), ("Treatment", "AgeYears"), False),
        ({}, (ANY, 0), (), False),
        ({"treatment": PRE, "age_years": 18}, (PRE, 18), (), False),
        ({"treatment": PRE, "age_years": 17}, (PRE, 18), (), True),
        ({"treatment": POST, "age_years": 60}, (PRE, 18), (), True),
        ({"treatment": POST}, (PRE, 18), ("AgeYears",), True),
        ({"treatment": POST, "age_years": 3}, (ANY, 0), (), False),
        ({"treatment": PRE, "age_years": 60}, (POST, 18), (), True),
        ({"protocol": LabelProtocol.BRATS2024_POST}, (PRE, 0), (), True),
        ({"protocol": LabelProtocol.BRATS2024_POST}, (POST, 0), (), False),
        ({"protocol": LabelProtocol.BRATS2023}, (PRE, 0), ("Treatment",), False),
        ({"protocol": LabelProtocol.BRATS2024_POST, "treatment": PRE}, (PRE, 0), (), True),
        ({"protocol": LabelProtocol.BRATS2024_POST, "treatment": PRE}, (POST, 0), (), True),
    ],
)
def test_the_cohort_asks_for_treatment_and_age(
    known: dict[str, Any], asked: tuple[Treatment, int], unanswered: tuple[str, ...], is_out: bool
) -> None:
    cohort = Cohort(treatment=asked[0], minimum_age_years=asked[1])
    answer = only(a_case(**known), cohort)
    assert answer.unanswered == unanswered
    assert (answer.reason is not None) == is_out


def test_both_reasons_are_given() -> None:
    answer = only(a_case(treatment=POST, age_years=9), Cohort())
    assert answer.reason == (
        "post-operative, and the plan takes pre-operative scans; "
        "9 years old, and the plan takes 18 and over"
    )


@pytest.mark.parametrize(
    ("visits", "first"),
    [
        (["1"], "1"),
        (["10", "2"], "2"),
        (["post"], "post"),
        (["20240601", "20240131", "20231224"], "20231224"),
        (["20240131-2", "20240131"], "20240131"),
        (["2008.07.02", "2008.03.30"], "2008.03.30"),
        (["month12", "month3"], "month3"),
        (["pre", "post"], None),
        (["1", "post"], None),
        (["undated", "20240131"], None),
        (["01.02.2024", "02.01.2024"], None),
        (["week2", "month1"], None),
    ],
)
def test_the_first_visit_is_told_by_numbers_and_never_by_words(
    visits: list[str], first: str | None
) -> None:
    assert first_visit(visits) == first
    assert first_visit(visits[::-1]) == first


def test_a_plan_of_first_visits_takes_the_first_of_each_patient() -> None:
    cases = [a_case(visit="2"), a_case(visit="1"), a_case("q", "7")]
    answers = check_cohort(cases, FIRST_ONLY)
    assert {name: answer.reason for name, answer in answers.items()} == {
        "p_2": LATER,
        "p_1": None,
        "q_7": None,
    }
    assert not any(answer.unanswered for answer in answers.values())
    every = check_cohort(cases, Cohort(treatment=ANY, minimum_age_years=0, first_visit_only=False))
    assert not any(answer.reason for answer in every.values())


def test_visits_whose_order_nobody_can_tell_are_asked_about() -> None:
    answers = check_cohort([a_case(visit="preop"), a_case(visit="postop")], FIRST_ONLY)
    assert {answer.unanswered for answer in answers.values()} == {("Visit",)}
    assert {answer.reason for answer in answers.values()} == {None}


def test_a_visit_that_is_out_for_another_reason_is_nobodys_first() -> None:
    cases = [a_case(visit="1", treatment=POST), a_case(visit="2", treatment=PRE)]
    answers = check_cohort(cases, Cohort(minimum_age_years=0, first_visit_only=True))
    assert "post-operative" in (answers["p_1"].reason or "")
    assert answers["p_2"].reason is None


def test_a_visit_that_was_made_a_case_before_counts() -> None:
    answers = check_cohort([a_case(visit="2")], FIRST_ONLY, earlier=[("p", "1"), ("q", "0")])
    assert answers["p_2"].reason == LATER
