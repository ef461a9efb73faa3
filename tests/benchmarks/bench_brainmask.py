"""How well the brain masks agree with BET's: `python tests/benchmarks/bench_brainmask.py`.

Each method masks the real head colin27/ch2 in a process of its own, with one thread; the mask is
compared with colin27/ch2bet. The classical mask is also tried on the head as scanners would have
it: tilted, in thick slices, with shading, noise and another zero. Prints two tables.
"""

import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.core.heads import dice

from brainfed.core import brain_surface, deepbet_mask
from brainfed.core.brainmask import doubts

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data" / "colin27"
METHODS = {"deepbet": (deepbet_mask.brain, 0.95), "classical": (brain_surface.classical, 0.93)}
SPACINGS = [(0.9, 0.9, 5.0), (5.0, 0.9, 0.9), (2.0, 2.0, 2.0), (0.7, 0.7, 6.0)]
ANGLES = [(12, -8, 10), (-5, 5, 15), (20, 10, -15), (0, 15, 0)]
OFFSETS = [0, 500, -300, 0]
EXTENT_MM = 230.0


def head() -> tuple[sitk.Image, sitk.Image]:
    scan = sitk.ReadImage(str(DATA / "ch2.nii.gz"), sitk.sitkFloat32)
    return scan, sitk.ReadImage(str(DATA / "ch2bet.nii.gz")) > 0


def spoiled() -> Iterator[tuple[str, sitk.Image, sitk.Image]]:
    """The head and its reference on other grids, the head with shading, noise and an offset."""
    scan, reference = head()
    for number, (spacing, angles, offset) in enumerate(zip(SPACINGS, ANGLES, OFFSETS, strict=True)):
        size = [round(EXTENT_MM / mm) for mm in spacing]
        turn = sitk.Euler3DTransform()
        turn.SetRotation(*np.deg2rad(angles).tolist())
        axes = np.array(turn.GetMatrix()).reshape(3, 3)
        middle = scan.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in scan.GetSize()])
        origin = middle - axes @ ((np.array(size) - 1) / 2 * spacing)
        grid = (size, sitk.Transform())
        place = (origin.tolist(), spacing, axes.ravel().tolist())
        there = sitk.Resample(scan, *grid, sitk.sitkLinear, *place)
        truth = sitk.Resample(reference, *grid, sitk.sitkNearestNeighbor, *place)
        random = np.random.default_rng(number)
        z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in size[::-1]], indexing="ij")
        shading = np.exp(0.3 * (random.normal() * x + random.normal() * y + random.normal() * z))
        array = 7 * sitk.GetArrayFromImage(there) * shading
        parts = 0.03 * np.quantile(array, 0.98) * random.standard_normal((2, *array.shape))
        array = np.sqrt((array + parts[0]) ** 2 + parts[1] ** 2) + offset
        worse = sitk.GetImageFromArray(array.astype(np.float32))
        worse.CopyInformation(there)
        words = " x ".join(f"{mm:g}" for mm in spacing)
        yield f"{words} mm, turned by {angles} degrees, {offset:+d}", worse, truth


def measure(method: str) -> dict[str, float]:
    """One mask of the plain head, in this process."""
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    scan, reference = head()
    start = time.process_time()
    mask = METHODS[method][0](scan)
    seconds = time.process_time() - start
    inside, truth = (sitk.GetArrayFromImage(part).astype(bool) for part in (mask, reference))
    return {
        "dice": dice(mask, reference),
        "found": float((inside & truth).sum() / truth.sum()),
        "ml": float(inside.sum()) * float(np.prod(scan.GetSpacing())) / 1000,
        "seconds": seconds,
        "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> int:
    if len(sys.argv) > 1:
        sys.stdout.write(json.dumps(measure(sys.argv[1])))
        return 0
    if not DATA.is_dir():
        sys.stdout.write(f"{DATA} is not here: nothing to measure\n")
        return 0
    words = ["| mask | Dice with ch2bet | aim | ch2bet found | ml | CPU s | peak MB |"]
    words.append("|---|---|---|---|---|---|---|")
    good = True
    for method, (_, aim) in METHODS.items():
        done = subprocess.run(
            [sys.executable, __file__, method],
            capture_output=True,
            check=True,
            text=True,
            env={"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")},
        )
        found = json.loads(done.stdout)
        good = good and found["dice"] >= aim
        words.append(
            f"| {method} | {found['dice']:.3f} | {aim} | {100 * found['found']:.1f} % "
            f"| {found['ml']:.0f} | {found['seconds']:.1f} | {found['mb']:.0f} |"
        )
    words += ["", "| classical mask of the head in | Dice with ch2bet | doubts |", "|---|---|---|"]
    for name, scan, truth in spoiled():
        mask = brain_surface.classical(scan)
        words.append(f"| {name} | {dice(mask, truth):.3f} | {'; '.join(doubts(mask)) or 'none'} |")
    packages = ", ".join(f"{name} {version(name)}" for name in ("SimpleITK", "numpy", "torch"))
    words += ["", f"One thread, {platform.machine()}; {packages}, deepbet {deepbet_mask.VERSION}."]
    sys.stdout.write("\n".join(words) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
