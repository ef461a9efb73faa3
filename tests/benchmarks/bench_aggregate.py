"""`aggregate` beside FLARE, Flower and SHA-256: `python tests/benchmarks/bench_aggregate.py`.

Federations of 4, 16 and 64 sites with a network of 31 million parameters, whose signed updates lie
on the disk (about 11 GB in `--work`, taken away afterwards). brainfed's own step reads, checks,
screens, averages and signs; NVIDIA FLARE and Flower, in environments of their own, read the same
files in a shuffled order, average and write, and check nothing. Each run is a process of its own,
and the contestants take turns, so that whatever else the machine does meets them all; the files are
read once before each run, so that all find them in the page cache. Resident memory without mapped
pages (RssAnon of /proc/PID/status, Linux) is sampled on the way. Writes to
`docs/results/aggregate.md`.
"""

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.marked import rewrite
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
from brainfed.plan import Rule
from brainfed.steps.admit import admit

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "results" / "aggregate.md"
FLARE = ("torch==2.13.0", "nvflare==2.9.0", "safetensors")
FLOWER = ("flwr==1.41.0", "safetensors")
LARGE, SMALL = (64, 128, 256, 512, 1024), (16, 32, 64, 128, 256)
COUNTS, SMALL_COUNTS, ROBUST_SITES = (4, 16, 64), (4, 16, 64, 256), 16
N_RUNS = 5
LIMIT_MB, SAME_MB = 150, 5
"""Peaks that differ by less count as the same: the interpreter itself varies by that much."""
OURS, UNSCREENED = "brainfed", "brainfed without screening"
TORCH, MAPPED = "FLARE, torch.load", "FLARE, files mapped"


@dataclass
class Runs:
    """All runs of one contestant over one number of sites."""

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peaks_mb: list[float] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def peak_mb(self) -> float:
        return max(self.peaks_mb)


@dataclass
class Prepared:
    """A federation whose updates lie at the coordinator."""

    small: Small
    files: list[Path]
    weights: list[int]

    @property
    def n_values(self) -> int:
        return n_parameters(self.small.known.table)

    def choose(self, n_sites: int) -> None:
        """Let the updates of the first sites alone lie there."""
        aside = self.small.root / "aside"
        aside.mkdir(exist_ok=True)
        for number, path in enumerate(self.files):
            here = (path, signature.signature_path(path), Path(f"{path}.pt"))
            there = tuple(aside / file.name for file in here)
            source, target = (there, here) if number < n_sites else (here, there)
            for a, b in zip(source, target, strict=True):
                if a.exists():
                    a.rename(b)

    def open_again(self) -> None:
        """Take the round's closing signature away, so that it can be closed once more."""
        path = rounds.global_path(self.small.coordinator, 1)
        if path is not None:
            signature.signature_path(path).unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=ROOT / "work" / "bench-aggregate")
    parser.add_argument("--runs", type=int, default=N_RUNS)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    pythons = {
        "FLARE": environment(options.work / "flare", FLARE),
        "Flower": environment(options.work / "flower", FLOWER),
    }
    loads = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory(dir=options.work) as root:
        large = prepared(Path(root), COUNTS[-1], LARGE, Rule.FEDAVG)
        copy_for_torch(large)
        n_values = large.n_values
        names = (OURS, TORCH, "SHA-256", UNSCREENED, MAPPED, "Flower")
        measured = {n: compete(large, n, names, pythons, options.runs) for n in COUNTS}
    loads.append(os.getloadavg()[0])
    robust: dict[Rule, dict[str, Runs]] = {}
    for rule in (Rule.MEDIAN, Rule.TRIMMED_MEAN):
        with tempfile.TemporaryDirectory(dir=options.work) as root:
            some = prepared(Path(root), ROBUST_SITES, LARGE, rule)
            names = (OURS, f"Flower {rule}")
            robust[rule] = compete(some, ROBUST_SITES, names, pythons, options.runs)
    with tempfile.TemporaryDirectory(dir=options.work) as root:
        many = prepared(Path(root), SMALL_COUNTS[-1], SMALL, Rule.FEDAVG)
        n_small = many.n_values
        flat = {n: compete(many, n, (OURS,), pythons, 1)[OURS] for n in SMALL_COUNTS}
    loads.append(os.getloadavg()[0])
    text = "\n".join(
        (
            speed_part(measured, n_values, loads, options.runs),
            robust_part(robust),
            memory_part(measured, flat, n_small),
        )
    )
    sys.stdout.write(text)
    rewrite(PAGE, "speed", text)


def environment(folder: Path, wanted: Sequence[str]) -> str:
    """The interpreter of a peer's environment."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    # Each time: it says at once that nothing is missing, or mends what a killed run left.
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *wanted], check=True)
    return str(python)


def prepared(root: Path, n_sites: int, channels: Sequence[int], rule: Rule) -> Prepared:
    """Signed updates of all sites at the coordinator, as after their import.

    One site has joined: it makes the manifests of all. No two values are the same.
    """
    names = tuple(f"site-{number:03d}" for number in range(n_sites))
    small = an_unstarted_federation(root, names)
    admit(small.coordinator, [enrolment_of(s) for s in small.sites.values()], confirm=say_yes)
    plan = a_plan(
        network={"channels": tuple(channels)},
        participation={"quorum_sites": COUNTS[0]},
        aggregation={"rule": rule},
    )
    start(small, plan)
    any_site = small.sites[names[0]]
    carry(small.coordinator, any_site, root / "uni-lead" / "outbox")
    known = small.known
    parent = rounds.newest_global(small.coordinator, known)
    body = np.fromfile(parent.path, "<f4", offset=weights.data_start(parent.path))
    folder = small.coordinator.round_folder(1)
    folder.mkdir(exist_ok=True)
    files, counts = [], []
    for number, site in enumerate(small.sites.values()):
        manifest = an_update_manifest(any_site, sender=site.name, n_patients=10 + 7 * number % 90)
        change = np.random.default_rng(number).standard_normal(len(body), np.float32)
        path = folder / known.weights_name(manifest)
        with path.open("wb") as stream:
            stream.write(weights.header_bytes(manifest, known.table))
            stream.write((body + np.float32(0.01) * change).data)
        sign(path, site)
        files.append(path)
        counts.append(manifest.n_patients or 0)
    return Prepared(small, files, counts)


def copy_for_torch(them: Prepared) -> None:
    """Put files as torch writes them beside the others.

    From the 17th on they are links to the first: two full sets of 64 don't fit the page cache.
    """
    for number, path in enumerate(them.files):
        if number < COUNTS[1]:
            tensors = weights.read_tensors(path, them.small.known.table)
            torch.save({name: torch.from_numpy(v) for name, v in tensors.items()}, f"{path}.pt")
        else:
            Path(f"{path}.pt").hardlink_to(f"{them.files[number % COUNTS[1]]}.pt")


def compete(
    them: Prepared, n_sites: int, names: Sequence[str], pythons: dict[str, str], n_runs: int
) -> dict[str, Runs]:
    """Several runs of each, in turns that begin with another one each time."""
    them.choose(n_sites)
    found = {name: Runs() for name in names}
    for turn in range(n_runs):
        order = list(range(n_sites))
        random.Random(turn).shuffle(order)
        shift = turn % len(names)
        for name in (*names[shift:], *names[:shift]):
            them.open_again()
            out = them.small.root / "out.safetensors"
            task = {
                "who": name,
                "workspace": str(them.small.coordinator.root),
                "files": [str(them.files[number]) for number in order],
                "weights": [them.weights[number] for number in order],
                "out": str(out),
            }
            warm([path + ".pt" if name == TORCH else path for path in task["files"]])
            peer = name.replace(",", " ").split()[0]
            one = run(pythons.get(peer, sys.executable), task, found[name])
            sys.stderr.write(f"{n_sites} sites, {name}: {one:.2f} s\n")
            out.unlink(missing_ok=True)
    return found


def warm(files: Sequence[str]) -> None:
    """Bring the files into the page cache, where there is room."""
    room = bytearray(2**22)
    for path in files:
        with Path(path).open("rb", buffering=0) as stream:
            while stream.readinto(room):
                pass


def run(python: str, task: dict[str, object], into: Runs) -> float:
    """One aggregation in a process of its own."""
    program = str(Path(__file__).with_name("aggregate_once.py"))
    env = os.environ | {"FLWR_TELEMETRY_ENABLED": "0"}
    env.pop("OMP_NUM_THREADS", None)
    peak = 0
    with subprocess.Popen(
        [python, program, json.dumps(task)], stdout=subprocess.PIPE, text=True, env=env
    ) as process:
        while process.poll() is None:
            peak = max(peak, anonymous_bytes(process.pid))
            time.sleep(0.01)
        if process.returncode:
            raise SystemExit(f"{task['who']} failed")
        assert process.stdout
        said = json.loads(process.stdout.read().splitlines()[-1])
    into.seconds.append(said["seconds"])
    into.cpu.append(said["cpu"])
    into.peaks_mb.append(peak / 1e6)
    into.versions = said["versions"]
    return into.seconds[-1]


def anonymous_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    found = [line for line in lines if line.startswith("RssAnon:")]
    return 1024 * int(found[0].split()[1]) if found else 0


def speed_part(
    measured: dict[int, dict[str, Runs]], n_values: int, loads: list[float], n_runs: int
) -> str:
    """Times of all contestants, ratios, the fit, and what screening takes."""
    rows = [
        f"| {n} | {n * n_values * 4 / 1e9:.1f} GB | {name} | {spread(runs.seconds)} s "
        f"| {'' if name == OURS else spread(ratios(every, name))} "
        f"| {statistics.median(runs.cpu):.2f} s | {runs.peak_mb:,.0f} MB |"
        for n, every in measured.items()
        for name, runs in every.items()
    ]
    versions = {v for every in measured.values() for runs in every.values() for v in runs.versions}
    sizes = [n * n_values * 4 / 1e9 for n in measured]
    times = [every[OURS].median for every in measured.values()]
    slope, begin = np.polyfit(sizes, times, 1)
    off = max(abs(slope * x + begin - y) / y for x, y in zip(sizes, times, strict=True))
    share = [
        statistics.median(
            1 - b / a for a, b in zip(every[OURS].seconds, every[UNSCREENED].seconds, strict=True)
        )
        for every in measured.values()
    ]
    aims = [
        aim(measured, f"time of {name} against brainfed's, at least", name, least, lambda r: r)
        for name, least in ((TORCH, 1.3), (MAPPED, 1.3), ("Flower", 4.0))
    ]
    aims.append(aim(measured, "speed against SHA-256's, at least", "SHA-256", 0.4, lambda r: r))
    return f"""## Speed

{n_values:,} parameters; medians (lowest-highest) of {n_runs} runs in turns; "ratio" is the time of
that line divided by brainfed's in the same turn. The time begins when all modules are loaded and
ends when the result is on the disk; "of all cores" is the CPU time in it, which other work on the
machine changes less. brainfed's holds all that `aggregate` does: every signature,
digest and value checked, screening, the mean, the signed record, the outbox. The peers check
nothing: FLARE's `WeightedAggregationHelper` over tensors that torch.load reads (as its model files
are) or that safetensors maps (as its offload to the disk does, which copies nothing), Flower's
`aggregate_arrayrecords`. SHA-256 only hashes the files, one to a thread.

| sites | read | who | time | ratio | of all cores | peak memory |
|---|---|---|---|---|---|---|
{chr(10).join(rows)}

| aim | {" | ".join(f"{n} sites" for n in measured)} |
|---|{"---|" * len(measured)}
{chr(10).join(aims)}

Time is {begin:.2f} s + {slope:.2f} s for each GB, by least squares over the three medians; the
largest distance from that line is {off:.0%}. Screening takes {percent(min(share))} to
{percent(max(share))} of the time.

{platform.system()} {platform.machine()}, {cpu()}, shared with other work (load
{", ".join(f"{load:.1f}" for load in loads)} at the start, the middle and the end). Python
{platform.python_version()}, {", ".join(sorted(versions))}.
"""


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def ratios(every: dict[str, Runs], name: str) -> list[float]:
    """The other's time divided by ours, turn by turn."""
    return [a / b for a, b in zip(every[name].seconds, every[OURS].seconds, strict=True)]


def aim(
    measured: dict[int, dict[str, Runs]],
    words: str,
    name: str,
    least: float,
    of: Callable[[float], float],
) -> str:
    cells = []
    for every in measured.values():
        found = of(statistics.median(ratios(every, name)))
        cells.append(f"{found:.2f}, {'reached' if found >= least else 'NOT reached'}")
    return f"| {words} {least:g} | {' | '.join(cells)} |"


def robust_part(robust: dict[Rule, dict[str, Runs]]) -> str:
    """Median and trimmed mean beside Flower's."""
    rows = []
    for rule, every in robust.items():
        peer = f"Flower {rule}"
        found = statistics.median(ratios(every, peer))
        rows.append(
            f"| {rule} | {spread(every[OURS].seconds)} s | {spread(every[peer].seconds)} s "
            f"| {spread(ratios(every, peer))}, {'reached' if found >= 5 else 'NOT reached'} "
            f"| {every[OURS].peak_mb:,.0f} MB | {every[peer].peak_mb:,.0f} MB |"
        )
    return f"""## Median and trimmed mean

{ROBUST_SITES} sites, the same network, the same kind of run; Flower's functions get plain arrays,
which is its quickest way. Aim: at least 5 times as fast.

| rule | brainfed | Flower | ratio | memory, brainfed | memory, Flower |
|---|---|---|---|---|---|
{chr(10).join(rows)}
"""


def memory_part(measured: dict[int, dict[str, Runs]], flat: dict[int, Runs], n_small: int) -> str:
    """Peaks of brainfed over all numbers of sites."""
    peaks = {n: every[OURS].peak_mb for n, every in measured.items()}
    small = {n: runs.peak_mb for n, runs in flat.items()}
    every = (*peaks.values(), *small.values())
    is_flat = max(every) - min(every) < SAME_MB
    cells = [f"{peaks[n]:.1f} MB" if n in peaks else "" for n in SMALL_COUNTS]
    return f"""## Memory

Peak of the resident memory without mapped pages, sampled every 10 ms. Aim: under {LIMIT_MB} MB and
flat from 4 to 256 sites. 256 files of the large network would be 32 GB, so that number was run with
{n_small:,} parameters: memory depends on the number of files, not on their length.
{"Under" if max(every) < LIMIT_MB else "NOT under"} {LIMIT_MB} MB; lowest and highest differ by
{max(every) - min(every):.1f} MB ({"flat" if is_flat else "NOT flat"} within {SAME_MB} MB).

| parameters | {" | ".join(f"{n} sites" for n in SMALL_COUNTS)} |
|---|{"---|" * len(SMALL_COUNTS)}
| the large network | {" | ".join(cells)} |
| {n_small:,} | {" | ".join(f"{small[n]:.1f} MB" for n in SMALL_COUNTS)} |
"""


def spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def cpu() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()


if __name__ == "__main__":
    main()
