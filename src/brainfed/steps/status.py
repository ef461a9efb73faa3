"""Status: which round it is, whose file is missing, and what to do next, read from the files."""

from dataclasses import dataclass

from brainfed.errors import NotReadyError
from brainfed.formats import federation, rounds, signature, weights
from brainfed.formats.roster import Role
from brainfed.formats.workspace import Workspace


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
    """At the coordinator: the sites of the open round."""
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
    if newest is None:
        todo = _before_first_weights(place, known)
    elif place.role is Role.COORDINATOR:
        sent = {weights.read_manifest(p).sender for p in rounds.update_paths(place, newest + 1)}
        seats = tuple(Seat(site.name, site.name in sent) for site in known.roster.sites)
        todo = _coordinator(newest, seats, known) + _recovery(place)
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
    newest: int, seats: tuple[Seat, ...], known: federation.Federation
) -> tuple[str, ...]:
    if newest >= known.plans[-1].plan.rounds:
        return (
            f"All {known.plans[-1].plan.rounds} rounds of the plan are closed; bring outbox/ to "
            "the sites: brainfed export --to FOLDER",
        )
    missing = [seat.site for seat in seats if not seat.has_sent]
    n_sent = len(seats) - len(missing)
    todo = []
    if n_sent == 0:
        todo.append(
            f"Bring outbox/ to every site ({', '.join(missing)}): brainfed export --to FOLDER"
        )
    if missing:
        todo.append(
            f"Round {newest + 1}: wait for the update of {', '.join(missing)}; "
            "when it has come: brainfed import FOLDER"
        )
    quorum = known.plan_of(newest + 1).participation.quorum_sites
    if n_sent >= quorum:
        rest = "" if not missing else f", or go on without {', '.join(missing)}"
        todo.insert(
            0 if not missing else len(todo), f"Close round {newest + 1}{rest}: brainfed aggregate"
        )
    return tuple(todo)


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


def _at_the_end(place: Workspace, newest: int, coordinator: str) -> tuple[str, ...]:
    """After the last round of the plan."""
    first, *others = _scored(place, newest, coordinator) or (SCORE,)
    return (f"All rounds of the plan are closed. {first}", *others)


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
    if known.first_plan.network.n_dimensions == 0 and update is None:
        return _with_their_own_program(place, newest, known)
    if update is None and not (place.data / "cases.json").exists():
        return ("Prepare the scans: brainfed preprocess FOLDER --labels PROTOCOL",)
    if update is None and not (place.data / "split.json").exists():
        return ("Divide the patients: brainfed split",)
    coordinator = known.roster.coordinator.name
    if place.role is not Role.SITE:
        return _scored(place, newest, coordinator) or (SCORE,)
    if newest >= known.plans[-1].plan.rounds:
        return _at_the_end(place, newest, coordinator)
    if update is None:
        return (f"Train round {newest + 1}: brainfed train-round",)
    name = update.name
    if not signature.signature_path(update).exists():
        return (f"Sign and copy the update of round {newest + 1}: brainfed export --to FOLDER",)
    return (
        f"Bring {name} and its .sig to {coordinator}.",
        f"Wait for the global weights of round {newest + 1}; then: brainfed import FOLDER",
    )
