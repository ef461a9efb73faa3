"""Approve: a site's approver lets one update leave, with a key of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from brainfed.core import sshsig
from brainfed.core.sshsig import PublicKey
from brainfed.errors import (
    FileRefusedError,
    NotReadyError,
    StrangerError,
    UsageError,
    WorkspaceError,
)
from brainfed.formats import atomic, document, federation, rounds, signature, weights
from brainfed.formats.approval import Approval, approver_of
from brainfed.formats.federation import Federation
from brainfed.formats.ledger import Event
from brainfed.formats.release import Release
from brainfed.formats.roster import Role
from brainfed.formats.workspace import Workspace

MAKE = "`brainfed release` makes the page"


@dataclass(frozen=True)
class ToApprove:
    """The update that an approval would let leave, and the page about it."""

    update: Path
    release: Release
    page: Path
    page_digest: str


@dataclass(frozen=True)
class Approved:
    """An approval, and whether it counts already."""

    path: Path
    approval: Approval
    is_signed: bool
    key_path: Path
    """The public key with which `ssh-keygen` signs it, where it isn't signed yet."""
    already: bool
    """Whether it lay here before."""


def to_approve(place: Workspace) -> ToApprove:
    """What the approver is asked about: the update of the open round and its release page.

    Raises:
        WrongRoleError: No site's workspace.
        NotReadyError: No update, or no page about it as it is now.
        FileRefusedError: The release was changed after it was made.
    """
    place.require(Role.SITE)
    known = federation.load(place)
    update = update_to_leave(place, known)
    json_path, page = rounds.release_paths(place, update)
    if not json_path.exists() or not page.exists():
        raise NotReadyError("There is no release page of this update yet", where=update, hint=MAKE)
    release = document.read(json_path, Release)
    if signature.signature_path(json_path).exists():
        signature.verify_file(json_path)
    page_digest = signature.digest_of(page).hex()
    if release.page != page_digest:
        raise FileRefusedError(
            "The release page was changed after it was made",
            expected=release.page[:16],
            found=page_digest[:16],
            where=page,
            hint=f"delete it; {MAKE} again",
        )
    if release.update != signature.digest_of(update).hex():
        raise NotReadyError(
            "The release page is of another update than the one that lies here",
            expected=release.update[:16],
            where=update,
            hint=f"{MAKE} of this one; read it, then approve",
        )
    return ToApprove(update, release, page, page_digest)


def update_to_leave(place: Workspace, known: Federation) -> Path:
    """The site's update of the open round.

    Raises:
        StrangerError: The roster doesn't name this site.
        NotReadyError: There is none yet, or it can't leave yet, since the site's key is another.
    """
    entry = known.principal(Role.SITE, place.name)
    if entry.public_key != place.public_key():
        raise NotReadyError(
            "The roster names another key of this site, so no update can leave now",
            expected=entry.public_key.fingerprint,
            found=place.public_key().fingerprint,
            where=place.key_path,
            hint="`brainfed export --to FOLDER` takes the new enrolment to the coordinator, who "
            "runs `brainfed admit`; then import the new roster",
        )
    number = rounds.open_round(place)
    path = rounds.update_path(place, known, number, place.name) if number else None
    if path is None:
        raise NotReadyError(
            "There is no update to release yet",
            where=place.rounds,
            hint="`brainfed train-round` makes it",
        )
    return path


def approve(
    place: Workspace,
    key: Path,
    who: str,
    *,
    today: date,
    passphrase: Callable[[Path], bytes] | None = None,
) -> Approved:
    """Let the update of the open round leave: write the approval, and sign it.

    Args:
        place: The site's workspace.
        key: The approver's private key; or the `.pub` of one in an agent or a hardware token, for
            which the approval is left to `ssh-keygen -Y sign`.
        who: The person's name, for this site's ledger alone.
        today: The day for the approval.
        passphrase: Asked where the key is encrypted.

    Raises:
        UsageError: No name.
        NotReadyError: No update, no page, or the roster has no approver of this site.
        StrangerError: The key is not the approver's, or doesn't count.
        WorkspaceError: The key can't be read.
        FileRefusedError: The page was changed.
        ResourceError: The disk refuses.
    """
    _check_name(who)
    asked = to_approve(place)
    known = federation.load(place)
    about = weights.read_manifest(asked.update)
    is_public = key.suffix == ".pub"
    public = signature.read_public(key) if is_public else signature.read_public_part(key)[0]
    _check_approver(public, place, known, about.round, key)
    path = rounds.approval_path(place, known, about)
    content = Approval(
        purpose=known.start.purpose,
        federation=known.digest,
        sender=approver_of(place.name),
        roster_version=known.roster.version,
        round=about.round,
        edition=about.edition,
        update=asked.release.update,
        page=asked.page_digest,
        day=today.isoformat(),
    )
    there = rounds.approval_for(place, known, asked.update)
    if there is not None and document.read(there, Approval).page == asked.page_digest:
        return Approved(there, document.read(there, Approval), True, key, already=True)
    content = _written(path, content)
    digest = signature.digest_of(path).hex()
    if not is_public:
        secret = signature.load_key(key, _typed(key, passphrase))
        signature.sign_file(path, secret, namespace=sshsig.RELEASE_NAMESPACE)
    what = "an approval, to be signed by hand" if is_public else "signed approval"
    place.note(Event.MADE, what=what, file=path.name, digest=digest, who=who.strip())
    return Approved(path, content, not is_public, key, already=False)


def _written(path: Path, content: Approval) -> Approval:
    """Put the approval in place unsigned; one of the same page that waits for its signature stays.

    Another one gives way, its signature first: it never lies beside bytes that it isn't over.
    """
    beside = signature.signature_path(path)
    if path.exists() and not beside.exists():
        there = document.read(path, Approval)
        if there.model_copy(update={"day": content.day}) == content:
            return there
    atomic.remove(beside)
    atomic.write_bytes(path, content.dumps(), replace=True)
    return content


def _check_approver(
    key: PublicKey, place: Workspace, known: Federation, round_number: int, where: Path
) -> None:
    """The key must be that of this site's approver, and count in the round."""
    wanted = approver_of(place.name)
    if not any(entry.name == wanted for entry in known.roster.principals):
        raise NotReadyError(
            "The roster has no approver of this site",
            expected=wanted,
            where=known.roster.coordinator.name,
            hint=f"the approver runs `brainfed init approver --name {wanted}` in a folder of its "
            "own and sends the enrolment in outbox/ to the coordinator, who runs `brainfed admit`; "
            "then import the new roster",
        )
    try:
        holder = known.roster.signer(key, round_number)
    except StrangerError as error:
        error.where = str(where)
        error.hint = f"sign with the newest key of {wanted}; is the newest roster imported?"
        raise
    if holder.name != wanted:
        raise StrangerError(
            f"This is the key of {holder.name}, who can't let updates of {place.name} leave",
            expected=f"the key of {wanted}",
            found=key.fingerprint,
            where=where,
            hint="give the approver's own private key with --key",
        )


def _check_name(who: str) -> None:
    if not who.strip() or len(who) > 200 or not who.isprintable():
        raise UsageError(
            "An approval needs the name of the person who approves",
            expected="1 to 200 printable characters",
            where="--who",
            hint="the name stays in this site's ledger",
        )


def _typed(key: Path, passphrase: Callable[[Path], bytes] | None) -> bytes | None:
    _, is_encrypted = signature.read_public_part(key)
    if is_encrypted and passphrase is None:
        raise WorkspaceError("The approver's key is encrypted", where=key)
    return passphrase(key) if is_encrypted and passphrase is not None else None
