"""A training step beside nnU-Net's and MONAI's: `python tests/benchmarks/bench_train.py`.

Each that is compared trains in a process of its own (`train_steps.py`), on the same arrays and the
same number of threads, and only when it is told to: a few steps, then the next one's turn, round
after round, so that whatever else the machine does meets them all. nnU-Net's environment is made in
`--work` where `--nnunet` names no interpreter. With a CUDA device the same is done there. Prints a
report and puts it into `docs/results/train.md`, under the name of the device.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.train_steps import Task

from brainfed.core.device import cpu_has_bf16

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "results" / "train.md"
NNUNET = ("torch==2.13.0", "nnunetv2==2.8.1")
N_TURNS = 9
"""After one that warms up."""
SECONDS_A_TURN = 1.2
"""Of the slowest, about; on CUDA a step is short, so a turn has many."""
LOADING_LIMIT = 0.05
CONVOLUTION, NNUNET_NAME, MONAI_NAME = "one wide convolution", "nnU-Net 2.8.1", "MONAI DynUNet"
AUGMENTATION = {
    "flip": 0.5,
    "rotate_degrees": 20.0,
    "scale_fraction": 0.2,
    "intensity_shift": 0.3,
    "intensity_scale_fraction": 0.25,
}


@dataclass(frozen=True)
class Setting:
    """What all have in common."""

    name: str
    words: str
    volumes: tuple[int, ...]
    """(case, modality, z, y, x)."""
    n_regions: int
    channels: list[int]
    patch: list[int]
    batch: int


SETTINGS = (
    Setting(
        "2-D",
        "slices of 96 x 96, 3 modalities, 1 region, batch 16, channels 12-24-48-96-192",
        (4, 3, 24, 96, 96),
        1,
        [12, 24, 48, 96, 192],
        [96, 96],
        16,
    ),
    Setting(
        "3-D",
        "patches of 32 x 48 x 48, 3 modalities, 3 regions, batch 2, channels 16-32-64-128",
        (3, 3, 48, 96, 96),
        3,
        [16, 32, 64, 128],
        [32, 48, 48],
        2,
    ),
)


@dataclass
class Contestant:
    """A process that trains, and what it said."""

    name: str
    process: subprocess.Popen[str]
    said: dict[str, Any] = field(default_factory=dict)
    turns: list[dict[str, float]] = field(default_factory=list)
    """Seconds by the wall clock and of the CPU, and of loading, of one step."""
    loading_share: float | None = None

    def listen(self) -> dict[str, Any]:
        assert self.process.stdout
        for line in self.process.stdout:  # a peer may print words of its own before
            if line.startswith("{"):
                return dict(json.loads(line))
        raise RuntimeError(f"{self.name} ended")

    def train(self, n_steps: int, *words: str) -> dict[str, float]:
        assert self.process.stdin
        self.process.stdin.write(" ".join((str(n_steps), *words)) + "\n")
        self.process.stdin.flush()
        return {name: value / n_steps for name, value in self.listen().items()}

    @property
    def seconds(self) -> list[float]:
        """By the wall clock."""
        return [turn["seconds"] for turn in self.turns]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=ROOT / "work" / "bench-train")
    parser.add_argument("--nnunet", help="Python that has nnunetv2 2.8.1")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--turns", type=int, default=N_TURNS)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    load = os.getloadavg()[0]
    python = options.nnunet or environment(options.work / "nnunet")
    measured = [(setting, measure(setting, options, {"nnunet": python})) for setting in SETTINGS]
    text = section(measured, options, load)
    sys.stdout.write(text)
    PAGE.write_text(page(PAGE.read_text() if PAGE.exists() else "", text))


def environment(folder: Path) -> str:
    """The interpreter of nnU-Net's environment."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    # Each time: it says at once that nothing is missing, or mends what a killed run left.
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *NNUNET], check=True)
    return str(python)


def measure(
    setting: Setting, options: argparse.Namespace, pythons: dict[str, str]
) -> list[Contestant]:
    """All contestants of a setting, in turns; each turn begins with another one."""
    tasks = tasks_of(setting, options)
    every = [start(name, task, pythons) for name, task in tasks.items()]
    for contestant in every:
        contestant.said = contestant.listen()
    slowest = max(contestant.train(2)["seconds"] for contestant in every)
    n_steps = max(2, round(SECONDS_A_TURN / slowest))
    exact = ("exact",) if options.device == "cpu" else ()
    for turn in range(options.turns):
        shift = turn % len(every)
        for contestant in every[shift:] + every[:shift]:
            contestant.turns.append(contestant.train(n_steps, *exact))
        now = {c.name: f"{c.seconds[-1]:.3f}" for c in every}
        sys.stderr.write(f"{setting.name}, turn {turn + 1}: {now}\n")
    for contestant in every:
        turns = contestant.turns if exact else [contestant.train(n_steps, "exact")]
        contestant.loading_share = statistics.median(t["loading"] / t["seconds"] for t in turns)
        contestant.process.communicate()
    return every


def tasks_of(setting: Setting, options: argparse.Namespace) -> dict[str, Task]:
    """What is compared, by name."""
    data = options.work / f"train-{setting.name}.npz"
    write_data(data, setting)
    ours = Task(
        "brainfed",
        str(data),
        setting.channels,
        setting.patch,
        setting.batch,
        options.device,
        options.threads,
    )
    nnunet = replace(ours, who="nnunet")
    tasks = {
        "brainfed": ours,
        NNUNET_NAME: nnunet,
        MONAI_NAME: replace(ours, who="monai"),
        "brainfed, deep supervision": replace(ours, deep=True),
        f"{NNUNET_NAME}, deep supervision": replace(nnunet, deep=True),
        "brainfed, augmented": replace(ours, augmentation=AUGMENTATION),
    }
    if options.device == "cpu" and cpu_has_bf16():
        tasks["brainfed, bf16"] = replace(ours, precision="bf16")
    tasks[CONVOLUTION] = replace(ours, who="convolution")
    return tasks


def write_data(path: Path, setting: Setting) -> None:
    """Noise with a box of tumour; the time of a step doesn't depend on what the numbers say."""
    random = np.random.default_rng(1)
    image = random.standard_normal(setting.volumes).astype(np.float16)
    regions = np.zeros((setting.volumes[0], setting.n_regions, *setting.volumes[2:]), bool)
    middle = tuple(slice(n // 4, 3 * n // 4) for n in setting.volumes[2:])
    regions[(slice(None), slice(None), *middle)] = True
    np.savez(path, image=image, regions=regions)


def start(name: str, task: Task, pythons: dict[str, str]) -> Contestant:
    program = str(Path(__file__).with_name("train_steps.py"))
    process = subprocess.Popen(
        [pythons.get(task.who, sys.executable), program, json.dumps(asdict(task))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": str(task.threads)},
    )
    return Contestant(name, process)


def section(
    measured: list[tuple[Setting, list[Contestant]]], options: argparse.Namespace, load: float
) -> str:
    """What was found on this device."""
    on_cuda = options.device != "cpu"
    device = torch.cuda.get_device_name() if on_cuda else "the CPU"
    threads = f"{options.threads} thread{'s' if options.threads > 1 else ''}"
    tables = "\n".join(table(setting, every) for setting, every in measured)
    versions = {v for _, every in measured for c in every for v in c.said["versions"]}
    return f"""## On {device}

{"bf16 autocast (nnU-Net: fp16, compiled)" if on_cuda else "float32 unless said"}; {threads}; \
medians (lowest-highest) of {options.turns} turns.

{tables}
| aim | | found | |
|---|---|---|---|
{aims(measured)}

{platform.system()} {platform.machine()}, {cpu()}, shared, load {load:.1f} at the start. Python \
{platform.python_version()}, {", ".join(sorted(versions))}.
"""


def table(setting: Setting, every: list[Contestant]) -> str:
    by_name = {c.name: c for c in every}
    ceiling = rate(by_name[CONVOLUTION])
    rows = []
    for c in every:
        images = [setting.batch / s for s in c.seconds]
        compared = c.name not in {"brainfed", CONVOLUTION}
        ratio, by_cpu = (
            spread(ratios(c, by_name, clock)) if compared else "" for clock in ("seconds", "cpu")
        )
        is_network = c.name != CONVOLUTION
        rows.append(
            f"| {c.name} | {spread(images, 1) if is_network else ''} | {ratio} | {by_cpu} "
            f"| {c.said['parameters'] if is_network else ''} | {c.said['flop'] / 1e9:.1f} "
            f"| {rate(c):.0f} | {100 * rate(c) / ceiling:.0f} % |"
        )
    return f"""{setting.name}: {setting.words}.

| | images/s | time against brainfed's | by CPU time | parameters | GFLOP a step | GFLOP/s \
| of the convolution's |
|---|---|---|---|---|---|---|---|
{chr(10).join(rows)}
"""


def ratios(c: Contestant, by_name: dict[str, Contestant], clock: str = "seconds") -> list[float]:
    """Turn by turn, its time against that of brainfed's like it; `cpu` for CPU time."""
    deep = "brainfed, deep supervision"
    ours = by_name[deep if c.name.startswith(NNUNET_NAME) and "deep" in c.name else "brainfed"]
    return [theirs[clock] / own[clock] for theirs, own in zip(c.turns, ours.turns, strict=True)]


def rate(c: Contestant) -> float:
    """GFLOP/s."""
    return float(c.said["flop"]) / statistics.median(c.seconds) / 1e9


def aims(measured: list[tuple[Setting, list[Contestant]]]) -> str:
    rows = []
    for setting, every in measured:
        by_name = {c.name: c for c in every}
        for names in ((NNUNET_NAME, MONAI_NAME), (f"{NNUNET_NAME}, deep supervision",)):
            found = min((ratios(by_name[name], by_name) for name in names), key=statistics.median)
            what = "faster of the two" if len(names) > 1 else "nnU-Net, with deep supervision"
            rows.append(
                f"| {setting.name}: time of the {what} against ours, at least | 1 "
                f"| {spread(found)} | {verdict(statistics.median(found) >= 1)} |"
            )
        share = by_name["brainfed"].loading_share or 0.0
        rows.append(
            f"| {setting.name}: share of loading in a step, at most | {100 * LOADING_LIMIT:.0f} % "
            f"| {100 * share:.1f} % | {verdict(share <= LOADING_LIMIT)} |"
        )
    return "\n".join(rows)


def spread(values: list[float], digits: int = 2) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def verdict(holds: bool) -> str:
    return "reached" if holds else "**NOT reached**"


def cpu() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()


HEAD = """# What a training step costs

Made by `make bench-train`; do not edit.

brainfed's round of training as it is (sampling, augmentation where said, losses, SGD, checks)
beside nnU-Net's network and its trainer's own `train_step`, and MONAI's DynUNet with DiceCELoss and
SGD. All train on the same arrays; the peers get their batches ready-made, from memory, so their
loading and augmentation cost nothing here. Each has a process of its own with the same number of
threads, and trains only in its turn, in one run. GFLOP are those of the convolutions of each,
counted by torch; beside them what one wide convolution, forward and backward, reaches in the same
run. "Time against brainfed's" is above 1 where brainfed is faster.
"""


def page(before: str, text: str) -> str:
    """The page with this section in place of an earlier one of the same device."""
    kept = [f"## {part}" for part in before.split("\n## ")[1:]]
    title = text.splitlines()[0]
    sections = [part.rstrip() + "\n" for part in kept if part.splitlines()[0] != title]
    sections.append(text)
    return "\n".join([HEAD, *sorted(sections, key=lambda part: "the CPU" not in part[:20])])


if __name__ == "__main__":
    main()
