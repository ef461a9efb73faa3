"""`simulate`: the paper's comparison on any folder of scans, on one machine or a cluster.

All sites are throw-away workspaces that train, sign, exchange and audit by the steps of a real
federation; what is simulated is the courier. Runs that have ended are kept, and one that was killed
goes on from its workspaces.
"""

import hashlib
import statistics
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from brainfed import plan as plans
from brainfed.core.architecture import check_own
from brainfed.core.cohort import Subset
from brainfed.core.contenders import TRAINED_AS, Contender, Run, Training, passes_of, plan_of
from brainfed.core.partition import Kind, Member, Partition, draw, fold, parse
from brainfed.core.progress import Progress, silent
from brainfed.errors import ScanError
from brainfed.formats import atomic, partition_file, simulation
from brainfed.formats.simulation import RunResult, Settings
from brainfed.plan import Plan
from brainfed.steps import simulated_party
from brainfed.steps.preprocess import Wish
from brainfed.steps.simulated_party import Call, Machine
from brainfed.steps.simulated_run import LEAD, Scene, SimulatedRun, tidy
from brainfed.steps.simulation_data import Prepared, counts_of, prepare

Submit = Callable[[Call], "Future[tuple[Any, float]]"]
SIMULATING = "simulating"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to be simulated."""

    plan: Plan
    scans: Path
    """A folder of scans, or one of folders of scans, a site each."""
    partition: str = Kind.FOLDER.value
    """A kind, such as `folder` or `equal:8`, or the path of a CSV."""
    contenders: tuple[Contender, ...] = tuple(Contender)
    n_repeats: int = 3
    is_folded: bool = False
    """Each repeat holds out another fold of the patients; else only the seed differs."""
    epochs: tuple[int, ...] = ()
    """Per round of `fl`; the plan's where empty."""
    rates: tuple[float, ...] = ()
    """Tried for every contender; the plan's where empty."""
    wish: Wish
    machine: Machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """A simulation that has come to its end."""

    folder: Path
    settings: Settings
    results: tuple[RunResult, ...]
    n_held: int
    """Cases that were left out because nobody has looked at them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A simulation before its first run."""

    request: Request
    prepared: Prepared
    settings: Settings
    partitions: tuple[Partition, ...]
    """Of each repeat, by real names."""
    sites: tuple[Mapping[str, Mapping[str, Subset]], ...]
    """Of each repeat: subset by patient id, by site."""

    def first_runs(self) -> tuple[Run, ...]:
        """All contenders at the shared rate in every repeat, and every rate in the first one.

        Those that nobody can help with come first: a relay waits for one site at a time.
        """
        wanted = {TRAINED_AS[contender] for contender in self.request.contenders}
        return tuple(
            Run(training, repeat, epochs, rate)
            for repeat in range(self.settings.n_repeats)
            for training in _LONGEST_FIRST
            if training in wanted
            for epochs in (self.settings.epochs if training is Training.FL else (1,))
            for rate in (self.settings.rates if repeat == 0 else self.settings.rates[:1])
        )

    def further_runs(self, results: Sequence[RunResult]) -> tuple[Run, ...]:
        """Each contender at the rate that validation chose in the first repeat, in the others."""
        done = {Run(r.training, r.repeat, r.epochs, r.rate) for r in results}
        best = {
            (contender, epochs): max(
                (dice, -self.settings.rates.index(result.rate), result.rate)
                for result in results
                if (result.repeat, result.epochs) == (0, epochs)
                if (dice := _validation_dice(result, contender)) is not None
            )[-1]
            for contender in self.request.contenders
            for epochs in (self.settings.epochs if contender is Contender.FL else (1,))
        }
        wanted = {
            Run(TRAINED_AS[contender], repeat, epochs, rate)
            for (contender, epochs), rate in best.items()
            for repeat in range(1, self.settings.n_repeats)
        }
        return tuple(sorted(wanted - done))


_LONGEST_FIRST = (Training.CIIL, Training.IIL, Training.POOLED, Training.FL, Training.ONCE)


def set_up(out: Path, request: Request, *, progress: Progress = silent) -> Setting:
    """Prepare the scans and divide the patients.

    Args:
        out: The results folder: new, empty, or of the same simulation.
        request: What is to be simulated.
        progress: Told of each case.

    Raises:
        PlanError: The plan can't be simulated.
        UsageError: The partition can't be made, or an option doesn't fit the plan.
        ScanError: Cases were refused, or the CSV and the scans don't fit.
        ConflictError: The folder holds a simulation of another plan.
        ResourceError: Disk or memory ran out.
    """
    plan, rates = request.plan, request.rates or (request.plan.training.rate,)
    check_own(plan, "simulate")
    simulation.check_plan(out, plans.render(plan))
    passes_of(plan)
    epochs = request.epochs or (plan.training.epochs_per_round,)
    for number in epochs:
        plan_of(Run(Training.FL, 0, number, rates[0]), plan, 1)
    is_by_folder = request.partition == Kind.FOLDER
    prepared = prepare(
        out / "cases",
        request.scans,
        plan,
        request.wish,
        is_by_folder=is_by_folder,
        progress=progress,
    )
    partitions = tuple(partitions_of(request, prepared.members))
    for partition in partitions:
        _check(partition, request)
    sites = tuple(_by_site(partition, prepared) for partition in partitions)
    settings = Settings(
        plan=plans.render(plan),
        dataset=prepared.digest,
        partition=hashlib.sha256(
            b"".join(partition_file.dumps(partition) for partition in partitions)
        ).hexdigest(),
        partition_name=request.partition,
        contenders=request.contenders,
        n_repeats=request.n_repeats,
        is_folded=request.is_folded,
        epochs=epochs,
        rates=rates,
        device=request.machine.device or "",
        precision=request.machine.precision or "",
        sites=tuple(
            tuple(counts_of(prepared, name, subsets) for name, subsets in sorted(places.items()))
            for places in sites
        ),
    )
    return Setting(
        request=request,
        prepared=prepared,
        settings=settings,
        partitions=partitions,
        sites=sites,
    )


def _check(partition: Partition, request: Request) -> None:
    """Refuse before any run what would end one."""
    validating = {p.site for p in partition.values() if p.subset is Subset.VALIDATION}
    sites = {place.site for place in partition.values()}
    if LEAD in sites:
        raise ScanError(
            "A site of a simulation can't have this name, which is its coordinator's",
            found=LEAD,
            where=request.partition,
            hint="rename the folder, or the site in the table",
        )
    if not validating:
        raise ScanError(
            "Nobody is left for validation, which chooses the round",
            where=request.partition,
            hint="give the plan a split.validation, or name `val` patients in the table",
        )
    if Contender.IIL in request.contenders and validating != sites:
        raise ScanError(
            "In iil every site needs a validation patient, who says when it stops",
            found=f"none at {', '.join(sorted(sites - validating))}",
            where=request.partition,
            hint="leave iil out of --methods, or choose fewer sites",
        )


def write_partition(path: Path, cases: Path, request: Request, *, progress: Progress) -> Partition:
    """Write the partition of a request as a table, for a person to look at or to change.

    Args:
        path: Where; not over another file.
        cases: Where the prepared cases are kept.
        request: Its first repeat is written.
        progress: Told of each case.

    Raises:
        ConflictError: There is a file already; and what `set_up` raises.
    """
    atomic.refuse_existing(path)
    by_folder = request.partition == Kind.FOLDER
    wish = request.wish
    found = prepare(
        cases, request.scans, request.plan, wish, is_by_folder=by_folder, progress=progress
    )
    partition = partitions_of(request, found.members)[0]
    partition_file.write(path, partition)
    return partition


def partitions_of(request: Request, members: Sequence[Member]) -> list[Partition]:
    """Of each repeat which patient is at which site, in which subset."""
    split, seed = request.plan.split, request.plan.seed
    if request.partition.lower().endswith(".csv"):
        rows = partition_file.read(Path(request.partition))
        whole = partition_file.held_against(rows, members, split=split, seed=seed)
    else:
        kind, n_sites = parse(request.partition)
        whole = draw(kind, members, n_sites=n_sites, split=split, seed=seed)
    if not request.is_folded:
        return [whole] * request.n_repeats
    homes = {patient: assigned.site for patient, assigned in whole.items()}
    return [
        fold(homes, members, n_folds=request.n_repeats, number=number, split=split, seed=seed)
        for number in range(request.n_repeats)
    ]


def _by_site(partition: Partition, prepared: Prepared) -> dict[str, dict[str, Subset]]:
    sites: dict[str, dict[str, Subset]] = {}
    for patient, assigned in sorted(partition.items()):
        sites.setdefault(assigned.site, {})[prepared.ids[patient]] = assigned.subset
    return sites


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


def _validation_dice(result: RunResult, contender: Contender) -> float | None:
    """Mean over patients and regions of the chosen weights, of `local` over all sites' weights."""
    means = [
        statistics.fmean(score.dice for score in outcome.points[outcome.chosen].validation)
        for outcome in result.outcomes
        if outcome.contender is contender
    ]
    return statistics.fmean(means) if means else None
