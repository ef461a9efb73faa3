"""docs/results/lgg.md, from the journals of `make lgg` and `make lgg-folds`.

Figures only; nothing of a patient.
"""

import json
import platform
import statistics
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

from brainfed.formats import dataset
from tests.lgg import (
    EVALUATES_ONLY,
    JOBS,
    POOLED,
    REPO,
    SITES,
    Journal,
    dice_by_round,
    dice_of,
    patient_dices,
    spread,
    weighted_dice,
)

RESULT = REPO / "docs" / "results" / "lgg.md"
AIM_POOLED, AIM_FOLDS, AIM_FEDERATED = 0.86, 0.80, 0.98
MISSED = 0.5


def verdict(is_reached: bool) -> str:
    """In words."""
    return "reached" if is_reached else "**not reached**"


def write_result(root: Path) -> None:
    """Write what the journals hold; a part that has not been run says so."""
    runs, folds = Journal(root / "journal.json"), Journal(root / "folds.json")
    parts = [_head()]
    parts.append(_pooled(root, runs) if "pooled test" in runs else _missing("Pooled", "lgg"))
    parts.append(
        _federated(root, runs) if {"finish", "test"} <= set(runs) else _missing("Federated", "lgg")
    )
    done = [key for key in folds if key.startswith("fold-")]
    parts.append(
        _folds(root, {key: folds[key] for key in sorted(done)})
        if len(done) == 5
        else _missing(f"Cross-validation ({len(done)} of 5 folds)", "lgg-folds")
    )
    parts.append(
        "How the recipe was chosen, and every configuration that was tried: "
        "[lgg-trials.md](lgg-trials.md).\n"
    )
    RESULT.write_text("\n".join(parts))


def _missing(what: str, target: str) -> str:
    return f"## {what}\n\nNot finished: `make {target}` goes on where it was.\n"


def _head() -> str:
    return f"""# Real scans: pooled, federated, cross-validated

Made by `make lgg` and `make lgg-folds` on {time.strftime("%Y-%m-%d")} from the low-grade-glioma
scans of `lgg-sites`; whole tumour (the FLAIR abnormality). {platform.machine()} with {JOBS} cores,
no GPU; Python {platform.python_version()}, torch {version("torch")}, numpy {version("numpy")},
brainfed {version("brainfed")}. Every step by the commands; the plan is `plans/lgg.toml`. One seed.
Dice is 3-D, per patient, at threshold 0.5 on the plan's grid. A Dice on this set can't be compared
with a Dice on BraTS. Other work ran on the same two cores at times, so minutes are upper bounds.
"""


def _pooled(root: Path, runs: Journal) -> str:
    trained = runs["pooled"]["value"]
    minutes = runs["pooled"]["seconds"] / 60
    score = dice_of(trained["result"])
    log = [json.loads(line) for line in Path(trained["log"]).read_text().splitlines()]
    steps = [line for line in log if "step" in line]
    tenth = max(1, len(steps) // 10)
    rows = [
        f"| {some[-1]['step']} | {statistics.fmean(line['loss'] for line in some):.3f} | "
        f"{some[-1]['rate']:.5f} |"
        for some in (steps[start : start + tenth] for start in range(0, len(steps), tenth))
    ]
    validation = patient_dices(runs["pooled validation"]["value"])
    test = patient_dices(runs["pooled test"]["value"])
    reached = verdict(score["mean"] >= AIM_POOLED and minutes <= 60)
    return f"""## Pooled

One `train-round` over the union of the sites' training patients, {trained["n_steps"]} steps on one
thread, {trained["precision"]}: **{minutes:.1f} minutes**, with scoring before and after.

Validation ({len(validation)} patients): {spread(validation)}.
The aim, a mean of {AIM_POOLED:.2f} within an hour, is {reached}; what was tried and what limits it
says [lgg-trials.md](lgg-trials.md).

**Test**, opened once ({len(test)} patients): {spread(test)}.

| step | loss, mean over the steps before | rate |
|---|---|---|
{chr(10).join(rows)}
"""


def _differences(root: Path, runs: Journal) -> list[float]:
    """Of each validation patient the federated less the pooled Dice, the lowest first."""

    def by_scans(name: str, evaluated: dict[str, Any]) -> dict[str, float]:
        entries = dataset.read_whole_index(root / name / "data").cases
        sources = {entry.id: entry.source_digest for entry in entries}
        return {sources[row["case"]]: row["values"]["dice"] for row in evaluated["rows"]}

    pooled = by_scans(POOLED, runs["pooled validation"]["value"])
    return sorted(
        dice - pooled[source]
        for name in SITES
        for source, dice in by_scans(name, runs["final"]["value"][name]).items()
    )


def _federated(root: Path, runs: Journal) -> str:
    found = dice_by_round(runs)
    best, last = runs["finish"]["value"]["final"]["round"], max(found)
    minutes = sum(runs[key]["seconds"] for key in runs if key.startswith("round ")) / 60
    ez = dice_of(runs["final"]["value"][EVALUATES_ONLY]["summaries"])
    test = runs["test"]["value"]
    scores = sorted(score for name in SITES for score in patient_dices(test[name]))
    validation = sorted(
        score for name in SITES for score in patient_dices(runs["final"]["value"][name])
    )
    table = [
        "| round | " + " | ".join(name.upper() for name in SITES) + " | all patients | minutes |",
        "|---|" + "---|" * (len(SITES) + 2),
    ]
    spent = 0.0
    for number, by_site in found.items():
        spent += runs[f"round {number}"]["seconds"] / 60 if number else 0
        cells = [f"{by_site[name]['mean']:.3f}" for name in SITES]
        cells += [f"{weighted_dice(by_site):.3f}", f"{spent:.1f}"]
        table.append(f"| {number} | " + " | ".join(cells) + " |")
    n_validation = ", ".join(f"{name.upper()} {found[0][name]['n']}" for name in SITES)
    by_site = ", ".join(
        f"{name.upper()} {dice_of(test[name]['summaries'])['mean']:.3f}" for name in SITES
    )
    pooled = dice_of(runs["pooled"]["value"]["result"])["mean"]
    share = weighted_dice(found[last]) / pooled
    differences = _differences(root, runs)
    error = statistics.stdev(differences) / len(differences) ** 0.5
    without = statistics.fmean(differences[1:])
    return f"""## Federated

The same passes over the training slices, in {last} rounds of the four sites that can be split; EZ
(one patient) evaluates only. Two sites at a time, one thread each; files carried by export and
import. Validation Dice of the global weights (patients: {n_validation}):

{chr(10).join(table)}

After the last round: {spread(validation)}. That is {share:.1%} of the pooled {pooled:.3f} on the
same patients; the aim, at least {AIM_FEDERATED:.0%}, is {verdict(share >= AIM_FEDERATED)}.

Patient by patient the federated Dice is {-statistics.fmean(differences):.3f} lower, with a standard
error of {error:.3f} (median {-statistics.median(differences):.3f} lower); without the one patient
who loses most ({-differences[0]:.2f}) it is {-without:.3f}. So a loss of some points by federating
is neither shown nor ruled out by these patients.

All rounds took {minutes:.1f} minutes (training, scoring before and after, export, import,
aggregation). EZ's one patient under the last global weights: {ez["mean"]:.3f}.

**Test**, opened once, with the weights that the final names, of the round that is best on
validation, {best}: {spread(scores)}; by site {by_site}.
"""


def _folds(root: Path, folds: dict[str, Any]) -> str:
    sites = {
        entry.source_digest: name.upper()
        for name in (*SITES, EVALUATES_ONLY)
        for entry in dataset.read_whole_index(root / name / "data").cases
    }
    rows = [row for fold in folds.values() for row in fold["value"]["scored"]]
    table = [
        f"| {number} | {len(scores)} | {statistics.fmean(scores):.3f} | "
        f"{statistics.median(scores):.3f} | {sum(s < MISSED for s in scores)} | "
        f"{fold['seconds'] / 60:.0f} |"
        for number, fold in enumerate(folds.values(), start=1)
        for scores in [[row["dice"] for row in fold["value"]["scored"]]]
    ]
    scores = [row["dice"] for row in rows]
    missed = [row for row in rows if row["dice"] < MISSED]
    others = [row for row in rows if row["dice"] >= MISSED]

    def about(some: list[dict[str, Any]]) -> list[str]:
        where = Counter(sites[row["source"]] for row in some)
        shares = [row["n_voxels_predicted"] / max(1, row["n_voxels"]) for row in some]
        return [
            str(len(some)),
            f"{statistics.median(row['n_voxels'] for row in some):.0f}",
            f"{statistics.median(row['n_slices'] for row in some):.0f}",
            f"{sum(not row['is_complete'] for row in some)}",
            f"{sum(share > 1.5 for share in shares)}",
            f"{sum(share < 0.67 for share in shares)}",
            ", ".join(f"{name} {n}" for name, n in sorted(where.items())),
        ]

    names = (
        "patients",
        "median true voxels",
        "median slices",
        "a modality missing",
        "outlined over 1.5 times too large",
        "outlined under two thirds",
        "sites",
    )
    columns = [about(some) if some else ["0", *["-"] * 6] for some in (missed, others)]
    compared = [
        f"| {name} | {first} | {second} |"
        for name, first, second in zip(names, *columns, strict=True)
    ]
    reached = verdict(statistics.fmean(scores) >= AIM_FOLDS)
    return f"""## Five-fold cross-validation over all {len(rows)} patients

The pooled recipe on four fifths, scored on the fifth that took no part, one thread a fold, two
folds at a time; the last weights, nothing chosen on the scored patients.

| fold | patients | mean Dice | median | under {MISSED} | minutes |
|---|---|---|---|---|---|
{chr(10).join(table)}

All patients: {spread(scores)}. The aim, a mean of {AIM_FOLDS:.2f}, is {reached}.

What the missed patients (Dice under {MISSED}) have in common:

| | missed | others |
|---|---|---|
{chr(10).join(compared)}
"""
