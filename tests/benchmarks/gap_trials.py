"""The trials of `study_gap.py`: which there are, which are the best, and where they are kept."""

import fcntl
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brainfed.plan import Plan

SEEDS = (2018, 2019, 2020)
SMALL_PIXELS, SMALL_CHANNELS, SMALL_ROUNDS = 48, (8, 16, 32, 64), 4

Changes = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Trial:
    """One setting of one option."""

    option: str
    words: str
    training: Changes = field(default_factory=dict)
    aggregation: Changes = field(default_factory=dict)
    times_rounds: float = 1.0
    """So many times the rounds, each shorter by as much."""

    @property
    def name(self) -> str:
        return f"{self.option}, {self.words}" if self.words else self.option


def _server(option: str, words: str, **aggregation: Any) -> Trial:
    return Trial(option, words, aggregation=aggregation)


def _site(option: str, words: str, **training: Any) -> Trial:
    return Trial(option, words, training=training)


PLAIN = Trial("plain", "")
POOLED = Trial("pooled", "")
POOLED_FASTER = _site("pooled", "rate 0.006", rate=0.006)
"""What is good for sites may be good for pooled training."""
TRIALS = (
    _server("server momentum", "0.5", rule="fedavgm", server_momentum=0.5),
    _server("server momentum", "0.9, server rate 0.3", rule="fedavgm", server_rate=0.3),
    _server("FedAdam", "server rate 0.01", rule="fedadam", server_rate=0.01),
    _server("FedAdam", "server rate 0.03", rule="fedadam", server_rate=0.03),
    _site("kept optimiser state", "rate 0.003", optimiser_state="keep"),
    _site("kept optimiser state", "rate 0.006", optimiser_state="keep", rate=0.006),
    _site("rate", "0.0015", rate=0.0015),
    _site("rate", "0.006", rate=0.006),
    _site("warm-up", "0.05", warm_up=0.05),
    _site("warm-up", "0.15", warm_up=0.15),
    _site("FedProx", "mu 0.01", proximal=0.01),
    _site("FedProx", "mu 0.1", proximal=0.1),
    Trial("epochs per round", "half as many", times_rounds=2.0),
    Trial("epochs per round", "twice as many", times_rounds=0.5),
    _server("weights", "slices", weights="slices"),
    _server("weights", "equal", weights="equal"),
)


@dataclass(frozen=True, slots=True)
class Run:
    """One training of one model."""

    scale: str
    trial: Trial
    seed: int

    @property
    def name(self) -> str:
        return f"{self.scale}: {self.trial.name}; {self.seed}"

    @property
    def is_pooled(self) -> bool:
        return self.trial.option == POOLED.option

    def plan(self, base: Plan) -> Plan:
        """The lgg plan with this run's changes, checked as if it had been read."""
        content = base.model_dump(mode="json")
        content["seed"] = self.seed
        if self.scale == "small":
            content["rounds"] = SMALL_ROUNDS
            content["grid"]["size"] = [SMALL_PIXELS, SMALL_PIXELS]
            content["network"] |= {"channels": list(SMALL_CHANNELS), "dropout_levels": [3, 4]}
        training = content["training"]
        training |= self.trial.training
        content["aggregation"] |= self.trial.aggregation
        times = 1 / content["rounds"] if self.is_pooled else self.trial.times_rounds
        content["rounds"] = round(content["rounds"] * times)
        training["epochs_per_round"] = round(training["epochs_per_round"] / times)
        return Plan.model_validate_json(json.dumps(content))


class Kept:
    """The finished runs, a file each; a lock keeps a second process off a run on its way."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)

    def _path(self, run: Run) -> Path:
        return self._folder / f"{run.name.replace('/', '-')}.json"

    def get(self, run: Run) -> dict[str, Any] | None:
        path = self._path(run)
        return json.loads(path.read_text()) if path.exists() else None

    def all(self) -> list[dict[str, Any]]:
        """The finished runs."""
        return [json.loads(path.read_text()) for path in sorted(self._folder.glob("*.json"))]

    def mean(self, run: Run) -> float:
        """Mean validation Dice of a finished run."""
        found = self.get(run)
        return -1.0 if found is None else statistics.fmean(found["dices"])

    def put(self, run: Run, found: dict[str, Any]) -> None:
        """Keep a finished run."""
        new = self._path(run).with_suffix(".new")
        new.write_text(json.dumps(found))
        new.replace(self._path(run))

    def once(self, run: Run, work: Callable[[Run], dict[str, Any]]) -> None:
        """Do a run, unless it is done or another process is at it."""
        path = self._path(run)
        with path.with_suffix(".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            if not path.exists():
                self.put(run, work(run))
                print(time.strftime("%H:%M:%S"), run.name, f"{self.mean(run):.3f}", flush=True)


def screening() -> list[Run]:
    """Each option twice; of plain and pooled, which have one setting, two seeds."""
    first = [Run("small", trial, seed) for seed in SEEDS[:2] for trial in (PLAIN, POOLED)]
    return first + [Run("small", trial, SEEDS[0]) for trial in TRIALS]


def best_two(kept: Kept) -> list[Trial]:
    """The better trial of each of the two best options in the screening."""
    ranked = sorted(TRIALS, key=lambda trial: -kept.mean(Run("small", trial, SEEDS[0])))
    options = list(dict.fromkeys(trial.option for trial in ranked))[:2]
    return [next(trial for trial in ranked if trial.option == option) for option in options]


def runs_of(stage: str, kept: Kept) -> list[Run]:
    """The runs of a stage: `screen`, or the best two, plain and pooled from seed after seed."""
    if stage == "screen":
        return screening()
    scale = {"seeds": "small", "full": "full"}[stage]
    trials = (PLAIN, POOLED, *best_two(kept), POOLED_FASTER)
    return [Run(scale, trial, seed) for seed in SEEDS for trial in trials]
