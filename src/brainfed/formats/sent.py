"""`data/sent.json`: who stands behind the figures that left (`docs/formats/sent-groups.md`).

Two means over nearly the same patients tell of the few in which they differ. So about one round's
weights a group is told once, over one set of patients; and a group that differs from the one told
last in fewer patients than the floor sits out a round. This file remembers what that takes, as
keyed ids. It is local, mode 0600, and never exchanged.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from brainfed.errors import MalformedError, ScanError
from brainfed.formats import atomic
from brainfed.formats.document import Count, Document, Round
from brainfed.formats.floor import Groups
from brainfed.formats.scores import Group, SubsetName

FORMAT: Literal["brainfed-sent-1"] = "brainfed-sent-1"
Id = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]


class SentGroup(Document):
    """The patients behind the last figures of one group."""

    subset: SubsetName
    group: Group
    patients: tuple[Id, ...]
    """Sorted; without those whose cases were erased since."""
    n_erased: Count
    """How many these are."""
    from_round: Round
    """The group is told about no weights of an earlier round: those were told over others."""
    round: Round
    """The latest round about whose weights it was told."""
    waiting: tuple[Id, ...] | None
    """Sorted: other patients, too few others, that were kept back; null where nobody waits."""
    waiting_since: Round | None
    """The first round about whose weights they were kept back."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        for ids in (self.patients, self.waiting or ()):
            if list(ids) != sorted(set(ids)):
                raise ValueError("ids sorted, each once")
        if (self.waiting is None) != (self.waiting_since is None):
            raise ValueError("a round exactly where a group waits")
        return self

    @property
    def place(self) -> tuple[str, str]:
        """What tells a group from the others."""
        return self.subset, self.group


class Sent(Document):
    """What this party remembers of the groups that it told of."""

    format: Literal["brainfed-sent-1"] = FORMAT
    first_round: Round
    """A group of which nothing is remembered is told about no weights of an earlier round."""
    groups: tuple[SentGroup, ...]

    @model_validator(mode="after")
    def _sound(self) -> Self:
        places = [group.place for group in self.groups]
        if places != sorted(set(places)):
            raise ValueError("groups sorted by subset and group, each once")
        return self

    def find(self, subset: str, group: Group) -> SentGroup | None:
        """What is remembered of a group; None where it was never told."""
        return next((entry for entry in self.groups if entry.place == (subset, group)), None)

    @property
    def patients(self) -> frozenset[str]:
        """The ids of all who stand in it."""
        ids = (p for group in self.groups for p in (*group.patients, *(group.waiting or ())))
        return frozenset(ids)

    def without(self, patients: Collection[str]) -> "Sent":
        """Without the ids of patients that are erased; that each stood behind figures is kept."""
        kept = []
        for old in self.groups:
            left = tuple(p for p in old.patients if p not in patients)
            waiting = old.waiting and tuple(p for p in old.waiting if p not in patients)
            n_erased = old.n_erased + len(old.patients) - len(left)
            changes = {"patients": left, "n_erased": n_erased, "waiting": waiting}
            kept.append(old.model_copy(update=changes))
        return Sent(first_round=self.first_round, groups=tuple(kept))


def path_of(data_folder: Path) -> Path:
    """Where it lies."""
    return data_folder / "sent.json"


def read(data_folder: Path) -> Sent | None:
    """What is remembered; None where there is no such file.

    Raises:
        ScanError: It is damaged.
    """
    path = path_of(data_folder)
    if not path.exists():
        return None
    try:
        return Sent.loads(path.read_bytes())
    except MalformedError as error:
        raise ScanError(
            "sent.json is damaged, so nobody can tell which figures may leave",
            expected=error.expected,
            where=path,
            hint="put it back from a backup; without one move it away: figures then leave again "
            "from the round on that comes after your newest signed file",
        ) from None


def write(data_folder: Path, content: Sent) -> None:
    """Write it, in place of an older one.

    Raises:
        ResourceError: The disk refuses.
    """
    atomic.write_bytes(path_of(data_folder), content.dumps(), mode=0o600, replace=True)


def choose(
    old: Sent,
    subset: SubsetName,
    groups: Groups,
    *,
    round_number: int,
    floor: int,
) -> tuple[frozenset[Group], Sent]:
    """The groups that may be told now, and what is to be remembered once they are.

    The parts are told only together, and only with the whole: each is the other's difference from
    it. A group below the floor may always be told, since nothing is told but that.

    Args:
        old: What is remembered.
        subset: Whose patients.
        groups: Who is in which group; the whole, and the parts if they are to be told too.
        round_number: Of the global weights that the figures are about, or were trained from.
        floor: The one that holds.
    """
    is_large = {group: len(patients) >= floor for group, patients in groups.items()}
    outcomes = {
        group: _outcome(old.find(subset, group), patients, round_number, floor, old.first_round)
        if is_large[group]
        else _Outcome(may=True, told=None, kept_back=None)
        for group, patients in groups.items()
    }
    told = {group for group, outcome in outcomes.items() if outcome.may}
    parts = groups.keys() - {Group.ALL}
    if not (Group.ALL in told and all(group in told and is_large[group] for group in parts)):
        told -= parts
    entries = {entry.place: entry for entry in old.groups}
    for group, outcome in outcomes.items():
        new = outcome.told if group in told else outcome.kept_back
        if new is not None:
            entries[subset, group] = SentGroup(subset=subset, group=group, **new)
    remembered = tuple(entries[place] for place in sorted(entries))
    return frozenset(told), Sent(first_round=old.first_round, groups=remembered)


@dataclass(frozen=True)
class _Outcome:
    may: bool
    """Whether the group may be told, as far as it goes by itself."""
    told: dict[str, Any] | None
    """What is then to be remembered of it; None for what stands there."""
    kept_back: dict[str, Any] | None
    """What is to be remembered where it is not told; likewise."""


def _outcome(
    old: SentGroup | None, patients: frozenset[str], number: int, floor: int, first_round: int
) -> _Outcome:
    now: dict[str, Any] = {"patients": tuple(sorted(patients)), "n_erased": 0, "round": number}
    now |= {"waiting": None, "waiting_since": None}
    if old is None:
        return _Outcome(number >= first_round, now | {"from_round": first_round}, None)
    n_different = len(patients ^ set(old.patients)) + old.n_erased
    if n_different == 0:
        latest = {"round": max(number, old.round), "from_round": old.from_round}
        return _Outcome(number >= old.from_round, now | latest, None)
    if number <= old.round:
        return _Outcome(may=False, told=None, kept_back=None)
    if n_different >= floor:
        return _Outcome(True, now | {"from_round": old.round + 1}, None)
    since = number
    if old.waiting == now["patients"] and old.waiting_since is not None:
        since = min(number, old.waiting_since)
    stays = old.model_dump(exclude={"subset", "group"})
    waits = stays | {"waiting": now["patients"], "waiting_since": since}
    return _Outcome(number > since, now | {"from_round": since + 1}, waits)
