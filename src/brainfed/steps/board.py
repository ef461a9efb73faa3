"""The board: at the coordinator, who has sent what in each round, and who owes what. Reads only.

It stands on the names of files and on the records, whose signatures are checked here. What else
lies in a closed round was checked by `import`, and is checked again by `aggregate` and `audit`; so
a board of 200 rounds costs no more than their names and records.
"""

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brainfed.errors import BrainfedError, MalformedError
from brainfed.formats import approval, document, federation, rounds, signature, weights
from brainfed.formats.federation import Federation
from brainfed.formats.record import InputStatus
from brainfed.formats.roster import Role
from brainfed.formats.workspace import Workspace
from brainfed.plan import Encryption

HERE, MISSING, DAMAGED = "here", "missing", "damaged"
"""Of an update of the open round."""
UNAPPROVED = "here, not approved"
"""Of one whose plan asks for an approval that isn't here, or whose key doesn't count any more."""
LATE = "late, here"
"""Of one that came after its round was closed without it."""


@dataclass(frozen=True)
class BoardRound:
    """One round, as the coordinator's files tell it."""

    round: int
    edition: int | None
    """Of its newest record; None while it is open, and in round 0."""
    global_digest: str | None
    """SHA-256 of its global weights, as the record says."""
    updates: dict[str, str]
    """By site: included, excluded with its reason, or absent, as the record says; else one of
    `HERE`, `MISSING`, `DAMAGED`, `UNAPPROVED` and `LATE`."""
    scored: tuple[str, ...]
    """Whose scores of its global weights have come."""


@dataclass(frozen=True)
class Party:
    """A site or an evaluator over all rounds."""

    name: str
    role: Role
    key: str
    """Whether its key counts, since when it doesn't, or what it lacks."""
    accepted: int | None
    """Newest version of the plan whose acceptance lies here; None before any."""
    n_included: int
    """Closed rounds with its update in the mean."""
    n_closed: int
    """Closed rounds whose record names it."""
    newest_included: int | None
    n_scored: int
    """Rounds whose global weights it has scored."""


@dataclass(frozen=True)
class Owed:
    """One thing that somebody owes the coordinator."""

    what: str
    by: tuple[str, ...]
    command: str
    """What they type for it."""


@dataclass(frozen=True)
class Board:
    """Sites by rounds."""

    parties: tuple[Party, ...]
    """By name; those whose key was revoked too."""
    rounds: tuple[BoardRound, ...]
    """From round 0 on; the last one is the open round, as long as there is one."""
    owed: tuple[Owed, ...]
    damaged: tuple[str, ...]
    """Files that could not be read, from the workspace's folder on."""


Names = Mapping[int, frozenset[str]]
"""What lies in the folder of each round, by name."""


def read_board(
    place: Workspace,
    known: Federation,
    there: Names,
    due: Sequence[str] | None,
    final: int | None = None,
) -> Board:
    """Read the board of a coordinator's workspace.

    Args:
        place: The workspace.
        known: Its federation.
        there: The names of its rounds.
        due: The sites whose updates the open round waits for; None where no round is open.
        final: The round of the weights that the federation ends with; None before that is signed.
    """
    names = {
        p.name: p.role for p in known.roster.principals if p.role in {Role.SITE, Role.EVALUATOR}
    }
    damaged: list[str] = []
    newest = rounds.newest_round(place)
    closed = range(0 if newest is None else newest + 1)
    listed = [(number, there.get(number, frozenset())) for number in closed]
    found = [_closed(place, known, entry, sorted(names), damaged) for entry in listed]
    if found:
        _tell_late(known, found[-1], listed[-1][1])
    if due is not None:
        found.append(_open(place, known, found, due, damaged))
    parties = tuple(_parties(place, known, names, found))
    owed = tuple(_owed(known, parties, found, due, final))
    return Board(parties, tuple(found), owed, tuple(damaged))


def some(names: Sequence[str], most: int = 8) -> str:
    """Names in a sentence; of many the first few and how many more."""
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[: most - 2])} and {len(names) - most + 2} more"


def _closed(
    place: Workspace,
    known: Federation,
    listed: tuple[int, frozenset[str]],
    parties: Iterable[str],
    damaged: list[str],
) -> BoardRound:
    number, there = listed
    told: dict[str, Any] = {}
    for edition in itertools.count(1):
        stem = known.stem_of(number, edition, known.roster.coordinator.name)
        name = f"{stem}.record.json"
        if not rounds.is_signed(name, there):
            break
        path = place.round_folder(number) / name
        try:
            told = _record(path, known)
        except BrainfedError:
            damaged.append(path.relative_to(place.root).as_posix())
    stem = known.stem_of(number, told.get("edition", 1), "")
    return BoardRound(
        round=number,
        edition=told.get("edition"),
        global_digest=told.get("global_digest"),
        updates={entry["sender"]: _fate(entry) for entry in told.get("inputs", ())},
        scored=tuple(n for n in parties if rounds.is_signed(f"{stem}{n}.scores.json", there)),
    )


def _record(path: Path, known: Federation) -> dict[str, Any]:
    """A record as it was signed. Its form was checked when it was made or came.

    Raises:
        FileRefusedError: It was changed since, or isn't the coordinator's.
    """
    data = document.read_capped(path)
    key = signature.verify_bytes(data, path)
    if known.roster.entry(key).role is not Role.COORDINATOR:
        raise MalformedError("The record is not signed by the coordinator", where=path)
    content: dict[str, Any] = json.loads(data)
    return content


def _is_closed(entry: BoardRound) -> bool:
    return entry.round == 0 or entry.edition is not None


def _fate(entry: dict[str, Any]) -> str:
    """What became of an update, in a word, or in two where it was left out."""
    return f"{entry['status']}: {entry['reason']}" if entry["reason"] else str(entry["status"])


def _tell_late(known: Federation, newest: BoardRound, there: frozenset[str]) -> None:
    """Updates of the newest closed round that came after it was closed."""
    for site, fate in newest.updates.items():
        name = f"{known.stem_of(newest.round, 1, site)}.update.safetensors"
        if fate == InputStatus.ABSENT and rounds.is_signed(name, there):
            newest.updates[site] = LATE


def _open(
    place: Workspace,
    known: Federation,
    closed: Sequence[BoardRound],
    due: Sequence[str],
    damaged: list[str],
) -> BoardRound:
    number = closed[-1].round + 1
    parent = closed[-1].global_digest
    updates = dict.fromkeys(due, MISSING)
    is_asked = known.plan_of(number).exchange.approval
    # By whose key and of which edition: `import` compared the digest, and `aggregate` does again.
    approved = {
        (told.content.sender, told.content.edition)
        for told in (rounds.approvals(place, number) if is_asked else ())
        if approval.counts(told, known.roster)
    }
    for path in rounds.update_paths(place, number):
        try:
            about = weights.read_manifest(path)
        except BrainfedError:
            damaged.append(path.relative_to(place.root).as_posix())
            updates |= {site: DAMAGED for site in due if f".{site}.update." in path.name}
            continue
        # Trained from an edition that was superseded since, it doesn't count.
        if parent in {None, about.parent} and rounds.counts(path, known, number):
            by = (approval.approver_of(about.sender), about.edition)
            updates[about.sender] = UNAPPROVED if is_asked and by not in approved else HERE
    return BoardRound(number, None, None, updates, ())


def _parties(
    place: Workspace, known: Federation, names: Mapping[str, Role], found: Sequence[BoardRound]
) -> Iterable[Party]:
    closed, included, scored = Counter[str](), Counter[str](), Counter[str]()
    newest: dict[str, int] = {}
    for entry in found:
        scored.update(entry.scored)
        if entry.edition is not None:
            closed.update(list(entry.updates))
            mine = [name for name, fate in entry.updates.items() if fate == InputStatus.INCLUDED]
            included.update(mine)
            newest |= dict.fromkeys(mine, entry.round)
    versions = [entry.version.version for entry in known.plans]
    for name, role in sorted(names.items()):
        paths = {v: federation.acceptance_path(place, name, v) for v in versions}
        yield Party(
            name=name,
            role=role,
            key=_key(known, name),
            accepted=max((v for v, path in paths.items() if path.exists()), default=None),
            n_included=included[name],
            n_closed=closed[name],
            newest_included=newest.get(name),
            n_scored=scored[name],
        )


COUNTS, NO_RECIPIENT = "counts", "counts, without an age recipient"


def _key(known: Federation, name: str) -> str:
    entry = known.roster.get(name)
    if entry is None or not entry.is_active:
        return f"revoked since round {None if entry is None else entry.revoked_since}"
    needs = known.plans[-1].plan.exchange.encryption is Encryption.REQUIRED
    return NO_RECIPIENT if needs and entry.recipient is None else COUNTS


def _owed(
    known: Federation,
    parties: Sequence[Party],
    found: Sequence[BoardRound],
    due: Sequence[str] | None,
    final: int | None,
) -> Iterable[Owed]:
    """Who owes what: the one place that knows, for the board, the sentences and the mails."""
    active = [party for party in parties if party.key in {COUNTS, NO_RECIPIENT}]
    if due is not None:
        last = found[-1]
        unapproved = tuple(site for site in due if last.updates[site] == UNAPPROVED)
        missing = tuple(s for s in due if last.updates[s] != HERE and s not in unapproved)
        if missing:
            yield Owed(f"the update of round {last.round}", missing, "brainfed train-round")
        if unapproved:
            what = f"the approval of the update of round {last.round}"
            yield Owed(what, unapproved, approval.COMMAND)
        version = known.in_force(last.round).version.version
        silent = tuple(p.name for p in active if (p.accepted or 0) < version)
        if silent:
            what = f"the acceptance of version {version} of the plan"
            yield Owed(what, silent, "brainfed import FOLDER")
    scored = [r for r in found if r.round == final] or [r for r in found if _is_closed(r)]
    if scored and known.first_plan.network.n_dimensions > 0:
        scorers = [p for p in active if due is None or p.role is Role.EVALUATOR]
        if known.first_plan.network.local:  # an evaluator has no layers of its own
            scorers = [p for p in scorers if p.role is Role.SITE]
        lacking = tuple(p.name for p in scorers if p.name not in scored[-1].scored)
        if lacking:
            what = f"the scores of the weights of round {scored[-1].round}"
            yield Owed(what, lacking, "brainfed evaluate")
    keyless = tuple(p.name for p in active if p.key == NO_RECIPIENT)
    if keyless:
        yield Owed("a key with an age recipient", keyless, "brainfed key rotate")
