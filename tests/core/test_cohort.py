import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainfed.core.cohort import Subset, assign, subset_counts
from brainfed.plan import Split, SplitRule

SPLITS = st.builds(
    Split,
    rule=st.sampled_from(SplitRule),
    validation=st.sampled_from([0.0, 0.07, 0.1, 0.2, 0.25, 0.45]),
    test=st.sampled_from([0.0, 0.07, 0.1, 0.2, 0.25, 0.45]),
)


def patients(n: int) -> list[str]:
    return [f"p{number:04d}" for number in range(n)]


@given(split=SPLITS, n=st.integers(0, 60), n_later=st.integers(0, 40), seed=st.integers(0, 99))
def test_a_split_is_disjoint_exhaustive_and_never_changes(
    split: Split, n: int, n_later: int, seed: int
) -> None:
    everyone = patients(n + n_later)
    first = assign(everyone[::2], {}, split, seed=seed)
    second = assign(everyone, first, split, seed=seed)
    assert set(first) == set(everyone[::2])  # one subset each, by being a dict
    assert set(second) == set(everyone)
    assert {patient: second[patient] for patient in first} == first


@given(split=SPLITS, n=st.integers(0, 200), seed=st.integers(0, 99))
def test_a_first_split_has_the_counts_of_the_rule(split: Split, n: int, seed: int) -> None:
    assignments = assign(patients(n), {}, split, seed=seed)
    counts = {s: sum(v is s for v in assignments.values()) for s in Subset}
    assert counts == subset_counts(n, split)
    assert sum(counts.values()) == n
    assert counts[Subset.TRAIN] > 0 or n < 3


@pytest.mark.parametrize("n", [88, 34, 22, 20, 15, 14, 12, 8, 5, 4])
def test_the_papers_rule_holds_out_a_fifth_rounded_up(n: int) -> None:
    counts = subset_counts(n, Split(rule=SplitRule.CEIL, validation=0.2, test=0))
    assert counts[Subset.VALIDATION] == math.ceil(n / 5)
    assert counts[Subset.TRAIN] == n - math.ceil(n / 5)


def test_the_papers_table_1_comes_out() -> None:
    rule = Split(rule=SplitRule.CEIL, validation=0.2, test=0)
    sites = [88, 34, 22, 15, 14, 12, 8, 8, 5, 4]
    trained = sorted((subset_counts(n, rule)[Subset.TRAIN] for n in sites), reverse=True)
    assert trained == [70, 27, 17, 12, 11, 9, 6, 6, 4, 3]


def test_a_fraction_is_exact_not_a_float() -> None:
    assert math.ceil(0.07 * 100) == 8  # the trap
    rule = Split(rule=SplitRule.CEIL, validation=0.07, test=0)
    assert subset_counts(100, rule)[Subset.VALIDATION] == 7


def test_fewer_than_three_patients_only_validate() -> None:
    assert set(assign(patients(2), {}, Split(), seed=1).values()) == {Subset.VALIDATION}


def test_a_site_that_grows_to_three_patients_gets_one_to_train_on() -> None:
    two = assign(patients(2), {}, Split(), seed=1)
    assert assign(patients(3), two, Split(), seed=1)["p0002"] is Subset.TRAIN


def test_the_seed_decides() -> None:
    splits = [assign(patients(30), {}, Split(), seed=seed) for seed in (1, 1, 2)]
    assert splits[0] == splits[1] != splits[2]


@given(n=st.integers(10, 80), seed=st.integers(0, 200))
def test_each_subset_has_small_and_large_tumours(n: int, seed: int) -> None:
    everyone = patients(n)  # in order of size
    assignments = assign(everyone, {}, Split(validation=0.2, test=0.2), seed=seed)
    for subset in (Subset.VALIDATION, Subset.TEST):
        places = [number for number, p in enumerate(everyone) if assignments[p] is subset]
        assert min(places) < n / 2 <= max(places)


def test_patients_without_a_case_keep_their_subset_but_do_not_count() -> None:
    gone = dict.fromkeys(["gone1", "gone2"], Subset.TEST)
    assignments = assign(patients(10), gone, Split(), seed=3)
    assert assignments["gone1"] is Subset.TEST
    assert sum(assignments[p] is Subset.TEST for p in patients(10)) == 2
