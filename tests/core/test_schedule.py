"""Whose turn it is in a relay: an order that the seed draws, for whoever takes part."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from brainfed.core.schedule import next_site
from brainfed.plan import Plan
from tests.builders import a_plan

SITES = some.sets(some.from_regex(r"[a-z][a-z0-9]{0,6}", fullmatch=True), min_size=1, max_size=12)


def a_relay(method: str, seed: int = 1) -> Plan:
    changes: dict[str, Any] = {"method": method, "seed": seed}
    if method == "iil":
        changes["training"] = {"patience": 2, "schedule": "constant"}
    return a_plan(**changes)


def turns(plan: Plan, sites: set[str], n: int) -> list[str | None]:
    """The first turns of a relay, in order."""
    found: list[str | None] = [next_site(plan, sites, None)]
    while len(found) < n:
        found.append(next_site(plan, sites, found[-1]))
    return found


@given(SITES, some.integers(0, 99))
def test_ciil_visits_every_site_once_a_cycle_in_the_same_order(sites: set[str], seed: int) -> None:
    found = turns(a_relay("ciil", seed), sites, 3 * len(sites))
    cycle = found[: len(sites)]
    assert set(cycle) == sites
    assert found == 3 * cycle


@given(SITES, some.integers(0, 99))
def test_iil_visits_every_site_once_and_then_nobody(sites: set[str], seed: int) -> None:
    *found, last = turns(a_relay("iil", seed), sites, len(sites) + 1)
    assert found == turns(a_relay("ciil", seed), sites, len(sites))
    assert last is None


@given(SITES, some.integers(0, 99))
def test_the_order_in_which_sites_are_named_changes_nothing(sites: set[str], seed: int) -> None:
    plan = a_relay("ciil", seed)
    shuffled = sorted(sites)
    random.Random(seed).shuffle(shuffled)
    for last in (None, *sites):
        assert next_site(plan, shuffled, last) == next_site(plan, sorted(sites), last)


@given(SITES, some.data())
def test_after_a_site_that_has_left_comes_the_one_that_would_have_come(
    sites: set[str], data: some.DataObject
) -> None:
    plan = a_relay("ciil")
    last = data.draw(some.sampled_from(sorted(sites)))
    follower = next_site(plan, sites, last)
    left = sites - {last}
    assert next_site(plan, left, last) == (follower if left else None)


@given(SITES, some.from_regex(r"[A-Z]{3}", fullmatch=True))
def test_a_joiner_moves_nobody_else(sites: set[str], joiner: str) -> None:
    plan = a_relay("ciil")
    before = turns(plan, sites, len(sites))
    after = turns(plan, sites | {joiner}, len(sites) + 1)
    assert [name for name in after if name != joiner] == before


def test_the_seed_draws_the_order() -> None:
    sites = {f"hospital-{letter}" for letter in "abcde"}
    found = {tuple(turns(a_relay("ciil", seed), sites, 5)) for seed in range(20)}
    assert len(found) > 10
    assert {order[0] for order in found} == sites


def test_the_order_is_the_one_that_is_written_down() -> None:
    """By `printf '2018 hospital-a' | sha256sum`: db33..., and 9b19..., 5912... for b and c."""
    sites = {"hospital-a", "hospital-b", "hospital-c"}
    assert turns(a_relay("ciil", 2018), sites, 3) == ["hospital-c", "hospital-b", "hospital-a"]


@pytest.mark.parametrize("method", ["iil", "ciil"])
def test_without_sites_it_is_nobody_s_turn(method: str) -> None:
    assert next_site(a_relay(method), (), None) is None
    assert next_site(a_relay(method), (), "hospital-a") is None
