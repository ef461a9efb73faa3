"""What import makes of a file, and who it is for."""

from dataclasses import dataclass
from enum import StrEnum

from brainfed.core.sshsig import PublicKey
from brainfed.formats.federation import Federation
from brainfed.formats.roster import Role
from brainfed.formats.shelf import Shelf


class Verdict(StrEnum):
    """What import did with a file."""

    ACCEPTED = "accepted"
    ALREADY = "already there"
    IGNORED = "ignored"
    REFUSED = "refused"


@dataclass(frozen=True)
class Outcome:
    """What import did with a file, in words."""

    verdict: Verdict
    what: str
    digest: str | None = None


@dataclass(frozen=True)
class Party:
    """Whoever a file is brought to, and all that the party knows."""

    role: Role
    name: str
    key: PublicKey
    known: Federation
    shelf: Shelf

    @property
    def open_round(self) -> int:
        """The round that is to be closed next; 0 before the first global weights."""
        newest = self.shelf.newest()
        return 0 if newest is None else newest + 1
