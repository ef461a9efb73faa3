"""The stages of a drill, and what is kept of each: a line in the ledger of the drill."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from brainfed.errors import BrainfedError
from brainfed.formats import atomic, ledger
from brainfed.formats.ledger import Event


class Stage(StrEnum):
    """What can work or fail by itself, in the order of the way."""

    ENROL = "enrol"
    SEND_ENROLMENT = "send-enrolment"
    ADMIT = "admit"
    START = "start"
    SEND_START = "send-start"
    JOIN = "join"
    CASES = "cases"
    TRAIN = "train"
    RELEASE = "release"
    APPROVE = "approve"
    SEND_UPDATE = "send-update"
    TAKE = "take"
    AGGREGATE = "aggregate"
    AUDIT = "audit"
    SEND_GLOBAL = "send-global"
    RETURN = "return"

    @property
    def words(self) -> str:
        """What is done, for people."""
        return _WORDS[self]


_WORDS = {
    Stage.ENROL: "site: make throw-away keys and enrolments",
    Stage.SEND_ENROLMENT: "site: copy the enrolments, read them back",
    Stage.ADMIT: "coordinator: check and admit the site",
    Stage.START: "coordinator: begin, with random weights",
    Stage.SEND_START: "coordinator: copy plan and weights, read them back",
    Stage.JOIN: "site: import; signatures, plan and weights checked",
    Stage.CASES: "site: find cases and split",
    Stage.TRAIN: "site: one training step",
    Stage.RELEASE: "site: make the release page",
    Stage.APPROVE: "site: approve, with a throw-away key",
    Stage.SEND_UPDATE: "site: sign and copy the update, read it back",
    Stage.TAKE: "coordinator: import; update and signature checked",
    Stage.AGGREGATE: "coordinator: close the round",
    Stage.AUDIT: "coordinator: audit, computed again",
    Stage.SEND_GLOBAL: "coordinator: copy the new weights, read them back",
    Stage.RETURN: "site: import the new global weights",
}


@dataclass(frozen=True, slots=True)
class Check:
    """A stage that worked."""

    stage: Stage
    what: str
    """The stage in words."""
    found: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Failed:
    """The stage at which a drill stopped; run again it goes on there."""

    stage: Stage
    what: str
    error: BrainfedError


class Outcome:
    """What a stage has to say; one that says nothing has not been reached yet."""

    words = ""


class Log:
    """Which stages of a drill have worked, read from its ledger."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._done = {check.stage for check in self.checks()}
        self.failing: Stage | None = None
        """The stage in which an error was raised."""

    def has(self, stage: Stage) -> bool:
        """Whether a stage has worked before."""
        return stage in self._done

    @contextlib.contextmanager
    def stage(self, stage: Stage) -> Iterator[Outcome]:
        """Carry out a stage inside; the first time that it works makes a line.

        Raises:
            BrainfedError: What is raised inside, noted.
        """
        outcome, begun = Outcome(), time.perf_counter()
        try:
            yield outcome
        except BrainfedError as error:
            self.failing = stage
            self._note(stage, error=error.message)
            raise
        if outcome.words and stage not in self._done:
            n_ms = round(1000 * (time.perf_counter() - begun))
            self._note(stage, found=outcome.words, milliseconds=n_ms)
            self._done.add(stage)

    def checks(self) -> tuple[Check, ...]:
        """All stages that worked, in the order of the way."""
        found = [
            Check(
                stage := Stage(line["stage"]),
                stage.words,
                line["found"],
                line["milliseconds"] / 1e3,
            )
            for line in ledger.read(self._path)
            if line["event"] == Event.REHEARSED and "found" in line
        ]
        order = list(Stage)
        return tuple(sorted(found, key=lambda check: order.index(check.stage)))

    def _note(self, stage: Stage, **fields: str | int) -> None:
        atomic.make_folder(self._path.parent)
        ledger.append(self._path, Event.REHEARSED, stage=stage.value, **fields)
