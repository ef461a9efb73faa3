from pathlib import Path

import pytest

from brainfed import plan as plans
from brainfed.errors import (
    ConflictError,
    FileRefusedError,
    NotReadyError,
    PlanError,
    StrangerError,
    UsageError,
    WrongFederationError,
    WrongRoleError,
)
from brainfed.formats import document, federation, ledger, rounds, signature
from brainfed.formats.acceptance import Acceptance
from brainfed.formats.amendment import Amendment
from brainfed.formats.document import PlanVersion
from brainfed.formats.workspace import Workspace
from brainfed.plan import Plan
from brainfed.steps.accept import JoinRequest
from brainfed.steps.aggregate import aggregate
from brainfed.steps.amend import Amended, amend
from brainfed.steps.audit import audit
from brainfed.steps.exchange import export
from brainfed.steps.findings import FindingKind
from brainfed.steps.receive import receive
from brainfed.steps.status import status
from tests.builders import a_plan
from tests.federation import (
    TODAY,
    Small,
    a_federation,
    a_waiting_federation,
    carry,
    close_round,
    say_yes,
    snapshot,
    train,
)


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return a_federation(tmp_path)


def amended(small: Small, from_round: int = 2, **changes: object) -> Amended:
    return amend_to(small, a_plan(**(changes or {"training": {"rate": 0.5}})), from_round)


def amend_to(small: Small, plan: Plan, from_round: int) -> Amended:
    path = small.root / "next.toml"
    path.write_text(plans.render(plan))
    return amend(small.coordinator, path, from_round=from_round, today=TODAY)


def test_an_amendment_shows_what_changes_key_by_key(small: Small) -> None:
    done = amended(small, training={"rate": 0.5}, participation={"quorum_sites": 1})
    told = [(change.key, change.before, change.after) for change in done.changes]
    assert told == [
        ("training.rate", "0.001", "0.5"),
        ("participation.quorum_sites", "2", "1"),
    ]
    assert (done.version, done.from_round, done.already) == (2, 2, False)


def test_each_round_is_under_the_plan_that_is_in_force(small: Small) -> None:
    amended(small, 2)
    known = small.known
    assert known.in_force(1).version.version == 1
    assert known.in_force(2).version.version == known.in_force(9).version.version == 2
    assert known.plan_of(1).training.rate == 0.001
    assert known.plan_of(2).training.rate == 0.5
    assert (small.coordinator.federation_folder / "plan.toml").read_text() == plans.render(
        known.plan_of(2)
    )


def test_the_records_and_manifests_name_the_version_in_force(small: Small) -> None:
    amended(small, 2)
    for site in small.sites.values():
        carry(small.coordinator, site, small.medium("amendment"))
    first, second = close_round(small), close_round(small)
    versions = [
        rounds.verify_record(d.record, small.known)[0].plan.version for d in (first, second)
    ]
    assert versions == [1, 2]


def test_a_site_is_shown_the_difference_and_accepts_it(small: Small) -> None:
    amended(small, 1)
    site = small.sites["hospital-a"]
    export(small.coordinator, small.medium())
    shown: list[JoinRequest] = []

    def look(request: JoinRequest) -> bool:
        shown.append(request)
        return True

    assert not receive(site, [small.medium()], confirm=look).refused
    (request,) = shown
    assert [change.key for change in request.changes] == ["training.rate"]
    assert (request.version, request.from_round) == (2, 1)
    export(site, small.medium("back"))
    assert not carry(site, small.coordinator, small.medium("back")).refused
    path = federation.acceptance_path(small.coordinator, "hospital-a", 2)
    content = document.read(path, Acceptance)
    assert content.plan.version == 2
    assert signature.verify_file(path).key == site.public_key()


def test_a_site_that_has_not_accepted_does_not_go_on(small: Small) -> None:
    amended(small, 1)
    site = small.sites["hospital-a"]
    export(small.coordinator, small.medium())
    (refused,) = receive(site, [small.medium()], confirm=lambda _: False).refused
    assert isinstance(refused.error, StrangerError)
    with pytest.raises(NotReadyError, match="not been accepted"):
        federation.check_accepted(site, federation.load(site), 1)
    assert any("not been accepted" in todo for todo in status(site).todo)
    # Asked again, it may.
    path = federation.amendment_path(site, 2)
    receive(site, [path], confirm=say_yes)
    federation.check_accepted(site, federation.load(site), 1)


def test_with_nobody_to_ask_the_amendment_lies_there_and_the_ledger_tells_of_it(
    small: Small,
) -> None:
    amended(small, 1)
    site = small.sites["hospital-a"]
    export(small.coordinator, small.medium())

    def nobody(request: JoinRequest) -> bool:
        raise UsageError("nobody to ask", found=request.version)

    with pytest.raises(UsageError):
        receive(site, [small.medium()], confirm=nobody)
    assert federation.load(site).plans[-1].version.version == 2
    assert ledger.missing(site.ledger_path, site.federation_folder) == []
    assert FindingKind.UNSIGNED not in {f.kind for f in audit([site.root]).findings}


def test_before_its_round_an_amendment_holds_nobody_up(small: Small) -> None:
    amended(small, 2)
    site = small.sites["hospital-a"]
    export(small.coordinator, small.medium())
    receive(site, [small.medium()], confirm=lambda _: False)
    federation.check_accepted(site, federation.load(site), 1)


def test_an_update_made_under_the_plan_before_is_refused(small: Small) -> None:
    site = small.sites["hospital-a"]
    train(site)
    export(site, small.medium())
    amended(small, 1)
    (refused,) = [f for f in take_all(small.coordinator, small.medium()) if f is not None]
    assert isinstance(refused, WrongFederationError)
    assert "another plan" in refused.message


def take_all(place: Workspace, medium: Path) -> list[Exception | None]:
    return [file.error for file in receive(place, [medium], confirm=say_yes).refused]


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other"},
        {"seed": 9},
        {"method": "ciil"},
        {"network": {"channels": (4, 16)}},
        {"grid": {"size": (64, 64)}},
        {"cohort": {"minimum_age_years": 0}},
        {"split": {"test": 0.3}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_name_seed_method_network_and_data_can_not_be_amended(
    small: Small, changes: dict[str, object]
) -> None:
    before = snapshot(small.coordinator)
    with pytest.raises(PlanError, match="can't change"):
        amended(small, **changes)
    assert snapshot(small.coordinator) == before


def test_a_closed_round_or_one_with_updates_keeps_its_plan(tmp_path: Path) -> None:
    small = a_waiting_federation(tmp_path)
    with pytest.raises(ConflictError, match="Updates for this round"):
        amended(small, 1)
    aggregate(small.coordinator, today=TODAY)
    with pytest.raises(UsageError, match="closed"):
        amended(small, 1)
    assert amended(small, 2).from_round == 2
    with pytest.raises(UsageError, match="earlier amendment"):
        amended(small, 1, training={"rate": 0.25})


def test_amending_again_changes_nothing_and_the_same_plan_is_none(small: Small) -> None:
    with pytest.raises(PlanError, match="nothing to amend"):
        amend_to(small, a_plan(), 2)
    amended(small)
    before = snapshot(small.coordinator)
    assert amended(small).already
    assert snapshot(small.coordinator) == before


def test_only_the_coordinator_amends(small: Small) -> None:
    with pytest.raises(WrongRoleError):
        amend(small.sites["hospital-a"], small.root / "p", from_round=2, today=TODAY)


def an_amendment(small: Small, **changes: object) -> Amendment:
    plan = a_plan(training={"rate": 0.5})
    known = small.known
    fields: dict[str, object] = {
        "purpose": "real",
        "federation": known.digest,
        "sender": "uni-lead",
        "roster_version": 1,
        "plan_text": plans.render(plan),
        "plan": PlanVersion(version=2, digest=plans.plan_digest(plan)),
        "previous": known.start.plan.digest,
        "from_round": 2,
        "day": "2026-03-01",
    }
    return Amendment.model_validate(fields | changes)


def bring(small: Small, content: Amendment, signer: Workspace) -> Exception | None:
    path = small.medium("forged") / "a.json"
    path.unlink(missing_ok=True)
    document.write_signed(path, content, signer.private_key())
    (file,) = receive(small.sites["hospital-a"], [path], confirm=say_yes).files
    return file.error


def test_an_amendment_that_a_site_makes_up_is_refused(small: Small) -> None:
    other = a_federation(small.root / "other", plan=a_plan(rounds=3))
    forger = small.sites["hospital-b"]
    for content in (an_amendment(small), an_amendment(small, sender="hospital-b")):
        assert isinstance(bring(small, content, forger), StrangerError)
    assert isinstance(bring(small, an_amendment(small), other.coordinator), StrangerError)
    assert bring(small, an_amendment(small), small.coordinator) is None


def test_an_amendment_that_skips_a_version_or_tells_another_story_is_refused(
    small: Small,
) -> None:
    plan = a_plan(training={"rate": 0.7})
    text, digest = plans.render(plan), plans.plan_digest(plan)
    skips = an_amendment(small, plan=PlanVersion(version=3, digest=plans.plan_digest(
        a_plan(training={"rate": 0.5}))))  # fmt: skip
    assert isinstance(bring(small, skips, small.coordinator), ConflictError)
    strange = an_amendment(small, previous="0" * 64)
    assert isinstance(bring(small, strange, small.coordinator), ConflictError)
    assert bring(small, an_amendment(small), small.coordinator) is None
    second = an_amendment(small, plan_text=text, plan=PlanVersion(version=2, digest=digest))
    error = bring(small, second, small.coordinator)
    assert isinstance(error, ConflictError)
    assert "two stories" in error.message


def test_an_amendment_that_changes_the_network_is_refused_by_the_sites_too(small: Small) -> None:
    plan = a_plan(network={"channels": (4, 16)})
    content = an_amendment(
        small,
        plan_text=plans.render(plan),
        plan=PlanVersion(version=2, digest=plans.plan_digest(plan)),
    )
    assert isinstance(bring(small, content, small.coordinator), FileRefusedError | PlanError)


def test_an_acceptance_of_another_plan_is_refused(small: Small) -> None:
    site = small.sites["hospital-a"]
    export(site, None)
    path = federation.acceptance_path(site, site.name, 1)
    content = document.read(path, Acceptance)
    other = content.model_copy(update={"plan": PlanVersion(version=1, digest="0" * 64)})
    forged = small.medium() / "acceptance.json"
    document.write_signed(forged, other, site.private_key())
    (error,) = take_all(small.coordinator, forged)
    assert isinstance(error, WrongFederationError)
