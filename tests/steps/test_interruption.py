"""Each command, killed before each of its changes of the disk, then run again.

The kill is `os._exit` in a forked process: no clean-up runs, as after `kill -9`.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from brainfed import plan as plans
from brainfed.core.sshsig import public_key
from brainfed.formats import enrolment, federation, ledger, workspace
from brainfed.formats.workspace import Role, Workspace
from brainfed.steps import initialise as module
from brainfed.steps.aggregate import aggregate
from brainfed.steps.exchange import export
from brainfed.steps.initialise import admit, initialise, start_federation
from brainfed.steps.status import status
from tests.builders import a_plan
from tests.federation import (
    TODAY,
    a_federation,
    a_waiting_federation,
    a_workspace,
    an_unstarted_federation,
    enrolment_of,
    initial_weights,
    killed_everywhere,
    leftovers,
    say_yes,
    snapshot,
    take,
    train,
)

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")

Command = Callable[[Workspace], object]


def check(
    before: Path, work: Path, command: Command, *, at_least: int, name: str = "", step: int = 1
) -> None:
    """Run again after each kill, the command must end in the state of one undisturbed."""

    def run(root: Path) -> None:
        place = workspace.find(root / name)
        with workspace.locked(place):
            command(place)

    reference = next(iter(killed_everywhere(before, work / "first", lambda root: None)), None)
    assert reference is None
    undisturbed = work / "first" / "killed-0"
    run(undisturbed)
    expected = snapshot(workspace.find(undisturbed / name))
    n_points = 0
    for number, root in killed_everywhere(before, work, run, step=step):
        place = workspace.find(root / name)
        status(place)  # whatever lies there, it can be looked at
        run(root)
        assert snapshot(place) == expected, f"killed before change {number}"
        assert leftovers(place.root) == []
        ledger.read(place.ledger_path)
        n_points += 1
    assert n_points >= at_least


def test_import_at_the_coordinator(tmp_path: Path) -> None:
    small = a_federation(tmp_path / "small")
    train(small.sites["hospital-a"])
    export(small.sites["hospital-a"], small.medium())
    check(small.coordinator.root, tmp_path, lambda place: take(place, small.medium()), at_least=10)


def test_the_first_import_at_a_site(tmp_path: Path) -> None:
    small = a_federation(tmp_path / "small", joined=False)
    export(small.coordinator, small.medium())
    site = small.sites["hospital-a"].root
    check(site, tmp_path, lambda place: take(place, small.medium()), at_least=25)


def test_a_newer_roster_at_a_site(tmp_path: Path) -> None:
    small = a_federation(tmp_path / "small")
    late = a_workspace(tmp_path / "late", Role.SITE, "hospital-c")
    admit(small.coordinator, [enrolment_of(late)], confirm=say_yes)
    export(small.coordinator, small.medium())
    for path in small.medium().iterdir():
        if ".roster." not in path.name:
            path.unlink()
    site = small.sites["hospital-a"].root
    check(site, tmp_path, lambda place: take(place, small.medium()), at_least=9)


def test_admit(tmp_path: Path) -> None:
    small = an_unstarted_federation(tmp_path / "small")
    paths = [enrolment_of(site) for site in small.sites.values()]
    check(
        small.coordinator.root,
        tmp_path,
        lambda place: admit(place, paths, confirm=say_yes),
        at_least=7,
    )


def test_admit_after_the_start(tmp_path: Path) -> None:
    small = a_federation(tmp_path / "small")
    late = a_workspace(tmp_path / "late", Role.SITE, "hospital-c")
    check(
        small.coordinator.root,
        tmp_path,
        lambda place: admit(place, [enrolment_of(late)], confirm=say_yes),
        at_least=10,
    )


def test_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = an_unstarted_federation(tmp_path / "small")
    admit(small.coordinator, [enrolment_of(s) for s in small.sites.values()], confirm=say_yes)
    plan = tmp_path / "plan.toml"
    plan.write_text(plans.render(a_plan()))
    # The federation's random identity is held still, to compare the files.
    monkeypatch.setattr(module, "secrets", SimpleNamespace(token_hex=lambda n: "ab" * n))
    check(
        small.coordinator.root,
        tmp_path,
        lambda place: start_federation(place, plan, initial_weights=initial_weights, today=TODAY),
        at_least=20,
    )


def test_aggregate(tmp_path: Path) -> None:
    small = a_waiting_federation(tmp_path / "small")

    def close(place: Workspace) -> None:
        if status(place).closed_round == 0:  # killed after the last signature it is closed
            aggregate(place, today=TODAY)
        elif not place.root.joinpath("outbox").exists():
            pytest.fail("no outbox")
        else:
            export(place, None)

    check(small.coordinator.root, tmp_path, close, at_least=15)


@pytest.mark.parametrize("name", ["hospital-a", "uni-lead"])
def test_export(tmp_path: Path, name: str) -> None:
    small = a_federation(tmp_path / "small")
    train(small.sites["hospital-a"])

    def send(place: Workspace) -> None:
        medium = place.root / "medium"  # inside, to compare it as well
        medium.mkdir(exist_ok=True)
        export(place, medium)

    # The coordinator sends six files, all in the same way: every third kill is enough.
    step = 3 if name == "uni-lead" else 1
    check(small.root, tmp_path, send, at_least=7, name=name, step=step)


@pytest.mark.parametrize("role", Role)
def test_init(tmp_path: Path, role: Role) -> None:
    (tmp_path / "empty").mkdir()
    n_points = 0

    def begin(root: Path) -> None:
        if not (root / workspace.MARKER).exists():  # with it the workspace is made
            initialise(root, role, "somebody")

    for _, root in killed_everywhere(tmp_path / "empty", tmp_path, begin):
        begin(root)
        place = workspace.find(root)
        with workspace.locked(place):
            key = public_key(place.private_key())
        assert place.key_path.with_suffix(".pub").read_text() == f"{key.line}\n"
        if role is Role.SITE:
            assert enrolment.read_verified(enrolment_of(place)).key == key.line
        assert leftovers(root) == []
        n_points += 1
    assert n_points >= 12


def test_the_files_of_a_killed_start_are_never_two_starts(tmp_path: Path) -> None:
    small = an_unstarted_federation(tmp_path / "small")
    admit(small.coordinator, [enrolment_of(s) for s in small.sites.values()], confirm=say_yes)
    plan = tmp_path / "plan.toml"
    plan.write_text(plans.render(a_plan()))

    def begin(root: Path) -> None:
        place = workspace.find(root)
        with workspace.locked(place):
            start_federation(place, plan, initial_weights=initial_weights, today=TODAY)

    for _, root in killed_everywhere(small.coordinator.root, tmp_path, begin, step=3):
        place = workspace.find(root)
        seen = federation.load(place).digest if federation.has_started(place) else None
        begin(root)
        known = federation.load(place)
        assert seen in {None, known.digest}
        manifests = [p.name for p in place.round_folder(0).glob("*.safetensors")]
        assert manifests == [f"test-{known.digest[:8]}.r0000.uni-lead.global.safetensors"]
        made = [
            json.dumps(entry)
            for entry in ledger.read(place.ledger_path)
            if entry.get("what") == "start"
        ]
        assert len(made) <= 1
