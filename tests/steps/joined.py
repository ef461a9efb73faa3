"""A coordinator and sites that have joined, made by the real steps and signed files."""

from datetime import date
from pathlib import Path
from typing import Any

from brainfed import plan as plans
from brainfed.core.unet import initial_weights
from brainfed.formats import workspace
from brainfed.formats.roster import Role
from brainfed.formats.workspace import Workspace
from brainfed.plan import Plan
from brainfed.steps.admit import admit
from brainfed.steps.finish import finish
from brainfed.steps.initialise import initialise
from brainfed.steps.receive import receive
from brainfed.steps.start import start_federation
from tests.builders import a_plan, write_dataset


def a_quick_plan(**changes: Any) -> Plan:
    """A plan that one site closes alone, with three steps a round."""
    training = {"batch": 4, "epochs_per_round": 0, "steps_per_round": 3}
    content: dict[str, Any] = {
        "participation": {"quorum_sites": 1, "floor": 1},
        "training": training,
    }
    for key, value in changes.items():
        content[key] = content.get(key, {}) | value if isinstance(value, dict) else value
    return a_plan(**content)


def joined(root: Path, plan: Plan, *names: str, **dataset_sizes: int) -> dict[str, Workspace]:
    """Workspaces by name, `uni-lead` the coordinator's; each site has the same small data set."""
    coordinator = _new(root, Role.COORDINATOR, "uni-lead")
    places = {"uni-lead": coordinator}
    for name in names or ("hospital-a",):
        places[name] = _new(root, Role.SITE, name)
        write_dataset(places[name].data, plan, **dataset_sizes)
        admit(
            coordinator,
            [places[name].outbox / f"{name}.enrolment.json"],
            confirm=lambda candidate: True,
        )
    plan_path = root / "plan.toml"
    plan_path.write_text(plans.render(plan))
    start_federation(
        coordinator, plan_path, initial_weights=initial_weights, today=date(2026, 1, 2)
    )
    for name, place in places.items():
        if name != "uni-lead":
            taken = receive(place, [coordinator.outbox], confirm=lambda request: True)
            assert not taken.refused, taken.refused
    return places


def a_joined_site(root: Path, plan: Plan | None = None, **dataset_sizes: int) -> Workspace:
    """The workspace of `hospital-a`, joined and with data, before its first round."""
    return joined(root, plan or a_quick_plan(), **dataset_sizes)["hospital-a"]


def finished(site: Workspace, number: int = 0) -> Workspace:
    """The same site, once the coordinator has signed the final and the site has imported it."""
    coordinator = workspace.find(site.root.parent / "uni-lead")
    finish(coordinator, round_number=number, today=date(2026, 1, 3))
    taken = receive(site, [coordinator.outbox], confirm=lambda request: True)
    assert not taken.refused, taken.refused
    return site


def _new(root: Path, role: Role, name: str) -> Workspace:
    initialise(root / name, role, name)
    return workspace.find(root / name)
