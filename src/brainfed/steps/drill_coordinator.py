"""The coordinator's part of a drill: admit, begin, close the round, and send it back."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from brainfed import plan as plans
from brainfed.core.architecture import TensorTable, tensor_table
from brainfed.errors import ConflictError, NotReadyError
from brainfed.formats import atomic, enrolment, federation, rounds
from brainfed.formats.roster import Role
from brainfed.formats.workspace import Workspace
from brainfed.plan import Aggregation, Method, Plan
from brainfed.steps import audit
from brainfed.steps.admit import admit
from brainfed.steps.aggregate import aggregate
from brainfed.steps.drill_room import Room, send, take
from brainfed.steps.drill_stages import Log, Stage
from brainfed.steps.start import start_federation


def rehearsed(plan: Plan) -> Plan:
    """The plan of a drill: data, network, exchange and terms of the real one; one round, one step.

    Raises:
        PlanError: The real plan leaves no room for that: our own bug.
    """
    settings = plan.training.model_copy(
        update={"epochs_per_round": 0, "steps_per_round": 1, "patience": 0}
    )
    taking_part = plan.participation.model_copy(update={"quorum_sites": 1, "quorum_patients": 0})
    changed = plan.model_copy(
        update={
            "rounds": 1,
            "method": Method.FL,
            "training": settings,
            "aggregation": Aggregation(),
            "participation": taking_part,
        }
    )
    return plans.parse(plans.render(changed).encode(), "the plan of the drill")


def random_tensors(table: TensorTable) -> dict[str, npt.NDArray[np.float32]]:
    """Small random values, float32, for each tensor of a table."""
    random = np.random.default_rng()
    return {
        name: (0.01 * random.standard_normal(shape)).astype(np.float32)
        for name, shape in table.items()
    }


def play(room: Room, log: Log, stick: Path, plan: Plan | None, name: str) -> None:
    """Do what is next at the coordinator, and put it on the medium.

    Args:
        room: The site's drill.
        log: Its stages.
        stick: The site's folder on the medium.
        plan: The real plan; needed until the drill has begun.
        name: What the coordinator is called in the drill.

    Raises:
        BrainfedError: A stage failed.
    """
    with log.stage(Stage.ADMIT) as outcome:
        place = room.workspace(Role.COORDINATOR, name)
        requests = sorted(stick.glob("*.enrolment.json")) if stick.is_dir() else []
        if federation.newest_roster(place) is None and not requests:
            raise NotReadyError(
                "No enrolment of a drill lies on the medium",
                where=stick,
                hint="run `brainfed drill FOLDER` at the site first",
            )
        if requests and not federation.has_started(place):
            taken = admit(place, requests, confirm=lambda candidate: True)
            outcome.words = f"roster of {len(taken.admitted) + len(taken.already) + 1} parties"
    with log.stage(Stage.START) as outcome:
        if not federation.has_started(place):
            assert plan is not None
            text = plans.render(rehearsed(plan)).encode()
            atomic.write_bytes(room.plan_path, text, replace=True)
        begun = start_federation(
            place,
            room.plan_path,
            initial_weights=_initial_weights,
            today=room.today,
            purpose="drill",
        )
        outcome.words = f"{begun.n_parameters:,} weights"

    def has_update() -> bool:
        return bool(rounds.update_paths(place, 1))

    with log.stage(Stage.TAKE) as outcome:
        if take(place, stick, has_update):
            outcome.words = rounds.update_paths(place, 1)[0].name
    if not has_update():
        with log.stage(Stage.SEND_START) as outcome:
            outcome.words = send(stick, place)
        return
    _close(room, log, place)
    with log.stage(Stage.SEND_GLOBAL) as outcome:
        outcome.words = send(stick, place)


def is_outdated(room: Room, stick: Path) -> bool:
    """Whether the site has begun anew, with other throw-away keys than were admitted here.

    Raises:
        FileRefusedError: An enrolment on the medium is damaged.
    """
    if not room.has(Role.COORDINATOR):
        return False
    place = room.workspace(Role.COORDINATOR, room.site)
    roster = federation.newest_roster(place)
    known = set() if roster is None else {entry.key for entry in roster.principals}
    asked = [enrolment.read_verified(path).key for path in stick.glob("*.enrolment.json")]
    return bool(known) and any(key not in known for key in asked)


def _close(room: Room, log: Log, place: Workspace) -> None:
    """Aggregate unless it was done before, and compute it again as an auditor would."""
    with log.stage(Stage.AGGREGATE) as outcome:
        if rounds.newest_round(place) == 0:
            aggregate(place, today=room.today, progress=room.progress)
        outcome.words = "global weights of round 1"
    with log.stage(Stage.AUDIT) as outcome:
        found = audit.audit([place.root], of_drill=True, progress=room.progress)
        if found.verdict is not audit.Verdict.REDERIVED:
            raise ConflictError(
                "The audit of the drill doesn't come out right",
                expected=audit.Verdict.REDERIVED,
                found="; ".join(finding.sentence for finding in found.findings)[:400],
                where=place.root,
                hint="look at the files; then begin anew: `brainfed drill --clear`",
            )
        outcome.words = f"{found.verdict}, {found.n_files} signed files"


def _initial_weights(plan: Plan) -> dict[str, npt.NDArray[np.float32]]:
    """Random weights; of a network of the sites' own without torch."""
    if not plan.network.n_dimensions:
        return random_tensors(tensor_table(plan))
    from brainfed.core.unet import initial_weights

    return initial_weights(plan)
