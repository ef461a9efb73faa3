"""`purge`: erase all that a workspace made of patients, and state so under the site's key.

What the statement will say is written down first, as a draft in the data folder, since nobody could
count afterwards. The index goes next, so that no command uses half of the data; the signature comes
when nothing is left, and the draft goes last. A killed command is completed by the same command.
"""

from dataclasses import dataclass
from datetime import date
from pathlib import Path

from brainfed.errors import WorkspaceError
from brainfed.formats import (
    atomic,
    cases_csv,
    checkpoint,
    dataset,
    document,
    federation,
    floor,
    identities,
    ledger,
    review,
    sent,
    signature,
)
from brainfed.formats.erasure import Erased, Erasure, ErasureReason, Kept
from brainfed.formats.federation import Federation
from brainfed.formats.ledger import Event
from brainfed.formats.roster import Role
from brainfed.formats.workspace import Workspace
from brainfed.steps import erase, exchange

DRAFT = "erasure.json"
"""In the data folder: the statement that will be signed. No other file there has this name."""


@dataclass(frozen=True, slots=True)
class Purged:
    """What was erased."""

    erased: tuple[Erased, ...]
    already: bool
    """Whether there was nothing to erase."""
    statement: Path | None
    """The newest statement; None before the site has joined a federation: nobody to state it to."""
    is_signed: bool
    """Whether its signature lies beside it; one by an agent or a token is made by hand."""


def there_is(place: Workspace) -> tuple[Erased, ...]:
    """What would be erased, sorted.

    Raises:
        WrongRoleError: The workspace of a party that has no patients.
    """
    place.require(Role.SITE, Role.EVALUATOR)
    data = place.data
    where: dict[Erased, list[Path]] = {
        Erased.CACHE: [data / "cache"],
        Erased.CASES: [data / "cases"],
        Erased.IDENTITIES: [identities.path_of(data)],
        Erased.INDEX: [dataset.index_path(data)],
        Erased.PICTURES: [data / "quality", *data.glob("*.html")],
        Erased.REPORTS: [place.reports, *erase.unsigned_scores(place)],
        Erased.SPLIT: [dataset.split_path(data)],
        Erased.TABLES: [
            data / cases_csv.FILE_NAME,
            review.path_of(data),
            sent.path_of(data),
        ],
        Erased.TRAINING_LOGS: _logs(place),
        Erased.UPDATES: list(erase.unsigned_updates(place)),
    }
    return tuple(what for what, paths in where.items() if any(path.exists() for path in paths))


def purge(place: Workspace, *, reason: ErasureReason, today: date) -> Purged:
    """Erase the data folder, reports, training logs and unsigned updates, and state it.

    Federation, signed files, ledger and keys stay: they hold no image and no name. Erasing is what
    the system makes of it (`steps.exclude`).

    Args:
        place: A site's or an evaluator's workspace.
        reason: Why.
        today: The day for the statement.

    Raises:
        WorkspaceError: The data folder holds a link to another place, or the key can't be used.
        FileRefusedError: A file of the federation is damaged.
        ResourceError: The disk refuses.
    """
    erased = there_is(place)
    known = federation.load(place) if federation.has_started(place) else None
    draft = place.data / DRAFT
    _refuse_links(place.data)
    erase.drill(place)
    if not erased and not draft.exists():
        atomic.remove_tree(place.data)  # empty, after a kill behind the draft
        return _purged(place, (), already=True)
    if known is not None:
        if place.has_private_key:
            place.private_key()  # what can't be stated is not erased
        if not draft.exists():
            content = _statement(place, known, erased, reason, today)
            atomic.make_folder(place.data)
            atomic.write_bytes(draft, content.dumps(), mode=0o600)
        erased = document.read(draft, Erasure).erased
    _erase(place, draft)
    if known is None:
        place.note(Event.PURGED, reason=reason.value)
    else:
        _state(place, draft)
    atomic.remove_tree(place.data)
    return _purged(place, erased, already=False)


def _logs(place: Workspace) -> list[Path]:
    """What training and release left beside its updates."""
    names = (*checkpoint.TRAINING_FILES, "*.update.release.*")
    return sorted(path for name in names for path in place.rounds.glob(f"r*/{name}"))


def _refuse_links(data: Path) -> None:
    for path in sorted(data.rglob("*")):
        if path.is_symlink():
            raise WorkspaceError(
                "A link leads out of the data folder, and what it leads to would not be erased",
                found=path.resolve(),
                where=path,
                hint="look at what lies there and erase it by hand, remove the link, then run the "
                "command again",
            )


def _statement(
    place: Workspace,
    known: Federation,
    erased: tuple[Erased, ...],
    reason: ErasureReason,
    today: date,
) -> Erasure:
    entries = dataset.read_index(place.data) if Erased.INDEX in erased else ()
    n_patients = len({entry.patient for entry in entries})
    smallest = floor.holding(known.plans[-1].plan, place.floor)
    has_split = {Erased.SPLIT, Erased.IDENTITIES} <= set(erased)
    edition = 1
    while federation.erasure_path(place, place.name, edition).exists():
        edition += 1
    return Erasure(
        purpose=known.start.purpose,
        federation=known.digest,
        sender=place.name,
        roster_version=known.roster.version,
        edition=edition,
        reason=reason,
        n_patients=floor.count(n_patients, smallest),
        n_cases=len(entries) if n_patients >= smallest else None,
        dataset=dataset.dataset_digest(entries) if Erased.INDEX in erased else None,
        split=dataset.split_digest(place.data) if has_split else None,
        erased=erased,
        kept=tuple(Kept),
        day=today.isoformat(),
    )


def _erase(place: Workspace, draft: Path) -> None:
    atomic.remove(dataset.index_path(place.data))
    for path in sorted(place.data.iterdir()) if place.data.is_dir() else ():
        if path.is_dir():
            atomic.remove_tree(path)
        elif path != draft:
            atomic.remove(path)
    atomic.remove_tree(place.reports)
    for path in erase.unsigned_updates(place):
        erase.update(place, path)
    for path in erase.unsigned_scores(place):
        erase.score_file(place, path)
    for path in _logs(place):
        atomic.remove(path)


def _state(place: Workspace, draft: Path) -> None:
    """Put the statement where signed files lie, sign it, and make it ready to be carried."""
    data = draft.read_bytes()
    content = Erasure.loads(data)
    path = federation.erasure_path(place, place.name, content.edition)
    if not path.exists():
        atomic.write_bytes(path, data)
    if place.has_private_key:
        signature.sign_file(path, place.private_key())
    digest = document.sha256(data)
    if all(line.get("digest") != digest for line in ledger.read(place.ledger_path)):
        place.note(Event.PURGED, reason=content.reason.value, digest=digest)
    exchange.fill_outbox(place)


def _purged(place: Workspace, erased: tuple[Erased, ...], *, already: bool) -> Purged:
    edition = 1
    while federation.erasure_path(place, place.name, edition + 1).exists():
        edition += 1
    path = federation.erasure_path(place, place.name, edition)
    if not path.exists():
        return Purged(erased, already, statement=None, is_signed=False)
    return Purged(erased, already, path, signature.signature_path(path).exists())
