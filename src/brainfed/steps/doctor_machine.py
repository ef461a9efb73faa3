"""What the doctor looks at in the machine: GPU, memory, disk, file system and clock."""

import math
import os
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from importlib import metadata
from pathlib import Path

import filelock
import torch

from brainfed.core.architecture import n_parameters, network_table
from brainfed.core.memory import training_bytes
from brainfed.formats import atomic, dataset, ledger, rounds
from brainfed.formats.federation import Federation
from brainfed.formats.roster import Role
from brainfed.formats.workspace import Workspace
from brainfed.plan import Plan
from brainfed.steps.doctor_check import Checked, Health, size
from brainfed.steps.doctor_software import SECONDS
from brainfed.steps.training_set import free_bytes

SLICES = 155
"""Of a case that has not been made yet."""
LITTLE_BYTES = 10**9
SLOW_BYTES_PER_SECOND = 20e6
_WRITTEN_BYTES, _BLOCK_BYTES = 2**26, 2**20
_WRITE_SECONDS = 5.0
_NETWORK = ("nfs", "cifs", "smb", "fuse", "9p", "afs", "ceph", "lustre", "beegfs", "gpfs")
"""How the names of file systems begin that other machines share."""
_FILES_OF_A_ROUND = 3
"""Weight files that a party keeps, for each site at the coordinator: in, out, and a copy."""


def gpu() -> Checked:
    """A GPU that torch can use, and its driver."""
    driver = _driver()
    n = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if n:
        names = ", ".join(torch.cuda.get_device_name(number) for number in range(n))
        total = size(torch.cuda.mem_get_info(0)[1])
        found = f"{names}, {total}; driver {driver or 'unknown'}, CUDA {torch.version.cuda}"
        return Checked("GPU", Health.OK, found)
    if driver is not None:
        todo = "install torch for CUDA, or a newer driver; without it the CPU computes"
        return Checked("GPU", Health.LOOK, f"driver {driver}, and torch finds no GPU", todo)
    return Checked("GPU", Health.OK, f"none; {os.cpu_count()} CPU cores compute")


def _driver() -> str | None:
    """The version of NVIDIA's driver; None without one."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    words = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(  # noqa: S603 - fixed words
            words, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return None
    lines = done.stdout.split()
    return lines[0] if done.returncode == 0 and lines else None


def memory(plan: Plan | None, device: torch.device) -> Checked:
    """Free memory against what a training step of the plan takes."""
    free = free_bytes(device)
    found = f"{size(free)} free" + ("" if device.type == "cpu" else f" on {device}")
    if plan is None or not plan.network.n_dimensions:
        return Checked("memory", Health.OK, found)
    needed = training_bytes(plan)
    found = f"{found}; a training step takes about {size(needed)}, and cases come on top"
    todo = "close other programs, or ask the coordinator for a plan with a smaller training.batch"
    if needed > free:
        return Checked("memory", Health.BAD, found, todo)
    if needed > 0.6 * free:
        return Checked("memory", Health.LOOK, found, todo)
    return Checked("memory", Health.OK, found)


def disk(
    folder: Path, place: Workspace | None, known: Federation | None, plan: Plan | None
) -> Checked:
    """Free space against what the rounds to come, and cases still to be made, take."""
    free = shutil.disk_usage(folder).free
    needed = 0 if plan is None else _rounds_bytes(place, known, plan)
    if plan is not None and place is not None and place.role is Role.SITE:
        needed += _cases_bytes(place, known, plan)
    found = f"{size(free)} free"
    if plan is not None:
        found += f"; what is to come takes about {size(needed)}"
    todo = "make room, or use a workspace on a larger disk"
    if free < needed or free < LITTLE_BYTES / 10:
        return Checked("disk", Health.BAD, found, todo)
    if free < 2 * needed or free < LITTLE_BYTES:
        return Checked("disk", Health.LOOK, found, todo)
    return Checked("disk", Health.OK, found)


def _rounds_bytes(place: Workspace | None, known: Federation | None, plan: Plan) -> int:
    n_parties = 1
    if place is not None and place.role is Role.COORDINATOR and known is not None:
        n_parties += len(known.roster.sites)
    done = 0 if place is None else rounds.newest_round(place) or 0
    of_a_file = 4 * n_parameters(network_table(plan))
    return of_a_file * _FILES_OF_A_ROUND * n_parties * max(1, plan.rounds - done)


def _cases_bytes(place: Workspace, known: Federation | None, plan: Plan) -> int:
    """Of the patients that the site declared and hasn't made yet, before compression."""
    entry = None if known is None else known.roster.get(place.name)
    declared = 0 if entry is None else entry.n_patients or 0
    there = dataset.index_path(place.data).exists()
    made = len(dataset.read_index(place.data)) if there else 0
    per_voxel = 2 * len(plan.scans.modalities) + 2
    return max(0, declared - made) * SLICES * math.prod(plan.grid.size) * per_voxel


def file_system(folder: Path) -> Checked:
    """What the file system of a scratch folder can do that brainfed rests on.

    Raises:
        ResourceError: It can't even be written to.
    """
    one, two = folder / "one", folder / "two"
    atomic.write_bytes(one, b"1", mode=0o600)
    atomic.write_bytes(two, b"2")
    atomic.write_bytes(one, b"3", mode=0o600, replace=True)
    with filelock.FileLock(folder / ".lock", timeout=0):
        pass
    kind = _kind(folder)
    if os.name == "posix" and stat.S_IMODE(one.stat().st_mode) & 0o077:
        todo = "use a workspace on a disk of this machine: here others could read the private key"
        return Checked("file system", Health.BAD, f"{kind}, which keeps no permissions", todo)
    if kind.startswith(_NETWORK):
        todo = "let one machine at a time work in it; better on a disk of its own"
        return Checked("file system", Health.LOOK, f"{kind}, shared with others", todo)
    return Checked("file system", Health.OK, f"{kind}; locks, renames and permissions work")


def _kind(folder: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """The kind of the file system, from the longest mount point that holds the folder."""
    try:
        lines = [line.split() for line in mounts.read_text("utf-8", "replace").splitlines()]
    except OSError:
        return "unknown"
    here = folder.resolve()
    places = [
        (point, line[2])
        for line in lines
        if here.is_relative_to(point := Path(line[1].replace("\\040", " ")))
    ]
    return max(places, key=lambda one: len(one[0].parts))[1] if places else "unknown"


def write_speed(folder: Path) -> Checked:
    """How quickly a file reaches the disk.

    Raises:
        ResourceError: The disk refuses.
    """
    block, n_bytes, begun = os.urandom(_BLOCK_BYTES), 0, time.perf_counter()
    with atomic.new_file(folder / "speed") as stream:
        while n_bytes < _WRITTEN_BYTES and time.perf_counter() - begun < _WRITE_SECONDS:
            n_bytes += stream.write(block)
    speed = n_bytes / (time.perf_counter() - begun)
    found = f"{size(speed)} a second"
    if speed < SLOW_BYTES_PER_SECOND:
        todo = "use a quicker disk: cases are written and read in each round"
        return Checked("write speed", Health.LOOK, found, todo)
    return Checked("write speed", Health.OK, found)


def clock(place: Workspace | None, known: Federation | None, now: datetime) -> Checked:
    """The clock must not stand before what is known to have been."""
    found = f"{now:%Y-%m-%d %H:%M} UTC"
    todo = "set the clock: days are signed, and others see them"
    slow = False
    for what, moment in _moments(place, known):
        if now < moment - timedelta(days=1):
            words = f"{found}, before {what} of {moment:%Y-%m-%d}"
            return Checked("clock", Health.BAD, words, todo)
        slow = slow or now < moment - timedelta(minutes=5)
    if slow:
        return Checked("clock", Health.LOOK, f"{found}, minutes behind newer files", todo)
    return Checked("clock", Health.OK, found)


def _moments(place: Workspace | None, known: Federation | None) -> Iterator[tuple[str, datetime]]:
    """What has been already, each with its time in UTC."""
    for file in metadata.files("brainfed") or ():
        if file.name == "METADATA":
            yield "the installation", _modified(Path(str(file.locate())))
    if known is not None:
        day = datetime.combine(date.fromisoformat(known.start.day), datetime.min.time(), UTC)
        yield "the start", day
    if place is None:
        return
    for folder in (place.federation_folder, place.data, place.rounds, place.outbox):
        for path in folder.iterdir() if folder.is_dir() else ():
            yield f"{folder.name}/{path.name}", _modified(path)
    lines = ledger.read(place.ledger_path)
    if lines:
        yield "the last line of the ledger", datetime.fromisoformat(lines[-1]["at"])


def _modified(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)
