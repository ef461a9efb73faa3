"""How often registration is right: `python tests/benchmarks/study_registration.py [--cases N]`.

Simulated cases (`tests/simulator.py`), half of the phantom and half of colin27 where it is there;
T1, T2 and FLAIR of each are registered to its T1ce, so there are three pairs a case. By default 34
cases of the normal range (up to 10 degrees and 15 mm, one case in five with a part of the head) and
20 of the hard one (up to 20 degrees and 30 mm, one case in two). Every pair becomes a line of
FILE (`--file`, so that an interrupted study goes on); a table is printed at the end.
"""

import argparse
import json
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests import simulator

from brainfed.core.registration import prepare, register

AIM_MM, SILENT_MM = 0.5, 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=34, help="cases of the normal range")
    parser.add_argument("--hard", type=int, default=20, help="cases of the hard range")
    parser.add_argument("--file", type=Path, default=Path("work/registration.jsonl"))
    options = parser.parse_args()
    options.file.parent.mkdir(parents=True, exist_ok=True)
    rows = read(options.file)
    done = {(row["hard"], row["case"]) for row in rows}
    for hard, n_cases in ((False, options.cases), (True, options.hard)):
        for case in range(n_cases):
            if (hard, case) not in done:
                new = study(case, hard=hard)
                rows += new
                with options.file.open("a") as out:
                    out.writelines(json.dumps(row) + "\n" for row in new)
    report(rows)


def read(file: Path) -> list[dict]:
    if not file.is_file():
        return []
    return [json.loads(line) for line in file.read_text().splitlines()]


def study(case: int, *, hard: bool) -> list[dict]:
    """Three pairs; the same number gives the same case."""
    real = case % 2 == 1 and simulator.COLIN.is_dir()
    head = (simulator.a_colin_head if real else simulator.a_phantom_head)(1000 + case // 2)
    native = simulator.scan(head, np.random.default_rng([case, hard]), hard=hard)
    prepared, seconds = {}, {}
    for modality, image in native.images.items():
        begin = time.process_time()
        prepared[modality] = prepare(image, n4=True)
        seconds[modality] = time.process_time() - begin
    rows = []
    for modality, truth in native.truth.items():
        if modality is simulator.REFERENCE:
            continue
        begin = time.process_time()
        found = register(prepared[simulator.REFERENCE], prepared[modality])
        took = time.process_time() - begin
        rows.append(
            {
                "case": case,
                "hard": hard,
                "head": "colin27" if real else "phantom",
                "modality": modality.value,
                "spacing_mm": [round(mm, 2) for mm in native.images[modality].GetSpacing()],
                "slabs_mm": round(prepared[modality].geometry.size[2] * 2),
                "before_mm": simulator.error_mm(
                    native.truth[simulator.REFERENCE], truth, native.brain_points
                ),
                "error_mm": simulator.error_mm(found.matrix, truth, native.brain_points),
                "doubts": found.doubts,
                "fall_off": found.fall_off,
                "overlap_fraction": found.overlap_fraction,
                "information_gain": found.information_gain,
                "n_starts": found.n_starts,
                "prepare_s": seconds[modality],
                "register_s": took,
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def report(rows: list[dict]) -> None:
    print(
        "\n| range | head | pairs | before, median | error: median | 95 % | largest trusted |",
        end="",
    )
    print(" under 0.5 mm | refused | refused though under 2 mm | trusted above 2 mm |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for hard in (False, True):
        for head in ("phantom", "colin27", "all"):
            some = [r for r in rows if r["hard"] is hard and head in {r["head"], "all"}]
            if some:
                print(line("hard" if hard else "normal", head, some))
    for name in ("prepare_s", "register_s"):
        seconds = np.array([row[name] for row in rows])
        print(f"\n{name} (CPU): median {np.median(seconds):.2f}, {spread(seconds)}", end="")
    print(
        f"\n\n{platform.system()} {platform.machine()}; Python {platform.python_version()}, "
        f"SimpleITK {version('SimpleITK')}, numpy {version('numpy')}"
    )


def line(kind: str, head: str, rows: list[dict]) -> str:
    errors = np.array([row["error_mm"] for row in rows])
    refused = np.array([bool(row["doubts"]) for row in rows])
    before = np.median([row["before_mm"] for row in rows])
    cells = [
        kind,
        head,
        len(rows),
        f"{before:.1f} mm",
        f"{np.median(errors):.2f} mm",
        f"{np.quantile(errors, 0.95):.2f} mm",
        f"{max(errors[~refused], default=0):.2f} mm",
        f"{np.mean(errors < AIM_MM):.0%}",
        int(refused.sum()),
        int((refused & (errors < SILENT_MM)).sum()),
        int((~refused & (errors > SILENT_MM)).sum()),
    ]
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def spread(values: np.ndarray) -> str:
    low, high = np.quantile(values, (0.25, 0.75))
    return f"quartiles {low:.2f} to {high:.2f}, largest {values.max():.2f}"


if __name__ == "__main__":
    main()
