"""Which loss, and how many slices with tumour: `python tests/benchmarks/study_losses.py [FOLDER]`.

On the real scans of ../shared/data/lgg-sites, in the pooled workspace that `make lgg` made in
FOLDER (work/lgg where none is given): each loss with the natural mix of slices and with the share
of `plans/lgg.toml`, from several seeds, short runs of the same length. Prints a table and writes it
into `docs/explanation/losses.md`, between its two marks. It can be stopped and run again.
"""

import json
import platform
import statistics
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from brainfed import plan as plans
from brainfed.core.unet import initial_weights
from brainfed.formats.dataset import Case, Subset
from brainfed.plan import Loss, Plan
from brainfed.steps.one_round import train_from
from brainfed.steps.score_cases import entries_of, read_cases

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "explanation" / "losses.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
EPOCHS, CHANNELS, SEEDS = 4, (8, 16, 32, 64, 128), (1, 2)
FAILED = 0.2
"""A mean Dice under it: nothing was learned."""


def configured(plan: Plan, loss: Loss, share: float, seed: int) -> Plan:
    """The lgg plan, small and short, in one round."""
    network = plan.network.model_copy(update={"channels": CHANNELS})
    training = plan.training.model_copy(
        update={"loss": loss, "foreground_fraction": share, "epochs_per_round": EPOCHS}
    )
    changes = {"seed": seed, "rounds": 1, "network": network, "training": training}
    return plan.model_copy(update=changes)


def one(plan: Plan, training: list[Case], validation: list[Case]) -> dict[str, Any]:
    """Train once; the validation Dice of each patient."""
    start = time.monotonic()
    done = train_from(
        initial_weights(plan),
        plan,
        training=training,
        validation=validation,
        device="cpu",
        threads=1,
    )
    dices = [row.dice for row in done.result]
    return {"dices": dices, "seconds": time.monotonic() - start}


def page(found: dict[str, Any], shares: list[float], n_training: int) -> str:
    """The table, for the page."""
    rows = []
    for loss in Loss:
        for share in shares:
            runs = [found[f"{loss} {share} {seed}"]["dices"] for seed in SEEDS]
            means = [statistics.fmean(run) for run in runs]
            medians = [statistics.median(run) for run in runs]
            rows.append(
                f"| {loss} | {share:g} | {statistics.fmean(means):.3f} | "
                f"{', '.join(f'{mean:.3f}' for mean in means)} | {statistics.fmean(medians):.3f} | "
                f"{sum(mean < FAILED for mean in means)} |"
            )
    minutes = sum(run["seconds"] for run in found.values()) / 60
    n_validation = len(next(iter(found.values()))["dices"])
    return f"""{BEGIN}
Made by `python tests/benchmarks/study_losses.py` on {time.strftime("%Y-%m-%d")}: {n_training}
training and {n_validation} validation patients of `lgg-sites`, channels
{"-".join(map(str, CHANNELS))}, {EPOCHS} passes, everything else as in `plans/lgg.toml`; one thread,
{platform.machine()}, torch {version("torch")}; {len(found)} runs, {minutes:.0f} minutes.

| loss | share with tumour | mean Dice | of each seed | median Dice | failed |
|---|---|---|---|---|---|
{chr(10).join(rows)}
{END}"""


def main(root: Path) -> None:
    """Do what is left to do, then write the page."""
    plan = plans.load(ROOT / "plans" / "lgg.toml")
    data = root / "pooled" / "data"
    if not data.is_dir():
        sys.exit(f"No pooled workspace in {root}: `make lgg` makes it first")

    def cases(subset: Subset) -> list[Case]:
        return list(read_cases(data, entries_of(data, plan, subset), plan))

    training, validation = cases(Subset.TRAIN), cases(Subset.VALIDATION)
    kept = root / "losses.json"
    found: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    shares = [0.0, plan.training.foreground_fraction]
    for seed in SEEDS:
        for loss in Loss:
            for share in shares:
                key = f"{loss} {share} {seed}"
                if key not in found:
                    found[key] = one(configured(plan, loss, share, seed), training, validation)
                    kept.write_text(json.dumps(found))
                print(key, f"{statistics.fmean(found[key]['dices']):.3f}", flush=True)
    table = page(found, shares, len(training))
    print(table)
    text = PAGE.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    PAGE.write_text(before + table + after)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "work/lgg").resolve())
