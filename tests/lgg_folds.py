"""Five-fold cross-validation over all patients of ../shared/data/lgg-sites, by the commands.

`make lgg-folds` runs it: a workspace of all patients for each fold, whose training part is the
other four fifths; the recipe is the pooled one of `plans/lgg.toml`, and nothing is chosen on the
patients that are scored. It can be stopped and run again: `train-round` goes on from its
checkpoint. It ends by writing docs/results/lgg.md anew.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from brainfed import plan as plans
from brainfed.formats import dataset
from brainfed.formats.dataset import SplitFile, Subset
from tests.lgg import (
    EVALUATES_ONLY,
    PLAN,
    SCANS,
    SITES,
    Journal,
    all_scans,
    begin,
    brainfed,
    dice_of,
    in_parallel,
    pooled_plan,
    prepare,
    say,
    training_words,
)

FOLDS = tuple(f"fold-{number}" for number in range(1, 6))
LEAD = "folds-lead"
SEED = 2018


def set_fold(place: Path, fold: int) -> None:
    """Hold out a fifth of the patients: of each five next to each other in tumour size, one."""
    data = place / "data"
    entries = dataset.read_whole_index(data).cases
    ranked = sorted(entries, key=lambda entry: (entry.n_tumour_voxels, entry.source_digest))
    random = np.random.default_rng(SEED)
    assignments = {}
    for start in range(0, len(ranked), len(FOLDS)):
        order = random.permutation(len(FOLDS))
        for entry, held_out_in in zip(ranked[start : start + len(FOLDS)], order, strict=False):
            held_out = held_out_in == fold
            assignments[entry.patient] = Subset.VALIDATION if held_out else Subset.TRAIN
    old = dataset.read_split(data)
    dataset.write_split(data, SplitFile(rule=old.rule, seed=old.seed, assignments=assignments))


def scored(root: Path, name: str) -> list[dict[str, Any]]:
    """Of each held-out patient its Dice, and what may explain it."""
    place = root / name
    update = next((place / "rounds" / "r0001").glob("*.update.safetensors"))
    words = ("evaluate", "--weights", str(update), "--device", "cpu", "--threads", "1")
    rows = brainfed(place, *words)["rows"]
    cases = {entry.id: entry for entry in dataset.read_whole_index(place / "data").cases}
    return [
        {
            "dice": row["values"]["dice"],
            "n_voxels": row["n_voxels"],
            "n_voxels_predicted": row["n_voxels_predicted"],
            "is_complete": row["is_complete"],
            "n_slices": cases[row["case"]].n_slices,
            "source": cases[row["case"]].source_digest,
        }
        for row in rows
    ]


def main(root: Path) -> None:
    """Do what is left to do."""
    if not SCANS.is_dir():
        sys.exit(f"The real scans are not here: {SCANS}")
    from tests.lgg_result import write_result

    journal = Journal(root / "folds.json")
    plan = plans.load(PLAN)
    begin(root, journal, LEAD, FOLDS, pooled_plan(root, plan))
    scans = all_scans(root, (*SITES, EVALUATES_ONLY))
    for number, name in enumerate(FOLDS):
        if f"prepare {name}" not in journal:
            say(f"preprocess {name}")
            journal.once(f"prepare {name}", lambda name=name: prepare(root / name, scans))
            set_fold(root / name, number)

    def one(name: str) -> Any:
        done = brainfed(root / name, *training_words(threads=1))
        say(f"{name}: {dice_of(done['result'])['mean']:.3f}")
        return {"trained": done, "scored": scored(root, name)}

    def fold(name: str) -> Any:
        return journal.once(name, lambda: one(name))

    in_parallel(fold, FOLDS)
    write_result(root)
    say("written: docs/results/lgg.md")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "work/lgg").resolve())
