import itertools
import struct
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from brainfed.core.averaging import MAX_TOTAL_WEIGHT, Mean, check_weights, weighted_mean
from brainfed.errors import MalformedError

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
WEIGHTS = st.integers(1, 10_000)
ARRAYS = hnp.arrays(np.float32, st.integers(1, 20), elements=FLOATS)


@st.composite
def updates(draw: st.DrawFn) -> tuple[list[np.ndarray], list[int]]:
    """Two to six arrays of one shape, and a weight for each."""
    n_sites, n_values = draw(st.integers(2, 6)), draw(st.integers(1, 8))
    values = [draw(hnp.arrays(np.float32, n_values, elements=FLOATS)) for _ in range(n_sites)]
    return values, [draw(WEIGHTS) for _ in range(n_sites)]


def rounded(value: float) -> float:
    """The nearest float32, ties to even, by the platform's own conversion."""
    return struct.unpack("<f", struct.pack("<f", value))[0]


def by_the_page(values: list[float], weights: list[int]) -> float:
    """The specification once more, in plain Python (whose floats are float64)."""
    total = values[0] * weights[0]
    for value, weight in itertools.islice(zip(values, weights, strict=True), 1, None):
        total = total + value * weight
    return rounded(total / sum(weights))


def bits(values: object) -> bytes:
    return np.asarray(values, "<f4").tobytes()


@given(updates())
def test_the_bits_are_those_of_the_specification_in_plain_python(case) -> None:
    values, weights = case
    expected = [
        by_the_page([float(v) for v in column], weights) for column in zip(*values, strict=True)
    ]
    assert bits(weighted_mean(values, weights)) == bits(expected)


@given(FLOATS, st.integers(1, MAX_TOTAL_WEIGHT - 1))
def test_every_product_is_exact(value: float, weight: int) -> None:
    assert Fraction(value * weight) == Fraction(value) * weight


@given(ARRAYS, st.lists(WEIGHTS, min_size=1, max_size=8))
def test_equal_updates_average_to_themselves_to_the_bit(values, weights) -> None:
    assert bits(weighted_mean([values] * len(weights), weights)) == bits(values)


@given(updates())
def test_the_mean_lies_between_the_smallest_and_the_largest_value(case) -> None:
    values, weights = case
    mean = weighted_mean(values, weights)
    assert (np.min(values, axis=0) <= mean).all()
    assert (mean <= np.max(values, axis=0)).all()


@given(updates(), st.integers(1, 10))
def test_multiplying_all_counts_by_a_power_of_two_changes_no_bit(case, exponent) -> None:
    values, weights = case
    scaled = [weight * 2**exponent for weight in weights]
    assert bits(weighted_mean(values, scaled)) == bits(weighted_mean(values, weights))


@given(updates(), st.integers(2, 1000))
def test_multiplying_all_counts_by_any_number_changes_at_most_the_last_bits(case, factor) -> None:
    values, weights = case
    mean = weighted_mean(values, weights)
    scaled = weighted_mean(values, [weight * factor for weight in weights])
    largest = np.max(np.abs(values))
    np.testing.assert_allclose(scaled, mean, rtol=2**-22, atol=float(largest) * 2**-45)


def test_one_site_alone_is_its_own_mean() -> None:
    values = np.array([1.5, -0.0, np.finfo(np.float32).max, 1e-45], np.float32)
    assert bits(weighted_mean([values], [536_870_911])) == bits(values)


def test_the_mean_is_weighted() -> None:
    mean = weighted_mean([np.float32([[1, 2]]), np.float32([[4, 2]])], [2, 1])
    assert mean.dtype == np.float32
    assert mean.tolist() == [[2, 2]]


def test_a_tie_is_rounded_to_even() -> None:
    one, next_one = np.float32(1), np.nextafter(np.float32(1), np.float32(2))
    after = np.nextafter(next_one, np.float32(2))
    assert weighted_mean([np.array([one]), np.array([next_one])], [1, 1])[0] == one
    assert weighted_mean([np.array([next_one]), np.array([after])], [1, 1])[0] == after


def test_blocks_give_the_same_bits_as_the_whole() -> None:
    random = np.random.default_rng(0)
    values = [random.normal(size=1000).astype(np.float32) for _ in range(3)]
    mean, pieces = Mean(300, 6), []
    for start in range(0, 1000, 300):
        block = slice(start, start + 300)
        for site_values, weight in zip(values, (1, 2, 3), strict=True):
            mean.add(site_values[block], weight)
        pieces.append(mean.take(len(values[0][block])).astype(np.float32))
    assert bits(np.concatenate(pieces)) == bits(weighted_mean(values, [1, 2, 3]))


@pytest.mark.parametrize("weights", [[], [0], [1, 0], [1, -1], [2**29], [2**28, 2**28]])
def test_weights_that_would_not_be_exact_are_refused(weights: list[int]) -> None:
    with pytest.raises(MalformedError):
        check_weights(weights)


def test_the_largest_total_is_accepted() -> None:
    assert check_weights([2**28, 2**28 - 1]) == 2**29 - 1
