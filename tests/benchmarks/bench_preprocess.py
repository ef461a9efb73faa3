"""Registration beside its peers: `python tests/benchmarks/bench_preprocess.py [--work FOLDER]`.

Simulated pairs of the normal range (`tests/simulator.py`), corrected and brought to 2 mm once by
`core.registration.prepare`; the same arrays go to brainfed, ANTs (antspyx) and elastix
(itk-elastix), pair by pair in turns, each in a process of its own with one thread. Taken are the
mean distance to the truth within the brain, and the seconds of the registration alone (wall and
CPU), without reading and start-up. ANTs and elastix get their own rigid recipes and the head's
mask. Their environments are made in FOLDER where `--ants` and `--elastix` name no interpreter.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests import simulator

from brainfed.core.registration import prepare
from brainfed.core.volume import to_image
from brainfed.plan import Modality

PEERS = {"ants": "antspyx==0.6.3", "elastix": "itk-elastix==0.25.4"}

# Each worker reads the name of a pair from a line, registers, and answers with the seconds and the
# matrix from fixed to moving, LPS.
LOOP = """
import json, sys, time
for line in sys.stdin:
    pair = line.strip()
    data = read(pair)
    wall, cpu = time.perf_counter(), time.process_time()
    found = align(*data)
    took = time.perf_counter() - wall, time.process_time() - cpu
    print(json.dumps([*took, list(matrix(found))]), flush=True)
"""
BRAINFED = """
import numpy as np
from brainfed.core.registration import Prepared, register
def read(pair):
    return [Prepared.from_arrays(np.load(f"{pair}-{side}.npz")) for side in ("fixed", "moving")]
align = register
def matrix(found):
    return found.matrix
"""
ANTS = """
import ants, numpy as np
def read(pair):
    return [ants.image_read(f"{pair}-{name}.nii.gz") for name in ("fixed", "moving", "mask")]
def align(fixed, moving, mask):
    return ants.registration(fixed, moving, "Rigid", mask=mask, random_seed=1)
def matrix(found):
    motion = ants.read_transform(found["fwdtransforms"][0])
    zero = np.array(motion.apply_to_point((0.0, 0.0, 0.0)))
    axes = [np.array(motion.apply_to_point(tuple(unit))) - zero for unit in np.eye(3)]
    return np.column_stack([*axes, zero]).ravel().tolist()
"""
ELASTIX = """
import itk, numpy as np
itk.MultiThreaderBase.SetGlobalDefaultNumberOfThreads(1)
def read(pair):
    images = [itk.imread(f"{pair}-{name}.nii.gz", itk.F) for name in ("fixed", "moving")]
    return [*images, itk.imread(f"{pair}-mask.nii.gz", itk.UC)]
def align(fixed, moving, mask):
    recipe = itk.ParameterObject.New()
    recipe.AddParameterMap(recipe.GetDefaultParameterMap("rigid"))
    return itk.elastix_registration_method(
        fixed, moving, parameter_object=recipe, fixed_mask=mask, number_of_threads=1
    )[1]
def matrix(found):
    part = found.GetParameterMap(0)
    motion = itk.Euler3DTransform[itk.D].New()
    motion.SetCenter([float(v) for v in part["CenterOfRotationPoint"]])
    values = itk.OptimizerParameters[itk.D](6)
    for index, value in enumerate(part["TransformParameters"]):
        values[index] = float(value)
    motion.SetParameters(values)
    zero = np.array(motion.TransformPoint([0.0, 0.0, 0.0]))
    axes = [np.array(motion.TransformPoint([float(v) for v in u])) - zero for u in np.eye(3)]
    return np.column_stack([*axes, zero]).ravel().tolist()
"""
PROGRAMS = {"brainfed": BRAINFED, "ants": ANTS, "elastix": ELASTIX}


@dataclass
class Pair:
    """A pair on disk, and its truth."""

    name: str
    native: simulator.Native
    modality: Modality


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("work/bench-preprocess"))
    parser.add_argument("--ants", help="Python that has antspyx")
    parser.add_argument("--elastix", help="Python that has itk-elastix")
    parser.add_argument("--cases", type=int, default=4, help="three pairs each")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    pythons = {"brainfed": sys.executable}
    for peer, wanted in PEERS.items():
        pythons[peer] = getattr(options, peer) or environment(options.work / peer, wanted)
    workers = {
        name: subprocess.Popen(
            [python, "-c", PROGRAMS[name] + LOOP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )
        for name, python in pythons.items()
    }
    rows = []
    for case in range(options.cases):
        for number, pair in enumerate(pairs(case, options.work)):
            if not rows:  # the first call loads libraries
                for name, worker in workers.items():
                    measure(name, worker, pair)
            names = list(workers)
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                rows.append(measure(name, workers[name], pair))
                print(json.dumps(rows[-1]), flush=True)
    for worker in workers.values():
        worker.communicate()
    report(rows, options.cases)


def environment(folder: Path, wanted: str) -> str:
    """The interpreter of an environment with one peer."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", wanted], check=True)
    return str(python)


def pairs(case: int, work: Path) -> list[Pair]:
    """Write the three pairs of a case: T1, T2 and FLAIR against T1ce."""
    real = case % 2 == 1 and simulator.COLIN.is_dir()
    head = (simulator.a_colin_head if real else simulator.a_phantom_head)(2000 + case)
    native = simulator.scan(head, np.random.default_rng([case, 7]), cut=False)
    prepared = {m: prepare(image, n4=True) for m, image in native.images.items()}
    made = []
    for modality in native.truth:
        if modality is simulator.REFERENCE:
            continue
        stem = str(work / f"{case}-{modality.value}")
        sides = {"fixed": prepared[simulator.REFERENCE], "moving": prepared[modality]}
        for side, scan in sides.items():
            np.savez(f"{stem}-{side}.npz", **scan.to_arrays())
            sitk.WriteImage(to_image(scan.values, scan.geometry), f"{stem}-{side}.nii.gz")
        mask = to_image(sides["fixed"].mask.astype(np.uint8), sides["fixed"].geometry)
        sitk.WriteImage(mask, f"{stem}-mask.nii.gz")
        made.append(Pair(stem, native, modality))
    return made


def measure(name: str, worker: subprocess.Popen[str], pair: Pair) -> dict:
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(pair.name + "\n")
    worker.stdin.flush()
    for line in worker.stdout:  # a peer may print words of its own before
        if line.startswith("["):
            wall, cpu, matrix = json.loads(line)
            truth, points = pair.native.truth[pair.modality], pair.native.brain_points
            error = simulator.error_mm(tuple(matrix), truth, points)
            return {"who": name, "pair": pair.name, "error_mm": error, "wall_s": wall, "cpu_s": cpu}
    raise RuntimeError(f"{name} ended at {pair.name}")


def report(rows: list[dict], n_cases: int) -> None:
    print(f"\nMedians (quartiles) of {3 * n_cases} pairs.\n")
    print("| | error | largest error | CPU | wall |")
    print("|---|---|---|---|---|")
    for name in PROGRAMS:
        own = [row for row in rows if row["who"] == name]
        error, cpu, wall = (
            np.array([row[key] for row in own]) for key in ("error_mm", "cpu_s", "wall_s")
        )
        print(
            f"| {name} | {spread(error)} mm | {error.max():.2f} mm "
            f"| {spread(cpu)} s | {spread(wall)} s |"
        )
    model = Path("/proc/cpuinfo").read_text().split("model name\t: ")[1].splitlines()[0]
    print(
        f"\n{platform.system()} {platform.machine()}, {os.cpu_count()} x {model}, load "
        f"{os.getloadavg()[0]:.1f} at the end; Python {platform.python_version()}, SimpleITK "
        f"{version('SimpleITK')}, numpy {version('numpy')}, {', '.join(PEERS.values())}"
    )


def spread(values: np.ndarray) -> str:
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
