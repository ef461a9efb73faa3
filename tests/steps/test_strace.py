"""The real command line, killed or failing at system calls that change the disk.

Unlike `test_faults` this reaches whatever runs in the process, native libraries too. strace counts
the calls of one undisturbed run; a second run is then killed on entering the n-th of them, or that
call fails.
"""

import functools
import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest

from brainfed.cli.app import run
from brainfed.formats import identities, ledger, rounds, workspace
from brainfed.formats.workspace import Workspace
from brainfed.steps.exchange import export
from brainfed.steps.status import status
from tests.builders import write_case_folder
from tests.faults import check_whole
from tests.federation import (
    Small,
    a_federation,
    a_waiting_federation,
    leftovers,
    snapshot,
    train,
)
from tests.steps.joined import a_joined_site

OPENING = "openat"
CALLS = (
    *(OPENING, "write", "writev", "pwrite64", "fsync", "fdatasync", "ftruncate", "fallocate"),
    *("rename", "renameat", "renameat2", "unlink", "unlinkat", "link", "linkat", "symlink"),
    *("mkdir", "mkdirat", "rmdir", "chmod", "fchmod", "fchmodat"),
)
N_KILLS, N_FAILURES = 200, 60
"""Of all commands together, in `make test-slow`."""
SEED = 9
SECONDS = 120
_LINE = re.compile(r"^(\d+) +(\w+)\((.*)$")


@functools.cache
def why_not() -> str | None:
    """Why strace can't be used here."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    words = ["strace", "-f", "-qq", "-e", "trace=mkdir", "true"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else f"strace: {done.stderr.strip()[:80]}"


pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


@dataclass(frozen=True)
class Scene:
    """A command line in a workspace."""

    before: Path
    words: tuple[str, ...]
    varies: tuple[str, ...] = ()
    is_done: Callable[[Workspace], bool] = lambda place: False
    """Whether a disturbed command had come so far that it refuses to begin again."""

    def command(self, root: Path) -> list[str]:
        """The words, with the workspace in place of the one from which it was copied."""
        words = [word.replace(str(self.before), str(root)) for word in self.words]
        return [*words, "--workspace", str(root)]

    def files(self, root: Path) -> dict[str, str]:
        found = snapshot(workspace.find(root))
        return {p: "" if any(fnmatch(p, v) for v in self.varies) else d for p, d in found.items()}


@dataclass(frozen=True)
class Point:
    """The n-th of one kind of system call of a command's main thread."""

    scene: str
    call: str
    number: int
    what: str
    """The line of the undisturbed run."""


def import_at_the_coordinator(folder: Path) -> Scene:
    small = a_federation(folder)
    train(small.sites["hospital-a"])
    export(small.sites["hospital-a"], small.medium())
    return Scene(small.coordinator.root, ("import", str(small.medium())))


def first_import(folder: Path) -> Scene:
    small = a_federation(folder, joined=False)
    export(small.coordinator, small.medium())
    fingerprint = small.coordinator.public_key().fingerprint
    words = ("import", str(small.medium()), "--yes", "--fingerprint", fingerprint)
    return Scene(small.sites["hospital-a"].root, words)


def export_of_an_update(folder: Path) -> Scene:
    small = a_federation(folder)
    site = small.sites["hospital-a"]
    train(site)
    (site.root / "medium").mkdir()
    return Scene(site.root, ("export", "--to", f"{site.root}/medium"))


def aggregate(folder: Path) -> Scene:
    small: Small = a_waiting_federation(folder)
    return Scene(
        small.coordinator.root,
        ("aggregate",),
        is_done=lambda place: rounds.newest_round(place) == 1,
    )


def train_round(folder: Path) -> Scene:
    site = a_joined_site(folder)
    words = ("train-round", "--threads", "1", "--device", "cpu")
    return Scene(site.root, words, varies=("rounds/*/training.jsonl",))


def preprocess(folder: Path) -> Scene:
    small = a_federation(folder)
    for number in range(2):
        write_case_folder(folder / "scans", f"case{number}", seed=number)
    site = small.sites["hospital-a"]
    site.data.mkdir()
    # With this key the ids are the same each time.
    identities.write(site.data, identities.Identities(key=bytes(32)))
    return Scene(site.root, ("preprocess", str(folder / "scans"), "--labels", "brats2017"))


SCENES = (
    import_at_the_coordinator,
    first_import,
    export_of_an_update,
    aggregate,
    train_round,
    preprocess,
)


def strace(words: Sequence[str], *options: str) -> subprocess.CompletedProcess[str]:
    """Run a command line of brainfed under strace."""
    traced = ["strace", "-f", "-qq", *options, sys.executable, "-B", "-m"]
    return subprocess.run(
        [*traced, "brainfed", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
        stdin=subprocess.DEVNULL,
        env=_environment(),
    )


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONHASHSEED": "0", "COLUMNS": "80"}


def points_of(name: str, scene: Scene, work: Path) -> tuple[list[Point], Path]:
    """All calls of an undisturbed run that change the disk, and what it leaves."""
    root, log = work / f"{name}-undisturbed", work / f"{name}.log"
    shutil.copytree(scene.before, root)
    trace = ",".join(CALLS)
    done = strace(scene.command(root), "-y", "-s", "4096", "-o", str(log), "-e", f"trace={trace}")
    assert done.returncode == 0, done.stderr
    lines = [match for line in log.read_text().splitlines() if (match := _LINE.match(line))]
    main = lines[0][1]
    n_seen: Counter[str] = Counter()
    found = []
    for process, call, rest in (match.groups() for match in lines):
        if process != main:
            continue
        n_seen[call] += 1
        changes = call != OPENING or "O_CREAT" in rest
        if changes and str(root) in rest:
            found.append(Point(name, call, n_seen[call], rest[:200]))
    return found, root


def disturb(scene: Scene, point: Point, root: Path, how: str) -> int:
    """Run a command on a copy, disturbed at a point; gives its exit code."""
    shutil.copytree(scene.before, root)
    inject = f"inject={point.call}:{how}:when={point.number}"
    log = ("-o", f"{root}.log")  # the trace; what the command says comes back
    done = strace(scene.command(root), *log, "-e", f"trace={point.call}", "-e", inject)
    assert "bug in brainfed" not in done.stderr, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode


def check_after(scene: Scene, point: Point, root: Path, undisturbed: Path) -> None:
    """Old state or new; the ledger verifies; run again it ends as the undisturbed one."""
    place = workspace.find(root)
    new = scene.files(undisturbed)
    check_whole(point, scene.files(root), scene.files(scene.before), new)
    ledger.read(place.ledger_path)
    status(place)
    words = ["export", "--workspace", str(root)] if scene.is_done(place) else scene.command(root)
    assert run(words) == 0, point
    assert scene.files(root) == new, point
    assert leftovers(root) == [], point
    ledger.read(place.ledger_path)


def kill_and_fail(folder: Path, scenes: Sequence[Callable[[Path], Scene]], *numbers: int) -> None:
    """Sample calls of all scenes, kill at some of them, and let others fail."""
    made = {make.__name__: make(folder / make.__name__) for make in scenes}
    everywhere: list[Point] = []
    undisturbed = {}
    for name, scene in made.items():
        found, undisturbed[name] = points_of(name, scene, folder)
        everywhere += found
        print(f"\n{name}: {len(found)} calls that change the disk", end="")
    chance = random.Random(SEED)
    n_kills, n_failures = numbers
    for kind, number in (("killed", n_kills), ("failed", n_failures)):
        sample = chance.sample(everywhere, min(number, len(everywhere)))
        told: Counter[tuple[str, int]] = Counter()
        for index, point in enumerate(sample):
            how = "signal=SIGKILL" if kind == "killed" else f"error={('ENOSPC', 'EIO')[index % 2]}"
            root = folder / f"{kind}-{index}"
            code = disturb(made[point.scene], point, root, how)
            assert code in ({-9, 137} if kind == "killed" else {0, 8}), (point, code)
            check_after(made[point.scene], point, root, undisturbed[point.scene])
            told[point.scene, code] += 1
            shutil.rmtree(root)
        print(f"\n{kind} at {len(sample)} of {len(everywhere)} calls, by command and exit code:")
        print("\n".join(f"  {name}, {code}: {n}" for (name, code), n in sorted(told.items())))


def test_half_a_dozen_disturbances_leave_the_old_state_or_the_new(tmp_path: Path) -> None:
    kill_and_fail(tmp_path, (import_at_the_coordinator, preprocess), 4, 2)


@pytest.mark.slow
def test_two_hundred_kills_and_sixty_failures_leave_the_old_state_or_the_new(
    tmp_path: Path,
) -> None:
    kill_and_fail(tmp_path, SCENES, N_KILLS, N_FAILURES)


# --- the one writer that is not ours -------------------------------------------------------------

WRITE_A_SCAN = """
import sys
from pathlib import Path
import numpy as np
from brainfed.errors import BrainfedError
from brainfed.formats.scan import write_scan
from tests.builders import a_geometry
values = np.random.default_rng(0).normal(size=(6, 40, 40)).astype(np.float32)
try:
    write_scan(Path(sys.argv[1]), values, a_geometry(), replace=True)
except BrainfedError as error:
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize(
    ("name", "number", "how"),
    [
        ("a.nii", 1, "error=ENOSPC"),
        ("a.nii", 3, "error=EIO"),
        ("a.nii.gz", 1, "error=ENOSPC"),
        ("a.nii", 2, "signal=SIGKILL"),
    ],
)
def test_a_scan_that_finds_no_room_is_an_error_and_leaves_the_old_one(
    tmp_path: Path, name: str, number: int, how: str
) -> None:
    path = tmp_path / name
    path.write_bytes(b"old")
    inject = f"inject=write:{how}:when={number}"
    words = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=write", "-e", inject]
    done = subprocess.run(
        [*words, sys.executable, "-B", "-c", WRITE_A_SCAN, str(path)],
        capture_output=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode in ({8} if "error" in how else {-9, 137})
    assert path.read_bytes() == b"old"
    if "error" in how:
        assert leftovers(tmp_path) == []
