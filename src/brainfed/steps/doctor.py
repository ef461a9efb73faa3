"""Doctor: is this machine fit for the work, and for this plan? Looks, tries, and leaves nothing."""

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from brainfed.core.device import choose_device
from brainfed.core.progress import Progress, silent
from brainfed.errors import BrainfedError, ResourceError
from brainfed.formats import atomic, federation
from brainfed.formats.federation import Federation
from brainfed.formats.workspace import Workspace
from brainfed.plan import Plan
from brainfed.steps import doctor_machine as machine
from brainfed.steps import doctor_software as software
from brainfed.steps import doctor_training as training
from brainfed.steps.doctor_check import Checked, Health, attempt


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What the doctor found."""

    folder: Path
    """Whose disk and file system were looked at."""
    plan: str | None
    """Name of the plan that the machine was held against."""
    checks: tuple[Checked, ...]

    @property
    def n_bad(self) -> int:
        """Lines of which something will fail."""
        return sum(check.health is Health.BAD for check in self.checks)


def doctor(
    place: Workspace | None,
    folder: Path,
    *,
    plan: Plan | None = None,
    device: str | None = None,
    now: datetime,
    progress: Progress = silent,
) -> Diagnosis:
    """Look at all that brainfed rests on.

    Args:
        place: The workspace, where there is one; read only.
        folder: Whose disk is looked at, the root of the workspace or any other.
        plan: The plan to hold the machine against; that of the workspace's federation where None.
        device: As for `train_round`.
        now: By the machine's clock, UTC.
        progress: Told of each check.

    Raises:
        ResourceError: The machine has no such device.
    """
    chosen = choose_device(device)
    known, wrong = _known(place)
    if plan is None and known is not None:
        plan = known.plans[-1].plan
    found: list[Checked] = [] if wrong is None else [wrong]
    with _scratch(folder) as (scratch, refused):
        found += [] if refused is None else [refused]
        on_disk = [
            ("file system", lambda: machine.file_system(scratch)),
            ("write speed", lambda: machine.write_speed(scratch)),
        ]
        tries = [
            ("Python", software.python),
            ("brainfed", lambda: software.brainfed(plan)),
            ("libraries", software.libraries),
            ("optional packages", lambda: software.extras(plan)),
            ("GPU", machine.gpu),
            ("memory", lambda: machine.memory(plan, chosen)),
            ("disk", lambda: machine.disk(folder, place, known, plan)),
            *(on_disk if refused is None else ()),
            ("clock", lambda: machine.clock(place, known, now)),
            ("ssh-keygen", software.ssh_keygen),
            ("a signature", lambda: software.sign(scratch)),
            ("a training step", lambda: training.tiny_step(chosen)),
        ]
        if plan is not None:
            tries.append(("an epoch", lambda: training.epoch(plan, place, chosen)))
        for number, (what, check) in enumerate(tries, start=1):
            found.append(attempt(what, check))
            progress("checks", number, len(tries), what)
    return Diagnosis(folder, None if plan is None else plan.name, tuple(found))


def _known(place: Workspace | None) -> tuple[Federation | None, Checked | None]:
    """The federation of the workspace; what is wrong with its files is a line of its own."""
    if place is None or not federation.has_started(place):
        return None, None
    try:
        return federation.load(place), None
    except BrainfedError as error:
        todo = error.hint or error.usual_hint or ""
        return None, Checked("federation", Health.BAD, error.message, todo)


@contextlib.contextmanager
def _scratch(folder: Path) -> Iterator[tuple[Path, Checked | None]]:
    """A folder to try things in, gone afterwards; where none can be made, elsewhere with a line."""
    with contextlib.ExitStack() as stack:
        try:
            scratch = stack.enter_context(atomic.scratch_folder(folder / "doctor"))
            refused = None
        except ResourceError as error:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            todo = error.hint or error.usual_hint or ""
            refused = Checked("file system", Health.BAD, f"{error.message}: {error.found}", todo)
        yield scratch, refused
