"""Whatever a drill makes is refused by every step in earnest, and changes nothing there."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pytest

from brainfed import plan as plans
from brainfed.core.architecture import tensor_table
from brainfed.core.labels import LabelProtocol
from brainfed.errors import (
    BrainfedError,
    FileRefusedError,
    UsageError,
    WrongRoundError,
)
from brainfed.formats import document, federation, given_weights, workspace
from brainfed.formats.roster import Role
from brainfed.formats.workspace import Workspace
from brainfed.steps.admit import admit
from brainfed.steps.aggregate import aggregate
from brainfed.steps.audit import audit
from brainfed.steps.drill import drill
from brainfed.steps.initialise import initialise
from brainfed.steps.own_update import Counts, take_update
from brainfed.steps.predict import Wish, predict
from brainfed.steps.start import start_federation
from brainfed.steps.trust_weights import trust
from tests.federation import (
    Small,
    a_federation,
    a_workspace,
    an_unstarted_federation,
    enrolment_of,
    initial_weights,
    say_yes,
    snapshot,
    take,
)
from tests.steps.test_drill import SITE, a_site, a_small_plan, an_external_plan

TODAY = date(2026, 4, 1)


@dataclass(frozen=True)
class Drilled:
    """A finished drill with approvals, its files, and the plan in earnest."""

    site: Path
    coordinator: Path
    plan: plans.Plan

    def of_coordinator(self, pattern: str) -> Path:
        (found,) = self.coordinator.rglob(pattern)
        return found

    def of_site(self, pattern: str) -> Path:
        found = self.site.glob(f"rounds/*/{pattern}"), self.site.glob(f"federation/{pattern}")
        (path,) = [path for paths in found for path in paths]
        return path


@pytest.fixture(scope="module")
def drilled(tmp_path_factory: pytest.TempPathFactory) -> Drilled:
    root = tmp_path_factory.mktemp("drilled")
    plan = an_external_plan(root / "own").model_copy(
        update={"exchange": a_small_plan(exchange={"approval": True}).exchange}
    )
    _, site = a_site(root, plan)
    done = drill(site, None, today=TODAY)
    assert done.failed is None
    folder = site.drill / SITE
    return Drilled(folder / "site", folder / "coordinator", plan)


@pytest.fixture
def real(tmp_path: Path, drilled: Drilled) -> Small:
    """A federation in earnest under the very same plan, with the same site."""
    return a_federation(tmp_path, ("hospital-a",), plan=drilled.plan)


FILES: dict[str, Callable[[Drilled], Path]] = {
    "start": lambda d: d.of_coordinator("federation/start.json"),
    "roster": lambda d: d.of_coordinator("federation/roster.v0001.json"),
    "global": lambda d: d.of_coordinator("r0001/*.global.safetensors"),
    "record": lambda d: d.of_coordinator("r0001/*.record.json"),
    "acceptance": lambda d: d.of_site("*.acceptance.json"),
    "update": lambda d: d.of_site("*.update.safetensors"),
    "approval": lambda d: d.of_site("*.approval.json"),
}


@pytest.mark.parametrize("kind", FILES)
def test_import_refuses_every_file_of_a_drill(drilled: Drilled, real: Small, kind: str) -> None:
    path = FILES[kind](drilled)
    for place in (real.coordinator, real.sites["hospital-a"]):
        before = snapshot(place)
        (row,) = take(place, path, path.with_name(f"{path.name}.sig")).files
        assert isinstance(row.error, FileRefusedError), row
        assert row.error.exit_code == 6 and row.error.details()["next"]
        assert snapshot(place) == before


def test_import_refuses_a_whole_medium_of_a_drill(drilled: Drilled, real: Small) -> None:
    place = real.sites["hospital-a"]
    before = snapshot(place)
    done = take(place, drilled.coordinator / "outbox")
    assert len(done.refused) == len(done.files) == 3
    assert snapshot(place) == before


def test_a_site_in_earnest_never_joins_a_drill(drilled: Drilled, tmp_path: Path) -> None:
    site = a_workspace(tmp_path / "hospital-a", Role.SITE, "hospital-a")
    done = take(site, drilled.coordinator / "outbox")
    (start,) = [row for row in done.files if row.name.endswith("start.json")]
    assert isinstance(start.error, WrongRoundError) and "of a drill" in start.error.message
    assert not federation.has_started(site)


def test_a_site_of_a_drill_never_joins_in_earnest(drilled: Drilled, tmp_path: Path) -> None:
    small = a_federation(tmp_path, ("hospital-a",), joined=False, plan=drilled.plan)
    initialise(tmp_path / "x", Role.SITE, SITE, purpose="drill")
    done = take(workspace.find(tmp_path / "x"), small.coordinator.outbox)
    start = next(row for row in done.files if row.name.endswith("start.json"))
    assert isinstance(start.error, WrongRoundError) and "not of a drill" in start.error.message


def an_enrolment(root: Path, name: str, role: Role = Role.SITE) -> Path:
    initialise(root, role, name, purpose="drill")
    return workspace.find(root).outbox / f"{name}.enrolment.json"


@pytest.mark.parametrize(
    ("name", "role"), [(SITE, Role.SITE), (f"{SITE}{document.RELEASE}", Role.APPROVER)]
)
def test_admit_refuses_an_enrolment_of_a_drill(tmp_path: Path, name: str, role: Role) -> None:
    small = an_unstarted_federation(tmp_path, ("hospital-a",))
    admit(small.coordinator, [enrolment_of(small.sites["hospital-a"])], confirm=say_yes)
    before = snapshot(small.coordinator)
    path = an_enrolment(tmp_path / "drill", name, role)
    with pytest.raises(WrongRoundError, match="of a drill"):
        admit(small.coordinator, [path], confirm=say_yes)
    assert snapshot(small.coordinator) == before


def test_a_drill_admits_nobody_in_earnest(drilled: Drilled, real: Small) -> None:
    lead = workspace.find(drilled.coordinator)
    before = snapshot(lead)
    with pytest.raises(WrongRoundError, match="not of a drill"):
        admit(lead, [enrolment_of(real.sites["hospital-a"])], confirm=say_yes)
    assert snapshot(lead) == before


@pytest.mark.parametrize("name", [SITE, "drill-", "drill-x"])
def test_nobody_in_earnest_gets_a_name_of_a_drill(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        initialise(tmp_path / "a", Role.SITE, name)
    with pytest.raises(UsageError, match="kept for drills"):
        initialise(tmp_path / "b", Role.SITE, "hospital-a", purpose="drill")
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


def test_a_drill_can_not_be_started_in_earnest(tmp_path: Path, drilled: Drilled) -> None:
    initialise(tmp_path / "lead", Role.COORDINATOR, "drill-lead", purpose="drill")
    lead = workspace.find(tmp_path / "lead")
    admit(lead, [an_enrolment(tmp_path / "site", SITE)], confirm=say_yes)
    path = tmp_path / "plan.toml"
    path.write_text(plans.render(drilled.plan))
    with pytest.raises(WrongRoundError):
        start_federation(lead, path, initial_weights=initial_weights, today=TODAY, are_given=True)
    assert not federation.has_started(lead)


def test_nothing_of_a_drill_is_averaged(drilled: Drilled, real: Small) -> None:
    take(real.coordinator, FILES["update"](drilled).parent)
    before = snapshot(real.coordinator)
    with pytest.raises(BrainfedError) as caught:
        aggregate(real.coordinator, today=TODAY)
    assert caught.value.exit_code == 7
    assert snapshot(real.coordinator) == before


def test_audit_refuses_a_drill(drilled: Drilled, real: Small) -> None:
    with pytest.raises(WrongRoundError, match="of a drill"):
        audit([drilled.coordinator])
    with pytest.raises(UsageError, match="exactly one federation"):
        audit([drilled.coordinator, real.coordinator.root])
    found = audit([real.coordinator.root], wanted=real.known.digest)
    assert found.federation == real.known.digest


def test_predict_refuses_weights_of_a_drill(drilled: Drilled, real: Small, tmp_path: Path) -> None:
    weights, start = FILES["global"](drilled), FILES["start"](drilled)
    wish = Wish(
        scans=tmp_path / "scans",
        weights=weights,
        start=start,
        out=tmp_path / "out",
        protocol=LabelProtocol.BRATS2017,
    )
    with pytest.raises(WrongRoundError, match="of a drill"):
        predict(wish, None, tell=say_yes)
    site = real.sites["hospital-a"]
    with pytest.raises(BrainfedError):
        trust(weights, None, site)
    with pytest.raises(WrongRoundError):
        trust(weights, start, site)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["global", "update"])
def test_weights_of_a_drill_are_taken_neither_to_begin_with_nor_as_an_update(
    drilled: Drilled, real: Small, kind: str
) -> None:
    path, table = FILES[kind](drilled), tensor_table(drilled.plan)
    with pytest.raises(WrongRoundError, match="of a drill"):
        given_weights.read_tensors(path, table)
    site: Workspace = real.sites["hospital-a"]
    before = snapshot(site)
    with pytest.raises(WrongRoundError, match="of a drill"):
        take_update(site, path, Counts(1, 1, 1))
    assert snapshot(site) == before
    about = next(p for p in real.coordinator.rounds.rglob("*.global.safetensors"))
    assert given_weights.read_tensors(about, table), "those in earnest are taken"


def test_every_exchanged_file_of_a_drill_says_what_it_is(drilled: Drilled) -> None:
    known = federation.load(workspace.find(drilled.coordinator))
    assert known.start.purpose == "drill"
    for path in (drilled.site / "outbox", drilled.coordinator / "outbox"):
        for file in path.glob("*.json"):
            content = file.read_bytes()
            kind = document.kind_of(content)
            assert b'"purpose":"drill"' in content or kind == "roster", file
