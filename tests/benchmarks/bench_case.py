"""A raw case from native scans to a case file: `python tests/benchmarks/bench_case.py [FOLDER]`.

Makes four simulated cases of four modalities (`tests/simulator.py`: T1ce and others on four grids,
the head of colin27 lying elsewhere in each; a phantom where `../shared/data` lacks it) in FOLDER,
and preprocesses the first with `plans/raw.toml`'s steps: registration to T1ce with N4, classical
brain mask, registration to an atlas (SRI24 where `../shared/data` has it, else the reference's own
space). Each run is a process of its own; it prints CPU seconds by step, the highest memory, and
beside it the floor: reading the same files, resampling each once and writing the case, with nothing
else. Then all four with one process and with two. Prints Markdown.
"""

import argparse
import cProfile
import hashlib
import json
import platform
import pstats
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests import simulator
from tests.benchmarks.bench_aggregate import cpu
from tests.builders import SHARED_DATA, a_plan

from brainfed.core.labels import LabelProtocol
from brainfed.formats import scan
from brainfed.formats.found_case import ScanFile
from brainfed.plan import Modality, Plan
from brainfed.steps.preprocess import Wish, preprocess_folder

ATLAS = SHARED_DATA / "sri24" / "spgr.nii.gz"
STEPS = {
    "read and inspect": ("read_scans.py", "read_scans"),
    "prepare (N4, 2 mm), four scans": ("prepared.py", "prepare"),
    "register three to T1ce, one to the atlas": ("registration.py", "register"),
    "brain mask": ("brain_surface.py", "classical"),
    "resample once, z-score": ("assembly.py", "assemble"),
    "pictures": ("case_page.py", "write_made"),
    "write the case": ("case_file.py", "write_case"),
}


def the_plan(brain: str) -> Plan:
    preparation: dict[str, Any] = {"space": "reference", "brain": brain}
    if ATLAS.exists():
        digest = hashlib.sha256(ATLAS.read_bytes()).hexdigest()
        preparation |= {"space": "atlas", "atlas": ATLAS.name, "atlas_sha256": digest}
    return a_plan(
        scans={"required": ("t1ce", "t1", "t2", "flair"), "regions": ("WT", "TC", "ET")},
        grid={"size": (240, 240)},
        preparation=preparation,
        cohort={"treatment": "any", "minimum_age_years": 0},
    )


def make_scans(folder: Path) -> None:
    for number in range(4):
        random = np.random.default_rng(number)
        # A phantom's brain is not enough like a real one for a real atlas: it would be refused.
        head = simulator.a_colin_head if simulator.COLIN.is_dir() else simulator.a_phantom_head
        native = simulator.scan(head(number), random, cut=False)
        simulator.write(native, folder / "scans", f"case{number}")


def one_case(folder: Path, brain: str) -> dict[str, Any]:
    """In a process of its own: the seconds of each step, and the memory."""
    scans = folder / "one"
    if not scans.exists():
        shutil.copytree(folder / "scans" / "case0", scans / "case0")
    profile = cProfile.Profile(time.process_time)
    before = time.process_time()
    profile.enable()
    made(folder / "data", scans, brain)
    profile.disable()
    seconds = time.process_time() - before
    rows: dict[Any, Any] = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    steps = {
        step: sum(row[3] for key, row in rows.items() if (Path(key[0]).name, key[2]) == place)
        for step, place in STEPS.items()
    }
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "peak_mb": peak_mb, "steps": steps}


def floor(folder: Path) -> dict[str, Any]:
    """Read the files, resample each once onto the atlas's grid, write: no more can be saved."""
    before = time.process_time()
    grid = sitk.ReadImage(str(ATLAS)) if ATLAS.exists() else None
    arrays = []
    for modality in Modality:
        file = folder / "scans" / "case0" / f"case0_{modality}.nii.gz"
        image = scan.read_image(ScanFile(file), modality).image
        arrays.append(sitk.GetArrayFromImage(sitk.Resample(image, grid or image)))
    np.save(folder / "floor.npy", np.stack(arrays).astype(np.float16))
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": time.process_time() - before, "peak_mb": peak_mb}


def made(data: Path, scans: Path, brain: str, jobs: int = 1) -> None:
    shutil.rmtree(data, ignore_errors=True)
    wish = Wish(
        protocol=LabelProtocol.BRATS2017, jobs=jobs, atlas=ATLAS if ATLAS.exists() else None
    )
    preprocess_folder(data, scans, the_plan(brain), wish)


def everything(folder: Path, brain: str, jobs: int) -> float:
    """Wall seconds of all cases."""
    before = time.perf_counter()
    made(folder / "data", folder / "scans", brain, jobs)
    return time.perf_counter() - before


def alone(*words: str) -> dict[str, Any]:
    """What a process of its own answers."""
    done = subprocess.run(
        [sys.executable, __file__, *words], check=True, capture_output=True, text=True
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--part")
    parser.add_argument("--brain", default="classical")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="bench-case-"))
    if given.part == "case":
        print(json.dumps(one_case(folder, given.brain)))
        return
    if given.part == "floor":
        print(json.dumps(floor(folder)))
        return
    if not (folder / "scans").exists():
        make_scans(folder)
    print(f"{cpu()}, Python {platform.python_version()}, SimpleITK {version('SimpleITK')}\n")
    case = alone(str(folder), "--part", "case", "--brain", given.brain)
    least = alone(str(folder), "--part", "floor")
    print("| one case, four modalities | CPU seconds |\n|---|---|")
    for step, seconds in case["steps"].items():
        print(f"| {step} | {seconds:.1f} |")
    print(f"| **all of it** | **{case['seconds']:.1f}** |")
    print(f"| floor: read, resample once, write | {least['seconds']:.1f} |\n")
    print(f"Highest memory: {case['peak_mb']:.0f} MB, of the floor {least['peak_mb']:.0f} MB.\n")
    one, two = (everything(folder, given.brain, jobs) for jobs in (1, 2))
    print(f"Four cases: {one:.1f} s with one process, {two:.1f} s with two: {one / two:.2f} times.")


if __name__ == "__main__":
    main()
