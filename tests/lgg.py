"""Real scans by the commands alone: pooled training and a federation on ../shared/data/lgg-sites.

`make lgg` runs it: a workspace per site, two sites at a time with one thread each; then, in a
workspace of all patients, the same number of sample passes in one round, pooled. `make lgg-folds`
is the cross-validation. Each can be stopped and run again at any point: the workspaces are the
state. At the end it writes docs/results/lgg.md. Weights, scans and pictures stay in the folder.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))

from brainfed import plan as plans
from brainfed.formats import dataset
from brainfed.formats.dataset import SplitFile
from brainfed.plan import Plan

SCANS = REPO.parent / "shared" / "data" / "lgg-sites"
PLAN = REPO / "plans" / "lgg.toml"
COORDINATOR, SITES, EVALUATES_ONLY = "uni-lead", ("cs", "du", "fg", "ht"), "ez"
POOLED, POOLED_COORDINATOR = "pooled", "pooled-lead"
JOBS = 2


def brainfed(folder: Path, *words: str) -> dict[str, Any]:
    """Run one command in a workspace and give its JSON; a failure ends the script."""
    command = [str(Path(sys.executable).with_name("brainfed")), *words, "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{folder.name}: brainfed {' '.join(words)}\n{done.stdout}{done.stderr}")
    return dict(json.loads(done.stdout))


def say(text: str) -> None:
    """Tell how far it is."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


class Journal(dict[str, Any]):
    """What has been measured so far, kept in a file so that the script can be stopped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(json.loads(path.read_text()) if path.exists() else {})

    def once(self, key: str, work: Callable[[], Any]) -> Any:
        """Do a piece of work if it hasn't been done, and note result and seconds."""
        if key not in self:
            start = time.monotonic()
            value = work()
            self[key] = {"value": value, "seconds": time.monotonic() - start}
            new = self.path.with_suffix(".new")
            new.write_text(json.dumps(self, indent=1))
            new.replace(self.path)
        return self[key]["value"]


def in_parallel(work: Callable[[str], Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Do one piece of work for each name, two at a time."""
    with ThreadPoolExecutor(JOBS) as pool:
        return dict(zip(names, pool.map(work, names), strict=True))


def training_words(threads: int) -> tuple[str, ...]:
    """How a site trains here; `PRECISION=bf16` where the processor has the units for it."""
    precision = os.environ.get("PRECISION")
    how = ("--precision", precision) if precision else ()
    return ("train-round", "--device", "cpu", "--threads", str(threads), *how)


def begin(
    root: Path, journal: Journal, coordinator: str, sites: tuple[str, ...], plan: Path
) -> None:
    """Workspaces, roster and start; every site has joined."""
    for name in (coordinator, *sites):
        (root / name).mkdir(parents=True, exist_ok=True)
        if not (root / name / "brainfed.toml").exists():
            role = "coordinator" if name == coordinator else "site"
            made = brainfed(root / name, "init", role, "--name", name)
            journal.once(f"fingerprint {name}", lambda made=made: made["fingerprint"])
    if not (root / coordinator / "federation" / "start.json").exists():
        enrolments, words = [], []
        for name in sites:
            enrolments.append(str(root / name / "outbox" / f"{name}.enrolment.json"))
            words += ["--fingerprint", journal[f"fingerprint {name}"]["value"]]
        brainfed(root / coordinator, "admit", *enrolments, *words)
    brainfed(root / coordinator, "start", str(plan))
    for name in sites:
        hand_over(root, coordinator, name, journal[f"fingerprint {coordinator}"]["value"])


def hand_over(root: Path, sender: str, receiver: str, fingerprint: str | None = None) -> None:
    """Carry the sender's outbox to the receiver on a stick."""
    stick = root / f"stick-{sender}-{receiver}"
    stick.mkdir(exist_ok=True)
    for old in stick.iterdir():
        old.unlink()
    brainfed(root / sender, "export", "--to", str(stick))
    words = ("--yes", "--fingerprint", fingerprint) if fingerprint else ()
    brainfed(root / receiver, "import", str(stick), *words)


def prepare(place: Path, scans: Path) -> dict[str, Any]:
    """Cases and split of one workspace."""
    brainfed(place, "preprocess", str(scans), "--labels", "whole-tumour", "--spacing-nominal")
    return brainfed(place, "split")


def all_scans(root: Path, sites: tuple[str, ...]) -> Path:
    """A folder of links to the case folders of these sites."""
    folder = root / f"scans-{len(sites)}"
    folder.mkdir(parents=True, exist_ok=True)
    for name in sites:
        for case in sorted((SCANS / name.upper()).iterdir()):
            if not (folder / case.name).exists():
                (folder / case.name).symlink_to(case)
    return folder


def pooled_plan(root: Path, plan: Plan) -> Path:
    """The plan with one site and one round of as many passes as all rounds have."""
    training = plan.training.model_copy(
        update={"epochs_per_round": plan.training.epochs_per_round * plan.rounds}
    )
    changed = plan.model_copy(
        update={
            "name": "lgg-pooled",
            "rounds": 1,
            "training": training,
            "participation": plan.participation.model_copy(update={"quorum_sites": 1}),
        }
    )
    path = root / "lgg-pooled.toml"
    path.write_text(plans.render(changed))
    return path


def share_the_split(root: Path) -> None:
    """Give the patients of the pooled workspace the subsets that they have at their sites."""
    subsets = {}
    for name in SITES:
        data = root / name / "data"
        assigned = dataset.read_split(data).assignments
        for entry in dataset.read_whole_index(data).cases:
            subsets[entry.source_digest] = assigned[entry.patient]
    data = root / POOLED / "data"
    old = dataset.read_split(data)
    assignments = {
        entry.patient: subsets[entry.source_digest]
        for entry in dataset.read_whole_index(data).cases
    }
    dataset.write_split(data, SplitFile(rule=old.rule, seed=old.seed, assignments=assignments))


def dice_of(summaries: list[dict[str, Any]]) -> dict[str, Any]:
    """The summary of the 3-D Dice among a site's summaries."""
    return next(summary for summary in summaries if summary["measure"] == "dice")


def weighted_dice(by_site: dict[str, dict[str, Any]]) -> float:
    """The mean over all patients of all sites."""
    n = sum(summary["n"] for summary in by_site.values())
    return float(sum(summary["n"] * summary["mean"] for summary in by_site.values()) / n)


def federate(root: Path, journal: Journal) -> None:
    """Rounds until the plan's number is reached, then the last global weights on validation."""
    coordinator = root / COORDINATOR

    def train(name: str) -> Any:
        return brainfed(root / name, *training_words(threads=1))

    while (number := brainfed(coordinator, "status")["closed_round"] + 1) <= plans.load(
        PLAN
    ).rounds:

        def one_round() -> Any:
            trained = in_parallel(train, SITES)
            for name in SITES:
                hand_over(root, name, COORDINATOR)
            brainfed(coordinator, "aggregate")
            for name in (*SITES, EVALUATES_ONLY):
                hand_over(root, COORDINATOR, name)
            return trained

        trained = journal.once(f"round {number}", one_round)
        before = weighted_dice({name: dice_of(t["incoming"]) for name, t in trained.items()})
        after = weighted_dice({name: dice_of(t["result"]) for name, t in trained.items()})
        say(f"round {number}: incoming {before:.3f}, the sites' own {after:.3f}")

    def evaluate(name: str) -> Any:
        return brainfed(root / name, "evaluate", "--device", "cpu")

    journal.once("final", lambda: in_parallel(evaluate, (*SITES, EVALUATES_ONLY)))


def pool(root: Path, journal: Journal) -> None:
    """One round over the union of the training patients, scored on that of the validation ones."""
    place, coordinator = root / POOLED, root / POOLED_COORDINATOR
    done = journal.once("pooled", lambda: brainfed(place, *training_words(threads=1)))
    say(f"pooled: {dice_of(done['result'])['mean']:.3f}")
    if brainfed(coordinator, "status")["closed_round"] == 0:
        hand_over(root, POOLED, POOLED_COORDINATOR)
        brainfed(coordinator, "aggregate")
    hand_over(root, POOLED_COORDINATOR, POOLED)
    words = ("evaluate", "--device", "cpu")
    journal.once("pooled validation", lambda: brainfed(place, *words))
    brainfed(coordinator, "finish", "--round", "1")
    hand_over(root, POOLED_COORDINATOR, POOLED)
    journal.once("pooled test", lambda: brainfed(place, *words, "--subset", "test", "--yes"))


def open_test(root: Path, journal: Journal) -> None:
    """The weights that the final names, on the test patients, once."""
    for name in SITES:
        hand_over(root, name, COORDINATOR)
    done = journal.once("finish", lambda: brainfed(root / COORDINATOR, "finish"))
    say(f"the final: round {done['final']['round']}")
    for name in SITES:
        hand_over(root, COORDINATOR, name)

    def test(name: str) -> Any:
        return brainfed(root / name, "evaluate", "--subset", "test", "--yes", "--device", "cpu")

    journal.once("test", lambda: in_parallel(test, SITES))


def dice_by_round(journal: Journal) -> dict[int, dict[str, dict[str, Any]]]:
    """Validation Dice of each round's global weights by site; a round's is known in the next."""
    found = {}
    rounds = sorted(int(key.split()[1]) for key in journal if key.startswith("round "))
    for number in rounds:
        trained = journal[f"round {number}"]["value"]
        found[number - 1] = {name: dice_of(trained[name]["incoming"]) for name in SITES}
    final = journal["final"]["value"]
    found[rounds[-1]] = {name: dice_of(final[name]["summaries"]) for name in SITES}
    return found


def patient_dices(evaluated: dict[str, Any]) -> list[float]:
    """Of each case that `brainfed evaluate` scored, the lowest first; here a patient has one."""
    return sorted(row["values"]["dice"] for row in evaluated["rows"])


def spread(values: list[float]) -> str:
    """Mean, median and the share of misses, in words."""
    low = sum(value < 0.5 for value in values)
    return (
        f"mean {statistics.fmean(values):.3f}, median {statistics.median(values):.3f}, standard "
        f"deviation {statistics.stdev(values):.3f}, {low} of {len(values)} under 0.5"
    )


def main(root: Path) -> None:
    """Do what is left to do."""
    if not SCANS.is_dir():
        sys.exit(f"The real scans are not here: {SCANS}")
    from tests.lgg_result import write_result

    journal = Journal(root / "journal.json")
    plan = plans.load(PLAN)
    begin(root, journal, COORDINATOR, (*SITES, EVALUATES_ONLY), PLAN)
    begin(root, journal, POOLED_COORDINATOR, (POOLED,), pooled_plan(root, plan))
    say("preprocess")
    journal.once(
        "prepare",
        lambda: in_parallel(
            lambda name: prepare(root / name, SCANS / name.upper()), (*SITES, EVALUATES_ONLY)
        ),
    )
    journal.once("prepare pooled", lambda: prepare(root / POOLED, all_scans(root, SITES)))
    share_the_split(root)
    say("pooled")
    pool(root, journal)
    say("federation")
    federate(root, journal)
    open_test(root, journal)
    write_result(root)
    say("written: docs/results/lgg.md")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "work/lgg").resolve())
