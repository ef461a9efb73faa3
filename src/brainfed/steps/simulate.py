"""`simulate`: the paper's comparison on any folder of scans, on one machine or a cluster.

All sites are throw-away workspaces that train, sign, exchange and audit by the steps of a real
federation; what is simulated is the courier. Runs that have ended are kept, and one that was killed
goes on from its workspaces.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from brainfed.core.contenders import Run, Training
from brainfed.core.progress import Progress, silent
from brainfed.formats import atomic, partition_file, simulation
from brainfed.formats.simulation import RunResult, Settings
from brainfed.steps import simulated_party
from brainfed.steps.simulated_party import Call
from brainfed.steps.simulated_run import Scene, SimulatedRun, tidy
from brainfed.steps.simulation_setting import Setting

Submit = Callable[[Call], "Future[tuple[Any, float]]"]
SIMULATING = "simulating"


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """A simulation that has come to its end."""

    folder: Path
    settings: Settings
    results: tuple[RunResult, ...]
    n_held: int
    """Cases that were left out because nobody has looked at them."""


def to(executor: Executor) -> Submit:
    """Give each piece of work to an executor."""
    return lambda call: executor.submit(simulated_party.call, call)


def simulate(
    out: Path,
    setting: Setting,
    submit: Submit,
    *,
    today: date,
    at_once: int,
    progress: Progress = silent,
) -> Simulated:
    """Do all runs that haven't ended yet, and keep what each found.

    Args:
        out: The results folder.
        setting: What `set_up` made.
        submit: Gives a piece of work away; the bits of the results don't depend on how many do it.
        today: The day for what is signed.
        at_once: Runs at work at a time.
        progress: Told of each run, in hundredths.

    Raises:
        ConflictError: The folder holds another simulation.
        PlanError: A training diverged.
        ResourceError: Disk, memory or device; what was finished is kept.
    """
    simulation.write_settings(out, setting.settings)
    for number, partition in enumerate(setting.partitions, start=1):
        path = out / "partitions" / f"repeat-{number}.csv"
        if not path.exists():
            atomic.make_folder(path.parent)
            partition_file.write(path, partition)
    results: list[RunResult] = []
    for choose in (lambda _: setting.first_runs(), setting.further_runs):
        runs = [_begun(out, setting, run, today) for run in choose(results)]
        results += _drive(out, runs, submit, at_once=at_once, progress=progress)
    return Simulated(
        folder=out,
        settings=setting.settings,
        results=tuple(results),
        n_held=setting.prepared.n_held,
    )


def _begun(out: Path, setting: Setting, run: Run, today: date) -> SimulatedRun:
    request, is_relay = setting.request, run.training is Training.CIIL
    shows_forgetting = is_relay or run.training is Training.FL
    scene = Scene(
        prepared=setting.prepared,
        plan=request.plan,
        sites=setting.sites[run.repeat],
        contenders=frozenset(request.contenders),
        machine=request.machine,
        today=today,
        settings=hashlib.sha256(simulation.settings_bytes(setting.settings)).hexdigest(),
        watches_forgetting=shows_forgetting and run.repeat == 0,
    )
    return SimulatedRun(out / "runs" / run.name, run, scene)


def _drive(
    out: Path,
    runs: Sequence[SimulatedRun],
    submit: Submit,
    *,
    at_once: int,
    progress: Progress,
) -> list[RunResult]:
    """Have some runs at work at a time, each asking for work until it has a result."""
    results = {run.run: simulation.read_result(out, run.run.name) for run in runs}
    waiting = deque(run for run in runs if results[run.run] is None)
    for run in runs:
        if results[run.run] is not None:
            tidy(run.folder, run.sites)  # of one that was killed right at its end
    active: list[_AtWork] = []

    def tell(note: str) -> None:
        ended = sum(result is not None for result in results.values())
        share = ended + sum(work.run.share for work in active)
        progress(SIMULATING, round(100 * share), 100 * len(runs), note)

    while waiting or active:
        while waiting and len(active) < at_once:
            active.append(_AtWork(waiting.popleft(), submit))
        wait([f for work in active for f in work.pending], return_when=FIRST_COMPLETED)
        for work in [work for work in active if not work.pending]:
            work.go_on()
            if work.result is None:
                tell(work.run.run.name)
                continue
            simulation.write_result(out, work.run.run.name, work.result)
            tidy(work.run.folder, work.run.sites)
            results[work.run.run] = work.result
            active.remove(work)
            tell(f"{work.run.run.name} has ended")
    return [result for result in results.values() if result is not None]


class _AtWork:
    """A run, and the work that it has asked for last."""

    def __init__(self, run: SimulatedRun, submit: Submit) -> None:
        self.run = run
        self.result: RunResult | None = None
        self._submit, self._script = submit, run.script()
        self._futures = [submit(call) for call in next(self._script)]

    @property
    def pending(self) -> list[Future[tuple[Any, float]]]:
        """What isn't done yet."""
        return [future for future in self._futures if not future.done()]

    def go_on(self) -> None:
        """Give the script what it asked for, and send off what it asks for next.

        Raises:
            BrainfedError: What a piece of work raised.
        """
        found = [future.result() for future in self._futures]
        try:
            calls = self._script.send(found)
            while not calls:
                calls = self._script.send([])
        except StopIteration as ended:
            self.result = ended.value
            return
        self._futures = [self._submit(call) for call in calls]
