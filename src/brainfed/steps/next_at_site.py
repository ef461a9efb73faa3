"""What to do next at a site or any other party but the coordinator, from its files. Reads only."""

from brainfed.errors import NotReadyError
from brainfed.formats import federation, rounds, signature
from brainfed.formats.federation import Federation
from brainfed.formats.final import Final
from brainfed.formats.roster import Role
from brainfed.formats.shelf import DiskShelf
from brainfed.formats.workspace import Workspace
from brainfed.plan import Method
from brainfed.steps.outgoing import carried_name
from brainfed.steps.turns import turn_of


def before_start(place: Workspace) -> tuple[str, ...]:
    """Before the start has come."""
    last = "When the coordinator's files have come: brainfed import FOLDER"
    if place.role is Role.APPROVER:
        site = place.name.removesuffix(".release")
        last = (
            f"When you have read a release page of {site} and its update may leave, in that site's "
            f"workspace: brainfed release --approve --key {place.key_path} --who NAME"
        )
    return (
        f"Send outbox/{place.name}.enrolment.json and its .sig to the coordinator.",
        "Read your fingerprint to the coordinator by telephone or in person "
        f"(ssh-keygen -lf {place.key}.pub).",
        last,
    )


def before_first_weights(known: Federation) -> tuple[str, ...]:
    """After the start, before the global weights of round 0."""
    coordinator = known.roster.coordinator.name
    return (f"Import the global weights of round 0 from {coordinator}: brainfed import FOLDER",)


def after_final(place: Workspace, final: Final, known: Federation) -> tuple[str, ...]:
    """After the final: test patients are opened, once, for its weights."""
    told = f"The federation ends with the weights of round {final.round}."
    is_open = (place.reports / f"evaluate.{final.weights[:8]}.test.csv").exists()
    can_score = known.first_plan.network.n_dimensions and not _lacks_layers(place, known)
    if not is_open and can_score:
        return (f"{told} Open the test patients, once: brainfed evaluate --subset test",)
    scored = _scored(place, final.round, known.roster.coordinator.name)
    return (*_scores(place), *(scored or (f"{told} Nothing is left to do.",)))


def next_steps(place: Workspace, newest: int, known: Federation) -> tuple[str, ...]:
    """What to do in the open round, or once all are closed.

    Args:
        place: The workspace.
        newest: The round of the newest global weights here.
        known: Its federation.
    """
    if place.role is Role.APPROVER:
        return before_start(place)[-1:]
    todo = _consent(place, newest, known) or _site(place, newest, known)
    return (*_key(place, known), *todo, *_scores(place))


def _lacks_layers(place: Workspace, known: Federation) -> bool:
    """Whether this is an evaluator, who has no layers where the sites have their own."""
    network = known.first_plan.network
    return place.role is Role.EVALUATOR and bool(network.local) and network.n_dimensions > 0


def _key(place: Workspace, known: Federation) -> tuple[str, ...]:
    """A key that the newest roster doesn't name yet, or no longer."""
    entry = known.roster.get(place.name)
    if entry is not None and entry.is_active and entry.public_key == place.public_key():
        return ()
    coordinator = known.roster.coordinator.name
    return (
        f"The roster doesn't name this workspace's key: bring outbox/{place.name}.enrolment.json "
        f"and its .sig to {coordinator}, who runs brainfed admit; then import the new roster.",
    )


def _consent(place: Workspace, newest: int, known: Federation) -> tuple[str, ...]:
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


def _others_turn(place: Workspace, newest: int, known: Federation) -> tuple[str, ...]:
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
        f"Bring {carried_name(place, path)} and its .sig to {coordinator}."
        for path in paths
        if signature.signature_path(path).exists()
    ]
    return (*bring, "Read how well it went: brainfed report") if paths else ()


def _with_their_own_program(place: Workspace, newest: int, known: Federation) -> tuple[str, ...]:
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


APPROVE = (
    "Look at the release page and let the approver approve it: brainfed release, then brainfed "
    "release --approve --key FILE --who NAME"
)


def _lacks_approval(place: Workspace, known: Federation, number: int) -> bool:
    """Whether the plan asks for an approval of this site's update, and none of it lies here."""
    update = rounds.update_path(place, known, number, place.name)
    if update is None or not known.plan_of(number).exchange.approval:
        return False
    return rounds.approval_for(place, known, update) is None


def _site(place: Workspace, newest: int, known: Federation) -> tuple[str, ...]:
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
    if _lacks_approval(place, known, newest + 1):
        return (APPROVE,)
    if not signature.signature_path(update).exists():
        return (f"Sign and copy the update of round {newest + 1}: brainfed export --to FOLDER",)
    return (
        f"Bring {carried_name(place, update)} and its .sig to {coordinator}.",
        f"Wait for the global weights of round {newest + 1}; then: brainfed import FOLDER",
    )
