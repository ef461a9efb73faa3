"""What scoring outlines costs beside the peers: `python tests/benchmarks/bench_evaluate.py`.

Three regions on 240 x 240 x 155 voxels of 1 mm: lumpy ellipsoids with satellites, and a real case
where ../shared/data is there, with predictions that are shifted, eroded or far off. Each case is
scored in turns, in one process and one thread: Dice, HD95 and NSD by brainfed, by surface-distance
and by MONAI; lesion-wise by brainfed and by the plain restatement of the tests, whose numbers must
agree. Then the peak memory of a process that scores a loaded case by every measure, and two such
processes against one. Prints a report and writes it to `docs/results/evaluate.md`.
"""

import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.builders import SHARED_DATA

from brainfed.core.labels import LabelProtocol, region_mask
from brainfed.core.lesions import find_lesions, lesion_dice, lesion_hd95
from brainfed.core.measuring import measure_all
from brainfed.core.metrics import dice
from brainfed.core.surface import crop, hd95_surface, nsd, surfaces
from brainfed.plan import LesionPreset, Region

ROOT = Path(__file__).resolve().parents[2]
SHAPE = (155, 240, 240)
SPACING_MM = (1.0, 1.0, 1.0)
FARTHEST_MM = 374.0
TOLERANCE_MM = 1.0
N_REPETITIONS = 5
N_CASES_EACH = 8
FASTER = {"surface-distance": 4, "MONAI": 15, "plain restatement": 8}
MOST_MB = 150
TWO_PROCESSES = 1.8
REAL = SHARED_DATA / "deepmedic-brats2013/test/brats_2013_pat0001_1/OTMultiClass.nii.gz"

Label = np.ndarray
Masks = list[tuple[np.ndarray, np.ndarray]]


@dataclass
class Case:
    name: str
    prediction: Label
    truth: Label
    protocol: LabelProtocol

    def masks(self) -> Masks:
        """Prediction and truth of each region."""
        pair = (self.prediction, self.truth)
        return [tuple(region_mask(x, self.protocol, region) for x in pair) for region in Region]


@dataclass
class Timed:
    """Of one case: CPU seconds of each repetition by what was timed, and what it gave."""

    seconds: dict[str, list[float]] = field(default_factory=dict)

    def take(self, name: str, work: Callable[[], np.ndarray]) -> np.ndarray:
        start = time.process_time()
        result = work()
        self.seconds.setdefault(name, []).append(time.process_time() - start)
        return result

    def ratio(self, name: str, ours: str) -> float:
        return statistics.median(self.seconds[name]) / statistics.median(self.seconds[ours])


def ellipsoids() -> Label:
    """Oedema 2 around a rim 4 around a core 1 (brats2017), lumpy, and five satellites."""
    random = np.random.default_rng(1)
    lumps = ndimage.gaussian_filter(random.standard_normal(SHAPE), 4)
    lumps *= 0.15 / lumps.std()
    centres = [((80, 120, 90), 38.0), *((random.uniform(40, 110, 3), 6.0) for _ in range(5))]
    away = np.full(SHAPE, np.inf)
    axes = np.ogrid[tuple(slice(n) for n in SHAPE)]
    for centre, radius in centres:
        squares = ((a - at) / r for a, at, r in zip(axes, centre, (0.8, 1.1, 1), strict=True))
        np.minimum(away, np.sqrt(sum(s**2 for s in squares)) / radius, out=away)
    away += lumps
    label = np.zeros(SHAPE, np.uint8)
    for limit, value in ((1.0, 2), (0.65, 4), (0.45, 1)):
        label[away <= limit] = value
    return label


def shifted(label: Label) -> Label:
    return np.roll(label, (1, 2, -1), (0, 1, 2))


def eroded(label: Label) -> Label:
    return np.where(ndimage.binary_erosion(label > 0), label, 0).astype(np.uint8)


def far_off(label: Label) -> Label:
    """As from a network that has learned little: elsewhere, and with false pieces."""
    result = np.roll(label, (6, -9, 12), (0, 1, 2))
    result[20:30, 20:30, 20:30] = 4
    result[120:124, 200:206, 200:203] = 2
    return result


def cases() -> Iterator[Case]:
    made = ellipsoids()
    for change in (shifted, eroded, far_off):
        name = change.__name__.replace("_", " ")
        yield Case(f"ellipsoids, {name}", change(made), made, LabelProtocol.BRATS2017)
    if REAL.exists():
        real = sitk.GetArrayFromImage(sitk.ReadImage(REAL)).astype(np.uint8)
        for change in (shifted, eroded):
            name = change.__name__
            yield Case(f"real tumour, {name}", change(real), real, LabelProtocol.BRATS2012)


def by_brainfed(masks: Masks) -> np.ndarray:
    rows = []
    for whole in masks:
        p, t = crop(*whole)
        both = surfaces(p, t, SPACING_MM)
        rows.append((dice(p, t), hd95_surface(both), nsd(both, TOLERANCE_MM)))
    return np.array(rows)


def by_surface_distance(masks: Masks) -> np.ndarray:
    from surface_distance import metrics

    rows = []
    for p, t in masks:
        found = metrics.compute_surface_distances(t, p, SPACING_MM)
        rows.append(
            (
                metrics.compute_dice_coefficient(t, p),
                metrics.compute_robust_hausdorff(found, 95),
                metrics.compute_surface_dice_at_tolerance(found, TOLERANCE_MM),
            )
        )
    return np.array(rows)


def by_monai(masks: Masks) -> np.ndarray:
    import torch
    from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice

    p, t = (torch.from_numpy(np.stack(side)[None]) for side in zip(*masks, strict=True))
    away = compute_hausdorff_distance(
        p, t, include_background=True, percentile=95, spacing=SPACING_MM
    )
    agree = compute_surface_dice(
        p, t, [TOLERANCE_MM] * len(masks), include_background=True, spacing=SPACING_MM
    )
    overlap = compute_dice(p.float(), t.float(), include_background=True)
    return np.array([x[0].numpy() for x in (overlap, away, agree)]).T


def lesions_by_brainfed(masks: Masks) -> np.ndarray:
    rows = []
    for whole in masks:
        found = find_lesions(*crop(*whole), LesionPreset.GLI)
        away = lesion_hd95(found, spacing_mm=SPACING_MM, farthest_mm=FARTHEST_MM)
        rows.append((lesion_dice(found), away))
    return np.array(rows)


def lesions_restated(masks: Masks) -> np.ndarray:
    from tests.core.plain_lesions import plain_lesions

    plain = [
        plain_lesions(p, t, "gli", spacing_mm=SPACING_MM, farthest_mm=FARTHEST_MM) for p, t in masks
    ]
    return np.array([(found.dice, found.hd95_mm) for found in plain])


def everything(masks: Masks) -> np.ndarray:
    rows = [
        measure_all(
            p, t, spacing_mm=SPACING_MM, tolerance_mm=TOLERANCE_MM, lesions=LesionPreset.GLI
        )
        for p, t in masks
    ]
    return np.array([list(row.values()) for row in rows])


def time_case(case: Case) -> Timed:
    """In turns; the first turn warms up, checks the numbers and isn't kept."""
    masks, timed = case.masks(), Timed()
    for turn in range(N_REPETITIONS + 1):
        ours = timed.take("brainfed", lambda: by_brainfed(masks))
        theirs = timed.take("surface-distance", lambda: by_surface_distance(masks))
        monai = timed.take("MONAI", lambda: by_monai(masks))
        lesions = timed.take("lesions", lambda: lesions_by_brainfed(masks))
        restated = timed.take("plain restatement", lambda: lesions_restated(masks))
        timed.take("everything", lambda: everything(masks))
        if turn == 0:
            np.testing.assert_allclose(ours, theirs, atol=1e-6)
            np.testing.assert_allclose(ours[:, 0], monai[:, 0], atol=1e-6)
            np.testing.assert_allclose(lesions, restated, atol=1e-6)
            timed.seconds.clear()
    return timed


def worker(n: int) -> None:
    """A process of its own: loads a case, says so, waits, scores it n times.

    Prints the seconds by the wall clock and of the CPU, and by how many MB the peak of the resident
    memory exceeded that of the loaded case (the two label maps).
    """
    truth = ellipsoids()
    case = Case("", shifted(truth), truth, LabelProtocol.BRATS2017)
    everything([(mask[:9, :9, :9], mask[:9, :9, :9]) for mask, _ in case.masks()])
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew (Linux)
    loaded = memory_kb("VmRSS")
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    start, cpu_start = time.perf_counter(), time.process_time()
    for _ in range(n):
        everything(case.masks())
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    sys.stdout.write(f"{seconds} {cpu_seconds} {(memory_kb('VmHWM') - loaded) / 1000}\n")


def memory_kb(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


def run_workers(n_processes: int) -> list[tuple[float, ...]]:
    """Seconds by the wall clock and of the CPU, and peak in MB, of each; started at once."""
    command = [sys.executable, __file__, "--worker", str(N_CASES_EACH)]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(n_processes)
    ]
    for process in running:
        assert process.stdout and process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    return [tuple(map(float, process.communicate()[0].split())) for process in running]


@dataclass
class Processes:
    """Two against one, pair by pair; 2 is the best there can be."""

    by_clock: list[float] = field(default_factory=list)
    by_cpu: list[float] = field(default_factory=list)
    """How much more two would do on processors of their own."""
    peaks_mb: list[float] = field(default_factory=list)


def processes() -> Processes:
    result = Processes()
    for _ in range(N_REPETITIONS):
        alone, together = np.array(run_workers(1)), np.array(run_workers(2))
        clock, cpu_time, _ = 2 * alone[0] / together.max(axis=0)
        result.by_clock.append(float(clock))
        result.by_cpu.append(float(cpu_time))
        result.peaks_mb += [*alone[:, 2].tolist(), *together[:, 2].tolist()]
    return result


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def report(timed: dict[str, Timed], scored: Processes, loads: tuple[float, float]) -> str:
    names = ("brainfed", "surface-distance", "MONAI", "lesions", "plain restatement", "everything")
    seconds = "\n".join(
        f"| {name} | " + " | ".join(spread(t.seconds[x]) for x in names) + " |"
        for name, t in timed.items()
    )
    pairs = (
        ("surface-distance", "brainfed"),
        ("MONAI", "brainfed"),
        ("plain restatement", "lesions"),
    )
    ratios = "\n".join(
        f"| {name} | " + " | ".join(f"{t.ratio(*pair):.1f}" for pair in pairs) + " |"
        for name, t in timed.items()
    )
    near = [t for name, t in timed.items() if "far off" not in name]
    least = {pair[0]: min(t.ratio(*pair) for t in near) for pair in pairs}
    aims = "\n".join(
        f"| times as fast as {name}, at least | {FASTER[name]} "
        f"| {found:.1f} (lowest near the truth) | {verdict(found >= FASTER[name])} |"
        for name, found in least.items()
    )
    gain, peak = statistics.median(scored.by_clock), max(scored.peaks_mb)
    return f"""# What scoring costs

Made by `make bench-evaluate`; do not edit.

Three regions on 240 x 240 x 155 voxels of 1 mm. CPU seconds for all three, median (lowest-highest)
of {N_REPETITIONS} in turns, after one that warmed up and in which the numbers were compared: HD95,
NSD and lesion-wise scores within 1e-6 of the peer's, Dice of all three. MONAI defines the surface
otherwise, so its HD95 and NSD are other numbers.

| case | Dice, HD95, NSD: brainfed | surface-distance | MONAI | lesion-wise: brainfed \
| plain restatement | every measure of brainfed |
|---|---|---|---|---|---|---|
{seconds}

How many times as fast brainfed is, by the medians:

| case | surface-distance | MONAI | plain restatement |
|---|---|---|---|
{ratios}

| aim | | found | |
|---|---|---|---|
{aims}
| peak memory above the loaded case, at most | {MOST_MB} MB | {peak:.0f} MB (highest) \
| {verdict(peak <= MOST_MB)} |
| two processes against one by the clock, at least | {TWO_PROCESSES} | {spread(scored.by_clock)} \
| {verdict(gain >= TWO_PROCESSES)} |
| the same by CPU time | | {spread(scored.by_cpu)} | |

The aims are for predictions near the truth. Far from it, as from a network that has learned little
(outlines 16 voxels off), the peers' distance transforms cost the same and our search for the
nearest voxel costs more: that row shows what is left of the lead.

The loaded case is its two label maps; the masks of the regions count as memory above it. Two
processes scored {N_CASES_EACH} cases each by every measure, from a common start, and one alone
{N_CASES_EACH}; {N_REPETITIONS} pairs in turns. By the clock this needs two free processors, and
the machine's load was {loads[1]:.1f} when it began; by CPU time it tells whether two get in each
other's way.

The plain restatement is `tests/core/plain_lesions.py`: the definition word by word, nothing
cropped, with surface-distance for its HD95; rules `gli`.

{platform.system()} {platform.machine()}, {cpu()}, shared, load {loads[0]:.1f} at the start; one \
thread. Python {platform.python_version()}, {versions()}.
"""


def verdict(holds: bool) -> str:
    return "reached" if holds else "**NOT reached**"


def versions() -> str:
    names = ("numpy", "scipy", "surface-distance", "monai", "torch", "brainfed")
    return ", ".join(f"{name} {version(name)}" for name in names)


def cpu() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        worker(int(sys.argv[2]))
        return
    warnings.simplefilter("ignore")  # the peers' own, of NumPy, SciPy and torch
    import torch

    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    timed = {}
    for case in cases():
        timed[case.name] = time_case(case)
        medians = {k: round(statistics.median(v), 2) for k, v in timed[case.name].seconds.items()}
        sys.stderr.write(f"{case.name}: {medians}\n")
    loads = load, os.getloadavg()[0]
    text = report(timed, processes(), loads)
    sys.stdout.write(text)
    (ROOT / "docs" / "results" / "evaluate.md").write_text(text)


if __name__ == "__main__":
    main()
