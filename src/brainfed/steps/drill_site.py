"""A site's part of a drill: enrol, join, one training step, release, send, and take what returns.

The real data folder is read through links; what a step would write there, it writes into the drill.
"""

from dataclasses import replace
from pathlib import Path

from safetensors.numpy import save

from brainfed.core.labels import LabelProtocol
from brainfed.core.phantom import Scanner
from brainfed.formats import atomic, dataset, document, federation, identities, review, rounds
from brainfed.formats.document import RELEASE
from brainfed.formats.federation import Federation
from brainfed.formats.roster import Role
from brainfed.formats.start import Start
from brainfed.formats.workspace import Workspace
from brainfed.plan import Plan, Preparation, data_digest
from brainfed.steps.approve import approve
from brainfed.steps.drill_coordinator import random_tensors
from brainfed.steps.drill_room import Room, send, take
from brainfed.steps.drill_stages import Log, Stage
from brainfed.steps.own_update import Counts, take_update
from brainfed.steps.phantoms import write_cohort
from brainfed.steps.preprocess import Wish, preprocess_folder
from brainfed.steps.release import release
from brainfed.steps.split import split_cases
from brainfed.steps.train import train_round

MADE_UP = 5
"""Heads that stand for the cases of a site that has none yet."""
_HEAD_MM = 120.0


def play(room: Room, log: Log, stick: Path, real: Workspace) -> bool:
    """Do what is next at the site, and put it on the medium; gives whether all is done.

    Args:
        room: The site's drill.
        log: Its stages.
        stick: Its folder on the medium.
        real: The site's own workspace; read only.

    Raises:
        BrainfedError: A stage failed.
    """
    with log.stage(Stage.ENROL) as outcome:
        place = room.workspace(Role.SITE, room.site, floor=real.floor)
        approver = room.workspace(Role.APPROVER, f"{room.site}{RELEASE}")
        outcome.words = f"{place.name}, {approver.name}"
    with log.stage(Stage.JOIN) as outcome:
        is_begun = federation.has_started(place) or _is_for(place, stick)
        if is_begun and take(place, stick, lambda: rounds.newest_round(place) is not None):
            outcome.words = f"plan {federation.load(place).name}"
    if rounds.newest_round(place) is None:
        with log.stage(Stage.SEND_ENROLMENT) as outcome:
            outcome.words = send(stick, place, approver)
        return False
    if log.has(Stage.SEND_UPDATE):
        with log.stage(Stage.RETURN) as outcome:
            is_back = any(stick.glob("*.record.json"))
            if is_back and take(place, stick, lambda: rounds.newest_round(place) == 1):
                came = rounds.newest_global(place, federation.load(place))
                outcome.words = came.path.name
                return True
    _make(room, log, place, approver, real)
    with log.stage(Stage.SEND_UPDATE) as outcome:
        outcome.words = send(stick, place)
    return False


def _is_for(place: Workspace, stick: Path) -> bool:
    """Whether a start on the medium names this site's key; one of an earlier drill doesn't.

    Raises:
        FileRefusedError: It is damaged.
    """
    own = place.public_key().line
    starts = [document.read(path, Start) for path in stick.glob(f"*{federation.START}")]
    return any(entry.key == own for start in starts for entry in start.roster.principals)


def _make(room: Room, log: Log, place: Workspace, approver: Workspace, real: Workspace) -> None:
    """The update, its release page, and its approval where the plan asks for one."""
    known = federation.load(place)
    plan = known.plan_of(1)
    if rounds.update_path(place, known, 1, place.name) is None:
        with log.stage(Stage.CASES) as outcome:
            outcome.words = _cases(room, place, real, plan)
        with log.stage(Stage.TRAIN) as outcome:
            outcome.words = _train(room, place, known)
    with log.stage(Stage.RELEASE) as outcome:
        page = release(place, device=room.device, today=room.today, progress=room.progress)
        outcome.words = page.page.name
    if plan.exchange.approval:
        with log.stage(Stage.APPROVE) as outcome:
            made = approve(place, approver.key_path, "a drill", today=room.today)
            outcome.words = made.path.name


def _train(room: Room, place: Workspace, known: Federation) -> str:
    """One step on the cases; for a network of the sites' own, random weights in its place."""
    if not known.first_plan.network.n_dimensions:
        with atomic.scratch_folder(place.root / "weights") as folder:
            path = folder / "random.safetensors"
            atomic.write_bytes(path, save(random_tensors(known.table)))
            is_declared = not dataset.index_path(place.data).exists()
            take_update(place, path, Counts(1, 1, 1) if is_declared else None)
        return "random weights stand for what your own program trains"
    done = train_round(place, device=room.device, draws=False, progress=room.progress)
    assert done is not None
    about = done.update.manifest
    return f"{about.n_cases} cases, {about.n_slices} slices, on {done.device or 'this machine'}"


def _cases(room: Room, place: Workspace, real: Workspace, plan: Plan) -> str:
    """Let the drill's data folder show the site's cases and split; made-up ones if it has none.

    Each file is a link, so none is copied, and none can be written to: brainfed writes a new file
    and renames it, which puts it in place of the link.
    """
    atomic.remove_tree(place.data)  # links of an earlier try; what they lead to stays
    if not dataset.index_path(real.data).exists():
        return _made_up(room, place, plan)
    entries = dataset.read_index(real.data)
    atomic.make_folder(place.data / "cases")
    shown = [
        *(dataset.case_path(real.data, entry.id) for entry in entries),
        review.path_of(real.data),
        identities.path_of(real.data),
        dataset.split_path(real.data),
        dataset.index_path(real.data),
    ]
    for path in shown:
        if path.exists():
            atomic.point_to(path, place.data / path.relative_to(real.data))
    dataset.read_split(place.data)
    return f"{len(entries)} cases of this workspace"


def _as_of(plan: Plan, data: Path) -> None:
    """Let made-up cases count under a plan with another preparation."""
    digest, entries = data_digest(plan), []
    for entry in dataset.read_index(data):
        path = dataset.case_path(data, entry.id)
        case = replace(dataset.read_case(path), data_digest=digest)
        entries.append(dataset.entry_of(case, dataset.write_case(path, case)))
    dataset.write_index(data, dataset.Index(data_digest=digest, cases=tuple(entries)))


def _made_up(room: Room, place: Workspace, plan: Plan) -> str:
    """Made-up heads as cases, for a site that has not made its own yet."""
    if not plan.network.n_dimensions:
        return "none here yet"
    n_slices = max(12, *plan.network.patch[:1] or (0,))
    with atomic.scratch_folder(place.root / "scans") as scans:
        write_cohort(
            scans,
            MADE_UP,
            Scanner(),
            seed=plan.seed,
            shape=(n_slices, 64, 64),
            spacing_mm=(_HEAD_MM / n_slices, 3.2, 3.2),
        )
        # They need neither the atlas nor the masks that a plan may ask for: they lie on one grid.
        plain = plan.model_copy(update={"preparation": Preparation()})
        wish = Wish(protocol=LabelProtocol.BRATS2017)
        preprocess_folder(place.data, scans, plain, wish, progress=room.progress)
    _as_of(plan, place.data)
    split_cases(place.data, plan)
    return f"no cases here yet: {MADE_UP} made-up heads stand for them"
