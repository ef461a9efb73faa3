from datetime import date
from pathlib import Path

import numpy as np
import pytest

from brainfed import plan as plans
from brainfed.errors import NotReadyError, PlanError, WrongRoleError
from brainfed.formats import federation, rounds, weights
from brainfed.steps.admit import admit
from brainfed.steps.start import start_federation
from tests.builders import a_plan
from tests.federation import (
    TODAY,
    Small,
    an_unstarted_federation,
    enrolment_of,
    initial_weights,
    say_yes,
    snapshot,
    start,
)


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return an_unstarted_federation(tmp_path)


def admit_all(small: Small) -> None:
    admit(small.coordinator, [enrolment_of(s) for s in small.sites.values()], confirm=say_yes)


def test_only_a_coordinator_starts(small: Small, tmp_path: Path) -> None:
    site = small.sites["hospital-a"]
    with pytest.raises(WrongRoleError):
        start_federation(site, tmp_path / "p", initial_weights=initial_weights, today=TODAY)


def test_nothing_starts_before_enough_sites_are_admitted(small: Small) -> None:
    with pytest.raises(NotReadyError, match="Too few sites"):
        start(small, a_plan())
    admit(small.coordinator, [enrolment_of(small.sites["hospital-a"])], confirm=say_yes)
    with pytest.raises(NotReadyError, match="Too few sites"):
        start(small, a_plan())
    assert not federation.has_started(small.coordinator)


def test_the_start_freezes_the_plan_and_makes_round_0(small: Small) -> None:
    admit_all(small)
    start(small, a_plan())
    known = small.known
    assert known.start.day == "2026-03-01"
    first = rounds.newest_global(small.coordinator, known)
    assert (first.manifest.round, first.manifest.parent) == (0, None)
    tensors = weights.read_tensors(first.path, known.table)
    expected = initial_weights(known.first_plan)
    assert all(np.array_equal(tensors[name], expected[name]) for name in expected)
    names = [path.name for path in small.coordinator.outbox.iterdir()]
    # The first roster stands inside the start.
    assert len(names) == 4
    assert sum(name.endswith(".sig") for name in names) == 2


def test_starting_again_changes_nothing(small: Small) -> None:
    admit_all(small)
    start(small, a_plan())
    before = snapshot(small.coordinator)
    path = small.root / "plan.toml"
    done = start_federation(
        small.coordinator, path, initial_weights=initial_weights, today=date(2027, 1, 1)
    )
    assert done.already
    assert snapshot(small.coordinator) == before


def test_another_plan_can_not_be_started_in_the_same_workspace(small: Small) -> None:
    admit_all(small)
    start(small, a_plan())
    before = snapshot(small.coordinator)
    with pytest.raises(PlanError, match="another plan"):
        start(small, a_plan(rounds=9))
    assert snapshot(small.coordinator) == before


def test_a_wrong_plan_starts_nothing(small: Small) -> None:
    admit_all(small)
    before = snapshot(small.coordinator)
    path = small.root / "plan.toml"
    path.write_text(plans.render(a_plan()).replace("rounds", "round"))
    with pytest.raises(PlanError):
        start_federation(small.coordinator, path, initial_weights=initial_weights, today=TODAY)
    assert snapshot(small.coordinator) == before


def test_two_federations_of_one_plan_differ(small: Small, tmp_path: Path) -> None:
    admit_all(small)
    start(small, a_plan())
    other = an_unstarted_federation(tmp_path / "other")
    admit_all(other)
    start(other, a_plan())
    assert small.known.digest != other.known.digest
