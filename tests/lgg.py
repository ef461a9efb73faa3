"""A federation over the real scans of ../shared/data/lgg-sites, by the commands alone.

`make lgg` runs it: a workspace per site, two sites at a time with one thread each. It can be
stopped and run again at any point: the workspaces are the state. The pooled run of the same number
of sample passes is done in memory with the same training step, on the union of the sites' training
patients. At the end it writes docs/results/lgg.md. Weights, scans and pictures stay in the folder.
"""

import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[1]
SCANS = REPO.parent / "shared" / "data" / "lgg-sites"
PLAN = REPO / "plans" / "lgg.toml"
RESULT = REPO / "docs" / "results" / "lgg.md"
TRIALS = REPO / "docs" / "results" / "lgg-trials.md"
COORDINATOR, SITES, EVALUATES_ONLY = "uni-lead", ("cs", "du", "fg", "ht"), "ez"
JOBS = 2
AIM_DICE, AIM_MINUTES = 0.78, 30


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


def main(root: Path) -> None:
    """Do what is left to do."""
    if not SCANS.is_dir():
        sys.exit(f"The real scans are not here: {SCANS}")
    root.mkdir(parents=True, exist_ok=True)
    with Journal(root / "journal.json") as journal:
        set_up(root, journal)
        federate(root, journal)
        pooled(root, journal)
        open_test(root, journal)
        write_result(journal)
    say(f"written: {RESULT}")


class Journal(dict[str, Any]):
    """What has been measured so far, kept in a file so that the script can be stopped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(json.loads(path.read_text()) if path.exists() else {})

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.save()

    def save(self) -> None:
        self.path.write_text(json.dumps(self, indent=1))

    def once(self, key: str, work: Callable[[], Any]) -> Any:
        """Do a piece of work if it hasn't been done, and note result and seconds."""
        if key not in self:
            start = time.monotonic()
            value = work()
            self[key] = {"value": value, "seconds": time.monotonic() - start}
            self.save()
        return self[key]["value"]


def in_parallel(work: Callable[[str], Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Do one piece of work for each site, two at a time."""
    with ThreadPoolExecutor(JOBS) as pool:
        return dict(zip(names, pool.map(work, names), strict=True))


def set_up(root: Path, journal: Journal) -> None:
    """Workspaces, roster, start, cases and splits."""
    coordinator, everyone = root / COORDINATOR, (*SITES, EVALUATES_ONLY)
    for name in (COORDINATOR, *everyone):
        folder = root / name
        folder.mkdir(exist_ok=True)
        if not (folder / "brainfed.toml").exists():
            role = "coordinator" if name == COORDINATOR else "site"
            journal[f"init {name}"] = brainfed(folder, "init", role, "--name", name)
    if not (coordinator / "federation" / "start.json").exists():
        enrolments, fingerprints = [], []
        for name in everyone:
            enrolments.append(str(root / name / "outbox" / f"{name}.enrolment.json"))
            fingerprints += ["--fingerprint", journal[f"init {name}"]["fingerprint"]]
        brainfed(coordinator, "admit", *enrolments, *fingerprints)
    brainfed(coordinator, "start", str(PLAN))
    for name in everyone:
        hand_over(root, COORDINATOR, name, journal[f"init {COORDINATOR}"]["fingerprint"])
    say("preprocess")

    def prepare(name: str) -> Any:
        words = ("--labels", "whole-tumour", "--spacing-nominal")
        brainfed(root / name, "preprocess", str(SCANS / name.upper()), *words)
        return brainfed(root / name, "split")

    journal.once("prepare", lambda: in_parallel(prepare, everyone))


def hand_over(root: Path, sender: str, receiver: str, fingerprint: str | None = None) -> None:
    """Carry the sender's outbox to the receiver on a stick."""
    stick = root / "stick"
    stick.mkdir(exist_ok=True)
    for old in stick.iterdir():
        old.unlink()
    brainfed(root / sender, "export", "--to", str(stick))
    words = ("--yes", "--fingerprint", fingerprint) if fingerprint else ()
    brainfed(root / receiver, "import", str(stick), *words)


def federate(root: Path, journal: Journal) -> None:
    """Rounds until the plan's number is reached."""
    coordinator = root / COORDINATOR

    def train(name: str) -> Any:
        return brainfed(root / name, "train-round", "--threads", "1", "--device", "cpu")

    while True:
        status = brainfed(coordinator, "status")
        number = status["closed_round"] + 1
        if number > status["rounds_planned"]:
            break

        def one_round(number: int = number) -> Any:
            trained = in_parallel(train, SITES)
            for name in SITES:
                hand_over(root, name, COORDINATOR)
            closed = brainfed(coordinator, "aggregate")
            for name in (*SITES, EVALUATES_ONLY):
                hand_over(root, COORDINATOR, name)
            return {"trained": trained, "parts": closed["parts"]}

        value = journal.once(f"round {number}", one_round)
        before = weighted_dice({n: dice_of(t["incoming"]) for n, t in value["trained"].items()})
        after = weighted_dice({n: dice_of(t["result"]) for n, t in value["trained"].items()})
        say(f"round {number}: incoming {before:.3f}, the sites' own {after:.3f}")

    def evaluate(name: str) -> Any:
        return brainfed(root / name, "evaluate", "--device", "cpu")

    journal.once("final", lambda: in_parallel(evaluate, (*SITES, EVALUATES_ONLY)))


def dice_of(summaries: list[dict[str, Any]]) -> dict[str, Any]:
    """The summary of the 3-D Dice among a site's summaries."""
    return next(summary for summary in summaries if summary["measure"] == "dice")


def weighted_dice(by_site: dict[str, dict[str, Any]]) -> float:
    """The mean over all patients of all sites."""
    n = sum(summary["n"] for summary in by_site.values())
    return float(sum(summary["n"] * summary["mean"] for summary in by_site.values()) / n)


def pooled(root: Path, journal: Journal) -> None:
    """Training on the union, as many sample passes as the federation, scored as the sites were."""
    import torch

    from brainfed import plan as plans
    from brainfed.core.unet import initial_weights
    from brainfed.formats.dataset import Subset
    from brainfed.steps.score_cases import entries_of, read_cases
    from brainfed.steps.train import train_from

    plan = plans.load(PLAN)
    settings = plan.training
    if settings.steps_per_round:
        # Every site does these steps in a round, so the pooled run does them for each site.
        steps = settings.steps_per_round * len(SITES)
        plan = plan.model_copy(
            update={"training": settings.model_copy(update={"steps_per_round": steps})}
        )

    def cases(subset: Subset) -> list[Any]:
        found = []
        for name in SITES:
            data = root / name / "data"
            found += list(read_cases(data, entries_of(data, plan, subset), plan))
        return found

    def work() -> Any:
        weights: Any = initial_weights(plan)
        kept = root / "pooled.pt.npz"
        training, validation = cases(Subset.TRAIN), cases(Subset.VALIDATION)
        rows: list[list[Any]] = []
        for number in range(1, plan.rounds + 1):
            last = number == plan.rounds
            trained = train_from(
                weights,
                plan,
                training=training,
                validation=validation if last or number % 3 == 0 else (),
                round_number=number,
                threads=torch.get_num_threads(),
                device="cpu",
            )
            weights = trained.weights
            scores = [row.dice for row in trained.result]
            if scores:
                say(f"pooled {number}: {statistics.fmean(scores):.3f}")
                rows.append([number, scores])
        import numpy as np

        np.savez(kept, **weights)
        return rows

    say("pooled")
    journal.once("pooled", work)


def open_test(root: Path, journal: Journal) -> None:
    """The round that is best on validation, on the test patients, once."""
    from brainfed.formats.dataset import Subset

    best = best_round(journal)
    folder = f"rounds/r{best:04d}"

    def test(name: str) -> Any:
        weights = next((root / name / folder).glob("*.global.safetensors"))
        words = ("--subset", Subset.TEST, "--weights", str(weights), "--yes", "--device", "cpu")
        return brainfed(root / name, "evaluate", *words)

    journal.once("test", lambda: in_parallel(test, SITES))


def dice_by_round(journal: Journal) -> dict[int, dict[str, dict[str, Any]]]:
    """Validation Dice of each round's global weights by site; a round's is known in the next."""
    found = {}
    rounds = sorted(int(key.split()[1]) for key in journal if key.startswith("round "))
    for number in rounds:
        trained = journal[f"round {number}"]["value"]["trained"]
        found[number - 1] = {name: dice_of(trained[name]["incoming"]) for name in SITES}
    final = journal["final"]["value"]
    found[rounds[-1]] = {name: dice_of(final[name]["summaries"]) for name in SITES}
    return found


def best_round(journal: Journal) -> int:
    """The round of the highest mean validation Dice over all patients."""
    found = dice_by_round(journal)
    return max(found, key=lambda number: (weighted_dice(found[number]), -number))


def write_result(journal: Journal) -> None:
    """Write docs/results/lgg.md: numbers only, nothing of a patient."""
    found = dice_by_round(journal)
    best = best_round(journal)
    minutes = sum(journal[key]["seconds"] for key in journal if key.startswith("round ")) / 60
    everything = minutes + sum(journal[key]["seconds"] for key in ("prepare", "final", "test")) / 60
    ez = dice_of(journal["final"]["value"][EVALUATES_ONLY]["summaries"])
    test = journal["test"]["value"]
    scores = sorted(row["dice"] for name in SITES for row in test[name]["rows"])
    pooled_rows = journal["pooled"]["value"]
    table = [
        "| round | " + " | ".join(name.upper() for name in SITES) + " | all patients | minutes |",
        "|---|" + "---|" * (len(SITES) + 2),
    ]
    spent = 0.0
    for number, by_site in found.items():
        spent += journal[f"round {number}"]["seconds"] / 60 if number else 0
        cells = [f"{by_site[name]['mean']:.3f}" for name in SITES]
        cells += [f"{weighted_dice(by_site):.3f}", f"{spent:.1f}"]
        table.append(f"| {number} | " + " | ".join(cells) + " |")
    n_validation = ", ".join(f"{name.upper()} {found[0][name]['n']}" for name in SITES)
    n_test = ", ".join(f"{n.upper()} {dice_of(test[n]['summaries'])['n']}" for n in SITES)
    by_site = ", ".join(
        f"{name.upper()} {dice_of(test[name]['summaries'])['mean']:.3f}" for name in SITES
    )
    spread = f"standard deviation {statistics.stdev(scores):.3f}"
    misses = sum(score < 0.5 for score in scores)
    is_reached = weighted_dice(found[best]) >= AIM_DICE and minutes <= AIM_MINUTES
    verdict = "reached" if is_reached else "**not reached**"
    pooled_last = statistics.fmean(pooled_rows[-1][1])
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(
        f"""# A federation over real scans

Made by `make lgg` on {time.strftime("%Y-%m-%d")}: four real institutions of `lgg-sites` train, EZ
(one patient) evaluates only; whole tumour (the FLAIR abnormality). Two sites at a time, one thread
each, on {platform.machine()} with {JOBS} cores, no GPU; Python {platform.python_version()}, torch
{version("torch")}, numpy {version("numpy")}, brainfed {version("brainfed")}. Every step by the
commands, a workspace per site, files carried by export and import. One seed. The plan:
`plans/lgg.toml`. A Dice on this set can't be compared with a Dice on BraTS.

**Validation Dice of the global weights, per patient, 3-D** (patients: {n_validation}), and the
minutes since the start of the first round.

{chr(10).join(table)}

Best round on validation: {best}, {weighted_dice(found[best]):.3f}. The aim, {AIM_DICE:.2f} within
{AIM_MINUTES} minutes, is {verdict}. All rounds took {minutes:.1f}
minutes (training, scoring before and after, export, import, aggregation); with preprocessing and
evaluation {everything:.1f} minutes. EZ's one patient under the last global weights:
{ez["mean"]:.3f}.

**Pooled**, the same number of sample passes and the same recipe on the union of the training
patients, same validation patients: {pooled_last:.3f} at the end
({"; ".join(f"after {n} of the rounds' passes {statistics.fmean(s):.3f}" for n, s in pooled_rows)}),
in {journal["pooled"]["seconds"] / 60:.1f} minutes with both cores.

**Test**, opened once, with the round chosen on validation (patients: {n_test}): mean
{statistics.fmean(scores):.3f}, median {statistics.median(scores):.3f}, {spread}, {misses} of
{len(scores)} under 0.5; by site {by_site}.

How the recipe was chosen, and every configuration that was tried: [lgg-trials.md](lgg-trials.md).
"""
    )


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "work/lgg").resolve())
