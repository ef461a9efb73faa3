import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from brainfed.core import rules
from brainfed.core.averaging import capped, weighted_mean
from brainfed.core.rules import PIECE, apply, krum
from brainfed.errors import PlanError, QuorumError
from brainfed.plan import Aggregation, Rule

FLOATS = st.floats(-1e6, 1e6, width=32)
SIMPLE = (Rule.FEDAVG, Rule.MEDIAN, Rule.TRIMMED_MEAN, Rule.KRUM)
"""Rules without a state: their result lies between the updates."""


def an_aggregation(rule: Rule, **changes: object) -> Aggregation:
    return Aggregation(rule=rule, **changes)  # type: ignore[arg-type]


@st.composite
def rounds(draw: st.DrawFn) -> tuple[np.ndarray, list[np.ndarray], list[int]]:
    """Weights that came, five to eight updates, and their weights."""
    n_sites, n_values = draw(st.integers(5, 8)), draw(st.integers(1, 6))
    array = hnp.arrays(np.float32, n_values, elements=FLOATS)
    updates = [draw(array) for _ in range(n_sites)]
    return draw(array), updates, [draw(st.integers(1, 1000)) for _ in range(n_sites)]


@given(rounds(), st.sampled_from(list(Rule)), st.sampled_from([0.0, 10.0]), st.randoms())
def test_the_names_of_the_sites_change_nothing_but_rounding(case, rule, clip, random) -> None:
    parent, updates, weights = case
    order = list(range(len(updates)))
    random.shuffle(order)
    how = an_aggregation(rule, clip_norm=clip)
    there, _ = apply(how, parent, updates, weights)
    shuffled, _ = apply(how, parent, [updates[i] for i in order], [weights[i] for i in order])
    if rule is Rule.KRUM:  # of equally good sites the first in name order
        assert any(np.array_equal(shuffled, one) for one in _clipped(parent, updates, clip))
        return
    spread = max(float(np.abs(u).max()) for u in (parent, *updates)) or 1.0
    assert np.allclose(there, shuffled, rtol=1e-5, atol=1e-6 * spread)


def _clipped(parent, updates, most: float) -> list[np.ndarray]:
    return [
        apply(an_aggregation(Rule.FEDAVG, clip_norm=most), parent, [one], [1])[0] for one in updates
    ]


@given(rounds(), st.sampled_from(SIMPLE))
def test_equal_updates_come_out_as_they_are(case, rule: Rule) -> None:
    parent, (first, *_), weights = case
    result, state = apply(an_aggregation(rule), parent, [first] * len(weights), weights)
    assert np.array_equal(result, first)
    assert state == ()


@given(rounds(), st.sampled_from(SIMPLE))
def test_every_value_lies_between_those_of_the_updates(case, rule: Rule) -> None:
    parent, updates, weights = case
    result, _ = apply(an_aggregation(rule), parent, updates, weights)
    assert (result >= np.min(updates, axis=0)).all()
    assert (result <= np.max(updates, axis=0)).all()


@given(rounds(), st.sampled_from(list(Rule)), st.integers(2, 50))
def test_only_the_ratio_of_the_counts_matters(case, rule: Rule, factor: int) -> None:
    parent, updates, weights = case
    once, _ = apply(an_aggregation(rule), parent, updates, weights)
    more, _ = apply(an_aggregation(rule), parent, updates, [factor * w for w in weights])
    assert np.allclose(once, more, rtol=1e-6, atol=1e-6)


@given(rounds(), st.integers(0, 2**32))
def test_robust_rules_ignore_the_counts(case, seed: int) -> None:
    parent, updates, weights = case
    others = np.random.default_rng(seed).integers(1, 1000, len(weights)).tolist()
    for rule in (Rule.MEDIAN, Rule.TRIMMED_MEAN, Rule.KRUM):
        there, _ = apply(an_aggregation(rule), parent, updates, weights)
        other, _ = apply(an_aggregation(rule), parent, updates, others)
        assert there.tobytes() == other.tobytes()


@given(rounds())
def test_fedavg_is_the_weighted_mean_to_the_bit(case) -> None:
    parent, updates, weights = case
    result, _ = apply(an_aggregation(Rule.FEDAVG), parent, updates, weights)
    assert result.tobytes() == weighted_mean(updates, weights).tobytes()


def a_round(n: int, n_sites: int = 6, seed: int = 0) -> tuple[np.ndarray, list[np.ndarray]]:
    random = np.random.default_rng(seed)
    parent = random.normal(size=n).astype(np.float32)
    return parent, [
        (parent + random.normal(scale=0.1, size=n)).astype(np.float32) for _ in range(n_sites)
    ]


def test_momentum_without_memory_and_with_rate_one_steps_to_the_mean() -> None:
    parent, updates = a_round(50)
    how = an_aggregation(Rule.FEDAVGM, server_momentum=0.0)
    result, _ = apply(how, parent, updates, [1] * 6)
    assert np.allclose(result, np.mean(updates, axis=0), atol=1e-6)


def test_momentum_is_that_of_the_paper_over_three_rounds() -> None:
    """Hsu et al. 2019, restated in plain numpy."""
    parent, updates = a_round(50)
    how, state, weights = an_aggregation(Rule.FEDAVGM, server_rate=0.5), (), [1, 2, 3, 4, 5, 6]
    velocity, expected = np.zeros(50), parent.astype(np.float64)
    for number in range(3):
        _, updates = a_round(50, seed=number)
        mean = np.average(np.array(updates, np.float64), axis=0, weights=weights)
        velocity = 0.9 * velocity + (mean - expected)
        expected = expected + 0.5 * velocity
        parent, state = apply(how, parent, updates, weights, state)
    assert np.allclose(parent, expected, atol=1e-5)
    assert np.allclose(state[0], velocity, atol=1e-5)


def test_adam_is_that_of_the_paper_over_three_rounds() -> None:
    """Reddi et al. 2021, algorithm 2, restated in plain numpy."""
    parent, _ = a_round(50)
    how = an_aggregation(Rule.FEDADAM, server_rate=0.02, adaptivity=0.01)
    state: Sequence[np.ndarray] = ()
    m, v, expected = np.zeros(50), np.full(50, 0.01**2), parent.astype(np.float64)
    for number in range(3):
        _, updates = a_round(50, seed=number)
        change = np.mean(np.array(updates, np.float64), axis=0) - expected
        m, v = 0.9 * m + 0.1 * change, 0.99 * v + 0.01 * change**2
        expected = expected + 0.02 * m / (np.sqrt(v) + 0.01)
        parent, state = apply(how, parent, updates, [1] * 6, state)
    assert np.allclose(parent, expected, atol=1e-5)
    assert np.allclose(state[0], m, atol=1e-6)
    assert np.allclose(state[1], v, atol=1e-6)


@pytest.mark.parametrize("rule", [Rule.FEDAVGM, Rule.FEDADAM])
def test_the_state_decides_the_next_round(rule: Rule) -> None:
    parent, updates = a_round(20)
    how = an_aggregation(rule)
    once, state = apply(how, parent, updates, [1] * 6)
    assert len(state) == len(rule.state)
    assert not np.array_equal(
        apply(how, once, updates, [1] * 6, state)[0], apply(how, once, updates, [1] * 6)[0]
    )


def test_a_step_out_of_the_range_of_float32_is_refused() -> None:
    parent = np.array([3e38], np.float32)
    how = an_aggregation(Rule.FEDAVGM, server_rate=100.0)
    with pytest.raises(PlanError, match="range of float32") as caught:
        apply(how, -parent, [parent], [1])
    assert caught.value.where == "aggregation.server_rate"


def test_a_long_change_is_shortened_and_a_short_one_left_to_the_bit() -> None:
    parent, updates = a_round(3 * PIECE + 17, n_sites=1)
    norm = math.sqrt(math.fsum((float(a) - float(b)) ** 2 for a, b in zip(updates[0], parent)))  # noqa: B905
    result, _ = apply(an_aggregation(Rule.FEDAVG, clip_norm=norm / 4), parent, updates, [1])
    change = result.astype(np.float64) - parent
    assert math.isclose(float(np.linalg.norm(change)), norm / 4, rel_tol=1e-5)
    same, _ = apply(an_aggregation(Rule.FEDAVG, clip_norm=norm * 1.001), parent, updates, [1])
    assert same.tobytes() == updates[0].tobytes()


@pytest.mark.parametrize("n", [1, 255, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE + 300])
def test_norms_and_distances_are_those_of_exact_sums(n: int) -> None:
    parent, updates = a_round(n)
    whole = rules.Whole(an_aggregation(Rule.KRUM), 6)
    for index in range(whole.n_sums):
        whole.add(index, parent, updates)
    assert whole.n_sums == 6 + 15
    squared = np.zeros((6, 6))
    for i in range(6):
        for j in range(6):
            difference = updates[i].astype(np.float64) - updates[j]
            squared[i, j] = math.fsum((difference**2).tolist())
    assert whole.known().chosen == krum(squared, 1)


def test_krum_takes_one_of_the_many_that_agree() -> None:
    parent, updates = a_round(1000, n_sites=7)
    updates[0] = parent - 50  # the first in name order is far from all
    how = an_aggregation(Rule.KRUM, n_dishonest=2)
    result, _ = apply(how, parent, updates, [1] * 7)
    assert any(np.array_equal(result, update) for update in updates[1:])


def test_krum_sums_the_nearest_n_minus_f_minus_two() -> None:
    """Three sites at 0, 1 and 2 and two at 10: with f = 1 two distances count (Blanchard 2017)."""
    places = np.array([0.0, 1.0, 2.0, 10.0, 10.0])
    assert krum((places[:, None] - places[None, :]) ** 2, 1) == 1


def test_too_few_sites_for_krum_are_refused() -> None:
    parent, updates = a_round(10, n_sites=4)
    with pytest.raises(QuorumError, match="Too few updates for krum") as caught:
        apply(an_aggregation(Rule.KRUM), parent, updates, [1] * 4)
    assert caught.value.expected == "at least 5, for 1 dishonest sites"


def test_without_updates_the_weights_that_came_are_passed_on() -> None:
    parent, _ = a_round(10)
    result, _ = apply(an_aggregation(Rule.FEDAVG), parent, [], [])
    assert result.tobytes() == parent.tobytes()


# --- a cap on weights ----------------------------------------------------------------------------


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=9), st.floats(0.01, 1))
def test_no_site_has_more_than_its_share_where_that_can_be(weights, most: float) -> None:
    found = capped(weights, most)
    assert all(0 < lower <= weight for lower, weight in zip(found, weights, strict=True))
    if most * len(weights) < 1:
        assert set(found) == {1}
    elif max(found) > 1:
        assert max(found) / sum(found) <= most + 1e-12
    untouched = [w for w, lower in zip(weights, found, strict=True) if lower == w]
    assert all(w <= max(found) for w in untouched)


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=9), st.floats(0.2, 0.99))
@settings(max_examples=50)
def test_the_cap_is_the_largest_that_fits(weights, most: float) -> None:
    found = capped(weights, most)
    level = max(found)
    if level < max(weights):
        higher = [min(weight, level + 1) for weight in weights]
        assert max(higher) / sum(higher) > most - 1e-9


def test_a_cap_in_numbers() -> None:
    assert capped([100, 10, 10], 0.5) == (20, 10, 10)
    assert capped([100, 90, 10], 0.4) == (20, 20, 10)
    assert capped([5, 5], 1.0) == (5, 5)
    assert capped([7, 3], 0.4) == (1, 1)
