"""Sentences to paste into a mail: what lies on the medium, and what the receiver does with it.

brainfed sends nothing. No fingerprint is among these words: that is compared by a second channel,
since whoever carries a mail could change it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from brainfed.formats import approval, rounds, signature
from brainfed.formats.federation import Federation
from brainfed.formats.final import Final
from brainfed.formats.roster import Role
from brainfed.formats.workspace import Workspace
from brainfed.steps.board import Board, Owed
from brainfed.steps.outgoing import carried_name

SHOWN = 12
"""Characters of a digest in a mail: enough to tell files apart by eye, not to check them by."""
IMPORT, EXPORT = "brainfed import FOLDER", "brainfed export --to FOLDER"


@dataclass(frozen=True)
class Attached:
    """A file that is carried, its signature with it."""

    name: str
    """On the medium."""
    sha256: str
    """Of the file in the clear."""
    is_encrypted: bool


@dataclass(frozen=True)
class Mail:
    """Words for one or several receivers."""

    to: tuple[str, ...]
    """By name; empty where nobody is admitted yet."""
    round: int | None
    files: tuple[Attached, ...]
    text: str
    """One paragraph."""


def before_start(place: Workspace, admitted: Sequence[str]) -> tuple[Mail, ...]:
    """Before the federation has begun: a party asks to be let in, or is asked to."""
    if place.role is Role.COORDINATOR:
        text = (
            "Please make a workspace in an empty folder: brainfed init site --name NAME. Then send "
            "us outbox/NAME.enrolment.json and its .sig, and read us your fingerprint by telephone "
            "or in person; we admit you by both."
        )
        return () if admitted else (Mail((), None, (), text),)
    return _enrolment(place, "the coordinator")


def of_coordinator(
    known: Federation, place: Workspace, board: Board, final: Final | None
) -> tuple[Mail, ...]:
    """To everybody who owes something, the same words to those who owe the same."""
    debts: dict[str, list[Owed]] = {}
    for owed in board.owed:
        for name in owed.by:
            debts.setdefault(name, []).append(owed)
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, owing in sorted(debts.items()):
        groups.setdefault(tuple(owed.what for owed in owing), []).append(name)
    if not groups:
        return ()
    number = (
        final.round if final else max(r.round for r in board.rounds if r.edition or not r.round)
    )
    carried = _global(place, board, number)
    is_open = "is open" if board.rounds[-1].round > number and final is None else None
    about = board.rounds[-1].round if is_open else number
    mails = []
    for names in groups.values():
        owing = debts[names[0]]
        state = "has its final" if final else is_open or "was the last one"
        text = (
            f"Federation {known.prefix}, round {about} {state}. The medium that comes to you holds "
            f"{_told(carried)}, and what belongs to it. In your workspace: "
            f"{', then '.join(_commands(owing, known, about, final))}. Bring the medium back: we "
            f"wait for {' and '.join(owed.what for owed in owing)}."
        )
        mails.append(Mail(tuple(names), about, carried, text))
    return tuple(mails)


def of_others(place: Workspace, known: Federation, newest: int | None) -> tuple[Mail, ...]:
    """To the coordinator as a rule: what comes to it, or what is asked of it."""
    lead = known.roster.coordinator.name
    entry = known.roster.get(place.name)
    if entry is None or not entry.is_active or entry.key != place.public_key().line:
        return _enrolment(place, lead)
    if place.role is Role.AUDITOR:
        text = (
            f"For the audit of federation {known.prefix}: please pack what it needs by brainfed "
            "archive FOLDER and bring me that folder. It holds signed files, no scan and no key; I "
            "check it by brainfed audit FOLDER."
        )
        return (Mail((lead,), None, (), text),)
    if place.role is Role.APPROVER:
        text = (
            f"Federation {known.prefix}: I am ready to look at a release page. Make it by brainfed "
            "release, and tell me where it lies; I approve it in your workspace by "
            f"{approval.COMMAND}."
        )
        return (Mail((place.name.removesuffix(".release"),), None, (), text),)
    return _on_their_way(place, known, newest, lead)


def _on_their_way(
    place: Workspace, known: Federation, newest: int | None, lead: str
) -> tuple[Mail, ...]:
    if newest is None:
        text = (
            f"Federation {known.prefix}: {place.name} has the start, and waits for the global "
            f"weights of round 0: {EXPORT}."
        )
        return (Mail((lead,), 0, (), text),)
    update = rounds.update_path(place, known, newest + 1, place.name)
    folder = place.round_folder(newest)
    scores = [path for path in rounds.scores_paths(place, place.name) if path.parent == folder]
    ready = [p for p in (update, *scores) if p is not None and signature.signature_path(p).exists()]
    if ready:
        carried = tuple(_attached(place, path) for path in ready)
        what = " and ".join(
            f"the update of round {newest + 1}"
            if path == update
            else f"the scores of the weights of round {newest}"
            for path in ready
        )
        text = (
            f"Federation {known.prefix}: {what} of {place.name} is on its way to you. The medium "
            f"holds {_told(carried)}. In your workspace: {IMPORT}; then brainfed status says what "
            "comes next."
        )
        return (Mail((lead,), newest + 1 if update in ready else newest, carried, text),)
    if update is not None and _waits_for_approval(place, known, update, newest + 1):
        carried = (_attached(place, update),)
        text = (
            f"Federation {known.prefix}: the update of round {newest + 1} waits for your approval: "
            f"{carried[0].name} (SHA-256 begins {carried[0].sha256[:SHOWN]}). In the workspace of "
            f"{place.name}, brainfed release makes the page about it. Please read that page, then "
            f"approve: {approval.COMMAND}."
        )
        return (Mail((f"{place.name}.release",), newest + 1, carried, text),)
    return ()


def _waits_for_approval(place: Workspace, known: Federation, update: Path, number: int) -> bool:
    is_asked = known.plan_of(number).exchange.approval
    return is_asked and rounds.approval_for(place, known, update) is None


def _enrolment(place: Workspace, lead: str) -> tuple[Mail, ...]:
    path = place.outbox / f"{place.name}.enrolment.json"
    if not path.exists():
        return ()
    carried = (_attached(place, path),)
    text = (
        f"{place.name} asks to take part as {place.role}. Here comes {_told(carried)}. We read you "
        f"the fingerprint of our key by telephone or in person. In your workspace: brainfed admit "
        f"{path.name}."
    )
    return (Mail((lead,), None, carried, text),)


def _commands(
    owing: Iterable[Owed], known: Federation, number: int, final: Final | None
) -> Iterable[str]:
    """What the receiver types, each once, in the order of a round."""
    wanted = {owed.command for owed in owing}
    yield IMPORT
    if "brainfed key rotate" in wanted:
        yield "brainfed key rotate"
    if "brainfed evaluate" in wanted:
        yield "brainfed evaluate --subset test" if final else "brainfed evaluate"
    if "brainfed train-round" in wanted:
        if known.first_plan.network.n_dimensions == 0:
            yield "your own program, then brainfed export --weights FILE --to FOLDER"
            return
        yield "brainfed train-round"
        if known.plan_of(number).exchange.approval:
            yield approval.COMMAND
    elif approval.COMMAND in wanted:
        yield approval.COMMAND
    yield EXPORT


def _global(place: Workspace, board: Board, number: int) -> tuple[Attached, ...]:
    """The global weights of a round; their digest stands in the record, so none is computed."""
    path = rounds.global_path(place, number)
    if path is None:
        return ()
    digest = next((r.global_digest for r in board.rounds if r.round == number), None)
    return (_attached(place, path, digest),)


def _attached(place: Workspace, path: Path, digest: str | None = None) -> Attached:
    """A file as it is carried; its digest is computed where not given."""
    name = carried_name(place, path)
    return Attached(name, digest or signature.digest_of(path).hex(), name != path.name)


def _told(files: Iterable[Attached]) -> str:
    """Files in a sentence."""
    told = [
        f"{f.name} with its .sig (SHA-256 {'of what is in it ' if f.is_encrypted else ''}begins "
        f"{f.sha256[:SHOWN]})"
        for f in files
    ]
    return " and ".join(told)
