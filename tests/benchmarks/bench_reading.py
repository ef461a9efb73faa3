"""What reading costs beside training: `python tests/benchmarks/bench_reading.py`.

Times the two ways in which training reads, and training steps, in turns in one process, so that a
busy machine slows all alike; prints a table and writes it to `docs/results/reading.md`. Reading is
the gathering of a batch from memory, plus the batch's share of reading all case files once a round
(one epoch a round: the worst case, since more steps a round share the same reading).
"""

import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.builders import a_plan, write_dataset

from brainfed.core.samples import Samples, samples_of
from brainfed.core.training import Step, train
from brainfed.core.unet import initial_weights
from brainfed.formats.dataset import Subset
from brainfed.plan import Plan
from brainfed.steps.score_cases import entries_of, read_cases, volume_of

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 0.05
N_THREADS = 1  # reading has one thread: a step on more would share cores with whatever else is on
N_STEPS = 6
N_CASES, N_SLICES = 4, 60


@dataclass
class Timing:
    """Seconds of one plan, each the median of several."""

    name: str
    n_batch: int
    gather: float
    read: float
    step: float

    @property
    def ratio(self) -> float:
        return (self.gather + self.read) / self.step


def plans() -> dict[str, Plan]:
    augmentation = {"flip": 0.5, "rotate_degrees": 15.0, "scale_fraction": 0.1}
    return {
        "3 modalities, 96 x 96, channels 12-24-48-96-192": a_plan(
            scans={"required": ("flair", "t1ce", "t1")},
            grid={"size": (96, 96)},
            network={"channels": (12, 24, 48, 96, 192), "norm": "instance"},
            training={"batch": 16, "foreground_fraction": 0.6, "augmentation": augmentation},
        ),
        "4 modalities, 64 x 64, channels 8-16-32-64": a_plan(
            scans={"required": ("t1", "t1ce", "t2", "flair")},
            grid={"size": (64, 64)},
            network={"channels": (8, 16, 32, 64), "norm": "instance"},
            training={"batch": 16, "foreground_fraction": 0.6, "augmentation": augmentation},
        ),
        "the paper's: 1 modality, 128 x 128, channels 32-64-128-256-512": a_plan(
            grid={"size": (128, 128)},
            network={
                "channels": (32, 64, 128, 256, 512),
                "dropout": 0.2,
                "dropout_levels": (3, 4),
            },
            # 64 in the paper; a step and its reading both grow with it.
            training={"batch": 8, "loss": "log-dice", "optimiser": "adam"},
        ),
    }


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(name: str, plan: Plan, data_folder: Path) -> Timing:
    """Turns of: one reading of the cases, one gathering of a batch, one training step."""
    entries = entries_of(data_folder, plan, Subset.TRAIN)

    def read() -> Samples:
        cases = read_cases(data_folder, entries, plan)
        return samples_of([volume_of(case, plan) for case in cases], plan, seed=1)

    samples = read()
    one_step = plan.model_copy(
        update={
            "training": plan.training.model_copy(
                update={"epochs_per_round": 0, "steps_per_round": N_STEPS}
            )
        }
    )
    gathered, read_seconds, steps = [], [], []
    last = [0.0]

    def on_step(step: Step) -> None:
        # The pause for reading lies outside of what counts as a step.
        if step.number > 1:
            steps.append(time.perf_counter() - last[0])
            read_seconds.append(timed(read) / samples.n_samples * plan.training.batch)
            gathered.append(timed(lambda: samples.batch(step.number)))
        last[0] = time.perf_counter()

    train(
        initial_weights(plan),
        one_step,
        samples,
        round_number=1,
        seed=1,
        device=torch.device("cpu"),
        on_step=on_step,
    )
    return Timing(
        name,
        plan.training.batch,
        statistics.median(gathered),
        statistics.median(read_seconds),
        statistics.median(steps),
    )


def page(timings: list[Timing]) -> str:
    worst = max(timing.ratio for timing in timings)
    rows = "\n".join(
        f"| {t.name} | {t.n_batch} | {1000 * t.gather:.1f} ms | {1000 * t.read:.1f} ms "
        f"| {1000 * t.step:.0f} ms | {100 * t.ratio:.1f} % |"
        for t in timings
    )
    return f"""# What reading costs beside training

Made by `python tests/benchmarks/bench_reading.py`; do not edit.

Training reads all cases once a round and keeps them in memory as float16; each batch is gathered
from there. Per batch: the gathering, the batch's share of reading the case files (digest, lzf and
regions included; one epoch a round, the worst case), and the training step with augmentation.
Medians of {N_STEPS - 1}, taken in turns in one process. Aim: at most {100 * LIMIT:.0f} % of a step.

| plan | batch | gathering | reading files | step | reading / step |
|---|---|---|---|---|---|
{rows}

Worst: {100 * worst:.1f} %, {"within the aim" if worst <= LIMIT else "**above the aim**"}.

One CPU thread on {platform.machine()}, {platform.system()}, of a shared machine: only the ratios
mean something. Python {platform.python_version()}, torch {torch.__version__}, NumPy
{np.__version__}, h5py {h5py.__version__}.
"""


def main() -> int:
    torch.set_num_threads(N_THREADS)
    timings = []
    for name, plan in plans().items():
        with tempfile.TemporaryDirectory() as folder:
            data_folder = Path(folder) / "data"
            write_dataset(
                data_folder, plan, n_train=N_CASES, n_validation=0, n_test=0, n_slices=N_SLICES
            )
            timings.append(measure(name, plan, data_folder))
    text = page(timings)
    (ROOT / "docs" / "results" / "reading.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 0 if max(timing.ratio for timing in timings) <= LIMIT else 1


if __name__ == "__main__":
    raise SystemExit(main())
