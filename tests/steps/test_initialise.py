import json
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from brainfed import plan as plans
from brainfed.errors import (
    ConflictError,
    NotReadyError,
    PlanError,
    SignatureError,
    StrangerError,
    UsageError,
    WorkspaceError,
    WrongRoleError,
)
from brainfed.formats import enrolment, federation, ledger, rounds, signature, weights, workspace
from brainfed.formats.workspace import Role
from brainfed.steps.initialise import Candidate, admit, initialise, start_federation
from tests import attacks
from tests.builders import a_plan
from tests.federation import (
    TODAY,
    Small,
    a_workspace,
    an_unstarted_federation,
    carry,
    enrolment_of,
    initial_weights,
    say_yes,
    sign,
    snapshot,
    start,
)


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return an_unstarted_federation(tmp_path)


def admit_all(small: Small) -> None:
    admit(small.coordinator, [enrolment_of(s) for s in small.sites.values()], confirm=say_yes)


def test_a_new_site_has_a_key_and_an_enrolment_signed_by_it(tmp_path: Path) -> None:
    made = initialise(tmp_path, Role.SITE, "hospital-a", n_patients=40)
    assert made.enrolment == tmp_path / "outbox" / "hospital-a.enrolment.json"
    content = enrolment.read_verified(made.enrolment)
    assert (content.name, content.n_patients) == ("hospital-a", 40)
    place = workspace.find(tmp_path)
    assert made.fingerprint in json.dumps(ledger.read(place.ledger_path))


def test_a_new_coordinator_has_no_enrolment(tmp_path: Path) -> None:
    assert initialise(tmp_path, Role.COORDINATOR, "uni-lead").enrolment is None
    assert list((tmp_path / "outbox").iterdir()) == []


def test_a_name_that_can_not_be_a_file_name_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        initialise(tmp_path / "a", Role.SITE, "Hospital A")
    assert not (tmp_path / "a").exists()


def test_a_workspace_is_not_made_twice(small: Small) -> None:
    before = snapshot(small.coordinator)
    with pytest.raises(WorkspaceError):
        initialise(small.coordinator.root, Role.COORDINATOR, "uni-lead")
    assert snapshot(small.coordinator) == before


def test_each_site_is_shown_before_it_is_admitted(small: Small) -> None:
    shown: list[Candidate] = []

    def look(candidate: Candidate) -> bool:
        shown.append(candidate)
        return candidate.name == "hospital-a"

    done = admit(small.coordinator, [enrolment_of(s) for s in small.sites.values()], confirm=look)
    assert [candidate.name for candidate in shown] == ["hospital-a", "hospital-b"]
    assert all(candidate.fingerprint.startswith("SHA256:") for candidate in shown)
    assert (done.admitted, done.declined) == (("hospital-a",), ("hospital-b",))
    assert done.sites == ("hospital-a",)


def test_admitting_again_changes_nothing_and_asks_nothing(small: Small) -> None:
    admit_all(small)
    before = snapshot(small.coordinator)
    paths = [enrolment_of(site) for site in small.sites.values()]
    done = admit(small.coordinator, paths, confirm=lambda candidate: pytest.fail("asked"))
    assert done.already == ("hospital-a", "hospital-b")
    assert done.version == 1
    assert snapshot(small.coordinator) == before


def test_one_damaged_enrolment_admits_nobody(small: Small) -> None:
    before = snapshot(small.coordinator)
    attacks.flip_bit(enrolment_of(small.sites["hospital-b"]), 300)
    with pytest.raises(SignatureError):
        admit_all(small)
    assert snapshot(small.coordinator) == before


def test_a_name_or_a_key_that_is_taken_is_not_admitted(small: Small, tmp_path: Path) -> None:
    admit_all(small)
    before = snapshot(small.coordinator)
    twin = a_workspace(tmp_path / "twin", Role.SITE, "hospital-a")
    with pytest.raises(ConflictError):
        admit(small.coordinator, [enrolment_of(twin)], confirm=say_yes)
    lead = a_workspace(tmp_path / "lead", Role.SITE, "uni-lead")
    with pytest.raises(ConflictError):
        admit(small.coordinator, [enrolment_of(lead)], confirm=say_yes)
    path = enrolment_of(small.sites["hospital-b"])
    attacks.edit_json(path, attacks.setting("name", "hospital-c"))
    with pytest.raises(ConflictError):
        admit(small.coordinator, [sign(path, small.sites["hospital-b"])], confirm=say_yes)
    assert snapshot(small.coordinator) == before


def test_an_enrolment_signed_by_somebody_else_is_refused(small: Small) -> None:
    path = sign(enrolment_of(small.sites["hospital-a"]), small.sites["hospital-b"])
    with pytest.raises(StrangerError):
        admit(small.coordinator, [path], confirm=say_yes)


def test_only_a_coordinator_admits_and_starts(small: Small, tmp_path: Path) -> None:
    site = small.sites["hospital-a"]
    with pytest.raises(WrongRoleError):
        admit(site, [], confirm=say_yes)
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
    expected = initial_weights(known.plan)
    assert all(np.array_equal(tensors[name], expected[name]) for name in expected)
    names = [path.name for path in small.coordinator.outbox.iterdir()]
    assert len(names) == 6
    assert sum(name.endswith(".sig") for name in names) == 3


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


def test_a_site_admitted_after_the_start_joins_with_the_next_roster(
    small: Small, tmp_path: Path
) -> None:
    admit_all(small)
    start(small, a_plan())
    late = a_workspace(tmp_path / "late", Role.SITE, "hospital-c")
    done = admit(small.coordinator, [enrolment_of(late)], confirm=say_yes)
    assert done.version == 2
    assert not carry(small.coordinator, late, small.medium()).refused
    roster = federation.load(late).roster
    assert [site.name for site in roster.sites] == ["hospital-a", "hospital-b", "hospital-c"]
    assert roster.federation == small.known.digest
    signature.verify_file(federation.roster_path(late, 2))
