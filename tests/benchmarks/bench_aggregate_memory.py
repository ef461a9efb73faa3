"""Memory of `aggregate`: `python tests/benchmarks/bench_aggregate_memory.py [FOLDER]`.

Makes a federation of 64 sites with a network of 31 million parameters in FOLDER (about 8.5 GB,
taken away afterwards; the system's temporary folder where none is given), runs the aggregate step
over 16 and then over 64 updates in a process of its own, and samples that process's resident memory
without mapped pages (RssAnon of /proc/PID/status, Linux). Prints a table and writes it to
`docs/results/aggregate-memory.md`.
"""

import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.builders import a_plan
from tests.federation import (
    Small,
    an_unstarted_federation,
    an_update_manifest,
    carry,
    enrolment_of,
    say_yes,
    sign,
    start,
)

from brainfed.core.architecture import n_parameters
from brainfed.formats import rounds, signature, weights
from brainfed.formats.workspace import Workspace
from brainfed.steps.admit import admit

ROOT = Path(__file__).resolve().parents[2]
LIMIT_MB = 150
SAME_MB = 5
"""Peaks that differ by less count as the same: the interpreter itself varies by that much."""
COUNTS = (16, 64)
STEP = """
import sys
from datetime import date
from pathlib import Path
from brainfed.formats import workspace
from brainfed.steps.aggregate import aggregate
aggregate(workspace.find(Path(sys.argv[1])), today=date(2026, 3, 1))
"""


@dataclass
class Measured:
    """One aggregation."""

    n_files: int
    peak_mb: float
    seconds: float


def a_large_federation(root: Path) -> Small:
    """64 sites, one of which has joined: it makes the manifests of all."""
    names = tuple(f"site-{number:02d}" for number in range(COUNTS[-1]))
    small = an_unstarted_federation(root, names)
    admit(small.coordinator, [enrolment_of(s) for s in small.sites.values()], confirm=say_yes)
    plan = a_plan(
        network={"channels": (64, 128, 256, 512, 1024)}, participation={"quorum_sites": COUNTS[0]}
    )
    start(small, plan)
    carry(small.coordinator, small.sites[names[0]], root / "uni-lead" / "outbox")
    return small


def put_updates(small: Small, first: int, stop: int) -> None:
    """Signed updates at the coordinator, as after their import; no two of the same values."""
    known = small.known
    parent = rounds.newest_global(small.coordinator, known)
    start_of_values = weights.data_start(parent.path)
    body = np.fromfile(parent.path, "<f4", offset=start_of_values)
    folder = small.coordinator.round_folder(1)
    folder.mkdir(exist_ok=True)
    any_site = next(iter(small.sites.values()))
    for number, site in list(enumerate(small.sites.values()))[first:stop]:
        manifest = an_update_manifest(any_site, sender=site.name, n_patients=number + 1)
        path = folder / known.weights_name(manifest)
        header = weights.header_bytes(manifest, known.table)
        with path.open("wb") as stream:
            stream.write(header)
            stream.write((body[: 2**20] + np.float32(number / 1000)).tobytes())
            stream.write(body[2**20 :].data)
        sign(path, site)


def open_again(place: Workspace) -> None:
    """Take the round's closing signature away, so that it can be closed once more."""
    path = rounds.global_path(place, 1)
    if path is not None:
        signature.signature_path(path).unlink()


def measure(place: Workspace, n_files: int) -> Measured:
    start = time.perf_counter()
    with subprocess.Popen([sys.executable, "-c", STEP, str(place.root)]) as process:
        peak = 0
        while process.poll() is None:
            peak = max(peak, anonymous_bytes(process.pid))
            time.sleep(0.01)
        if process.returncode:
            raise SystemExit("aggregate failed")
    return Measured(n_files, peak / 1e6, time.perf_counter() - start)


def anonymous_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    found = [line for line in lines if line.startswith("RssAnon:")]
    return 1024 * int(found[0].split()[1]) if found else 0


def report(results: list[Measured], n_values: int) -> str:
    difference = max(r.peak_mb for r in results) - min(r.peak_mb for r in results)
    passed = all(r.peak_mb < LIMIT_MB for r in results) and difference < SAME_MB
    rows = "\n".join(
        f"| {r.n_files} | {r.n_files * n_values * 4 / 1e9:.1f} GB | {r.peak_mb:.1f} MB "
        f"| {r.seconds:.0f} s |"
        for r in results
    )
    return f"""# Memory of `aggregate`

`python tests/benchmarks/bench_aggregate_memory.py`: updates of {n_values:,} parameters, averaged by
the aggregate step in a process of its own; the peak of its resident memory without mapped pages
(RssAnon, sampled every 10 ms). Limit: {LIMIT_MB} MB, and the same at 16 and 64 files (within
{SAME_MB} MB). **{"Within the limit." if passed else "NOT within the limit."}**

| files | read | peak | time |
|---|---|---|---|
{rows}

The time includes the start of Python, checking every signature and value, averaging, and writing;
the machine was shared, so it is an upper bound.

{platform.system()} {platform.machine()}, {cpu()}; Python {platform.python_version()}, \
numpy {version("numpy")}, cryptography {version("cryptography")}, brainfed {version("brainfed")}.
"""


def cpu() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory(dir=folder) as root:
        small = a_large_federation(Path(root))
        results = []
        for before, count in zip((0, *COUNTS), COUNTS, strict=False):
            open_again(small.coordinator)
            put_updates(small, before, count)
            results.append(measure(small.coordinator, count))
            sys.stderr.write(f"{results[-1]}\n")
        text = report(results, n_parameters(small.known.table))
    sys.stdout.write(text)
    target = ROOT / "docs" / "results" / "aggregate-memory.md"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)


if __name__ == "__main__":
    main()
