"""How long work tells of its progress without printing: a callable that the caller gives."""

from typing import Protocol


class Progress(Protocol):
    """Told of each finished unit of work."""

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        """Take notice that `done` of `total` units of `what` are finished; `note` is a detail."""


def silent(what: str, done: int, total: int, note: str = "") -> None:
    """Tell nobody."""


class FinishedStep(Protocol):
    """What is kept and drawn of a step of training.

    `core.training.Step` is one; named here, so that logs and pictures do without torch.
    """

    @property
    def number(self) -> int:
        """From 1."""

    @property
    def loss(self) -> float:
        """Of the batch."""

    @property
    def dice(self) -> float:
        """Soft Dice of the batch, from 0 to 1, mean over the regions."""

    @property
    def rate(self) -> float:
        """The learning rate."""
