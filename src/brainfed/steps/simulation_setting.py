"""What a simulation is to do, made ready before its first run.

The scans are prepared once, the patients divided over sites and subsets, and all that would end a
run is refused before any is begun.
"""

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from brainfed import plan as plans
from brainfed.core.architecture import check_own
from brainfed.core.cohort import Subset
from brainfed.core.contenders import TRAINED_AS, Contender, Run, Training, passes_of, plan_of
from brainfed.core.partition import Kind, Member, Partition, draw, fold, parse
from brainfed.core.progress import Progress, silent
from brainfed.errors import ScanError
from brainfed.formats import atomic, partition_file, simulation
from brainfed.formats.partition_file import Rows
from brainfed.formats.simulation import RunResult, Settings
from brainfed.plan import Plan
from brainfed.steps.preprocess import Wish
from brainfed.steps.simulated_party import Machine
from brainfed.steps.simulated_run import LEAD
from brainfed.steps.simulation_arms import validation_dice
from brainfed.steps.simulation_data import Prepared, counts_of, prepare


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
                if (dice := validation_dice(result, contender)) is not None
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
    for number, rate in itertools.product(epochs, rates):
        plan_of(Run(Training.FL, 0, number, rate), plan, 1)
    _asked(request)
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
    setting = Setting(
        request=request,
        prepared=prepared,
        settings=settings,
        partitions=partitions,
        sites=sites,
    )
    for run in setting.first_runs():
        plan_of(run, plan, len(sites[run.repeat]))
    return setting


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
    _asked(request)
    by_folder = request.partition == Kind.FOLDER
    wish = request.wish
    found = prepare(
        cases, request.scans, request.plan, wish, is_by_folder=by_folder, progress=progress
    )
    partition = partitions_of(request, found.members)[0]
    partition_file.write(path, partition)
    return partition


def _asked(request: Request) -> Rows | tuple[Kind, int | None]:
    """The partition as it was asked for, which can be wrong before any scan is read."""
    if request.partition.lower().endswith(".csv"):
        return partition_file.read(Path(request.partition))
    return parse(request.partition)


def partitions_of(request: Request, members: Sequence[Member]) -> list[Partition]:
    """Of each repeat which patient is at which site, in which subset."""
    split, seed, asked = request.plan.split, request.plan.seed, _asked(request)
    if isinstance(asked, Rows):
        whole = partition_file.held_against(asked, members, split=split, seed=seed)
    else:
        kind, n_sites = asked
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
