"""Keep a round of training, so that no kill costs more than some minutes."""

import signal
import threading
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from brainfed import plan as plans
from brainfed.core import canonical
from brainfed.core.device import Precision
from brainfed.core.optimiser import Moments, fits
from brainfed.core.progress import Progress
from brainfed.core.scoring import CaseScore
from brainfed.core.training import State, Step, Weights, Wish
from brainfed.errors import ScanError, WorkspaceError
from brainfed.formats import atomic, checkpoint, dataset
from brainfed.formats.checkpoint import Best, Checkpoint
from brainfed.formats.dataset import Subset
from brainfed.formats.workspace import Workspace
from brainfed.plan import Method, OptimiserState, Plan
from brainfed.steps.score_cases import entries_of

EVERY_SECONDS = 180.0
"""Between two checkpoints."""
ONE_WISH_SECONDS = 1.0
"""Signals so near to the first are the same wish: torchrun passes a Ctrl-C on that all have had."""


class RoundKeeper:
    """Writes a checkpoint every few minutes, and when the round is to be stopped.

    Inside `with`, Ctrl-C and SIGTERM wait for the end of the step, have a checkpoint written, and
    then stop the round; a second one stops at once.
    """

    def __init__(
        self,
        path: Path,
        belongs: str,
        *,
        writes: bool = True,
        every_seconds: float = EVERY_SECONDS,
        beside: Callable[["RoundKeeper", State], object] | None = None,
    ) -> None:
        """Take up what lies at this place, if it belongs to this round.

        Args:
            path: Of the checkpoint.
            belongs: Digest of all that the round's weights follow from.
            writes: Whether this process writes; others only read.
            every_seconds: Between two checkpoints.
            beside: Called with each checkpoint, to write what lies beside it.
        """
        self._path, self._belongs, self._writes = path, belongs, writes
        self._every_seconds, self._beside = every_seconds, beside
        self._last = time.monotonic()
        self._stop_since: float | None = None
        self._before: dict[int, Any] = {}
        self.state: State | None = None
        """Where to go on; None at the beginning."""
        self.incoming: tuple[CaseScore, ...] | None = None
        """Scores of the weights that came; None until they are known."""
        self.best: Best | None = None
        """The best epoch so far, where the site stops by its own Dice (`steps.own_best`)."""
        self.word = ""
        """What became of what lay there, in words; empty where nothing did."""
        self._take_up(checkpoint.read(path))

    def _take_up(self, found: Checkpoint | None) -> None:
        if found is not None and found.belongs == self._belongs:
            steps = tuple(
                Step(int(number), int(n_steps), loss, rate, dice, int(n_samples))
                for number, n_steps, loss, rate, dice, n_samples in found.log
            )
            weights, moments = dict(found.weights), dict(found.moments)
            self.state = State(weights, moments, dict(found.scaler), steps)
            self.incoming, self.best = found.incoming, found.best
            self.word = f"continued after step {len(steps)}"
        elif found is not None:
            self.word = "begun anew: its checkpoint is of other weights, cases, plan or precision"
        elif self._path.exists():
            self.word = "begun anew: its checkpoint is damaged"

    def __enter__(self) -> Self:
        """Wait for Ctrl-C politely."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._asked_to_stop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        """Listen as before."""
        self._listen_as_before()
        if kind is None and self._stop_since is not None:
            raise KeyboardInterrupt  # it came after the last step, which is kept

    def _asked_to_stop(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._stop_since is None:
            self._stop_since = now
        elif now - self._stop_since > ONE_WISH_SECONDS:
            self._listen_as_before()
            raise KeyboardInterrupt

    def _listen_as_before(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler)

    def asked(self, step: Step) -> Wish:
        """What is to be done after this step."""
        if self._stop_since is not None:
            return Wish.STOP
        is_time = time.monotonic() - self._last >= self._every_seconds
        return Wish.KEEP if is_time or step.number == step.n_steps else Wish.GO_ON

    def keep(self, state: State) -> None:
        """Write a checkpoint.

        Raises:
            ResourceError: The disk refuses; the checkpoint before is whole.
        """
        self._last = time.monotonic()
        if not self._writes:
            return
        log = [
            (step.number, step.n_steps, step.loss, step.rate, step.dice, step.n_samples)
            for step in state.steps
        ]
        atomic.make_folder(self._path.parent)
        checkpoint.write(
            self._path,
            Checkpoint(
                belongs=self._belongs,
                weights=state.weights,
                moments=state.moments,
                scaler=state.scaler,
                log=log,
                incoming=self.incoming or (),
                best=self.best,
            ),
        )
        if self._beside is not None:
            self._beside(self, state)


def digest_of_round(place: Workspace, plan: Plan, origin: str, precision: Precision) -> str:
    """Digest of all that the weights of this site's round follow from.

    It is empty where index or split are not there or damaged, and then equals none.

    Args:
        place: The site's workspace.
        plan: The plan of the round.
        origin: Digest of the weights that the round begins with, this site's own layers among them.
        precision: What is computed in.
    """
    try:
        cases = [
            [entry.id, entry.digest]
            for subset in (Subset.TRAIN, Subset.VALIDATION)
            for entry in entries_of(place.data, plan, subset)
        ]
        split = dataset.split_digest(place.data)
    except (ScanError, WorkspaceError):
        return ""
    content = [origin, plans.plan_digest(plan), place.name, str(precision), split, cases]
    return sha256(canonical.dumps(content)).hexdigest()


def kept_moments(place: Workspace) -> list[Path]:
    """The optimiser's states that lie here, by round."""
    return sorted(place.rounds.glob(f"r*/{checkpoint.OPTIMISER}"))


def moments_before(
    place: Workspace, plan: Plan, number: int, weights: Weights, progress: Progress
) -> Moments | None:
    """The optimiser's moments after this site's round before, if the plan keeps them.

    In a relay that is its last turn. Where they are not there, or don't fit these weights,
    `progress` is told.
    """
    if plan.training.optimiser_state is OptimiserState.RESET or number == 1:
        return None
    before = place.round_folder(number - 1) / checkpoint.OPTIMISER
    if plan.method is Method.CIIL:
        kept = (path for path in kept_moments(place) if path.parent < place.round_folder(number))
        before = max(kept, default=before)
    found = checkpoint.read_moments(before)
    if found is not None and fits(found, weights, plan.training):
        return found
    progress("optimiser", 1, 1, "starts anew: this site has no state of the round before")
    return None
