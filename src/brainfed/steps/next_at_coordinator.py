"""What to do next at the coordinator, from its board and files. Reads only."""

from brainfed.formats import federation
from brainfed.formats.federation import Federation
from brainfed.formats.final import Final
from brainfed.formats.roster import Role
from brainfed.formats.workspace import Workspace
from brainfed.plan import Method
from brainfed.steps.board import DAMAGED, HERE, LATE, Board, some


def before_start(place: Workspace) -> tuple[str, ...]:
    """Before start.json is signed."""
    roster = federation.newest_roster(place)
    if roster is None or not roster.sites:
        return ("Admit the sites: brainfed admit SITE.enrolment.json ...",)
    approvers = [p.name for p in roster.principals if p.role is Role.APPROVER]
    sites = [site.name for site in roster.sites]
    told = some([*sites, *approvers])
    return (
        f"Start the federation: brainfed start PLAN.toml. Admitted are {told}; "
        "more can be admitted before and after.",
    )


def before_first_weights() -> tuple[str, ...]:
    """After start.json, where a kill came before round 0."""
    return (f"Finish the start: brainfed start {federation.PLAN} (in federation/)",)


def after_final(place: Workspace, final: Final, board: Board) -> tuple[str, ...]:
    """After the final: sites open their test patients for its weights."""
    told = f"The federation ends with the weights of round {final.round}."
    waiting = tuple(
        f"Wait for {owed.what} of {some(owed.by)}." for owed in board.owed if "scores" in owed.what
    )
    return (
        *_damage(board),
        f"{told} Bring outbox/ to every site: brainfed export --to FOLDER",
        *waiting,
        "When their scores have come: brainfed import FOLDER, brainfed report --model-card",
        *_recovery(place),
    )


def next_steps(
    place: Workspace, known: Federation, board: Board, newest: int, turn: str | None
) -> tuple[str, ...]:
    """What to do in the open round, or once all are closed.

    Args:
        place: The coordinator's workspace.
        known: Its federation.
        board: Its board.
        newest: The newest closed round.
        turn: In a relay, whose turn the open round is.
    """
    is_relay = known.plan_of(newest + 1).method is not Method.FL
    had_all = is_relay and turn is None
    if had_all or newest >= known.plans[-1].plan.rounds:
        steps = _at_the_end(known, board, had_all=had_all)
    else:
        steps = _in_the_round(known, board, newest + 1, turn if is_relay else None)
    return (*_damage(board), *steps, *_recovery(place))


def _at_the_end(known: Federation, board: Board, *, had_all: bool) -> tuple[str, ...]:
    rounds_words = f"All {known.plans[-1].plan.rounds} rounds of the plan are closed"
    waiting = [some(owed.by) for owed in board.owed if "scores" in owed.what]
    told = f" (not yet from {waiting[0]})" if waiting else ""
    return (
        f"{'All sites have had their turn' if had_all else rounds_words}; bring outbox/ to "
        "the sites: brainfed export --to FOLDER",
        f"When they have scored the last weights and their scores have come{told}: brainfed "
        "status --rounds, then brainfed finish",
    )


def _in_the_round(
    known: Federation, board: Board, number: int, turn: str | None
) -> tuple[str, ...]:
    updates = board.rounds[-1].updates
    missing = [site for site, fate in updates.items() if fate != HERE]
    n_sent = len(updates) - len(missing)
    todo = []
    late = [s for s, f in (board.rounds[-2].updates if number > 1 else {}).items() if f == LATE]
    if late and n_sent == 0:
        todo.append(
            f"The update of round {number - 1} of {some(late)} came after it was closed; to take "
            "it in: brainfed aggregate --again"
        )
    if n_sent == 0:
        to = turn or f"every site ({some(missing)})"
        todo.append(f"Bring outbox/ to {to}: brainfed export --to FOLDER")
    if missing:
        todo.append(
            f"Round {number}: wait for the update of {some(missing)}; "
            "when it has come: brainfed import FOLDER"
        )
    if turn is not None:
        return tuple(todo) or (f"Close round {number}, {turn}'s turn: brainfed aggregate",)
    quorum = known.plan_of(number).participation.quorum_sites
    if n_sent >= quorum:
        rest = "" if not missing else f", or go on without {some(missing)}"
        todo.insert(
            0 if not missing else len(todo), f"Close round {number}{rest}: brainfed aggregate"
        )
    return tuple(todo)


def _damage(board: Board) -> tuple[str, ...]:
    """Files that can't be read any more."""
    words = [
        f"{name} is damaged, or not signed by the coordinator: put it and its .sig back from a "
        "backup, then brainfed audit FOLDER"
        for name in board.damaged
        if ".update." not in name
    ]
    sites = [
        s for s, f in (board.rounds[-1].updates if board.rounds else {}).items() if f == DAMAGED
    ]
    if sites:
        words.append(
            f"The update of {some(sites)} is damaged here: delete it and its .sig in "
            f"rounds/r{board.rounds[-1].round:04d}, then brainfed import FOLDER with its files"
        )
    return tuple(words)


def _recovery(place: Workspace) -> tuple[str, ...]:
    if not place.recovery_is_here:
        return ()
    path = place.recovery_path.relative_to(place.root)
    return (
        f"Move {path} to another place, such as a safe, and take it away here: "
        "whoever has both keys is the coordinator for ever.",
    )
