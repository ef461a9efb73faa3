"""Nothing about a group below the floor leaves but that it is below, and nothing of one patient."""

import statistics
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainfed.core.metrics import Measure
from brainfed.core.scoring import CaseScore
from brainfed.formats import floor
from brainfed.formats.manifest import ScoredWeights
from brainfed.formats.scores import Figure, Group
from brainfed.plan import Region
from tests.builders import a_plan

PLAN = a_plan()
PARTS = (Group.COMPLETE, Group.INCOMPLETE)


def a_row(number: int, **changes: object) -> CaseScore:
    """A case of the patient with that number."""
    fields: dict[str, object] = {
        "case": f"{number:016x}",
        "patient": f"{number:016x}",
        "region": Region.WT,
        "n_voxels": 10,
        "n_voxels_predicted": 9,
        "values": {Measure.DICE: 0.5},
        "is_complete": True,
    }
    return CaseScore(**(fields | changes))  # type: ignore[arg-type]


@st.composite
def cohorts(draw: st.DrawFn) -> list[CaseScore]:
    """Patients of one to three visits; some without a measure in mm, some without a modality."""
    rows = []
    for number in range(draw(st.integers(0, 45))):
        for visit in range(draw(st.sampled_from((1, 1, 1, 2, 3)))):
            values = {Measure.DICE: draw(st.floats(0, 1))}
            if draw(st.integers(0, 5)):
                values[Measure.HD95_SURFACE] = draw(st.floats(0, 374))
                values[Measure.VOLUME_DIFFERENCE] = draw(st.floats(-500, 500))
            is_complete = draw(st.integers(0, 3)) > 0
            case = f"{100 * number + visit:016x}"
            rows.append(a_row(number, case=case, values=values, is_complete=is_complete))
    return rows


def figures_of(rows: list[CaseScore], smallest: int) -> tuple[Figure, ...]:
    return floor.figures(rows, PLAN, subset="test", floor=smallest)


def behind(rows: list[CaseScore], figure: Figure) -> dict[str, float]:
    """Each patient's own score in the group of a figure, told apart without the code's help."""
    found: dict[str, float] = {}
    for patient in {row.patient for row in rows}:
        own = [row for row in rows if row.patient == patient]
        is_complete = all(row.is_complete for row in own)
        is_in = {"all": True, "complete": is_complete, "incomplete": not is_complete}
        scores = [row.values[figure.measure] for row in own if figure.measure in row.values]
        if is_in[figure.group] and scores:
            found[patient] = sum(scores) / len(scores)
    return found


def values_of(figure: Figure) -> Iterator[tuple[str, int]]:
    for name in ("mean", "sd", "q1", "median", "q3"):
        value = getattr(figure, name)
        if value is not None:
            yield name, value


@given(st.integers(0, 50), st.integers(1, 50))
def test_a_count_is_exact_from_the_floor_on(n: int, smallest: int) -> None:
    assert floor.count(n, smallest) == (n if n >= smallest else f"fewer than {smallest}")


@pytest.mark.parametrize(("own", "holds"), [(1, 5), (5, 5), (12, 12)])
def test_a_site_may_raise_the_floor_and_never_lower_it(own: int, holds: int) -> None:
    assert floor.holding(a_plan(participation={"floor": 5}), own) == holds


@given(cohorts(), st.integers(1, 25))
def test_nothing_is_said_of_fewer_patients_than_the_floor(
    rows: list[CaseScore], smallest: int
) -> None:
    for figure in figures_of(rows, smallest):
        patients = behind(rows, figure)
        least = {"mean": 2, "sd": 3, "q1": 20, "median": 20, "q3": 20}
        for name, _ in values_of(figure):
            assert len(patients) >= max(smallest, least[name])
        if isinstance(figure.n, int):
            assert figure.n == len(patients) >= smallest
        else:
            assert (figure.n, len(patients) < smallest) == (f"fewer than {smallest}", True)


@given(cohorts(), st.integers(1, 25))
def test_what_is_said_is_true_to_a_hundredth(rows: list[CaseScore], smallest: int) -> None:
    for figure in figures_of(rows, smallest):
        scores = list(behind(rows, figure).values())
        for name, value in values_of(figure):
            exact = {
                "mean": statistics.fmean,
                "sd": statistics.stdev,
                "q1": lambda s: statistics.quantiles(s, method="inclusive")[0],
                "median": statistics.median,
                "q3": lambda s: statistics.quantiles(s, method="inclusive")[2],
            }[name](scores)
            assert value % 10_000 == 0
            assert abs(value - 1e6 * exact) <= 5_000.001


@given(cohorts(), st.integers(1, 12))
def test_no_group_of_a_file_can_be_subtracted_from_another_below_the_floor(
    rows: list[CaseScore], smallest: int
) -> None:
    told = [figure for figure in figures_of(rows, smallest) if figure.mean is not None]
    for whole in told:
        for part in told:
            if part.measure is whole.measure:
                rest = behind(rows, whole).keys() - behind(rows, part).keys()
                is_nested = behind(rows, part).keys() <= behind(rows, whole).keys()
                assert not is_nested or not rest or len(rest) >= max(smallest, 3)


@given(cohorts(), st.integers(1, 12))
def test_no_count_of_a_file_can_be_subtracted_from_another_below_the_floor(
    rows: list[CaseScore], smallest: int
) -> None:
    counts = [(f.group, f.n) for f in figures_of(rows, smallest) if isinstance(f.n, int)]
    for group, n in counts:
        for other, fewer in counts:
            if other is group and fewer < n:  # how many have no measure in mm
                assert n - fewer >= smallest


@given(cohorts(), st.integers(1, 12))
def test_the_parts_are_told_together_or_not_at_all(rows: list[CaseScore], smallest: int) -> None:
    found = figures_of(rows, smallest)
    for measure in Measure:
        groups = {figure.group for figure in found if figure.measure is measure}
        assert groups in (set(), {Group.ALL}, set(Group))


def test_parts_that_are_large_enough_are_told() -> None:
    rows = [a_row(n, is_complete=n < 7) for n in range(12)]
    found = figures_of(rows, 5)
    assert [(f.group, f.n) for f in found] == [("all", 12), ("complete", 7), ("incomplete", 5)]
    assert [f.group for f in figures_of(rows, 6)] == ["all"]


def test_a_patient_with_one_incomplete_case_is_incomplete() -> None:
    rows = [a_row(1), a_row(1, case="f" * 16, is_complete=False), a_row(2)]
    groups = floor.groups_of(rows)
    assert [len(groups[group]) for group in (Group.ALL, *PARTS)] == [2, 1, 1]


def test_quartiles_begin_with_twenty_patients() -> None:
    def some(n: int) -> Figure:
        (figure,) = figures_of([a_row(i, values={Measure.DICE: i / 20}) for i in range(n)], 5)
        return figure

    assert (some(19).q1, some(19).median, some(19).q3) == (None, None, None)
    assert (some(20).q1, some(20).median, some(20).q3) == (240_000, 480_000, 710_000)


def test_with_a_floor_of_one_there_is_still_no_figure_of_one_patient_and_no_spread_of_two() -> None:
    one, two, three = (figures_of([a_row(i) for i in range(n)], 1)[0] for n in (1, 2, 3))
    assert (one.n, one.mean, one.sd) == (1, None, None)
    assert (two.n, two.mean, two.sd) == (2, 500_000, None)
    assert (three.n, three.mean, three.sd) == (3, 500_000, 0)


def test_a_manifest_states_the_two_dice_scores_of_all_patients_alone() -> None:
    values = {Measure.DICE: 0.5, Measure.SOFT_SLICE_DICE: 0.25, Measure.HD95_SURFACE: 300.0}
    rows = [a_row(n, values=values, is_complete=n < 6) for n in range(12)]
    found = floor.scores(rows, PLAN, weights=ScoredWeights.RESULT, subset="validation", floor=5)
    assert [(s.measure, s.n, s.mean, s.sd) for s in found] == [
        (Measure.DICE, 12, 500_000, 0),
        (Measure.SOFT_SLICE_DICE, 12, 250_000, 0),
    ]


def test_a_site_without_patients_says_only_that_they_are_fewer() -> None:
    found = floor.scores([], PLAN, weights=ScoredWeights.RESULT, subset="validation", floor=5)
    assert {(s.n, s.mean, s.sd) for s in found} == {("fewer than 5", None, None)}
    assert len(found) == 2
