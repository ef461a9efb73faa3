import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from brainfed.core.robust import median, merge_exchange, n_trimmed, network, trimmed_mean

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize("n", range(1, 11))
def test_the_network_sorts_all_rows_of_zeros_and_ones_and_so_everything(n: int) -> None:
    """The zero-one principle: Knuth 5.3.4, theorem Z."""
    for bits in itertools.product((0, 1), repeat=n):
        row = list(bits)
        for low, high in merge_exchange(n):
            assert low < high
            row[low], row[high] = min(row[low], row[high]), max(row[low], row[high])
        assert row == sorted(bits)


@pytest.mark.parametrize("n", [2, 5, 8, 33, 64])
def test_what_is_left_out_of_a_network_changes_nothing_that_is_asked_for(n: int) -> None:
    random = np.random.default_rng(n)
    rows = random.normal(size=(n, 500)).astype(np.float32)
    middle = (n - 1) // 2
    assert len(network(n, middle, n - middle)) <= len([*merge_exchange(n)])
    expected = np.median(rows.astype(np.float64), axis=0)
    assert np.array_equal(median(list(rows)), expected)


@st.composite
def sites(draw: st.DrawFn) -> list[np.ndarray]:
    n_sites, n_values = draw(st.integers(1, 9)), draw(st.integers(1, 6))
    return [draw(hnp.arrays(np.float32, n_values, elements=FLOATS)) for _ in range(n_sites)]


@given(sites(), st.floats(0, 0.49), st.randoms())
def test_the_order_of_the_sites_changes_no_bit_and_no_input(values, fraction, random) -> None:
    n_cut = n_trimmed(len(values), fraction)
    copies = [value.copy() for value in values]
    shuffled = list(values)
    random.shuffle(shuffled)
    assert trimmed_mean(values, n_cut).tobytes() == trimmed_mean(shuffled, n_cut).tobytes()
    assert median(values).tobytes() == median(shuffled).tobytes()
    assert all(a.tobytes() == b.tobytes() for a, b in zip(values, copies, strict=True))


@given(sites(), st.floats(0, 0.49))
def test_a_trimmed_mean_is_the_mean_of_what_sorting_leaves(values, fraction: float) -> None:
    n_cut = n_trimmed(len(values), fraction)
    left = np.sort(np.array(values, np.float64), axis=0)[n_cut : len(values) - n_cut]
    total = np.zeros(len(values[0]))
    for row in left:
        total = total + row
    assert np.array_equal(trimmed_mean(values, n_cut), total / len(left))


def test_minus_zero_never_comes_out() -> None:
    rows = [np.array([-0.0], np.float32)] * 3
    assert not np.signbit(median(rows)).any()
    assert not np.signbit(trimmed_mean(rows, 1)).any()


@pytest.mark.parametrize(
    ("n_sites", "fraction", "n_cut"),
    [(10, 0.1, 1), (10, 0.3, 3), (5, 0.2, 1), (4, 0.2, 0), (3, 0.49, 1), (1, 0.4, 0), (2, 0.49, 0)],
)
def test_as_many_sites_are_cut_off_as_the_fraction_says_rounded_down(
    n_sites: int, fraction: float, n_cut: int
) -> None:
    assert n_trimmed(n_sites, fraction) == n_cut
