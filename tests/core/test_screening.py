import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainfed.core.screening import (
    MEANING,
    ROOM_VALUES,
    Flag,
    Reported,
    Sums,
    screen,
)

FINE = Reported(n_patients=10, n_enrolled=12, n_before=10, dice_before=0.7, dice_after=0.72)
N = ROOM_VALUES // 5 + 99


def a_round(n_sites: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Weights that came, and updates that agree with each other more than not."""
    random = np.random.default_rng(seed)
    parent, common = random.normal(size=N), random.normal(size=N)
    own = random.normal(size=(n_sites, N))
    return parent.astype(np.float32), (parent + common + own).astype(np.float32)


def flags_of(parent: np.ndarray, updates: np.ndarray, **changes: Reported) -> list[tuple]:
    sums = Sums([1] * len(updates))
    sums.add(parent, updates)
    told = [changes.get(f"site{i}", FINE) for i in range(len(updates))]
    return [row.flags for row in screen(sums, told)]


def test_norms_cosines_and_distances_are_those_of_numpy() -> None:
    parent, updates = a_round()
    weights = [3, 1, 4, 1, 5]
    sums = Sums(weights, with_distances=True)
    for start in range(0, N, 7000):  # stretches of any length
        sums.add(parent[start : start + 7000], updates[:, start : start + 7000])
    changes = updates.astype(np.float64) - parent
    rows = screen(sums, [FINE] * 5)
    for site, row in enumerate(rows):
        others = [w * c for i, (w, c) in enumerate(zip(weights, changes, strict=True)) if i != site]
        mean = np.sum(others, axis=0)
        expected = changes[site] @ mean / np.linalg.norm(changes[site]) / np.linalg.norm(mean)
        assert math.isclose(row.norm, float(np.linalg.norm(changes[site])), rel_tol=1e-9)
        assert row.cosine is not None
        assert math.isclose(row.cosine, float(expected), rel_tol=1e-9)
    distances = np.linalg.norm(changes[:, None] - changes[None], axis=2)
    assert sums.distances is not None
    assert np.allclose(sums.distances, distances, rtol=1e-9)


def test_honest_updates_get_no_flag() -> None:
    assert flags_of(*a_round()) == [()] * 5


@pytest.mark.parametrize(
    ("damage", "flag"),
    [
        (lambda change: 10 * change, Flag.LARGE),
        (lambda change: change / 10, Flag.SMALL),
        (lambda change: -change, Flag.OPPOSED),
        (lambda change: 0 * change, Flag.UNCHANGED),
    ],
)
def test_an_unusual_change_is_flagged_and_no_other(damage, flag: Flag) -> None:
    parent, updates = a_round()
    updates[2] = parent + damage(updates[2] - parent)
    found = flags_of(parent, updates)
    assert found[2] == (flag,)
    assert [f for i, f in enumerate(found) if i != 2] == [()] * 4


def test_a_copy_of_another_update_is_flagged_at_both() -> None:
    parent, updates = a_round()
    updates[4] = updates[1]
    assert flags_of(parent, updates) == [(), (Flag.COPY,), (), (), (Flag.COPY,)]


@pytest.mark.parametrize(
    ("told", "flags"),
    [
        (Reported(13, 12, 13, 0.7, 0.7), (Flag.MORE_PATIENTS,)),
        (Reported(12, 12, 10, 0.7, 0.7), (Flag.OTHER_COUNT,)),
        (Reported(9, 12, 10, 0.7, 0.7), ()),
        (Reported(11, 12, 10, 0.7, 0.7), ()),
        (Reported(8, 12, 10, 0.7, 0.64), (Flag.WORSE, Flag.OTHER_COUNT)),
        (Reported(8, None, None, None, 0.1), ()),
    ],
)
def test_what_a_site_reports_is_held_against_what_it_said_before(told, flags) -> None:
    assert flags_of(*a_round(), site3=told)[3] == flags


@given(st.floats(0.01, 100), st.integers(0, 1000))
def test_a_cosine_does_not_know_the_length_and_stays_in_its_bounds(factor, seed) -> None:
    random = np.random.default_rng(seed)
    parent, updates = np.zeros(30, np.float32), random.normal(size=(4, 30)).astype(np.float32)
    sums = Sums([1] * 4)
    sums.add(parent, updates)
    longer = Sums([1] * 4)
    scaled = updates.copy()
    scaled[0] *= np.float32(factor)
    longer.add(parent, scaled)
    one, other = (found.cosine(0) for found in (sums, longer))
    assert one is not None
    assert other is not None
    assert -1 - 1e-9 <= one <= 1 + 1e-9
    assert math.isclose(one, other, abs_tol=1e-5)


def test_a_site_alone_has_no_others_to_be_held_against() -> None:
    parent, updates = a_round(1)
    sums = Sums([7])
    sums.add(parent, updates)
    (row,) = screen(sums, [FINE])
    assert (row.cosine, row.flags) == (None, ())


def test_every_flag_says_what_it_means() -> None:
    assert set(MEANING) == set(Flag)
