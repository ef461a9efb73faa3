"""A drill: all stages through the real steps, and nothing of the real workspace is touched."""

import shutil
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import save_file

from brainfed import plan as plans
from brainfed.errors import NotReadyError, ResourceError, ScanError, UsageError, WrongRoleError
from brainfed.formats import dataset, document, federation, ledger, rounds, signature, workspace
from brainfed.formats.erasure import ErasureReason
from brainfed.formats.roster import Role
from brainfed.formats.workspace import Workspace
from brainfed.plan import Encryption, Method, Plan, Rule
from brainfed.steps.drill import COORDINATOR, Drill, Rehearsal, clear, drill
from brainfed.steps.drill_coordinator import random_tensors, rehearsed
from brainfed.steps.drill_room import drill_name
from brainfed.steps.drill_stages import Stage
from brainfed.steps.external_network import network_of
from brainfed.steps.purge import purge
from tests.builders import a_plan, write_dataset
from tests.faults import KILLED, Fault, disturbed, points, run_apart, thin_out
from tests.federation import a_federation, a_workspace, leftovers, snapshot

TODAY = date(2026, 4, 1)
SITE = "drill-hospital-a"
ALL = tuple(Stage)


def run(place: Workspace, medium: Path | None = None, **options: Any) -> Drill:
    """As the command does it."""
    with workspace.locked(place):
        return drill(place, medium, today=TODAY, device="cpu", **options)


def one(done: Drill) -> Rehearsal:
    (found,) = done.rehearsals
    return found


def stages(done: Drill) -> tuple[Stage, ...]:
    return tuple(check.stage for check in one(done).checks)


def in_earnest(place: Workspace) -> dict[str, str]:
    """Every file of the real workspace that a drill must not touch."""
    there = snapshot(place)
    return {path: digest for path, digest in there.items() if not path.startswith("drill/")}


def rehearsals_in_the_ledger(place: Workspace) -> list[dict[str, Any]]:
    return [line for line in ledger.read(place.ledger_path) if line["event"] == "rehearsed"]


def a_site(root: Path, plan: Plan | None = None, **sizes: int) -> tuple[Workspace, Workspace]:
    """The coordinator, and a site that has joined and has cases."""
    small = a_federation(root, ("hospital-a",), plan=plan or a_small_plan())
    site = small.sites["hospital-a"]
    write_dataset(site.data, plan or a_small_plan(), **sizes)
    return small.coordinator, site


def a_small_plan(**changes: Any) -> Plan:
    return a_plan(**{"participation": {"quorum_sites": 1, "floor": 1}, **changes})


def an_external_plan(folder: Path) -> Plan:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "first.safetensors"
    save_file(random_tensors({"a.weight": (3, 2), "a.bias": (3,)}), path)
    return a_small_plan(network=network_of(path, []).model_dump(mode="json"))


def test_a_site_alone_plays_both_sides_through_every_stage(tmp_path: Path) -> None:
    plan = a_small_plan(exchange={"approval": True})
    coordinator, site = a_site(tmp_path, plan)
    before, theirs = in_earnest(site), snapshot(coordinator)
    done = run(site)
    assert done.failed is None and one(done).is_finished and one(done).carry_to is None
    assert stages(done) == ALL
    assert all(check.found and check.seconds >= 0 for check in one(done).checks)
    found = {check.stage: check.found for check in one(done).checks}
    assert found[Stage.TRAIN] == "3 cases, 18 slices, on cpu"
    assert found[Stage.AUDIT].startswith("re-derived")
    assert in_earnest(site) == before and snapshot(coordinator) == theirs
    (line,) = rehearsals_in_the_ledger(site)
    assert (line["name"], line["n_checks"]) == (SITE, len(ALL))
    assert leftovers(site.root) == []


def test_the_cases_are_links_and_the_test_patients_stay_closed(tmp_path: Path) -> None:
    _, site = a_site(tmp_path)
    run(site)
    data = site.drill / SITE / "site" / "data"
    shown = [*sorted((data / "cases").iterdir()), dataset.split_path(data)]
    assert all(path.is_symlink() for path in shown) and len(shown) == 7
    events = [line["event"] for line in ledger.read(site.drill / SITE / "site" / "ledger.jsonl")]
    assert "opened-test" not in events
    clear(site)
    assert len(list((site.data / "cases").iterdir())) == 6 and not site.drill.exists()


def test_both_sides_take_turns_over_a_medium(tmp_path: Path) -> None:
    plan = a_small_plan(exchange={"approval": True, "encryption": "required"})
    coordinator, site = a_site(tmp_path, plan)
    medium = tmp_path / "stick"
    medium.mkdir()
    before = in_earnest(site), in_earnest(coordinator)
    first = run(site, medium)
    assert one(first).carry_to == COORDINATOR and not one(first).is_finished
    assert stages(first) == (Stage.ENROL, Stage.SEND_ENROLMENT)
    second = run(coordinator, medium)
    assert one(second).carry_to == SITE and not one(second).is_finished
    third = run(site, medium)
    assert one(third).carry_to == COORDINATOR
    assert list(medium.glob("*/*.update.safetensors.age")) != []
    assert list(medium.glob("*/*.update.safetensors")) == []
    fourth = run(coordinator, medium)
    assert one(fourth).is_finished and one(fourth).carry_to == SITE
    assert {Stage.AGGREGATE, Stage.AUDIT, Stage.SEND_GLOBAL} <= set(stages(fourth))
    last = run(site, medium)
    assert one(last).is_finished and last.failed is None
    assert stages(last)[-1] is Stage.RETURN
    assert list(medium.iterdir()) == []
    assert (in_earnest(site), in_earnest(coordinator)) == before
    assert len(rehearsals_in_the_ledger(site)) == len(rehearsals_in_the_ledger(coordinator)) == 1
    again = run(site, medium)
    assert (stages(again), one(again).is_finished) == (stages(last), True)
    assert len(rehearsals_in_the_ledger(site)) == 1


def test_a_run_without_anything_new_waits_and_sends_the_same_again(tmp_path: Path) -> None:
    coordinator, site = a_site(tmp_path, an_external_plan(tmp_path / "own"))
    medium = tmp_path / "stick"
    medium.mkdir()
    for place in (site, coordinator, site):
        told = run(place, medium)
        there = sorted(path.name for path in (medium / SITE).iterdir())
        again = run(place, medium)
        assert one(again).checks == one(told).checks and one(again).carry_to == one(told).carry_to
        assert sorted(path.name for path in (medium / SITE).iterdir()) == there


def test_what_fails_is_told_and_kept_and_goes_on_there(tmp_path: Path) -> None:
    _, site = a_site(tmp_path)
    split = dataset.split_path(site.data)
    split.rename(tmp_path / "split.json")
    failed = run(site)
    assert failed.failed is not None and failed.failed.stage is Stage.CASES
    assert isinstance(failed.failed.error, NotReadyError)
    assert "split" in str(failed.failed.error.hint)
    assert stages(failed) == ALL[: ALL.index(Stage.CASES)]
    assert not one(failed).is_finished and one(failed).carry_to is None
    (tmp_path / "split.json").rename(split)
    done = run(site)
    assert done.failed is None and set(stages(done)) == set(ALL) - {Stage.APPROVE}
    before = one(failed).checks
    assert one(done).checks[: len(before)] == before, "what had worked is not told anew"


def test_a_damaged_case_fails_the_training_step(tmp_path: Path) -> None:
    _, site = a_site(tmp_path)
    for path in (site.data / "cases").iterdir():
        path.write_bytes(path.read_bytes()[:-100])
    failed = run(site).failed
    assert failed is not None and failed.stage is Stage.TRAIN
    assert isinstance(failed.error, ScanError)


def test_what_was_changed_on_the_medium_is_refused(tmp_path: Path) -> None:
    coordinator, site = a_site(tmp_path, an_external_plan(tmp_path / "own"))
    medium = tmp_path / "stick"
    medium.mkdir()
    for place in (site, coordinator, site):
        run(place, medium)
    (update,) = medium.glob("*/*.update.safetensors")
    data = bytearray(update.read_bytes())
    data[-1] ^= 1
    update.write_bytes(data)
    failed = run(coordinator, medium).failed
    assert failed is not None and failed.stage is Stage.TAKE
    assert one(run(site, medium)).carry_to == COORDINATOR  # sends it again
    assert one(run(coordinator, medium)).is_finished


def test_a_site_that_begins_anew_is_served_anew(tmp_path: Path) -> None:
    coordinator, site = a_site(tmp_path, an_external_plan(tmp_path / "own"))
    medium = tmp_path / "stick"
    medium.mkdir()
    for place in (site, coordinator):
        run(place, medium)
    lead = coordinator.drill / SITE / "coordinator"
    first = federation.load(workspace.find(lead)).digest
    clear(site)
    for place in (site, coordinator, site, coordinator, site):
        done = run(place, medium)
    assert one(done).is_finished
    assert federation.load(workspace.find(lead)).digest != first


def test_a_network_of_the_sites_own_gets_random_weights_for_training(tmp_path: Path) -> None:
    _, site = a_site(tmp_path, an_external_plan(tmp_path / "own"))
    done = run(site)
    assert one(done).is_finished
    found = {check.stage: check.found for check in one(done).checks}
    assert "random weights" in found[Stage.TRAIN]


def test_a_site_without_a_federation_or_cases_rehearses_a_given_plan(tmp_path: Path) -> None:
    site = a_workspace(tmp_path / "hospital-a", Role.SITE, "hospital-a")
    with pytest.raises(NotReadyError, match="no plan") as caught:
        run(site)
    assert "--plan" in str(caught.value.hint)
    path = tmp_path / "plan.toml"
    no_scan_has = {"space": "atlas", "brain": "given", "atlas": "t1.nii", "atlas_sha256": 64 * "0"}
    path.write_text(plans.render(a_small_plan(preparation=no_scan_has)))
    done = run(site, plan_path=path)
    assert one(done).is_finished, done.failed
    found = {check.stage: check.found for check in one(done).checks}
    assert "made-up" in found[Stage.CASES]
    assert not site.data.exists() and not federation.has_started(site)


def test_two_sites_on_one_medium_have_drills_of_their_own(tmp_path: Path) -> None:
    plan = an_external_plan(tmp_path / "own")
    small = a_federation(tmp_path, ("hospital-a", "hospital-b"), plan=plan)
    medium = tmp_path / "stick"
    medium.mkdir()
    (medium / "holiday").mkdir()
    for site in small.sites.values():
        run(site, medium)
    done = run(small.coordinator, medium)
    assert [one.site for one in done.rehearsals] == [SITE, "drill-hospital-b"]
    assert [one.carry_to for one in done.rehearsals] == [SITE, "drill-hospital-b"]
    run(small.sites["hospital-b"], medium)
    done = run(small.coordinator, medium)
    assert [one.is_finished for one in done.rehearsals] == [False, True]


def test_who_cannot_drill_is_told_why(tmp_path: Path) -> None:
    small = a_federation(tmp_path, ("hospital-a",), plan=a_small_plan())
    site = small.sites["hospital-a"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="needs the medium"):
        run(small.coordinator)
    with pytest.raises(NotReadyError, match="Nothing of a drill"):
        run(small.coordinator, tmp_path / "empty")
    with pytest.raises(ResourceError, match="isn't there"):
        run(site, tmp_path / "nowhere")
    with pytest.raises(UsageError, match="the coordinator's"):
        run(site, tmp_path / "empty", plan_path=tmp_path / "plan.toml")
    auditor = a_workspace(tmp_path / "auditor", Role.AUDITOR, "auditor")
    with pytest.raises(WrongRoleError):
        run(auditor)
    run(site, tmp_path / "empty")
    with pytest.raises(WrongRoleError, match="of a drill"):
        run(workspace.find(site.drill / SITE / "site"))


@pytest.mark.parametrize("n_letters", [10, 34, 35, 40])
def test_a_name_of_any_length_has_one_for_the_drill(n_letters: int) -> None:
    name = drill_name("a-" * (n_letters // 2 - 1) + "bc"[: 2 + n_letters % 2])
    plans.check_name(name)
    assert document.is_of_drill(name)
    assert drill_name("hospital-a.release") == "drill-hospital-a.release"


def test_the_plan_of_a_drill_keeps_what_is_rehearsed() -> None:
    real = a_plan(
        format=2,
        method=Method.CIIL,
        rounds=40,
        training={"epochs_per_round": 3, "rate": 0.5},
        participation={"quorum_sites": 3, "quorum_patients": 50, "floor": 7},
        exchange={"encryption": Encryption.REQUIRED},
    )
    found = rehearsed(real)
    assert (found.rounds, found.method, found.training.steps_per_round) == (1, Method.FL, 1)
    assert (found.participation.quorum_sites, found.participation.floor) == (1, 7)
    assert plans.data_digest(found) == plans.data_digest(real)
    assert (found.network, found.exchange, found.terms) == (real.network, real.exchange, real.terms)
    robust = a_plan(aggregation={"rule": Rule.KRUM})
    assert rehearsed(robust).aggregation.rule is Rule.FEDAVG
    relay = a_plan(
        method=Method.IIL, training={"patience": 2, "schedule": "constant", "epochs_per_round": 9}
    )
    assert rehearsed(relay).training.patience == 0


def test_erasing_all_data_erases_the_drill_that_learned_from_them(tmp_path: Path) -> None:
    _, site = a_site(tmp_path)
    run(site)
    assert site.drill.exists()
    purge(site, reason=ErasureReason.LEFT, today=TODAY)
    assert not site.drill.exists()


def killed(tmp_path: Path, at_most: int) -> None:
    """Kill a drill in many places; run again, it ends well and has touched nothing else."""
    _, site = a_site(tmp_path / "before", an_external_plan(tmp_path / "own"), n_train=1)
    before = in_earnest(site)

    def command(root: Path) -> None:
        run(workspace.find(root / "hospital-a"))

    shutil.copytree(tmp_path / "before", tmp_path / "undisturbed")
    ended = run_apart(lambda: command(tmp_path / "undisturbed"))
    assert ended.code == 0 and len(ended.calls) > 200
    them = thin_out(points(ended.calls, (Fault.KILL_BEFORE, Fault.KILL_HALF_WAY)), at_most)
    for point, code, root in disturbed(tmp_path / "before", tmp_path, command, them):
        assert code == KILLED, point
        place = workspace.find(root / "hospital-a")
        assert in_earnest(place).items() >= before.items(), point
        done = run(place)
        assert done.failed is None, (point, done.failed)
        assert one(done).is_finished, point
        assert in_earnest(place) == before, point
        assert leftovers(root) == [], point


def test_a_kill_in_a_few_places_harms_nothing(tmp_path: Path) -> None:
    killed(tmp_path, 3)


@pytest.mark.slow
def test_a_kill_anywhere_harms_nothing(tmp_path: Path) -> None:
    killed(tmp_path, 150)


def test_the_keys_of_a_drill_are_of_nobody_else(tmp_path: Path) -> None:
    coordinator, site = a_site(tmp_path, an_external_plan(tmp_path / "own"))
    run(site)
    known = federation.load(workspace.find(site.drill / SITE / "coordinator"))
    real = {p.key for p in federation.load(site).roster.principals}
    assert known.start.purpose == "drill"
    assert {p.name for p in known.roster.principals} == {
        SITE,
        "drill-hospital-a.release",
        "drill-lead-hospital-a",
    }
    assert not real & {p.key for p in known.roster.principals}
    update = rounds.update_path(workspace.find(site.drill / SITE / "site"), known, 1, SITE)
    assert update is not None and signature.verify_file(update).key.line not in real
    assert coordinator.public_key().line in real
