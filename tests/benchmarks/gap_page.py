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
    POOLED,
    POOLED_FASTER,
    SEEDS,
    SMALL_CHANNELS,
    SMALL_PIXELS,
    SMALL_ROUNDS,
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


def dices(kept: Kept, scale: str, trial: Trial, seeds: tuple[int, ...]) -> Dices:
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
        for other in (PLAIN, POOLED):
            against = kept.get(Run(run.scale, other, run.seed))
            is_shown = against is not None and run.trial not in (other, POOLED)
            cells.append(difference_words(*arrays(found, against)) if is_shown else "-")
        rounds = "-" if run.is_pooled else " ".join(f"{mean:.3f}" for mean in found["rounds"])
        lines.append(
            f"| {run.trial.name} | {run.seed} | {kept.mean(run):.3f} | {' | '.join(cells)} | "
            f"{rounds} |"
        )
    return "\n".join(lines)


def arrays(*runs: Any) -> tuple[Dices, ...]:
    """Dice of each patient of these runs."""
    return tuple(np.array(run["dices"]) for run in runs)


def complete_seeds(kept: Kept, scale: str) -> tuple[int, ...]:
    """Seeds for which plain, pooled and both of the best are there."""
    trials = (PLAIN, POOLED, *best_two(kept))
    return tuple(
        seed for seed in SEEDS if all(kept.get(Run(scale, trial, seed)) for trial in trials)
    )


def seeds_table(kept: Kept, scale: str) -> str:
    """The best two, plain and pooled from several seeds."""
    seeds = complete_seeds(kept, scale)
    if not seeds:
        return "No seed has all four runs."
    pooled = dices(kept, scale, POOLED, seeds)
    lines = [
        f"| | {' | '.join(f'seed {seed}' for seed in seeds)} | mean | minus pooled, points | "
        "of each seed | minus plain, points |",
        "|---|" + "---|" * (len(seeds) + 4),
    ]
    others = [POOLED]
    if all(kept.get(Run(scale, POOLED_FASTER, seed)) for seed in seeds):
        others.append(POOLED_FASTER)
    for trial in (PLAIN, *best_two(kept), *others):
        own = dices(kept, scale, trial, seeds)
        each = [
            difference(dices(kept, scale, trial, (s,)), dices(kept, scale, POOLED, (s,)))[0]
            for s in seeds
        ]
        means = " | ".join(f"{dices(kept, scale, trial, (s,)).mean():.3f}" for s in seeds)
        behind = "- | -"
        if trial is not POOLED:
            behind = f"{difference_words(own, pooled)} | {', '.join(f'{e:+.1f}' for e in each)}"
        plain = difference_words(own, dices(kept, scale, PLAIN, seeds))
        lines.append(
            f"| {trial.name} | {means} | {own.mean():.3f} | {behind} | "
            f"{'-' if trial is PLAIN else plain} |"
        )
    return "\n".join(lines)


def shown(kept: Kept, scale: str) -> str:
    """What the runs from several seeds show, in words."""
    seeds = complete_seeds(kept, scale)
    if not seeds:
        return ""
    plain = dices(kept, scale, PLAIN, seeds)
    pooled = dices(kept, scale, POOLED, seeds)
    lines = []
    for trial in (PLAIN, *best_two(kept)):
        own = dices(kept, scale, trial, seeds)
        mean, error = difference(own, pooled)
        within = "within" if -mean <= AIM_POINTS else "**not within**"
        lines.append(
            f"- {trial.name}: {mean:+.1f} points against pooled, {within} the aim of "
            f"{AIM_POINTS:g}; by two standard errors over the patients anything from "
            f"{mean - N_ERRORS * error:+.1f} to {mean + N_ERRORS * error:+.1f}."
        )
        if trial is not PLAIN:
            mean, error = difference(own, plain)
            each = [
                difference(dices(kept, scale, trial, (s,)), dices(kept, scale, PLAIN, (s,)))[0]
                for s in seeds
            ]
            is_shown = (
                len(seeds) > 1
                and abs(mean) > N_ERRORS * error
                and all(one * mean > 0 for one in each)
            )
            verdict = "**shown**" if is_shown else "**not shown**"
            lines[-1] += (
                f" Against plain {mean:+.1f} ± {error:.1f}, seed by seed "
                f"{', '.join(f'{one:+.1f}' for one in each)}: a difference is {verdict}."
            )
    lines.append(
        f"\nA difference counts as shown here if it is more than {N_ERRORS:g} standard errors over "
        "the patients and has one sign in all seeds."
    )
    return "\n".join(lines)


def page(kept: Kept) -> str:
    """The whole page."""
    best, runs = best_two(kept), runs_of("screen", kept)
    n_done, found = sum(kept.get(run) is not None for run in runs), kept.all()
    precisions = " and ".join(sorted({run["precision"] for run in found}))
    n_patients = len(dices(kept, "small", POOLED, SEEDS))
    return f"""# The gap to pooled

Made by `make study-gap` on {time.strftime("%Y-%m-%d")} from the low-grade-glioma scans of
`lgg-sites`: sites CS, DU, FG and HT with the split of [lgg.md](lgg.md), {n_patients} validation
patients. {platform.machine()}, no GPU, one thread, {precisions}; Python
{platform.python_version()}, torch {version("torch")}. {len(found)} runs. No test patient was looked
at.

Federated runs are rounds in memory with the training and the rules that the commands use; files,
signatures and hand-overs are left out, since they change no bit. Pooled has as many passes over
the same slices in one round. Differences are taken patient by patient; ± is the standard error of
their mean over the {n_patients} patients. It holds nothing of what another split or another seed
would change: compare the two seeds of plain.

## Screening: each option twice

At a small scale: `plans/lgg.toml` with images of {SMALL_PIXELS} x {SMALL_PIXELS} pixels (blocks
of 2 x 2 averaged, every second pixel of the outline kept), channels
{"-".join(map(str, SMALL_CHANNELS))}, {SMALL_ROUNDS} rounds of 2 epochs. It is short, so it favours
what learns fast, and its Dice can't be compared with that of the full scale. {n_done} of
{len(runs)} runs are done. The last weights count; no round was picked.

{table_of(kept, runs)}

The best trial of each of the two best options goes on: **{best[0].name}** and
**{best[1].name}**. They are the best of {len(TRIALS)} on the same patients, so their first seed
flatters them.

## The best two from other seeds, small scale

{seeds_table(kept, "small")}

{shown(kept, "small")}

## At the scale of the plan

{full_scale(kept)}
"""


def full_scale(kept: Kept) -> str:
    """What was done at the scale of the plan, whether it is all or not."""
    runs = runs_of("full", kept)
    n_done = sum(kept.get(run) is not None for run in runs)
    if not n_done:
        return f"Not done; {len(runs)} runs are foreseen."
    found = f"""{n_done} of {len(runs)} runs are done. Plain and pooled of seed {SEEDS[0]} are those
of [lgg.md](lgg.md), by the commands.

{table_of(kept, runs)}"""
    if complete_seeds(kept, "full"):
        found += f"\n\n{seeds_table(kept, 'full')}\n\n{shown(kept, 'full')}"
    return found
