"""Export: fill the outbox with what is to be carried now, and copy it to a medium."""

import os
from dataclasses import dataclass
from pathlib import Path

from brainfed.core import sshsig
from brainfed.core.progress import Progress, silent
from brainfed.errors import (
    FileRefusedError,
    NotReadyError,
    ResourceError,
    SignatureError,
    UsageError,
    WrongRoleError,
)
from brainfed.formats import (
    approval,
    atomic,
    courier,
    federation,
    packing_list,
    rounds,
    signature,
)
from brainfed.formats.federation import Federation
from brainfed.formats.ledger import Event
from brainfed.formats.packing_list import Packed, PackingList
from brainfed.formats.roster import Role
from brainfed.formats.workspace import Workspace
from brainfed.steps import outgoing
from brainfed.steps.outgoing import Outgoing


@dataclass(frozen=True)
class Exported:
    """What lies in the outbox, and what was copied to a medium."""

    outbox: tuple[str, ...]
    to: Path | None
    copied: tuple[Packed, ...]
    """Each with the digest of what was read back from the medium."""
    packing_list: Path | None
    unsigned: tuple[Path, ...]
    """Files that are to be signed by hand before they are carried."""
    public_key: Path
    """The key with which they are to be signed."""


def export(
    place: Workspace, to: Path | None, *, unsigned: bool = False, progress: Progress = silent
) -> Exported:
    """Sign what is to leave, put it into the outbox, and copy the outbox to a medium.

    Every copy is flushed and read back. Files of ours that are there already are replaced. A
    signature by this party's own key that lies in the outbox is taken for what it is, so the
    private key may be in an agent or a token.

    Args:
        place: The workspace.
        to: Folder on the medium; only the outbox is filled where None.
        unsigned: Sign nothing; what has no signature yet is left to `ssh-keygen -Y sign`.
        progress: Told of each file.

    Raises:
        NotReadyError: There is nothing to send; the plan of an update isn't accepted; the approval
            that it asks for is missing; or a reader of what must be encrypted has no recipient.
        WrongRoleError: The coordinator signs what it makes at once.
        UsageError: Unsigned weights would leave in the clear that are to be encrypted.
        WorkspaceError: The private key can't be used here.
        ResourceError: The medium is missing, full, or gives back other bytes.
    """
    if unsigned and place.role is Role.COORDINATOR:
        raise WrongRoleError(
            "The coordinator's files are signed when they are made",
            hint="`brainfed export` without --unsigned",
        )
    known = federation.load(place) if federation.has_started(place) else None
    files = outgoing.due(place, known)
    if not files:
        raise NotReadyError(
            "There is nothing to send now", where=place.outbox, hint="`brainfed status`"
        )
    for file in files:
        _check_may_leave(place, known, file)
    recipients = {file.name: outgoing.recipients_of(file, place, known) for file in files}
    left = [file for file in files if not _is_signed(place, file, known, by_hand=unsigned)]
    if to is not None:
        _check_folder(to)
        _check_stays(place, [file for file in left if recipients[file.name]])
    names = _fill(place, files, recipients, left, keep_others=known is None)
    copied = []
    for number, name in enumerate(names if to is not None else (), start=1):
        assert to is not None
        copied.append(copy_and_read_back(place.outbox / name, to / name))
        progress("copy", number, len(names), name)
    beside = None if to is None else _write_packing_list(place, known, files, to, tuple(copied))
    public = place.key_path if not place.has_private_key else signature.public_path(place.key_path)
    by_hand = tuple((to or place.outbox) / file.name for file in left)
    return Exported(names, to, tuple(copied), beside, by_hand, public)


def fill_outbox(place: Workspace) -> tuple[str, ...]:
    """Make the outbox hold exactly what is to be carried now; gives the names, sorted.

    What can't be signed, encrypted or sent yet is left out; `export` says why.
    """
    known = federation.load(place) if federation.has_started(place) else None
    files, recipients = [], {}
    for file in outgoing.due(place, known):
        try:
            _check_may_leave(place, known, file)
            recipients[file.name] = outgoing.recipients_of(file, place, known)
        except NotReadyError:
            continue
        if not recipients[file.name] or courier.is_available():
            files.append(file)
    signed = [file for file in files if _is_signed(place, file, known, by_hand=True)]
    return _fill(place, signed, recipients, (), keep_others=known is None)


def _check_may_leave(place: Workspace, known: Federation | None, file: Outgoing) -> None:
    """An update leaves only under a plan that its site has accepted, and approved where asked.

    Raises:
        NotReadyError: It may not.
    """
    if known is None or file.what != "update" or file.round is None:
        return
    federation.check_accepted(place, known, file.round)
    try:
        rounds.check_approved(place, known, file.path)
    except FileRefusedError as error:
        raise NotReadyError(
            error.message,
            expected=error.expected,
            found=error.found,
            where=error.where,
            hint=f"look at the release page and let the approver approve it: `brainfed release`, "
            f"then `{approval.COMMAND}`",
        ) from None


def _fill(
    place: Workspace,
    files: list[Outgoing],
    recipients: dict[str, tuple[str, ...]],
    unsigned: list[Outgoing] | tuple[()],
    *,
    keep_others: bool,
) -> tuple[str, ...]:
    """Link, copy or encrypt files into the outbox, and take away what is not among them."""
    links: dict[str, Path] = {}
    encrypted: dict[str, Outgoing] = {}
    for file in files:
        if file in unsigned:
            links[file.name] = file.path
            continue
        links[f"{file.name}.sig"] = signature.signature_path(file.path)
        if recipients[file.name]:
            encrypted[file.name + courier.SUFFIX] = file
        else:
            links[file.name] = file.path
    for old in place.outbox.iterdir() if not keep_others else ():
        if old.name not in encrypted and not (old.name in links and old.samefile(links[old.name])):
            atomic.remove(old)
    for name, path in links.items():
        if not (place.outbox / name).exists():
            atomic.link_or_copy(path, place.outbox / name)
    for name, file in encrypted.items():
        # Anew each time: nobody can tell from an encrypted file whom it was made for.
        courier.encrypt(file.path, place.outbox / name, recipients[file.name])
    return tuple(sorted([*links, *encrypted]))


def _is_signed(
    place: Workspace, file: Outgoing, known: Federation | None, *, by_hand: bool
) -> bool:
    """Whether a file has its signature; taken over from the outbox, or made, if need be.

    Args:
        place: The workspace.
        file: What is to be signed.
        known: The federation; None before the party has joined.
        by_hand: Whether the private key is left alone.
    """
    beside = signature.signature_path(file.path)
    if (
        beside.exists()
        and file.path.parent != place.outbox
        and not _is_outdated(place, file, known)
    ):
        return True
    digest = _adopt(place, file)
    if digest is None and not by_hand:
        digest = signature.sign_file(file.path, place.private_key()).hex()
    elif digest is None:
        return False
    elif beside.parent == place.outbox:
        return True
    place.note(Event.MADE, what=f"signed {file.what}", file=file.path.name, digest=digest)
    return True


def _is_outdated(place: Workspace, file: Outgoing, known: Federation | None) -> bool:
    """Whether our key was replaced since we signed this, so that it wouldn't count where it comes.

    A consent or scores may not have come yet; an update counts unless its key was revoked for its
    round.
    """
    if known is None or file.what not in {"acceptance", "scores", "update"}:
        return False
    if signature.read_signature(file.path).key == place.public_key():
        return False
    return file.round is None or not rounds.counts(file.path, known, file.round)


def _adopt(place: Workspace, file: Outgoing) -> str | None:
    """Take over a signature in the outbox that is by our own key; gives the file's digest."""
    where = place.outbox / f"{file.name}.sig"
    if not where.exists():
        return None
    try:
        found = signature.parse_file(where)
        sshsig.verify(found, signature.digest_of(file.path, found.hash_algorithm))
    except SignatureError:
        return None
    if found.key != place.public_key():
        return None
    beside = signature.signature_path(file.path)
    if where != beside:
        atomic.write_bytes(beside, found.armored, replace=True)
    return signature.digest_of(file.path).hex()


def _check_folder(to: Path) -> None:
    if not to.is_dir():
        raise ResourceError(
            "The folder to copy to isn't there",
            found=to,
            hint="mount the medium, or make the folder; then `brainfed export --to FOLDER`",
        )


def _check_stays(place: Workspace, files: list[Outgoing]) -> None:
    if files:
        raise UsageError(
            "These weights are to be encrypted, and only signed ones are",
            found=", ".join(file.name for file in files),
            where="--unsigned --to",
            hint=f"`brainfed export --unsigned` without --to, sign in {place.outbox}, then "
            "`brainfed export --to FOLDER`",
        )


def _write_packing_list(
    place: Workspace,
    known: Federation | None,
    files: list[Outgoing],
    to: Path,
    copied: tuple[Packed, ...],
) -> Path:
    stem = "" if known is None else known.prefix
    content = PackingList(
        federation="none yet" if known is None else f"{known.name}, {known.digest[:8]}",
        round=max((file.round for file in files if file.round is not None), default=None),
        sender=f"{place.name} ({place.role})",
        readers=outgoing.addressees(place, known),
        files=copied,
    )
    path = to / packing_list.file_name(stem, place.name)
    atomic.write_bytes(path, content.text().encode(), replace=True)
    return path


def copy_and_read_back(source: Path, target: Path) -> Packed:
    """Copy a finished file to a medium, flush it, and compare what the medium gives back.

    Raises:
        ResourceError: The medium is full, or gives back other bytes.
    """
    for leftover in target.parent.glob(f"{atomic.TEMPORARY_PREFIX}*-{target.name}"):
        atomic.remove(leftover)  # of a killed export
    n_bytes = source.stat().st_size
    digest = atomic.copy(source, target, cap_bytes=n_bytes, replace=True)
    _forget_cached(target)
    if signature.digest_of(target) != digest:
        raise ResourceError(
            "The medium gave back other bytes than were written",
            where=target,
            hint="use another medium; this one is not to be trusted",
        )
    return Packed(target.name, n_bytes, digest.hex())


def _forget_cached(path: Path) -> None:
    """Ask the system to drop its cached copy, so that reading back reads the medium."""
    if hasattr(os, "posix_fadvise"):
        with path.open("rb") as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
