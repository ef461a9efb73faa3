"""Status: which round it is, whose file is missing, and what to do next, read from the files."""

from dataclasses import dataclass

from brainfed.errors import NotReadyError
from brainfed.formats import federation, rounds, signature, weights
from brainfed.formats.final import Final
from brainfed.formats.roster import Role
from brainfed.formats.shelf import DiskShelf
from brainfed.formats.workspace import Workspace
from brainfed.plan import Method
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
    outbox: tuple[str, ...]
    todo: tuple[str, ...]
    """What to do now, one sentence each, the first thing first."""


def status(place: Workspace) -> Status:
    """Read from the files where a workspace stands.

    Raises:
        BrainfedError: A file of the workspace is damaged.
    """
    outbox = tuple(sorted(path.name for path in place.outbox.glob("*") if path.suffix != ".sig"))
    if not federation.has_started(place):
        return Status(
            place.role, place.name, None, None, None, None, (), outbox, _before_start(place)
        )
    known = federation.load(place)
    newest = rounds.newest_round(place)
    seats: tuple[Seat, ...] = ()
    final = rounds.verify_final(place, known)
    if newest is None:
        todo = _before_first_weights(place, known)
    elif final is not None and place.role is not Role.AUDITOR:
        todo = _finished(place, final[0], known)
    elif place.role is Role.COORDINATOR:
        there = rounds.update_paths(place, newest + 1)
        sent = {weights.read_manifest(p).sender for p in there if rounds.is_of_newest(place, p)}
        turn = turn_of(known, DiskShelf(place), newest + 1)
        seats = tuple(
            Seat(site.name, site.name in sent)
            for site in known.roster.sites
            if turn in {None, site.name}
        )
        todo = _coordinator(newest, seats, known, turn) + _recovery(place)
    else:
        todo = _consent(place, newest, known) or _site(place, newest, known)
        todo += _scores(place)
        todo = _key(place, known) + todo
    return Status(
        place.role,
        place.name,
        known.digest,
        known.name,
        newest,
        known.plans[-1].plan.rounds,
        seats,
        outbox,
        todo,
    )


def _before_start(place: Workspace) -> tuple[str, ...]:
    if place.role is not Role.COORDINATOR:
        return (
            f"Send outbox/{place.name}.enrolment.json and its .sig to the coordinator.",
            "Read your fingerprint to the coordinator by telephone or in person "
            f"(ssh-keygen -lf {place.key}.pub).",
            "When the coordinator's files have come: brainfed import FOLDER",
        )
    roster = federation.newest_roster(place)
    if roster is None or not roster.sites:
        return ("Admit the sites: brainfed admit SITE.enrolment.json ...",)
    return ("Start the federation: brainfed start PLAN.toml",)


def _before_first_weights(place: Workspace, known: federation.Federation) -> tuple[str, ...]:
    if place.role is Role.COORDINATOR:
        return (f"Finish the start: brainfed start {federation.PLAN} (in federation/)",)
    coordinator = known.roster.coordinator.name
    return (f"Import the global weights of round 0 from {coordinator}: brainfed import FOLDER",)


def _coordinator(
    newest: int, seats: tuple[Seat, ...], known: federation.Federation, turn: str | None
) -> tuple[str, ...]:
    is_relay = known.plan_of(newest + 1).method is not Method.FL
    had_all = is_relay and turn is None
    if had_all or newest >= known.plans[-1].plan.rounds:
        rounds_words = f"All {known.plans[-1].plan.rounds} rounds of the plan are closed"
        return (
            f"{'All sites have had their turn' if had_all else rounds_words}; bring outbox/ to "
            "the sites: brainfed export --to FOLDER",
            "When they have scored the last weights and their scores have come: brainfed status "
            "--rounds, then brainfed finish",
        )
    missing = [seat.site for seat in seats if not seat.has_sent]
    n_sent = len(seats) - len(missing)
    todo = []
    if n_sent == 0:
        to = turn if is_relay else f"every site ({', '.join(missing)})"
        todo.append(f"Bring outbox/ to {to}: brainfed export --to FOLDER")
    if missing:
        todo.append(
            f"Round {newest + 1}: wait for the update of {', '.join(missing)}; "
            "when it has come: brainfed import FOLDER"
        )
    if is_relay:
        return tuple(todo) or (f"Close round {newest + 1}, {turn}'s turn: brainfed aggregate",)
    quorum = known.plan_of(newest + 1).participation.quorum_sites
    if n_sent >= quorum:
        rest = "" if not missing else f", or go on without {', '.join(missing)}"
        todo.insert(
            0 if not missing else len(todo), f"Close round {newest + 1}{rest}: brainfed aggregate"
        )
    return tuple(todo)


def _finished(place: Workspace, final: Final, known: federation.Federation) -> tuple[str, ...]:
    """After the final: test patients are opened, once, for its weights."""
    told = f"The federation ends with the weights of round {final.round}."
    if place.role is Role.COORDINATOR:
        return (
            f"{told} Bring outbox/ to every site: brainfed export --to FOLDER",
            "When their scores have come: brainfed import FOLDER, brainfed report --model-card",
            *_recovery(place),
        )
    is_open = (place.reports / f"evaluate.{final.weights[:8]}.test.csv").exists()
    can_score = known.first_plan.network.n_dimensions and not _lacks_layers(place, known)
    if not is_open and can_score:
        return (f"{told} Open the test patients, once: brainfed evaluate --subset test",)
    scored = _scored(place, final.round, known.roster.coordinator.name)
    return (*_scores(place), *(scored or (f"{told} Nothing is left to do.",)))


def _lacks_layers(place: Workspace, known: federation.Federation) -> bool:
    """Whether this is an evaluator, who has no layers where the sites have their own."""
    network = known.first_plan.network
    return place.role is Role.EVALUATOR and bool(network.local) and network.n_dimensions > 0


def _recovery(place: Workspace) -> tuple[str, ...]:
    if not place.recovery_is_here:
        return ()
    path = place.recovery_path.relative_to(place.root)
    return (
        f"Move {path} to another place, such as a safe, and take it away here: "
        "whoever has both keys is the coordinator for ever.",
    )


def _key(place: Workspace, known: federation.Federation) -> tuple[str, ...]:
    """A key that the newest roster doesn't name yet, or no longer."""
    entry = known.roster.get(place.name)
    if entry is not None and entry.is_active and entry.public_key == place.public_key():
        return ()
    coordinator = known.roster.coordinator.name
    return (
        f"The roster doesn't name this workspace's key: bring outbox/{place.name}.enrolment.json "
        f"and its .sig to {coordinator}, who runs brainfed admit; then import the new roster.",
    )


def _consent(place: Workspace, newest: int, known: federation.Federation) -> tuple[str, ...]:
    """A plan that this site has not accepted yet."""
    if place.role is not Role.SITE:
        return ()
    try:
        federation.check_accepted(place, known, newest + 1)
    except NotReadyError as error:
        return (f"{error.message}: {error.hint}",)
    return ()


def _scores(place: Workspace) -> tuple[str, ...]:
    """Scores that `evaluate` has written and nobody has signed yet."""
    paths = rounds.scores_paths(place, place.name)
    waiting = [path for path in paths if not signature.signature_path(path).exists()]
    if not waiting:
        return ()
    told = ", ".join(path.name for path in waiting)
    return (f"Sign and copy the scores ({told}): brainfed export --to FOLDER",)


SCORE = "Score the newest weights: brainfed evaluate"


def _at_the_end(place: Workspace, newest: int, coordinator: str, why: str) -> tuple[str, ...]:
    """After the last round."""
    first, *others = _scored(place, newest, coordinator) or (SCORE,)
    return (f"{why}. {first}", *others)


def _others_turn(place: Workspace, newest: int, known: federation.Federation) -> tuple[str, ...]:
    """In a relay, what is to be done while it isn't this site's turn; nothing where it is."""
    coordinator = known.roster.coordinator.name
    try:
        turn = turn_of(known, DiskShelf(place), newest + 1)
    except NotReadyError as error:
        return (f"{error.message}: {error.hint}",)
    if known.plan_of(newest + 1).method is Method.FL or turn == place.name:
        return ()
    if turn is None:
        return _at_the_end(place, newest, coordinator, "All sites have had their turn")
    return (
        f"It is the turn of {turn}, in round {newest + 1}; wait for the next files of "
        f"{coordinator}, then: brainfed import FOLDER",
    )


def _scored(place: Workspace, newest: int, coordinator: str) -> tuple[str, ...]:
    """What is left where the newest global weights are scored; nothing where they aren't."""
    folder = place.round_folder(newest)
    paths = [path for path in rounds.scores_paths(place, place.name) if path.parent == folder]
    bring = [
        f"Bring {path.name} and its .sig to {coordinator}."
        for path in paths
        if signature.signature_path(path).exists()
    ]
    return (*bring, "Read how well it went: brainfed report") if paths else ()


def _with_their_own_program(
    place: Workspace, newest: int, known: federation.Federation
) -> tuple[str, ...]:
    """Where the network is the sites' own: which weights are next, and what becomes of them."""
    path = rounds.global_path(place, newest)
    assert path is not None
    told = path.relative_to(place.root).as_posix()
    if newest >= known.plans[-1].plan.rounds:
        return (f"All rounds of the plan are closed. The newest weights: {told}",)
    if place.role is not Role.SITE:
        return (f"Score the newest weights with your own program: {told}",)
    return (
        f"Train round {newest + 1} with your own program, from {told}",
        "Then hand over what it trained: brainfed export --weights FILE --to FOLDER",
    )


def _site(place: Workspace, newest: int, known: federation.Federation) -> tuple[str, ...]:
    if place.role not in {Role.SITE, Role.EVALUATOR}:
        return ("Look at what has come: brainfed inspect FILE, brainfed audit FOLDER",)
    update = rounds.update_path(place, known, newest + 1, place.name)
    if update is not None and not rounds.is_of_newest(place, update):
        update = None  # the round before was closed again since
    is_next = place.role is Role.SITE and newest < known.plans[-1].plan.rounds and update is None
    wait = _others_turn(place, newest, known) if is_next else ()
    if _lacks_layers(place, known):
        return (
            "Nothing to score: the weights lack layers that stay at the sites (network.local). "
            "Label maps of a site can be: brainfed evaluate --predictions FOLDER --truth FOLDER",
        )
    if known.first_plan.network.n_dimensions == 0 and update is None:
        return wait or _with_their_own_program(place, newest, known)
    if update is None and not (place.data / "cases.json").exists():
        return ("Prepare the scans: brainfed preprocess FOLDER --labels PROTOCOL",)
    if update is None and not (place.data / "split.json").exists():
        return ("Divide the patients: brainfed split",)
    coordinator = known.roster.coordinator.name
    if place.role is not Role.SITE:
        return _scored(place, newest, coordinator) or (SCORE,)
    if newest >= known.plans[-1].plan.rounds:
        return _at_the_end(place, newest, coordinator, "All rounds of the plan are closed")
    if update is None:
        return wait or (f"Train round {newest + 1}: brainfed train-round",)
    name = update.name
    if not signature.signature_path(update).exists():
        return (f"Sign and copy the update of round {newest + 1}: brainfed export --to FOLDER",)
    return (
        f"Bring {name} and its .sig to {coordinator}.",
        f"Wait for the global weights of round {newest + 1}; then: brainfed import FOLDER",
    )
