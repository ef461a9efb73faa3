"""The doctor: each line is right, what is wrong is found, and nothing is left behind."""

import os
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

from brainfed.formats import courier
from brainfed.formats.workspace import Workspace
from brainfed.plan import Plan
from brainfed.steps import doctor_machine, doctor_software, doctor_training
from brainfed.steps.doctor import Diagnosis, doctor
from brainfed.steps.doctor_check import Checked, Health, duration, size
from brainfed.steps.step_time import seconds_per_step
from tests.builders import a_plan, write_dataset
from tests.federation import a_federation

CPU = torch.device("cpu")
LINES = [
    "Python", "brainfed", "libraries", "optional packages", "GPU", "memory", "disk",
    "file system", "write speed", "clock", "ssh-keygen", "a signature", "a training step",
]  # fmt: skip


def look(place: Workspace | None, folder: Path, **options: Any) -> Diagnosis:
    return doctor(place, folder, device="cpu", now=datetime.now(UTC), **options)


def line(done: Diagnosis, what: str) -> Checked:
    return next(check for check in done.checks if check.what == what)


def everything(folder: Path) -> dict[str, float]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def a_site(root: Path, **changes: Any) -> Workspace:
    site = a_federation(root, plan=a_plan(**changes)).sites["hospital-a"]
    write_dataset(site.data, a_plan(**changes))
    return site


def test_a_sound_machine_is_told_so_and_nothing_is_left_behind(tmp_path: Path) -> None:
    site = a_site(tmp_path)
    before = everything(site.root)
    done = look(site, site.root)
    assert [check.what for check in done.checks] == [*LINES, "an epoch"]
    assert done.n_bad == 0 and done.plan == "test"
    assert "18 slices of this site" in line(done, "an epoch").found
    assert everything(site.root) == before
    assert sorted(path.name for path in site.root.glob(".*")) == [], "no lock either"


def test_it_works_outside_of_a_workspace_and_without_a_plan(tmp_path: Path) -> None:
    done = look(None, tmp_path)
    assert [check.what for check in done.checks] == LINES
    assert (done.plan, done.n_bad, list(tmp_path.iterdir())) == (None, 0, [])
    done = look(None, tmp_path, plan=a_plan())
    assert "100 patients of 155 slices" in line(done, "an epoch").found


def test_a_folder_that_cannot_be_written_to_is_bad_and_the_rest_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "file"
    folder.write_bytes(b"")  # nothing can be made in it, whoever asks
    done = look(None, folder)
    assert line(done, "file system").health is Health.BAD
    assert line(done, "a signature").health is Health.OK
    assert "write speed" not in {check.what for check in done.checks}


def test_a_damaged_federation_is_a_line_of_its_own(tmp_path: Path) -> None:
    site = a_site(tmp_path)
    path = site.federation_folder / "start.json"
    path.write_bytes(path.read_bytes().replace(b'"real"', b'"drill"'))
    done = look(site, site.root)
    assert done.checks[0].what == "federation" and done.checks[0].health is Health.BAD
    assert done.n_bad == 1 and done.plan is None


def test_a_plan_that_needs_a_newer_brainfed_is_bad() -> None:
    assert doctor_software.brainfed(a_plan()).health is Health.OK
    found = doctor_software.brainfed(a_plan(terms={"minimum_version": "99.0.0"}))
    assert found.health is Health.BAD and "99.0.0" in found.todo


def test_a_library_that_is_missing_or_too_old_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["numpy>=999", "no-such-library>=1", 'gone>=1; extra == "encrypt"', "typer>=0.1"]
    monkeypatch.setattr(metadata, "requires", lambda name: wanted)
    found = doctor_software.libraries()
    assert found.health is Health.BAD
    assert "numpy" in found.found and "no-such-library is missing" in found.found
    assert "typer" not in found.found and "gone" not in found.found


@pytest.mark.parametrize(
    ("encryption", "health"),
    [("required", Health.BAD), ("where-possible", Health.LOOK), ("off", Health.OK)],
)
def test_a_missing_extra_counts_by_the_plan(
    encryption: str, health: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_software, "_fits", lambda wanted: wanted.name != "pyrage")
    monkeypatch.setattr(courier, "is_available", lambda: False)
    found = doctor_software.extras(a_plan(exchange={"encryption": encryption}))
    assert found.health is health and "encrypt" in found.found
    assert doctor_software.extras(None).health is Health.OK


def test_memory_that_is_too_small_is_bad_and_no_epoch_is_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (doctor_machine, doctor_training):
        monkeypatch.setattr(module, "free_bytes", lambda device: 1000)
    assert doctor_machine.memory(a_plan(), CPU).health is Health.BAD
    assert doctor_machine.memory(None, CPU).health is Health.OK
    found = doctor_training.epoch(a_plan(), None, CPU)
    assert found.health is Health.BAD and "not tried" in found.found


def disk_with(free: int, monkeypatch: pytest.MonkeyPatch, *words: Any) -> Checked:
    usage = type("Usage", (), {"free": free})()
    monkeypatch.setattr(doctor_machine.shutil, "disk_usage", lambda folder: usage)
    return doctor_machine.disk(*words)


def test_disk_is_held_against_the_rounds_to_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = a_federation(tmp_path, plan=a_plan(rounds=9999))
    plan = small.known.first_plan
    site = small.sites["hospital-a"]
    needed = 4 * 1657 * 3 * 9999  # bytes of a value, values, files of a round, rounds
    for free, health in (
        (needed - 1, Health.BAD),
        (needed + 1, Health.LOOK),
        (10**10, Health.OK),
    ):
        found = disk_with(free, monkeypatch, site.root, site, small.known, plan)
        assert found.health is health, (free, found)
    lead = disk_with(3 * needed - 1, monkeypatch, tmp_path, small.coordinator, small.known, plan)
    assert lead.health is Health.BAD, "the coordinator keeps the files of both sites"
    assert disk_with(10**8 - 1, monkeypatch, tmp_path, None, None, None).health is Health.BAD


@pytest.mark.parametrize(
    ("days", "health"), [(0, Health.OK), (-400, Health.BAD), (4000, Health.OK)]
)
def test_a_clock_that_stands_before_what_has_been_is_bad(
    tmp_path: Path, days: int, health: Health
) -> None:
    small = a_federation(tmp_path)
    now = datetime.now(UTC) + timedelta(days=days)
    found = doctor_machine.clock(small.sites["hospital-a"], small.known, now)
    assert found.health is health, found
    assert bool(found.todo) == (health is Health.BAD)


def test_a_clock_minutes_behind_newer_files_is_to_be_looked_at(tmp_path: Path) -> None:
    site = a_federation(tmp_path).sites["hospital-a"]
    path = site.outbox / "late"
    path.write_bytes(b"")
    later = datetime.now(UTC).timestamp() + 3600
    os.utime(path, (later, later))
    assert doctor_machine.clock(site, None, datetime.now(UTC)).health is Health.LOOK


@pytest.mark.parametrize(
    ("told", "health"),
    [
        ("OpenSSH_9.6p1 Ubuntu", Health.OK),
        ("OpenSSH_for_Windows_8.1p1, LibreSSL", Health.OK),
        ("OpenSSH_7.4p1", Health.LOOK),
        ("another", Health.LOOK),
    ],
)
def test_openssh_is_told_by_its_version(
    told: str, health: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    def called(words: list[str], given: bytes = b"") -> "subprocess.CompletedProcess[str]":
        return subprocess.CompletedProcess(words, 0, "", told)

    monkeypatch.setattr(doctor_software.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(doctor_software, "_called", called)
    assert doctor_software.ssh_keygen().health is health


def test_without_ssh_keygen_brainfed_checks_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_software.shutil, "which", lambda name: None)
    assert doctor_software.ssh_keygen().health is Health.LOOK
    found = doctor_software.sign(tmp_path)
    assert (found.health, found.found) == (Health.OK, "made, and checked by brainfed")


def test_a_signature_that_ssh_keygen_refuses_is_bad(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def called(words: list[str], given: bytes = b"") -> "subprocess.CompletedProcess[str]":
        return subprocess.CompletedProcess(words, 255, "", "Could not verify")

    monkeypatch.setattr(doctor_software.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(doctor_software, "_openssh", lambda: (9, 0))
    monkeypatch.setattr(doctor_software, "_called", called)
    found = doctor_software.sign(tmp_path)
    assert (found.health, found.found) == (Health.BAD, "Could not verify")


def test_the_kind_of_file_system_is_that_of_the_nearest_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(
        f"a / ext4 rw 0 0\nb {tmp_path} nfs4 rw 0 0\nc {tmp_path}/x\\040y cifs rw 0 0\n"
    )
    for folder, kind in ((tmp_path, "nfs4"), (tmp_path / "x y", "cifs"), (Path("/usr"), "ext4")):
        assert doctor_machine._kind(folder, mounts) == kind
    assert doctor_machine._kind(tmp_path, tmp_path / "none") == "unknown"


@pytest.mark.skipif(os.name != "posix", reason="elsewhere the folder's own permissions count")
def test_a_file_system_without_permissions_is_bad(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert doctor_machine.file_system(tmp_path).health is Health.OK
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setattr(doctor_machine.stat, "S_IMODE", lambda mode: 0o777)
    assert doctor_machine.file_system(other).health is Health.BAD


def test_an_epoch_is_as_many_steps_as_its_slices_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_training, "_step", lambda plan, device: 7200.0)
    site = a_site(tmp_path, training={"batch": 4, "epochs_per_round": 3})
    plan = a_plan(training={"batch": 4, "epochs_per_round": 3})
    found = doctor_training.epoch(plan, site, CPU)  # 18 slices: 5 steps, and thrice as many
    assert "about 10.0 hours" in found.found and "a round 30.0 hours" in found.found
    assert found.health is Health.LOOK
    cube = a_plan(
        network={"architecture": "unet-3d", "patch": (8, 16, 16), "channels": (4, 8)},
        training={"batch": 4},
    )
    assert "about 6.0 hours" in doctor_training.epoch(cube, site, CPU).found  # 9 patches


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        (lambda batch: 0.1 * batch, 0.8),  # short enough: the whole batch
        (lambda batch: 3 + 0.5 * batch, 7.0),  # a straight line
        (lambda batch: 4.0, 4 + 4 * 4 / 16),  # noise: at least a share of it grows
        (lambda batch: 9.0 * batch, 72.0),  # no time for a second one
    ],
)
def test_a_long_step_is_told_from_small_ones(
    steps: Callable[[int], float], told: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_training, "_step_of", lambda plan, batch, device: steps(batch))
    assert doctor_training._step(a_plan(training={"batch": 8}), CPU) == pytest.approx(told)


def test_a_measurement_ends_when_its_time_is_up() -> None:
    plan: Plan = a_plan()
    assert seconds_per_step(plan, device="cpu", n=10_000, budget_seconds=0.0) > 0


def test_sizes_and_times_are_told_in_units_of_people() -> None:
    assert [size(n) for n in (12, 1500, 2.5e6, 3e9)] == ["12 B", "1.5 kB", "2.5 MB", "3.0 GB"]
    told = [duration(s) for s in (0.0123, 30, 180, 7200, 200_000)]
    assert told == ["0.012 s", "30 s", "3.0 minutes", "2.0 hours", "2.3 days"]
