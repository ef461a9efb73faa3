"""`brainfed simulate`: the methods of the paper beside each other, on one folder of scans."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from brainfed.cli.console import progress, say, show
from brainfed.cli.help_map import ByRole
from brainfed.cli.options import Device, Json, LabelChoice, Labels, Precision, SpacingNominal
from brainfed.cli.plan import PlanFile
from brainfed.cli.simulation_options import (
    METHODS,
    Data,
    DryRun,
    Epochs,
    Folds,
    Jobs,
    Methods,
    Out,
    Partition,
    Rates,
    Scheduler,
    Seeds,
    SkipIncomplete,
)
from brainfed.cli.simulation_words import (
    PartitionFacts,
    SimulationFacts,
    outlook_words,
    partition_words,
    simulation_words,
    summary,
)
from brainfed.errors import UsageError

if TYPE_CHECKING:
    from brainfed.steps.simulate import Simulated
    from brainfed.steps.simulation_setting import Request

Value = TypeVar("Value")


class PlanFirst(ByRole):
    """A group in which a plan may stand where a command does: `simulate PLAN` is `simulate run`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command in front of what begins with none."""
        if args and args[0] not in {*self.commands, "--help"}:
            args = ["run", *args]
        return list(super().parse_args(ctx, args))


def simulate(
    plan: PlanFile,
    data: Data,
    partition: Partition = "folder",
    methods: Methods = METHODS,
    epochs: Epochs = None,
    seeds: Seeds = None,
    folds: Folds = None,
    rates: Rates = None,
    labels: Labels = None,
    spacing_nominal: SpacingNominal = False,
    skip_incomplete: SkipIncomplete = False,
    jobs: Jobs = None,
    scheduler: Scheduler = None,
    device: Device = None,
    precision: Precision = None,
    dry_run: DryRun = False,
    out: Out = Path("simulation"),
    as_json: Json = False,
) -> None:
    """Compare ways to learn from several sites, on one machine that has all scans.

    Each run is a federation of throw-away parties by the real steps: signed files, averaging,
    audit. Every method has the same initial weights and as many passes over the patients. Run
    again, it goes on. Results: report.html, scores.csv and claims.json in the folder.
    """
    from brainfed.steps.simulation_setting import set_up

    on_gpu = device is not None and device != "cpu"
    n_jobs = jobs or (1 if on_gpu else os.cpu_count() or 1)
    request = _request(
        plan,
        data,
        partition=partition,
        methods=methods,
        epochs=epochs,
        repeats=_repeats(seeds, folds),
        rates=rates,
        labels=labels,
        spacing_nominal=spacing_nominal,
        skip_incomplete=skip_incomplete,
        jobs=n_jobs,
        device=device,
        precision=precision,
    )
    with progress() as bar:
        setting = set_up(out, request, progress=bar)
        if dry_run:
            from brainfed.steps.outlook import outlook

            show(outlook(setting, jobs=n_jobs), outlook_words, as_json=as_json)
            return
        done = _simulated(out, setting, jobs=n_jobs, scheduler=scheduler, bar=bar)
    from brainfed.steps.simulation_report import write_report

    written = write_report(out)
    facts = SimulationFacts(
        folder=out,
        page=written.page,
        csv=written.csv,
        n_runs=len(done.results),
        n_held=done.n_held,
        methods=summary(done),
    )
    show(facts, simulation_words, as_json=as_json)


def partition(
    plan: PlanFile,
    data: Data,
    kind: Partition = "folder",
    labels: Labels = None,
    spacing_nominal: SpacingNominal = False,
    skip_incomplete: SkipIncomplete = False,
    out: Out = Path("simulation"),
    as_json: Json = False,
) -> None:
    """Only divide the patients over sites and subsets, and write that as a table.

    It lies in the folder, `partition.csv`; brainfed simulate PLAN --partition takes it as it is, or
    as you changed it. The scans are prepared on the way, since tumour sizes decide.
    """
    from collections import Counter

    from brainfed.steps.simulation_setting import write_partition

    request = _request(
        plan,
        data,
        partition=kind,
        methods=METHODS,
        epochs=None,
        repeats=(1, False),
        rates=None,
        labels=labels,
        spacing_nominal=spacing_nominal,
        skip_incomplete=skip_incomplete,
        jobs=os.cpu_count() or 1,
        device="cpu",
        precision=None,
    )
    path = out / "partition.csv"
    with progress() as bar:
        found = write_partition(path, out / "cases", request, progress=bar)
    counts = Counter((place.site, place.subset.value) for place in found.values())
    sites = {
        site: {subset: counts[site, subset] for subset in ("train", "validation", "test")}
        for site in sorted({place.site for place in found.values()})
    }
    show(PartitionFacts(path, sites), partition_words, as_json=as_json)


def _repeats(seeds: int | None, folds: int | None) -> tuple[int, bool]:
    if seeds is not None and folds is not None:
        raise UsageError(
            "Either seeds or folds",
            found=f"--seeds {seeds} and --folds {folds}",
            hint="each fold has a seed of its own: leave --seeds out",
        )
    return (folds, True) if folds is not None else (seeds or 3, False)


def _request(
    plan: Path,
    data: Path,
    *,
    partition: str,
    methods: str,
    epochs: str | None,
    repeats: tuple[int, bool],
    rates: str | None,
    labels: LabelChoice | None,
    spacing_nominal: bool,
    skip_incomplete: bool,
    jobs: int,
    device: str | None,
    precision: str | None,
) -> "Request":
    from brainfed import plan as plans
    from brainfed.cli.check import wish_of
    from brainfed.core.contenders import Contender
    from brainfed.steps.simulated_party import Machine
    from brainfed.steps.simulation_setting import Request

    return Request(
        plan=plans.load(plan),
        scans=data,
        partition=partition,
        contenders=_listed(methods, Contender, "--methods", f"some of {METHODS}"),
        n_repeats=repeats[0],
        is_folded=repeats[1],
        epochs=_listed(epochs, int, "--epochs", "whole numbers above 0, such as 1,2,4"),
        rates=_listed(rates, float, "--rates", "numbers above 0, such as 0.001,0.003"),
        wish=wish_of(
            labels,
            spacing_nominal=spacing_nominal,
            sequences=None,
            jobs=jobs,
            skip_incomplete=skip_incomplete,
        ),
        machine=Machine(device, precision),
    )


def _listed(text: str | None, kind: "type[Value]", option: str, expected: str) -> tuple[Value, ...]:
    """The values of a list with commas, each once."""
    if text is None:
        return ()
    try:
        values = tuple(dict.fromkeys(kind(part.strip()) for part in text.split(",")))  # type: ignore[call-arg]
        if not all(isinstance(value, str) or value > 0 for value in values):  # type: ignore[operator]
            raise ValueError(text)
    except ValueError:
        raise UsageError(
            "This list can't be understood",
            expected=expected,
            found=text,
            where=option,
            hint="commas between them, no spaces",
        ) from None
    return values


def _simulated(
    out: Path, setting: Any, *, jobs: int, scheduler: str | None, bar: Any
) -> "Simulated":
    from datetime import UTC, datetime

    from brainfed.steps import simulate as step
    from brainfed.steps.processes import workers

    today = datetime.now(UTC).date()

    def tell(what: str, done: int, total: int, note: str = "") -> None:
        if what == step.SIMULATING and note.endswith("has ended"):
            bar.hide()
            say(f"{100 * done // total} %: {note}")
        bar(what, done, total, note)

    if scheduler is not None:
        from brainfed.steps.cluster import connected

        out = out.absolute()  # a worker's current folder is another one
        with connected(scheduler, folder=out, uses_gpu=setting.request.machine.on_gpu) as cluster:
            n = max(cluster.n_workers, 1)
            return step.simulate(
                out, setting, cluster.submit, today=today, at_once=2 * n, progress=tell
            )
    with workers(jobs) as executor:
        return step.simulate(
            out, setting, step.to(executor), today=today, at_once=2 * jobs, progress=tell
        )
