"""What the doctor says of one thing."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from brainfed.errors import BrainfedError


class Health(StrEnum):
    """How a thing stands."""

    OK = "ok"
    LOOK = "look"
    """It works, and a person should look at it."""
    BAD = "bad"
    """Something will fail."""


@dataclass(frozen=True, slots=True)
class Checked:
    """One line of the doctor."""

    what: str
    health: Health
    found: str
    todo: str = ""
    """What to do; empty where nothing is to be done."""


def attempt(what: str, check: Callable[[], Checked]) -> Checked:
    """Carry out a check; an error is what it found."""
    try:
        return check()
    except BrainfedError as error:
        found = f"{error.message}: {error.found}" if error.found else error.message
        return Checked(what, Health.BAD, found, error.hint or error.usual_hint or "")
    except (OSError, MemoryError) as error:
        found = f"{type(error).__name__}: {error}"
        return Checked(what, Health.BAD, found, "check the machine, then run it again")


def size(n_bytes: float) -> str:
    """A size for people, in decimal units."""
    unit, name = next(
        (u, n)
        for u, n in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "B"))
        if n_bytes >= u or u == 1
    )
    return f"{n_bytes / unit:.0f} {name}" if unit == 1 else f"{n_bytes / unit:.1f} {name}"


def duration(seconds: float) -> str:
    """A time for people."""
    for unit, name in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
