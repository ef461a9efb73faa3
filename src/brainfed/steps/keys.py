"""Keys: make one, or take one that is there; the enrolment that tells the coordinator of it."""

from dataclasses import dataclass
from pathlib import Path

from brainfed.core.sshsig import PublicKey
from brainfed.errors import UsageError, WorkspaceError
from brainfed.formats import atomic, courier, signature
from brainfed.formats.enrolment import Enrolment
from brainfed.formats.roster import Role
from brainfed.formats.workspace import Unlock, Workspace


@dataclass(frozen=True)
class Shown:
    """What this party is known by."""

    role: Role
    name: str
    fingerprint: str
    public_key: str
    """As in a `.pub` file."""
    private_key: Path | None
    """None where it is in an agent or a hardware token."""
    is_here: bool
    is_encrypted: bool
    recipient: str | None
    """Age recipient; None without an identity, or where age is not installed."""
    recovery_fingerprint: str | None
    recovery_is_here: bool


def show(place: Workspace) -> Shown:
    """What there is to know of this party's keys; nobody is asked for a passphrase.

    Raises:
        WorkspaceError: The public key is missing or damaged.
    """
    public = place.public_key()
    is_here = place.has_private_key and place.key_path.exists()
    recovery = signature.public_path(place.recovery_path)
    return Shown(
        role=place.role,
        name=place.name,
        fingerprint=public.fingerprint,
        public_key=public.line,
        private_key=place.key_path if place.has_private_key else None,
        is_here=is_here,
        is_encrypted=is_here and signature.read_public_part(place.key_path)[1],
        recipient=courier.recipient_of(place.identity_path)
        if courier.is_available() and place.identity_path.exists()
        else None,
        recovery_fingerprint=signature.read_public(recovery).fingerprint
        if recovery.exists()
        else None,
        recovery_is_here=place.recovery_is_here,
    )


def check_given(path: Path, role: Role) -> PublicKey:
    """Check a key that a person names to be this party's; gives its public half.

    Raises:
        UsageError: No such file, a name that can't be written down, or one that can't do the work.
        WorkspaceError: Damaged, not Ed25519, or a private key that others can read.
    """
    if not path.is_file() or not str(path).isprintable():
        raise UsageError(
            "There is no such key file",
            expected="a private key of OpenSSH, or the .pub of one in an agent or a token",
            where=path,
            hint="`ls ~/.ssh` shows the usual place; without --key a new key is made",
        )
    if path.suffix != ".pub":
        return signature.read_public_part(path)[0]
    if role is Role.COORDINATOR:
        raise UsageError(
            "The coordinator's key can't be in an agent or a hardware token",
            expected="a private key file: the coordinator signs in the middle of every aggregation",
            found=path,
            hint="leave --key away; --passphrase protects the key file instead",
        )
    return signature.read_public(path)


def entry(root: Path, given: Path | None, own: str) -> str:
    """What the marker will say: the key's place, from the workspace where it lies inside.

    Args:
        root: The workspace.
        given: A checked key, by its absolute path; None for one that is made here.
        own: Place of a key that is made here.
    """
    if given is None:
        return own
    if given.suffix == ".pub":
        return f"{own}.pub"
    return given.relative_to(root).as_posix() if given.is_relative_to(root) else str(given)


def put(place: Workspace, given: Path | None, passphrase: bytes | None) -> None:
    """Make the key that the workspace names, or copy the public one without its comment.

    Raises:
        WorkspaceError: A killed command left a key of the other kind there.
        ResourceError: The disk refuses.
    """
    if given is None:
        make(place.key_path, passphrase)
    elif not place.has_private_key:
        signature.write_public(place.key_path, signature.read_public(given))


def make(path: Path, passphrase: bytes | None) -> None:
    """Make a key; one that a killed command has made already is kept.

    Raises:
        WorkspaceError: There is one, but with a passphrase where none is wanted, or without one.
        ResourceError: The disk refuses.
    """
    if not path.exists():
        signature.make_key(path, passphrase)
    elif signature.read_public_part(path)[1] != (passphrase is not None):
        raise WorkspaceError(
            "A key from an earlier try lies here",
            expected="a key without a passphrase" if passphrase is None else "an encrypted key",
            where=path,
            hint="decide about --passphrase as in the earlier try, or use an empty folder",
        )


def passphrase_of(given: Path, unlock: Unlock | None) -> bytes | None:
    """The passphrase of a checked key, typed by a person; None where it has none."""
    is_encrypted = given.suffix != ".pub" and signature.read_public_part(given)[1]
    return unlock(given) if is_encrypted and unlock is not None else None


def answering(
    passphrase: bytes | None, path: Path | None = None, otherwise: Unlock | None = None
) -> Unlock | None:
    """Who is to be asked for passphrases when one has just been typed.

    Args:
        passphrase: What was typed; None where nothing was.
        path: The key that it opens; every key where None.
        otherwise: Who is asked for other keys.
    """

    def unlock(wanted: Path) -> bytes:
        assert passphrase is not None
        return passphrase if otherwise is None or path in {None, wanted} else otherwise(wanted)

    return otherwise if passphrase is None else unlock


def recipient_of(place: Workspace) -> str | None:
    """The age recipient of this party, its identity made if need be; None where age is missing."""
    if not courier.is_available():
        return None
    path = place.identity_path
    return courier.recipient_of(path) if path.exists() else courier.make_identity(path)


def enrolment_path(place: Workspace) -> Path:
    """The enrolment in the outbox."""
    return place.outbox / f"{place.name}.enrolment.json"


def write_enrolment(place: Workspace, n_patients: int | None) -> Path:
    """Put an enrolment under the workspace's key into the outbox, signed where the key is here."""
    path = enrolment_path(place)
    content = Enrolment(
        name=place.name,
        role=place.role,
        key=place.public_key().line,
        recipient=recipient_of(place),
        n_patients=n_patients,
    )
    key = place.private_key() if place.has_private_key else None
    atomic.remove(signature.signature_path(path))  # it belongs to an older one
    atomic.write_bytes(path, content.dumps(), replace=True)
    if key is not None:
        signature.sign_file(path, key)
    return path
