"""The approval: an update may leave its site (`docs/formats/approval.md`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from brainfed.core.sshsig import PublicKey
from brainfed.errors import StrangerError, UnsignedError, WrongRoundError
from brainfed.formats.document import RELEASE, ApproverName, Belonging, Day, Digest, Edition
from brainfed.formats.manifest import Manifest
from brainfed.formats.roster import Role, Roster

COMMAND = "brainfed release --approve --key FILE --who NAME"


class Approval(Belonging):
    """A site's approver lets one update leave; signed in the namespace `brainfed-release`."""

    kind: Literal["approval"] = "approval"
    sender: ApproverName
    """The approver's principal, SITE.release; who the person is stays at the site."""
    round: Annotated[int, Field(ge=1, le=9999)]
    edition: Edition
    update: Digest
    """Digest of the update that may leave."""
    page: Digest | None
    """Digest of the release page that was read; null where there was none."""
    day: Day


@dataclass(frozen=True)
class SignedApproval:
    """An approval that lies here, and the key whose signature fits it; not more."""

    path: Path
    key: PublicKey
    content: Approval


def approver_of(site: str) -> str:
    """The principal who lets a site's updates leave."""
    return f"{site}{RELEASE}"


def counts(found: SignedApproval, roster: Roster) -> bool:
    """Whether the approver whom an approval names holds its key, and it counts in the round."""
    try:
        holder = roster.signer(found.key, found.content.round)
    except StrangerError:
        return False
    return holder.role is Role.APPROVER and holder.name == found.content.sender


def the_one_for(
    about: Manifest, digest: str, there: Sequence[SignedApproval], roster: Roster
) -> SignedApproval | None:
    """The approval that lets an update leave: by its site's approver, of exactly these bytes."""
    wanted = (approver_of(about.sender), about.round, about.edition, digest)
    for found in there:
        told = found.content
        named = (told.sender, told.round, told.edition, told.update)
        if named == wanted and counts(found, roster):
            return found
    return None


def check_approved(
    about: Manifest,
    digest: str,
    there: Sequence[SignedApproval],
    roster: Roster,
    where: Path,
) -> None:
    """Refuse an update that its site's approver hasn't let leave, and say what is wrong.

    Args:
        about: The update's manifest.
        digest: Of its bytes.
        there: The signed approvals of its round that are here.
        roster: The newest one.
        where: The update, for messages.

    Raises:
        UnsignedError: There is no approval of it.
        WrongRoundError: It is of another edition, or of another update.
        StrangerError: By a key that doesn't count, or by the approver of another site.
    """
    if the_one_for(about, digest, there, roster) is not None:
        return
    approver = approver_of(about.sender)
    of_it = [found for found in there if found.content.update == digest]
    own = [found for found in there if found.content.sender == approver]
    hint = f"{about.sender} runs `brainfed release`, then `{COMMAND}`, and exports again"
    if any(found.content.sender != approver for found in of_it):
        raise StrangerError(
            "The update was approved by the approver of another site",
            expected=approver,
            found=", ".join(sorted({found.content.sender for found in of_it} - {approver})),
            where=where,
            hint=hint,
        )
    of_it = [found for found in of_it if found in own]
    if of_it:
        raise StrangerError(
            "The update was approved with a key that doesn't count",
            expected=f"a key of {approver} that counts in round {about.round}",
            found=_whose(of_it[0].key, roster),
            where=where,
            hint=f"{approver} approves again with its newest key: `{COMMAND}`",
        )
    if any(found.content.edition == about.edition for found in own):
        raise WrongRoundError(
            "The approval names another file than this update",
            expected=digest[:16],
            found=", ".join(found.content.update[:16] for found in own),
            where=where,
            hint=hint,
        )
    if own:
        raise WrongRoundError(
            "The approval is of another edition of this update",
            expected=f"edition {about.edition}",
            found=", ".join(f"edition {found.content.edition}" for found in own),
            where=where,
            hint=hint,
        )
    raise UnsignedError(
        "The plan asks for an approval of each update, and there is none of this one",
        expected=f"an approval by {approver}",
        where=where,
        hint=hint,
    )


def _whose(key: PublicKey, roster: Roster) -> str:
    try:
        entry = roster.entry(key)
    except StrangerError:
        return f"{key.fingerprint}, which the roster doesn't name"
    since = entry.revoked_since
    told = f"of {entry.name}" if since is None else f"revoked since round {since}"
    return f"{key.fingerprint}, {told}"
