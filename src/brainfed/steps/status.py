"""Status: which round it is, whose file is missing, and what to do next, read from the files."""

from dataclasses import dataclass

from brainfed.formats import federation, rounds, signature, weights
from brainfed.formats.workspace import Role, Workspace


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
        todo = _coordinator(newest, seats, known)
    else:
        todo = _site(place, newest, known)
    return Status(
        place.role,
        place.name,
        known.digest,
        known.plan.name,
        newest,
        known.plan.rounds,
        seats,
        outbox,
        todo,
    )


def _before_start(place: Workspace) -> tuple[str, ...]:
    if place.role is Role.SITE:
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
    if newest >= known.plan.rounds:
        return (
            f"All {known.plan.rounds} rounds of the plan are closed; bring outbox/ to the sites: "
            "brainfed export --to FOLDER",
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
    quorum = known.plan.participation.quorum_sites
    if n_sent >= quorum:
        rest = "" if not missing else f", or go on without {', '.join(missing)}"
        todo.insert(
            0 if not missing else len(todo), f"Close round {newest + 1}{rest}: brainfed aggregate"
        )
    return tuple(todo)


def _site(place: Workspace, newest: int, known: federation.Federation) -> tuple[str, ...]:
    if not (place.data / "cases.json").exists():
        return ("Prepare the scans: brainfed preprocess FOLDER --labels PROTOCOL",)
    if not (place.data / "split.json").exists():
        return ("Divide the patients: brainfed split",)
    update = rounds.update_path(place, known, newest + 1, place.name)
    coordinator = known.roster.coordinator.name
    if newest >= known.plan.rounds:
        return ("All rounds of the plan are closed. Score the newest weights: brainfed evaluate",)
    if update is None:
        return (f"Train round {newest + 1}: brainfed train-round",)
    name = update.name
    if not signature.signature_path(update).exists():
        return (f"Sign and copy the update of round {newest + 1}: brainfed export --to FOLDER",)
    return (
        f"Bring {name} and its .sig to {coordinator}.",
        f"Wait for the global weights of round {newest + 1}; then: brainfed import FOLDER",
    )
