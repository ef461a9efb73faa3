"""What closes the gap to pooled training: `python tests/benchmarks/study_gap.py [FOLDER [STAGE]]`.

On the real sites of ../shared/data/lgg-sites, from the workspaces that `make lgg` made in FOLDER
(work/lgg where none is given): federated runs in memory, round after round, by the same training
and the same rules as the commands, and pooled training with as many sample passes beside them.
Stages: `screen` tries each option twice at a small scale; `seeds` the best two again from other
seeds; `full` takes them to the scale of `plans/lgg.toml`. Without a stage all three are done.

All is judged on the validation patients; the test patients are never looked at. Each finished run
is kept in FOLDER/gap-runs, so it can be stopped and run again, and two can run beside each other;
after each the page docs/results/gap.md is written of what is there. `page` only writes it.
"""

import os
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.gap_page import PAGE, page
from tests.benchmarks.gap_trials import PLAIN, POOLED, Kept, Run, runs_of
from tests.lgg import COORDINATOR, SITES, Journal, dice_by_round, weighted_dice
from tests.lgg import POOLED as POOLED_PLACE

from brainfed import plan as plans
from brainfed.core.device import choose_device
from brainfed.core.optimiser import Moments
from brainfed.core.rules import apply
from brainfed.core.training import Weights
from brainfed.core.unet import initial_weights
from brainfed.formats.dataset import Case, Subset, read_whole_index
from brainfed.plan import OptimiserState, Plan, WeightBy
from brainfed.steps.one_round import train_from
from brainfed.steps.score_cases import entries_of, read_cases, scores_of

ROOT = Path(__file__).resolve().parents[2]
Values = npt.NDArray[np.float32]


def smaller(case: Case) -> Case:
    """The case with 2 x 2 pixels averaged to one; of the labels every second one is kept."""
    channels, slices, height, width = case.image.shape
    blocks = case.image.reshape(channels, slices, height // 2, 2, width // 2, 2)
    image = blocks.mean(axis=(3, 5), dtype=np.float32).astype(case.image.dtype)
    return replace(case, image=image, label=np.ascontiguousarray(case.label[:, ::2, ::2]))


def flat(tensors: Weights) -> Values:
    """All values, in the order of a weight file."""
    return np.concatenate([tensors[name].ravel() for name in sorted(tensors)])


def parted(values: Values, like: Weights) -> dict[str, Values]:
    """The tensors again."""
    found, start = {}, 0
    for name in sorted(like):
        found[name] = values[start : start + like[name].size].reshape(like[name].shape)
        start += like[name].size
    return found


class Study:
    """The cases of all sites, and how a run is made of them."""

    def __init__(self, root: Path, plan: Plan) -> None:
        self._base, self._root = plan, root
        self._train = partial(
            train_from, device="cpu", precision=os.environ.get("PRECISION"), threads=1
        )
        cases = {
            subset: {name: self._cases(name, subset) for name in SITES}
            for subset in (Subset.TRAIN, Subset.VALIDATION)
        }
        self._by_scale = {
            "full": cases,
            "small": {
                subset: {name: [smaller(case) for case in found] for name, found in sites.items()}
                for subset, sites in cases.items()
            },
        }

    def _cases(self, site: str, subset: Subset) -> list[Case]:
        data = self._root / site / "data"
        if not data.is_dir():
            sys.exit(f"No workspace {data.parent}: `make lgg` makes it first")
        return list(read_cases(data, entries_of(data, self._base, subset), self._base))

    def done(self, run: Run) -> dict[str, Any]:
        """Train, and score on validation: of each patient at the end, and the mean of each round.

        The seconds are those of the processor.
        """
        start, plan = time.process_time(), run.plan(self._base)
        sites = self._by_scale[run.scale][Subset.TRAIN]
        held_out = self._by_scale[run.scale][Subset.VALIDATION]
        patients = [case for cases in held_out.values() for case in cases]

        def dices(weights: Weights) -> list[float]:
            return [
                row.dice for row in scores_of(weights, plan, patients, device=choose_device("cpu"))
            ]

        if run.is_pooled:
            everybody = [case for cases in sites.values() for case in cases]
            trained = self._train(initial_weights(plan), plan, training=everybody)
            rounds = [dices(trained.weights)]
        else:
            rounds = [dices(weights) for weights in self._federated(plan, sites)]
        return {
            "name": run.name,
            "dices": rounds[-1],
            "rounds": [statistics.fmean(values) for values in rounds],
            "seconds": time.process_time() - start,
            "precision": os.environ.get("PRECISION", "float32"),
        }

    def _federated(self, plan: Plan, sites: dict[str, list[Case]]) -> Iterator[Weights]:
        """The global weights after each round."""
        weights: Weights = initial_weights(plan)
        state: tuple[Values, ...] = ()
        moments: dict[str, Moments] = {}
        for number in range(1, plan.rounds + 1):
            updates, counts = [], []
            for name, cases in sites.items():
                trained = self._train(
                    weights,
                    plan,
                    training=cases,
                    round_number=number,
                    site=name,
                    moments=moments.get(name),
                )
                if plan.training.optimiser_state is OptimiserState.KEEP:
                    moments[name] = trained.moments
                updates.append(flat(trained.weights))
                by = plan.aggregation.weights
                counts.append(1 if by is WeightBy.EQUAL else int(getattr(trained, f"n_{by}")))
            values, state = apply(plan.aggregation, flat(weights), updates, counts, state)
            weights = parted(values, weights)
            yield weights


def keep_lgg(root: Path, plan: Plan, kept: Kept) -> None:
    """Take in the federation and the pooled training that `make lgg` made by the commands."""
    journal = Journal(root / "journal.json")
    plain, pooled = (Run("full", trial, plan.seed) for trial in (PLAIN, POOLED))
    there = root / COORDINATOR / "federation" / "plan.toml"
    if "final" not in journal or plans.load(there) != plain.plan(plan):
        return
    final, alone = journal["final"]["value"], journal["pooled validation"]["value"]
    by_scans = by_source(root / POOLED_PLACE / "data", alone["rows"])
    dices: dict[str, list[float]] = {plain.name: [], pooled.name: []}
    for site in SITES:
        own = by_source(root / site / "data", final[site]["rows"])
        for entry in entries_of(root / site / "data", plan, Subset.VALIDATION):
            dices[plain.name].append(own[entry.source_digest])
            dices[pooled.name].append(by_scans[entry.source_digest])
    rounds = [weighted_dice(sites) for sites in list(dice_by_round(journal).values())[1:]]
    for run, means in ((plain, rounds), (pooled, [])):
        precision = journal["pooled"]["value"]["precision"]
        found = {"name": run.name, "dices": dices[run.name], "rounds": means}
        kept.put(run, found | {"precision": precision})


def by_source(data: Path, rows: list[dict[str, Any]]) -> dict[str, float]:
    """Dice by the digest of the scans: a case has another name in the pooled workspace."""
    sources = {entry.id: entry.source_digest for entry in read_whole_index(data).cases}
    return {sources[row["case"]]: row["values"]["dice"] for row in rows}


def main(root: Path, stages: list[str]) -> None:
    """Do what is left to do, and write the page."""
    kept, plan = Kept(root / "gap-runs"), plans.load(ROOT / "plans" / "lgg.toml")
    keep_lgg(root, plan, kept)
    if stages != ["page"]:
        study = Study(root, plan)
        for stage in stages:
            for run in runs_of(stage, kept):
                kept.once(run, study.done)
                PAGE.write_text(page(kept))
    PAGE.write_text(page(kept))


if __name__ == "__main__":
    main(
        Path(sys.argv[1] if len(sys.argv) > 1 else "work/lgg").resolve(),
        sys.argv[2:] or ["screen", "seeds", "full"],
    )
