"""Status: which round it is, whose file is missing, and what to do next, read from the files."""

from dataclasses import dataclass

from brainfed.formats import federation, rounds
from brainfed.formats.federation import Federation
from brainfed.formats.final import Final
from brainfed.formats.roster import Role
from brainfed.formats.shelf import DiskShelf
from brainfed.formats.workspace import Workspace
from brainfed.plan import Method
from brainfed.steps import mails, next_at_coordinator, next_at_site
from brainfed.steps.board import HERE, Board, Names, read_board
from brainfed.steps.mails import Mail
from brainfed.steps.turns import turn_of


@dataclass(frozen=True)
class Seat:
    """A site in the open round, as the coordinator sees it."""

    site: str
    has_sent: bool


@dataclass(frozen=True)
class Status:
    """Where a workspace stands."""

    role: Role
    name: str
    federation: str | None
    plan: str | None
    closed_round: int | None
    """Newest round with global weights here; None before any."""
    rounds_planned: int | None
    seats: tuple[Seat, ...]
    """At the coordinator: the sites of the open round; in a relay the one whose turn it is."""
    board: Board | None
    """At the coordinator, once there are global weights: who has sent what, and who owes what."""
    outbox: tuple[str, ...]
    todo: tuple[str, ...]
    """What to do now, one sentence each, the first thing first."""
    mails: tuple[Mail, ...]
    """What to write to whom now."""


def status(place: Workspace) -> Status:
    """Read from the files where a workspace stands.

    Raises:
        BrainfedError: A file of the workspace is damaged.
    """
    if not federation.has_started(place):
        return _before_start(place)
    known = federation.load(place)
    newest = rounds.newest_round(place)
    # The names are read once: in a large federation they are what takes the time.
    there = {number: rounds.names(place, number) for number in rounds.numbers(place)}
    has_final = any(name.endswith(".final.json") for names in there.values() for name in names)
    final = rounds.verify_final(place, known) if has_final else None
    if place.role is Role.COORDINATOR:
        return _of_coordinator(place, known, there, None if final is None else final[0])
    if newest is None:
        todo = next_at_site.before_first_weights(known)
    elif final is not None and place.role is not Role.AUDITOR:
        todo = next_at_site.after_final(place, final[0], known)
    else:
        todo = next_at_site.next_steps(place, newest, known)
    words = mails.of_others(place, known, newest)
    return _status(place, known, newest=newest, todo=todo, words=words)


def _of_coordinator(
    place: Workspace, known: Federation, there: Names, final: Final | None
) -> Status:
    newest = rounds.newest_round(place)
    if newest is None:
        todo = next_at_coordinator.before_first_weights()
        return _status(place, known, newest=None, todo=todo, words=())
    turn, due = _due(place, known, newest, final)
    board = read_board(place, known, there, due, None if final is None else final.round)
    if final is not None:
        todo = next_at_coordinator.after_final(place, final, board)
    else:
        todo = next_at_coordinator.next_steps(place, known, board, newest, turn)
    updates = {} if due is None else board.rounds[-1].updates
    seats = tuple(Seat(site, updates[site] == HERE) for site in due or ())
    words = mails.of_coordinator(known, place, board, final)
    return _status(place, known, newest=newest, todo=todo, words=words, seats=seats, board=board)


def _due(
    place: Workspace, known: Federation, newest: int, final: Final | None
) -> tuple[str | None, tuple[str, ...] | None]:
    """Whose turn it is in a relay, and the sites that the open round waits for, if one is open."""
    if final is not None:
        return None, None
    turn = turn_of(known, DiskShelf(place), newest + 1)
    sites = tuple(site.name for site in known.roster.sites if turn in {None, site.name})
    had_all = known.plan_of(newest + 1).method is not Method.FL and turn is None
    is_open = newest < known.plans[-1].plan.rounds and not had_all
    return turn, sites if is_open else None


def _before_start(place: Workspace) -> Status:
    if place.role is Role.COORDINATOR:
        roster = federation.newest_roster(place)
        admitted = [] if roster is None else [site.name for site in roster.sites]
        todo = next_at_coordinator.before_start(place)
        return _status(place, None, todo=todo, words=mails.before_start(place, admitted))
    todo = next_at_site.before_start(place)
    return _status(place, None, todo=todo, words=mails.before_start(place, []))


def _status(
    place: Workspace,
    known: Federation | None,
    *,
    todo: tuple[str, ...],
    words: tuple[Mail, ...],
    newest: int | None = None,
    seats: tuple[Seat, ...] = (),
    board: Board | None = None,
) -> Status:
    return Status(
        role=place.role,
        name=place.name,
        federation=None if known is None else known.digest,
        plan=None if known is None else known.name,
        closed_round=newest,
        rounds_planned=None if known is None else known.plans[-1].plan.rounds,
        seats=seats,
        board=board,
        outbox=tuple(sorted(p.name for p in place.outbox.glob("*") if p.suffix != ".sig")),
        todo=todo,
        mails=words,
    )
