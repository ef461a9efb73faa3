"""How long work tells of its progress without printing: a callable that the caller gives."""

from typing import Protocol


class Progress(Protocol):
    """Told of each finished unit of work."""

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        """Take notice that `done` of `total` units of `what` are finished; `note` is a detail."""


def silent(what: str, done: int, total: int, note: str = "") -> None:
    """Tell nobody."""
