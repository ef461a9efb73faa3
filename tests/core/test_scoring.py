"""The patient is the unit of every summary."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainfed.core.metrics import Measure
from brainfed.core.scoring import CaseScore, patient_scores, summarise
from brainfed.plan import Region
from tests.builders import a_plan


def a_score(patient: str, dice: float, *, case: str = "c", region: Region = Region.WT) -> CaseScore:
    return CaseScore(
        case=case,
        patient=patient,
        region=region,
        n_voxels=10,
        n_voxels_predicted=10,
        values={Measure.DICE: dice, Measure.SOFT_SLICE_DICE: (1 + dice) / 2},
    )


def test_a_patient_with_many_cases_counts_once_with_their_mean() -> None:
    rows = [a_score("a", 0.2), a_score("a", 0.4), a_score("b", 0.9)]
    assert patient_scores(rows, Region.WT, Measure.DICE) == pytest.approx({"a": 0.3, "b": 0.9})
    summary = summarise(rows, a_plan())[0]
    assert summary.n == 2
    assert summary.mean == pytest.approx(0.6)
    assert summary.median == pytest.approx(0.6)
    assert summary.sd == pytest.approx(0.6 / 2**0.5)


def test_each_region_and_measure_has_its_own_summary() -> None:
    plan = a_plan(scans={"regions": ("WT", "ET")})
    rows = [a_score("a", 0.5), a_score("a", 0.1, region=Region.ET)]
    found = {(s.measure, s.region): s.mean for s in summarise(rows, plan)}
    assert found == pytest.approx(
        {
            (Measure.DICE, Region.WT): 0.5,
            (Measure.DICE, Region.ET): 0.1,
            (Measure.SOFT_SLICE_DICE, Region.WT): 0.75,
            (Measure.SOFT_SLICE_DICE, Region.ET): 0.55,
        }
    )


def test_the_worst_five_are_the_lowest_first() -> None:
    rows = [a_score(f"p{i}", i / 10) for i in (5, 3, 1, 7, 2, 9, 4)]
    worst = summarise(rows, a_plan())[0].worst
    assert [patient for patient, _ in worst] == ["p1", "p2", "p3", "p4", "p5"]
    assert [score for _, score in worst] == [0.1, 0.2, 0.3, 0.4, 0.5]


def test_one_patient_has_no_spread_and_none_has_no_mean() -> None:
    one, none = summarise([a_score("a", 0.5)], a_plan())[0], summarise([], a_plan())[0]
    assert (one.n, one.mean, one.sd, one.median) == (1, 0.5, None, 0.5)
    assert (none.n, none.mean, none.sd, none.median, none.worst) == (0, None, None, None, ())


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.floats(0, 1)), min_size=1, max_size=12))
def test_a_summary_does_not_depend_on_the_order_of_cases(cases: list[tuple[str, float]]) -> None:
    rows = [a_score(patient, dice) for patient, dice in cases]
    first, second = summarise(rows, a_plan())[0], summarise(rows[::-1], a_plan())[0]
    assert first.mean == pytest.approx(second.mean)
    assert first.mean is not None
    assert 0 <= first.mean <= 1
