"""What 200 cases take: `python tests/benchmarks/bench_evaluate_many.py [--cases N] [--jobs N]`.

Ready label maps of 240 x 240 x 155 voxels are made and scored by `brainfed evaluate --predictions`
in a process of its own, as a person would: interrupted with Ctrl-C after two fifths, run again to
the end. Prints minutes, peak memory of all its processes together, and how many cases were kept.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from brainfed.core.volume import Geometry
from brainfed.formats import score_journal, score_table
from brainfed.formats.scan import write_scan

SHAPE = (155, 240, 240)
GEOMETRY = Geometry(
    (240, 240, 155), (1.0, 1.0, 1.0), (0.0, -239.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1)
)


@dataclass
class Run:
    """One command, from its start to its end."""

    seconds: float
    peak_mb: float
    """Of all its processes together: proportional set size."""
    out: str


def a_label(random: np.random.Generator, shift: tuple[int, ...] = (0, 0, 0)) -> np.ndarray:
    """Three nested lumpy balls and a satellite, brats2023."""
    label = np.zeros(SHAPE, np.uint8)
    middle = random.integers((60, 80, 80), (95, 160, 160)) + shift
    radii = random.uniform(14, 34, 3)
    z, y, x = np.ogrid[tuple(slice(0, n) for n in SHAPE)]
    away = ((z - middle[0]) / radii[0]) ** 2 + ((y - middle[1]) / radii[1]) ** 2
    away = away + ((x - middle[2]) / radii[2]) ** 2
    away = away * (1 + 0.25 * np.sin(x / 3.0) * np.sin(y / 4.0) * np.sin(z / 5.0))
    for value, limit in ((2, 1.0), (3, 0.45), (1, 0.2)):
        label[away <= limit] = value
    lone = middle + random.integers(-45, 45, 3)
    label[tuple(slice(c, c + 6) for c in np.clip(lone, 0, np.array(SHAPE) - 6))] = 3
    return label


def make(folder: Path, n_cases: int) -> None:
    for part in ("truth", "predictions"):
        (folder / part).mkdir()
    for number in range(n_cases):
        name = f"Made-{number:05d}-000.nii.gz"
        shift = tuple(np.random.default_rng(number + 10**6).integers(-4, 5, 3))
        write_scan(folder / "truth" / name, a_label(np.random.default_rng(number)), GEOMETRY)
        found = a_label(np.random.default_rng(number), shift)
        write_scan(folder / "predictions" / name, found, GEOMETRY)


def run(folder: Path, jobs: int, stop_after: int | None = None) -> Run:
    """Carry out the command; with Ctrl-C as soon as so many cases are written down."""
    words = ["evaluate", "--predictions", folder / "predictions", "--truth", folder / "truth"]
    words += [
        "--labels",
        "brats2023",
        "--jobs",
        str(jobs),
        "--out",
        folder / "scores.csv",
        "--json",
    ]
    journal = score_journal.path_of(folder / "scores.csv")
    start, peak = time.perf_counter(), 0
    out = folder / "out.json"
    with out.open("w") as stream:
        command = subprocess.Popen(
            [sys.executable, "-m", "brainfed", *map(str, words)], stdout=stream
        )
    while command.poll() is None:
        peak = max(peak, sum(map(pss_kb, family(command.pid))))
        n_done = journal.read_bytes().count(b"\n") - 1 if journal.exists() else 0
        if stop_after is not None and n_done >= stop_after:
            command.send_signal(signal.SIGINT)
            stop_after = None
        time.sleep(0.2)
    return Run(time.perf_counter() - start, peak / 1000, out.read_text())


def family(pid: int) -> list[int]:
    """A process and all that came from it."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(one for child in children for one in family(int(child)))]


def pss_kb(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=2)
    wanted = parser.parse_args()
    # A shell starts what runs in the background with Ctrl-C ignored, which children inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, wanted.cases)
        first = run(folder, wanted.jobs, stop_after=2 * wanted.cases // 5)
        journal = score_journal.path_of(folder / "scores.csv")
        n_done = journal.read_bytes().count(b"\n") - 1
        second = run(folder, wanted.jobs)
        result = json.loads(second.out)
        assert result["n_kept"] == n_done, (result["n_kept"], n_done)
        assert len(score_table.read_table(folder / "scores.csv")) == 3 * wanted.cases
        assert not journal.exists()
    minutes = (first.seconds + second.seconds) / 60
    print(
        f"{wanted.cases} cases of {' x '.join(map(str, SHAPE[::-1]))}, three regions, "
        f"{wanted.jobs} processes on {os.cpu_count()} cores: {minutes:.1f} minutes, interrupted "
        f"after {n_done} cases ({first.seconds:.0f} s), gone on with the other "
        f"{wanted.cases - n_done} ({second.seconds:.0f} s); peak memory of all processes together "
        f"{max(first.peak_mb, second.peak_mb):.0f} MB; load of the machine "
        f"{os.getloadavg()[0]:.1f}."
    )


if __name__ == "__main__":
    main()
