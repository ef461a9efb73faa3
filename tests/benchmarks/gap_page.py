"""docs/results/gap.md, from the runs that `study_gap.py` has kept.

Figures only; nothing of a patient.
"""

import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tests.benchmarks.gap_trials import (
    PLAIN,
    SCALES,
    SEEDS,
    TRIALS,
    Kept,
    Run,
    Trial,
    best_two,
    runs_of,
)

PAGE = Path(__file__).resolve().parents[2] / "docs" / "results" / "gap.md"
AIM_POINTS = 2.0
POINT = 0.01
N_ERRORS = 2.0
"""A difference counts as shown if it is more than so many standard errors."""

Dices = npt.NDArray[np.float64]


def label(trial: Trial | None) -> str:
    """What a line of a table is called."""
    return "pooled" if trial is None else trial.name


def dices(kept: Kept, scale: str, trial: Trial | None, seeds: tuple[int, ...]) -> Dices:
    """Of each patient, the mean over the seeds that are there."""
    runs = [kept.get(Run(scale, trial, seed)) for seed in seeds]
    found: Dices = np.array([run["dices"] for run in runs if run]).mean(axis=0)
    return found


def difference(a: Dices, b: Dices) -> tuple[float, float]:
    """Mean of a - b over the patients, and its standard error, in points of Dice."""
    points = (a - b) / POINT
    return float(points.mean()), float(points.std(ddof=1) / np.sqrt(len(points)))


def difference_words(a: Dices, b: Dices) -> str:
    """The same for a table."""
    mean, error = difference(a, b)
    return f"{mean:+.1f} ± {error:.1f}"


def table_of(kept: Kept, runs: list[Run]) -> str:
    """A line for each finished run, beside plain and pooled of the same scale and seed."""
    lines = [
        "| trial | seed | Dice | minus plain, points | minus pooled, points | after each round |",
        "|---|---|---|---|---|---|",
    ]
    for run in runs:
        found = kept.get(run)
        if found is None:
            continue
        cells = []
        for other in (PLAIN, None):
            against = kept.get(Run(run.scale, other, run.seed))
            is_shown = against is not None and run.trial not in (other, None)
            cells.append(difference_words(*arrays(found, against)) if is_shown else "-")
        rounds = "-" if run.trial is None else " ".join(f"{mean:.3f}" for mean in found["rounds"])
        lines.append(
            f"| {label(run.trial)} | {run.seed} | {kept.mean(run):.3f} | {' | '.join(cells)} | "
            f"{rounds} |"
        )
    return "\n".join(lines)


def arrays(*runs: Any) -> tuple[Dices, ...]:
    """Dice of each patient of these runs."""
    return tuple(np.array(run["dices"]) for run in runs)


def complete_seeds(kept: Kept, scale: str) -> tuple[int, ...]:
    """Seeds for which plain, pooled and both of the best are there."""
    trials = (PLAIN, None, *best_two(kept))
    return tuple(
        seed for seed in SEEDS if all(kept.get(Run(scale, trial, seed)) for trial in trials)
    )


def seeds_table(kept: Kept, scale: str) -> str:
    """The best two, plain and pooled from several seeds."""
    seeds = complete_seeds(kept, scale)
    if not seeds:
        return "No seed has all four runs."
    pooled = dices(kept, scale, None, seeds)
    lines = [
        f"| | {' | '.join(f'seed {seed}' for seed in seeds)} | mean | minus pooled, points | "
        "of each seed | minus plain, points |",
        "|---|" + "---|" * (len(seeds) + 4),
    ]
    for trial in (PLAIN, *best_two(kept), None):
        own = dices(kept, scale, trial, seeds)
        each = [
            difference(dices(kept, scale, trial, (s,)), dices(kept, scale, None, (s,)))[0]
            for s in seeds
        ]
        means = " | ".join(f"{dices(kept, scale, trial, (s,)).mean():.3f}" for s in seeds)
        behind = "- | -"
        if trial is not None:
            behind = f"{difference_words(own, pooled)} | {', '.join(f'{e:+.1f}' for e in each)}"
        plain = difference_words(own, dices(kept, scale, PLAIN, seeds))
        lines.append(
            f"| {label(trial)} | {means} | {own.mean():.3f} | {behind} | "
            f"{'-' if trial is PLAIN else plain} |"
        )
    return "\n".join(lines)


def shown(kept: Kept, scale: str) -> str:
    """What the runs from several seeds show, in words."""
    seeds = complete_seeds(kept, scale)
    if not seeds:
        return ""
    plain = dices(kept, scale, PLAIN, seeds)
    pooled = dices(kept, scale, None, seeds)
    sentences = []
    for trial in (PLAIN, *best_two(kept)):
        own = dices(kept, scale, trial, seeds)
        mean, error = difference(own, pooled)
        is_within = -mean <= AIM_POINTS
        low, high = mean - N_ERRORS * error, mean + N_ERRORS * error
        sentences.append(
            f"- {label(trial)}: {mean:+.1f} points against pooled (mean of {len(seeds)} "
            f"seed{'s' if len(seeds) > 1 else ''}), {'within' if is_within else '**not within**'} "
            f"{AIM_POINTS:g}; by two standard errors over the patients anything from {low:+.1f} to "
            f"{high:+.1f}."
        )
        if trial is not PLAIN:
            mean, error = difference(own, plain)
            beyond = abs(mean) > N_ERRORS * error
            how = ("better" if mean > 0 else "worse") if beyond else "neither shown to be better"
            tail = " than plain" if beyond else " nor worse than plain"
            sentences.append(f"  It is {how}{tail}: {mean:+.1f} ± {error:.1f}.")
    return "\n".join(sentences)


def page(kept: Kept) -> str:
    """The whole page."""
    best = best_two(kept)
    n_patients = len(dices(kept, "small", None, SEEDS))
    return f"""# The gap to pooled

Made by `make study-gap` on {time.strftime("%Y-%m-%d")} from the low-grade-glioma scans of
`lgg-sites`: sites CS, DU, FG and HT with the split of [lgg.md](lgg.md), {n_patients} validation
patients. {platform.machine()}, no GPU, one thread, bf16; Python {platform.python_version()},
torch {version("torch")}. {kept.count()} runs. No test patient was looked at.

Federated runs are rounds in memory with the training and the rules that the commands use; files,
signatures and hand-overs are left out, since they change no bit. Pooled has as many passes over
the same slices in one round. Differences are taken patient by patient; ± is the standard error of
their mean over the {n_patients} patients. It holds nothing of what another split or another seed
would change.

## Screening: each option twice

Two scales smaller than that of `plans/lgg.toml`, both short, so they favour what learns fast, and
their Dice can't be compared with the full scale. The last weights count; no round was picked.

{screening(kept, "screen", "small")}

{screening(kept, "half", "half")}

The best trial of each of the two best options at the small scale goes on: **{best[0].name}** and
**{best[1].name}**. They are the best of {len(TRIALS)} on the same patients, so their first seed
flatters them.

## The best two from other seeds, small scale

{seeds_table(kept, "small")}

{shown(kept, "small")}

## At the scale of the plan

{full_scale(kept)}
"""


def screening(kept: Kept, stage: str, name: str) -> str:
    """The options at one of the smaller scales."""
    scale, runs = SCALES[name], runs_of(stage, kept)
    n_done = sum(kept.get(run) is not None for run in runs)
    return f"""### The {name} scale

{scale.words}; channels {"-".join(map(str, scale.channels))}, {scale.n_rounds} rounds of 2 epochs.
 {n_done} of {len(runs)} runs are done.

{table_of(kept, runs)}"""


def full_scale(kept: Kept) -> str:
    """What was done at the scale of the plan, whether it is all or not."""
    runs = runs_of("full", kept)
    n_done = sum(kept.get(run) is not None for run in runs)
    if not n_done:
        return (
            f"Not done here; {len(runs)} runs are foreseen. One federation and one pooled training "
            "by the commands are in [lgg.md](lgg.md)."
        )
    found = f"""{n_done} of {len(runs)} runs are done; one more federation and one more pooled
training, by the commands, are in [lgg.md](lgg.md).

{table_of(kept, runs)}"""
    if complete_seeds(kept, "full"):
        found += f"\n\n{seeds_table(kept, 'full')}\n\n{shown(kept, 'full')}"
    return found
