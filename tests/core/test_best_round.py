"""Which round is best on validation, and which rounds can be compared at all."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainfed.core.best_round import Comparison, Figure, compare_rounds
from brainfed.plan import Region

WT, ET = Region.WT, Region.ET


def figures(table: dict[int, dict[str, tuple[int, float | None]]]) -> list[Figure]:
    """Of the whole tumour: by round and site, the patients and the mean."""
    return [
        Figure(number, site, WT, n, mean)
        for number, row in table.items()
        for site, (n, mean) in row.items()
    ]


def compared(table: dict[int, dict[str, tuple[int, float | None]]]) -> Comparison:
    return compare_rounds(figures(table), table, (WT,))


def test_the_round_of_the_highest_mean_over_patients_is_best() -> None:
    # By sites round 1 would be better: 0.85 against 0.80. By patients it is 0.78 against 0.88.
    done = compared({1: {"a": (10, 0.95), "b": (50, 0.75)}, 2: {"a": (10, 0.7), "b": (50, 0.92)}})
    assert done.best == 2
    assert done.rounds[0].mean == pytest.approx((10 * 0.95 + 50 * 0.75) / 60)
    assert [entry.n for entry in done.rounds] == [60, 60]


def test_the_mean_is_over_regions_each_weighted_by_its_own_patients() -> None:
    told = [
        Figure(number, site, region, n, mean)
        for number in (1, 2)
        for site, region, n, mean in (
            ("a", WT, 10, 0.9),
            ("a", ET, 4, 0.5),
            ("b", WT, 30, 0.7),
            ("b", ET, 12, 0.6 + 0.1 * number),
        )
    ]
    done = compare_rounds(told, (1, 2), (WT, ET))
    whole = (10 * 0.9 + 30 * 0.7) / 40
    assert done.rounds[1].mean == pytest.approx((whole + (4 * 0.5 + 12 * 0.8) / 16) / 2)
    assert done.rounds[1].sites[0].mean == pytest.approx(0.7)
    assert (done.best, done.rounds[1].n) == (2, 40)


def test_of_equal_rounds_the_earlier_one_is_best() -> None:
    # 0.1 + 0.2 and 0.3 + 0.0 differ in float64; as shares they are equal.
    done = compared({1: {"a": (1, 0.3), "b": (1, 0.0)}, 2: {"a": (1, 0.1), "b": (1, 0.2)}})
    assert done.rounds[0].mean == done.rounds[1].mean
    assert done.best == 1


def test_only_rounds_that_the_whole_set_of_sites_has_told_of_are_compared() -> None:
    done = compared(
        {
            0: {"a": (20, 0.3), "b": (10, 0.3), "c": (5, 0.3)},
            1: {"a": (20, 0.99), "b": (10, 0.99)},
            2: {"a": (20, 0.6), "b": (10, 0.6), "c": (5, 0.6)},
            3: {},
        }
    )
    assert done.best == 2
    assert done.compared == ("a", "b", "c")
    assert [entry.lacking for entry in done.rounds] == [(), ("c",), (), ("a", "b", "c")]
    assert [entry.round for entry in done.can_compare] == [0, 2]


def test_the_set_is_that_with_the_most_patients_not_with_the_most_sites() -> None:
    few = {"b": (10, 0.9), "c": (10, 0.9)}
    done = compared({1: few, 2: few, 3: {"a": (90, 0.5)}, 4: {"a": (90, 0.6)}})
    assert done.compared == ("a",)
    assert done.best == 4


def test_a_site_that_tells_of_one_round_alone_does_not_leave_that_round_without_a_rival() -> None:
    both = {"a": (20, 0.8), "b": (10, 0.8)}
    last = {"a": (20, 0.7), "b": (10, 0.7), "c": (40, 0.7)}
    done = compared({1: both, 2: last})
    assert done.compared == ("a", "b")
    assert (done.best, done.rounds[1].n) == (1, 30)


def test_a_site_below_the_floor_is_shown_and_not_compared() -> None:
    row: dict[str, tuple[int, float | None]] = {"a": (20, 0.8), "c": (4, None)}
    done = compared({1: row, 2: row})
    assert done.compared == ("a",)
    assert [(s.site, s.n, s.mean) for s in done.rounds[0].sites] == [
        ("a", 20, 0.8),
        ("c", 4, None),
    ]


def test_a_site_that_lacks_a_region_does_not_tell_of_the_round() -> None:
    told = [Figure(n, "a", region, 9, 0.5) for n in (1, 2) for region in (WT, ET)]
    done = compare_rounds([*told[:3], Figure(3, "a", WT, 9, 0.9)], (1, 2, 3), (WT, ET))
    assert done.best is None
    assert done.rounds[1].lacking == ("a",)


@pytest.mark.parametrize("table", [{}, {0: {}}, {0: {"a": (9, 0.5)}}, {0: {"a": (4, None)}, 1: {}}])
def test_without_two_rounds_to_compare_there_is_no_best(
    table: dict[int, dict[str, tuple[int, float | None]]],
) -> None:
    assert compared(table).best is None


def test_the_order_of_the_figures_changes_nothing() -> None:
    told = figures({1: {"a": (3, 0.3), "b": (7, 0.4)}, 2: {"a": (3, 0.5)}})
    outcomes = {compare_rounds(order, (2, 1), (WT,)) for order in permutations(told)}
    assert len(outcomes) == 1


A_ROW = st.dictionaries(
    st.sampled_from("abcd"),
    st.tuples(st.integers(1, 99), st.integers(0, 100).map(lambda v: v / 100)),
)


@given(st.dictionaries(st.integers(0, 6), A_ROW))
def test_the_best_is_no_worse_than_any_that_is_compared_over_the_same_sites(
    table: dict[int, dict[str, tuple[int, float | None]]],
) -> None:
    done = compared(table)
    means = {entry.round: entry.mean for entry in done.can_compare}
    assert all(set(done.compared) <= set(table[number]) for number in means)
    assert (done.best is None) == (len(means) < 2)
    if done.best is not None:
        assert means[done.best] == max(m for m in means.values() if m is not None)
