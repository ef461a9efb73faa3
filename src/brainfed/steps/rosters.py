"""A new version of the roster: made from the one before, signed, put in place."""

from collections.abc import Iterable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from brainfed.errors import NotReadyError
from brainfed.formats import atomic, document, federation
from brainfed.formats.roster import Principal, Roster
from brainfed.formats.workspace import Workspace


def successor(
    place: Workspace, principals: Iterable[Principal], *, recovery: str | None = None
) -> Roster:
    """The roster after the newest one in the coordinator's workspace, not yet written.

    Args:
        place: The coordinator's workspace.
        principals: All entries, in any order.
        recovery: Public line of the recovery key, for the first version; later ones keep it.
    """
    before = federation.newest_roster(place)
    return Roster(
        version=1 if before is None else before.version + 1,
        federation=federation.load(place).digest if federation.has_started(place) else None,
        previous=None if before is None else before.digest,
        recovery=recovery if before is None else before.recovery,
        principals=tuple(sorted(principals, key=lambda entry: entry.order)),
    )


def coordinator_key(place: Workspace) -> Ed25519PrivateKey:
    """The coordinator's private key, once it is sure that the newest roster names it.

    Raises:
        NotReadyError: A rotation was killed between the new roster and the new key.
        WorkspaceError: The key can't be read.
    """
    newest = federation.newest_roster(place)
    if newest is not None and newest.coordinator.key != place.public_key().line:
        raise NotReadyError(
            "The newest roster names another key of the coordinator than this workspace's",
            expected=newest.coordinator.public_key.fingerprint,
            found=place.public_key().fingerprint,
            where=place.root,
            hint="`brainfed key rotate` again finishes a rotation that was interrupted",
        )
    return place.private_key()


def publish(place: Workspace, content: Roster, key: Ed25519PrivateKey) -> None:
    """Write a roster, its signature, and the files for ssh-keygen that follow from it.

    Args:
        place: The coordinator's workspace.
        content: A successor of the newest roster.
        key: The coordinator's key of that newest roster, or the recovery key.
    """
    path = federation.roster_path(place, content.version)
    atomic.remove(path)  # of a killed command: without its signature it never counted
    # What is derived comes first: once the signature stands, nothing is left to do.
    federation.write_allowed_signers(place, content)
    document.write_signed(path, content, key)
