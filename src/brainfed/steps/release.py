"""Release: the page about the update that is to leave, and the same as signed JSON."""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from importlib.metadata import version
from pathlib import Path

from brainfed.core.progress import Progress, silent
from brainfed.errors import FileRefusedError
from brainfed.formats import atomic, document, federation, report_page, rounds, signature, weights
from brainfed.formats.federation import Federation
from brainfed.formats.ledger import Event
from brainfed.formats.release import Release
from brainfed.formats.roster import Role
from brainfed.formats.weights import WeightsFile
from brainfed.formats.workspace import Workspace
from brainfed.steps import (
    outgoing,
    release_checks,
    release_facts,
    release_membership,
    release_page,
)
from brainfed.steps.approve import update_to_leave

_UNKNOWN = 64 * "0"


@dataclass(frozen=True)
class Released:
    """A release, and where it lies."""

    release: Release
    path: Path
    page: Path
    already: bool
    """Whether it was there, of this very update."""
    is_signed: bool
    """Not where the key is in an agent or a hardware token; the page counts all the same."""
    needs_approval: bool
    approval: Path | None
    """The signed approval of this update, once there is one."""


def release(
    place: Workspace,
    *,
    device: str | None = None,
    today: date | None = None,
    progress: Progress = silent,
) -> Released:
    """Make the release of the update of the open round; again only where something has changed.

    Args:
        place: A site's workspace.
        device: Where the membership test computes; CUDA where there is one if None.
        today: The day for the page; that of the clock, in UTC, where None.
        progress: Told of the cases of the membership test.

    Raises:
        WrongRoleError: No site's workspace.
        NotReadyError: No update yet; its plan isn't accepted; or it must be encrypted and can't.
        FileRefusedError: The update or its parent is damaged, or not what the plan says.
        ScanError: Index, identities or a case are damaged.
        WorkspaceError: The private key can't be used.
        ResourceError: The disk, the memory or the device.
    """
    place.require(Role.SITE)
    known = federation.load(place)
    update = update_to_leave(place, known)
    path, page = rounds.release_paths(place, update)
    there = _there(place, known, update)
    already = there is not None
    if there is None:
        made = _made(place, known, update, device=device, today=today, progress=progress)
        there = _put(place, known, update, made)
    plan = known.plan_of(there.round)
    return Released(
        release=there,
        path=path,
        page=page,
        already=already,
        is_signed=signature.signature_path(path).exists(),
        needs_approval=plan.exchange.approval,
        approval=rounds.approval_for(place, known, update),
    )


def _there(place: Workspace, known: Federation, update: Path) -> Release | None:
    """The release that lies here, if it is of this update, and of all that is due beside it.

    Once the update is approved, the page stays the one that was read.
    """
    path, page = rounds.release_paths(place, update)
    if not path.exists() or not page.exists():
        return None
    try:
        if place.has_private_key:
            signature.verify_file(path)
        found = document.read(path, Release)
    except FileRefusedError:
        return None
    if found.page != signature.digest_of(page).hex():
        return None
    if found.update != signature.digest_of(update).hex():
        return None
    if rounds.approval_for(place, known, update) is not None:
        return found
    return found if found.files == release_facts.leaving(place, known) else None


def _put(place: Workspace, known: Federation, update: Path, made: Release) -> Release:
    """Put a release in place: the page, the JSON, which names the page, and its signature."""
    path, page = rounds.release_paths(place, update)
    key = place.private_key() if place.has_private_key else None
    atomic.remove(signature.signature_path(path))
    atomic.remove(path)
    atomic.remove(page)  # whatever became of it: its name is this command's own
    shown = release_page.lay_out(made, known, place.floor)
    report_page.write(page, shown, is_private=True)
    made = made.model_copy(update={"page": signature.digest_of(page).hex()})
    atomic.write_bytes(path, made.dumps(), mode=0o600)
    if key is not None:
        signature.sign_file(path, key)
    digest = signature.digest_of(path).hex()
    place.note(Event.MADE, what="release", file=path.name, digest=digest, page=made.page)
    return made


def _made(
    place: Workspace,
    known: Federation,
    update: Path,
    *,
    device: str | None,
    today: date | None,
    progress: Progress,
) -> Release:
    """All that the release says; it doesn't know its page's digest yet."""
    checks = release_checks.check_form(place, known, update)
    about = weights.read_manifest(update)
    file = WeightsFile(update, signature.digest_of(update).hex(), about)
    parent = rounds.newest_global(place, known)
    plan = known.plan_of(about.round)
    due = [one for one in outgoing.due(place, known) if one.what != "approval"]
    files = release_facts.leaving(place, known)
    told = release_facts.numbers(place, known, due, about.round)
    readers = release_facts.readers(place, known, about.round)
    tensors, change, before = release_facts.tensors(update, parent.path, known.table)
    next_sites = release_facts.to_come(plan, known, place.name)
    return Release(
        purpose=known.start.purpose,
        federation=known.digest,
        sender=place.name,
        roster_version=known.roster.version,
        round=about.round,
        edition=about.edition,
        plan=about.plan,
        parent=str(about.parent),
        update=file.digest,
        page=_UNKNOWN,
        n_patients=about.n_patients or 0,
        sentence=release_facts.first_sentence(about.n_patients or 0, readers, next_sites),
        readers=readers,
        files=files,
        tensors=tensors,
        change=release_facts.millionths(change),
        relative_change=release_facts.millionths(change / before if before else 0.0),
        numbers=told,
        checks=(
            *checks,
            release_checks.check_floor(told),
            release_checks.check_names(place, known, due),
        ),
        membership=release_membership.measure(
            place, known, file, parent, device=device, progress=progress
        ),
        software=about.versions,
        made_by=version("brainfed"),
        day=(today or datetime.now(UTC).date()).isoformat(),
    )
