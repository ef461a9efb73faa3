"""Drill: a rehearsal of a round, from enrolment to the new global weights, with throw-away keys.

Everything lies in `drill/` of the real workspace, and on the medium in a folder of its own. Every
file is made by the real steps and says that it is of a drill; no step in earnest takes it. The
files are the state: each run does whatever is next on its side.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from brainfed import plan as plans
from brainfed.core.progress import Progress, silent
from brainfed.errors import BrainfedError, NotReadyError, UsageError, WrongRoleError
from brainfed.formats import atomic, document, federation
from brainfed.formats.ledger import Event
from brainfed.formats.roster import Role
from brainfed.formats.workspace import Workspace
from brainfed.plan import Plan
from brainfed.steps import drill_coordinator, drill_site
from brainfed.steps.drill_room import Room, drill_name, stick_of
from brainfed.steps.drill_stages import Check, Failed, Log, Stage

COORDINATOR = "the coordinator"
LIMITS = (
    "A drill shows that the parts work together here and on the way. It doesn't show how good the "
    "weights get, how long a whole round takes (brainfed doctor tells), whether the real keys are "
    "right, or who is at the other side."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """How far one site's drill is, on this side."""

    site: str
    """What the site is called in the drill."""
    folder: Path
    """Where its files lie; all may be looked at."""
    is_finished: bool
    """Whether all is done here."""
    carry_to: str | None
    """To whom the medium goes now; None where nothing is to be carried."""
    checks: tuple[Check, ...]
    """What has worked here."""
    failed: Failed | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """One run of the command."""

    rehearsals: tuple[Rehearsal, ...]
    medium: Path | None
    limits: str = LIMITS
    """What a drill doesn't show."""

    @property
    def failed(self) -> Failed | None:
        """The first stage that failed."""
        return next((one.failed for one in self.rehearsals if one.failed is not None), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleared:
    """A drill that was taken away."""

    folder: Path
    was_there: bool


def drill(
    place: Workspace,
    medium: Path | None,
    *,
    plan_path: Path | None = None,
    device: str | None = None,
    today: date,
    progress: Progress = silent,
) -> Drill:
    """Do what is next in a drill.

    Args:
        place: The real workspace of a site, or of the coordinator.
        medium: What is carried between the two; a site without one plays both sides.
        plan_path: A plan, where the workspace has none yet.
        device: As for `train_round`.
        today: The day for the signed files.
        progress: Told of cases and files.

    Raises:
        WrongRoleError: Another role, or the workspace of a drill itself.
        UsageError: The coordinator without a medium, or a site with one and a plan.
        NotReadyError: No plan, or nothing of a drill on the medium.
        PlanError: The plan is wrong.
        ResourceError: The medium isn't there.
    """
    place.require(Role.SITE, Role.COORDINATOR)
    if document.is_of_drill(place.name):
        raise WrongRoleError(
            "This is the workspace of a drill",
            found=place.name,
            where=place.root,
            hint="run `brainfed drill` in the real workspace, or look around here with "
            "`brainfed status`",
        )
    if place.role is Role.COORDINATOR:
        return _at_coordinator(place, medium, plan_path, today, progress)
    name = drill_name(place.name)
    room = Room(place.drill / name, today, device, progress)
    if medium is None:
        return Drill(rehearsals=(_both(place, room, plan_path),), medium=None)
    if plan_path is not None:
        raise UsageError(
            "The plan of a drill over a medium is the coordinator's",
            where="--plan",
            hint="leave --plan away, or leave the folder away to play both sides here",
        )
    stick, log = stick_of(medium, name), room.log()

    def play() -> bool:
        done = log.has(Stage.RETURN) or drill_site.play(room, log, stick, place)
        if done:
            atomic.remove_tree(stick)
        return done

    return Drill(rehearsals=(_rehearse(place, room, log, play, COORDINATOR),), medium=medium)


def clear(place: Workspace) -> Cleared:
    """Take away all drills of a workspace; whatever they link to stays.

    Raises:
        ResourceError: The disk refuses.
    """
    was_there = place.drill.exists()
    atomic.remove_tree(place.drill)
    return Cleared(folder=place.drill, was_there=was_there)


def _both(place: Workspace, room: Room, plan_path: Path | None) -> Rehearsal:
    """A site plays both sides, with a folder of its own for the medium."""
    log, stick = room.log(), room.own_medium
    plan = None if log.has(Stage.START) else _plan_of(place, plan_path)
    name = drill_name(f"lead-{place.name}")

    def play() -> bool:
        if log.has(Stage.RETURN):
            return True
        while not drill_site.play(room, log, stick, place):
            drill_coordinator.play(room, log, stick, plan, name)
        return True

    return _rehearse(place, room, log, play, None)


def _at_coordinator(
    place: Workspace, medium: Path | None, plan_path: Path | None, today: date, progress: Progress
) -> Drill:
    """Serve every site whose drill lies on the medium."""
    if medium is None:
        raise UsageError(
            "The coordinator's part of a drill needs the medium that a site sends",
            expected="its folder",
            hint="a site begins with `brainfed drill FOLDER`; then run the same here",
        )
    plan, name = _plan_of(place, plan_path), drill_name(place.name)
    found = []
    for site in _sites_on(medium):
        stick, room = stick_of(medium, site), Room(place.drill / site, today, None, progress)
        if drill_coordinator.is_outdated(room, stick):
            atomic.remove_tree(room.root)
        log = room.log()

        def play(room: Room = room, log: Log = log, stick: Path = stick) -> bool:
            drill_coordinator.play(room, log, stick, plan, name)
            return log.has(Stage.SEND_GLOBAL)

        found.append(_rehearse(place, room, log, play, site))
    return Drill(rehearsals=tuple(found), medium=medium)


def _sites_on(medium: Path) -> list[str]:
    """The sites whose drills lie on a medium, by the names of their folders."""
    stick_of(medium, "")
    names = sorted(path.name for path in medium.iterdir() if path.is_dir())
    found = []
    for name in names:
        try:
            plans.check_name(name)
        except UsageError:
            continue
        if document.is_of_drill(name):
            found.append(name)
    if not found:
        raise NotReadyError(
            "Nothing of a drill lies on the medium",
            expected=f"a folder whose name begins with {document.DRILL}",
            where=medium,
            hint="run `brainfed drill FOLDER` at a site first, then bring the medium here",
        )
    return found


def _plan_of(place: Workspace, path: Path | None) -> Plan:
    """The plan to rehearse: the given one, or the newest of the workspace's federation."""
    if path is not None:
        return plans.load(path)
    if not federation.has_started(place):
        raise NotReadyError(
            "There is no plan to rehearse yet",
            where=place.root,
            hint="give one: `brainfed drill FOLDER --plan PLAN`"
            if place.role is Role.COORDINATOR
            else "give one: `brainfed drill --plan PLAN`",
        )
    return federation.load(place).plans[-1].plan


def _rehearse(
    place: Workspace, room: Room, log: Log, play: Callable[[], bool], carry_to: str | None
) -> Rehearsal:
    """Play one side; a stage that fails is told, and kept."""
    before, failed, is_finished = log.checks(), None, False
    try:
        is_finished = play()
    except BrainfedError as error:
        if log.failing is None:
            raise
        failed = Failed(log.failing, log.failing.words, error)
    checks = log.checks()
    last = {Stage.RETURN, Stage.SEND_GLOBAL} & {check.stage for check in checks[len(before) :]}
    if is_finished and last:
        place.note(Event.REHEARSED, name=room.site, n_checks=len(checks))
    is_at_site = place.role is Role.SITE
    nobody = failed is not None or (is_finished and is_at_site)
    return Rehearsal(
        site=room.site,
        folder=room.root,
        is_finished=is_finished,
        carry_to=None if nobody else carry_to,
        checks=checks,
        failed=failed,
    )
