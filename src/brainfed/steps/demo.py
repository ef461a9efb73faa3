"""The demo: a whole federation on generated scans, through the same steps and signed files.

Four sites with scanners of their own, a coordinator and a stick between them; beside it, what
pooled training and each site alone reach with the same passes over the data. It can be stopped and
run again: the workspaces are the state.
"""

import multiprocessing
import os
import statistics
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from itertools import repeat
from pathlib import Path

from brainfed import plan as plans
from brainfed.core.device import choose_device
from brainfed.core.device import threads as cpu_threads
from brainfed.core.labels import LabelProtocol
from brainfed.core.metrics import Measure
from brainfed.core.progress import Progress, silent
from brainfed.core.scoring import CaseScore, patient_scores
from brainfed.core.sshsig import NAMESPACE
from brainfed.core.unet import initial_weights
from brainfed.errors import PlanError, UsageError
from brainfed.formats import atomic, dataset, federation, rounds, workspace
from brainfed.formats.dataset import Case
from brainfed.formats.roster import Role
from brainfed.formats.workspace import Workspace
from brainfed.steps import local_layers
from brainfed.steps.accept import JoinRequest
from brainfed.steps.admit import Candidate, admit
from brainfed.steps.aggregate import aggregate
from brainfed.steps.audit import audit
from brainfed.steps.exchange import export
from brainfed.steps.initialise import initialise
from brainfed.steps.one_round import train_from
from brainfed.steps.phantoms import CONSORTIUM, PhantomSite, write_consortium
from brainfed.steps.preprocess import Wish, preprocess
from brainfed.steps.receive import receive
from brainfed.steps.score_cases import entries_of, read_cases, scores_of
from brainfed.steps.split import split
from brainfed.steps.start import start_federation
from brainfed.steps.train import train_round

COORDINATOR = "uni-lead"
PLAN = "demo.toml"
POOLED = "pooled"
ROUNDS, COMPARE = "rounds", "comparison"
TOLD = (ROUNDS, COMPARE)
"""Stages whose every unit is worth a line; the others are progress alone."""


@dataclass(frozen=True)
class RoundDice:
    """Dice of a round's global weights on the validation patients."""

    round: int
    mean: float
    """Over all validation patients of all sites."""
    by_site: dict[str, float]


@dataclass(frozen=True)
class DemoResult:
    """What the demo shows."""

    folder: Path
    region: str
    n_patients: dict[str, int]
    rounds: tuple[RoundDice, ...]
    pooled: float
    """Mean Dice of training on all scans in one place, on all sites' validation patients."""
    alone: dict[str, float]
    """Mean Dice of each site's own training, on all sites' validation patients."""
    audit: str
    """The verdict of an audit of the coordinator's folder."""
    check: str
    """A line that checks the last global weights' signature with ssh-keygen."""


def shipped_plan(name: str) -> Path:
    """A plan that comes with brainfed.

    Raises:
        PlanError: There is none of that name.
    """
    package = Path(str(files("brainfed")))
    # Installed, the plans lie in the package; in a checkout, beside `src`.
    for folder in (package / "plans", package.parents[1] / "plans"):
        if (folder / name).is_file():
            return folder / name
    raise PlanError(
        "No plan of this name comes with brainfed",
        found=name,
        where=package,
        hint="install brainfed again: its plans belong to it",
    )


def write_scans(
    out: Path, sites: Sequence[PhantomSite], *, progress: Progress = silent
) -> dict[str, Path]:
    """Write the scans of the sites; gives each site's folder.

    Raises:
        UsageError: The folder holds something else.
        ResourceError: The disk refuses.
    """
    if out.exists() and any(out.iterdir()) and not (out / "scans").is_dir():
        raise UsageError(
            "The folder for the demo holds something else",
            expected="an empty or new folder, or an earlier demo",
            where=out,
            hint="give another one with --out",
        )
    atomic.make_folder(out / "scans")
    return write_consortium(out / "scans", sites=sites, progress=progress)


def demo(
    out: Path,
    *,
    plan_path: Path | None = None,
    sites: Sequence[PhantomSite] = CONSORTIUM,
    jobs: int | None = None,
    progress: Progress = silent,
) -> DemoResult:
    """Run the whole story of a federation in a folder.

    Args:
        out: An empty or new folder, or that of an earlier demo, which goes on.
        plan_path: The plan; the shipped `demo.toml` where None.
        sites: The hospitals to make up.
        jobs: Processes of one thread each; one per core where None.
        progress: Told of each stage, and of each round with its Dice as the note.

    Raises:
        UsageError: The folder holds something else.
        ResourceError: The disk or the memory.
    """
    scans = write_scans(out, sites, progress=progress)
    parties = _set_up(out, scans, plan_path or shipped_plan(PLAN), progress)
    coordinator, places = parties[COORDINATOR], [parties[name] for name in scans]
    plan = federation.load(coordinator).first_plan
    context = multiprocessing.get_context("spawn")
    n_jobs = jobs or os.cpu_count() or 1
    with ProcessPoolExecutor(max_workers=n_jobs, mp_context=context) as pool:
        history = _federate(out, coordinator, places, plan, pool, progress)
        roots = tuple(site.root for site in places)
        groups = [roots, *((root,) for root in roots)]
        names = [POOLED, *(site.name for site in places)]
        beside = {}
        compared = pool.map(_train_in_one_place, names, groups, repeat(roots))
        for number, (name, dice) in enumerate(zip(names, compared, strict=True), start=1):
            beside[name] = dice
            progress(COMPARE, number, len(names), f"{name}: Dice {dice:.3f}")
    return DemoResult(
        folder=out,
        region=plan.scans.regions[0].value,
        n_patients={
            site.name: len({entry.patient for entry in dataset.read_index(site.data)})
            for site in places
        },
        rounds=history,
        pooled=beside.pop(POOLED),
        alone=beside,
        audit=audit([coordinator.root]).sentence,
        check=_check_line(coordinator),
    )


def _set_up(
    out: Path, scans: dict[str, Path], plan_path: Path, progress: Progress
) -> dict[str, Workspace]:
    """Workspaces, roster, start, cases and splits; whatever is there already stays."""
    for name in (COORDINATOR, *scans):
        if not (out / name / workspace.MARKER).exists():
            initialise(out / name, Role.COORDINATOR if name == COORDINATOR else Role.SITE, name)
    parties = {name: workspace.find(out / name) for name in (COORDINATOR, *scans)}
    fingerprints = {name: place.public_key().fingerprint for name, place in parties.items()}

    def is_known(candidate: Candidate) -> bool:
        return candidate.fingerprint == fingerprints[candidate.name]

    def is_coordinator(request: JoinRequest) -> bool:
        return request.fingerprint == fingerprints[COORDINATOR]

    coordinator = parties[COORDINATOR]
    if not federation.has_started(coordinator):
        enrolments = [parties[name].outbox / f"{name}.enrolment.json" for name in scans]
        admit(coordinator, enrolments, confirm=is_known)
    start_federation(
        coordinator,
        plan_path,
        initial_weights=initial_weights,
        today=datetime.now(UTC).date(),
        purpose="simulation",
    )
    stick = _carry(out, coordinator)
    for number, (name, folder) in enumerate(scans.items(), start=1):
        receive(parties[name], [stick], confirm=is_coordinator)
        preprocess(parties[name], folder, Wish(protocol=LabelProtocol.BRATS2017))
        split(parties[name])
        progress("preprocess and split", number, len(scans), name)
    return parties


def _federate(
    out: Path,
    coordinator: Workspace,
    sites: Sequence[Workspace],
    plan: plans.Plan,
    pool: ProcessPoolExecutor,
    progress: Progress,
) -> tuple[RoundDice, ...]:
    """All rounds of the plan, each over the stick and back."""
    history = []
    for number in range(1, plan.rounds + 1):
        if rounds.newest_round(coordinator) == number - 1:
            list(pool.map(_train_site, [site.root for site in sites]))
            for site in sites:
                receive(coordinator, [_carry(out, site)], confirm=_nobody)
            aggregate(coordinator, today=datetime.now(UTC).date())
            stick = _carry(out, coordinator)
            for site in sites:
                receive(site, [stick], confirm=_nobody)
        scores = list(pool.map(_score, [site.root for site in sites], repeat(number)))
        by_site = {
            site.name: statistics.fmean(own) for site, own in zip(sites, scores, strict=True)
        }
        everyone = [dice for own in scores for dice in own]
        history.append(RoundDice(number, statistics.fmean(everyone), by_site))
        progress(ROUNDS, number, plan.rounds, f"Dice {history[-1].mean:.3f}")
    return tuple(history)


def _carry(out: Path, sender: Workspace) -> Path:
    """Put the sender's outbox on an empty stick."""
    stick = out / "stick"
    atomic.make_folder(stick)
    for old in stick.iterdir():
        atomic.remove(old)
    export(sender, stick)
    return stick


def _nobody(request: JoinRequest) -> bool:
    """No site joins in the middle of the demo."""
    raise AssertionError(request)


def _train_site(root: Path) -> None:
    train_round(workspace.find(root), device="cpu", threads=1)


def _score(root: Path, number: int) -> list[float]:
    """Dice of each validation patient of a site under the global weights of a round."""
    site = workspace.find(root)
    known, path = federation.load(site), rounds.global_path(site, number)
    assert path is not None
    scored = rounds.verify_weights(path, known)
    held_out = _cases([root], known.first_plan, dataset.Subset.VALIDATION)
    with cpu_threads(1):
        rows = scores_of(
            local_layers.whole(site, known, scored),
            known.first_plan,
            held_out,
            device=choose_device("cpu"),
        )
    return _dice(rows, known.first_plan)


def _train_in_one_place(name: str, sources: Sequence[Path], everyone: Sequence[Path]) -> float:
    """Train on the scans of these sites by the same plan; mean Dice on everyone's validation."""
    plan = federation.load(workspace.find(everyone[0])).first_plan
    weights = initial_weights(plan)
    training = _cases(sources, plan, dataset.Subset.TRAIN)
    for number in range(1, plan.rounds + 1):
        weights = dict(
            train_from(
                weights,
                plan,
                training=training,
                round_number=number,
                site=name,
                device="cpu",
                threads=1,
            ).weights
        )
    held_out = _cases(everyone, plan, dataset.Subset.VALIDATION)
    rows = scores_of(weights, plan, held_out, device=choose_device("cpu"))
    return statistics.fmean(_dice(rows, plan))


def _dice(rows: Iterable[CaseScore], plan: plans.Plan) -> list[float]:
    """Each patient's 3-D Dice of the plan's first region."""
    return list(patient_scores(rows, plan.scans.regions[0], Measure.DICE).values())


def _cases(roots: Iterable[Path], plan: plans.Plan, subset: dataset.Subset) -> list[Case]:
    return [
        case
        for data in (workspace.find(root).data for root in roots)
        for case in read_cases(data, entries_of(data, plan, subset), plan)
    ]


def _check_line(coordinator: Workspace) -> str:
    """The ssh-keygen line that checks the newest global weights; run it in the demo's folder."""
    newest = rounds.newest_round(coordinator)
    path = None if newest is None else rounds.global_path(coordinator, newest)
    assert path is not None
    top = coordinator.root.parent
    file, roster = (
        p.relative_to(top) for p in (path, coordinator.federation_folder / federation.ROSTER)
    )
    return (
        f"ssh-keygen -Y verify -n {NAMESPACE} -f {roster} -I {coordinator.name} "
        f"-s {file}.sig < {file}"
    )
