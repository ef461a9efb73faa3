"""The roster: who takes part, under which key, in which role (`docs/formats/roster.md`).

There is one entry a key. A key that was revoked, or replaced by a newer one, keeps its entry, so
that what it signed in earlier rounds can be checked for ever. From `roster.json` brainfed writes
`federation/roster`, an OpenSSH allowed-signers file, and `federation/revoked`, so that `ssh-keygen
-Y verify` answers the same question with a tool of the hospital's own.
"""

from enum import StrEnum
from typing import Literal, Self

from pydantic import model_validator

from brainfed.core import sshsig
from brainfed.core.sshsig import PublicKey
from brainfed.errors import ConflictError, StrangerError, WrongFederationError
from brainfed.formats.document import (
    RELEASE,
    Count,
    Digest,
    Document,
    Header,
    KeyLine,
    PartyName,
    Recipient,
    RosterVersion,
    Round,
    sha256,
)


class Role(StrEnum):
    """What a party does, and what it may sign."""

    COORDINATOR = "coordinator"
    SITE = "site"
    EVALUATOR = "evaluator"
    """A site that only scores."""
    APPROVER = "approver"
    """Lets the updates of its site leave; signs in the namespace `brainfed-release`."""
    AUDITOR = "auditor"


class Status(StrEnum):
    """Whether a principal's key still counts."""

    ACTIVE = "active"
    REVOKED = "revoked"


class Principal(Document):
    """One party and one of its keys."""

    name: PartyName
    role: Role
    key: KeyLine
    recipient: Recipient | None = None
    """Its age recipient; null where it has none."""
    status: Status = Status.ACTIVE
    revoked_since: Round | None = None
    """First round in which the key no longer counts; null while active."""
    n_patients: Count | None = None
    """Number of patients declared at enrolment; null where not declared."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.name.endswith(RELEASE) != (self.role is Role.APPROVER):
            raise ValueError(f"a name that ends with {RELEASE} exactly for approvers")
        if (self.status is Status.REVOKED) != (self.revoked_since is not None):
            raise ValueError("revoked_since exactly where the status is revoked")
        return self

    @property
    def public_key(self) -> PublicKey:
        """The key, parsed."""
        return sshsig.parse_public_key(self.key)

    @property
    def is_active(self) -> bool:
        """Whether its key counts in every round to come."""
        return self.status is Status.ACTIVE

    def revoked(self, since: int) -> "Principal":
        """The entry once its key counts no more, from a round on."""
        return self.model_copy(update={"status": Status.REVOKED, "revoked_since": since})

    @property
    def namespace(self) -> str:
        """What its signatures are for."""
        return sshsig.RELEASE_NAMESPACE if self.role is Role.APPROVER else sshsig.NAMESPACE

    @property
    def order(self) -> tuple[str, bool, int, str]:
        """Its place in the roster: by name, older keys first."""
        return (self.name, self.is_active, self.revoked_since or 0, self.key)


class Roster(Header):
    """All principals; the version only rises."""

    kind: Literal["roster"] = "roster"
    version: RosterVersion
    federation: Digest | None = None
    """Digest of start.json; null before the start."""
    previous: Digest | None = None
    """Digest of the roster of the version before; null in version 1."""
    recovery: KeyLine | None = None
    """A key of the coordinator that signs nothing but a roster with a new coordinator key."""
    principals: tuple[Principal, ...]
    """One entry a key: by name, revoked keys first, by the round since which they don't count."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        entries = self.principals
        if list(entries) != sorted(entries, key=lambda entry: entry.order):
            raise ValueError("principals by name, revoked keys first, by the round since which")
        keys = [entry.key for entry in entries] + [self.recovery] * (self.recovery is not None)
        if len(set(keys)) != len(keys):
            raise ValueError("each key once")
        active = [entry.name for entry in entries if entry.is_active]
        if len(set(active)) != len(active):
            raise ValueError("at most one active key a name")
        if len({(entry.name, entry.role) for entry in entries}) != len({e.name for e in entries}):
            raise ValueError("one role a name")
        leads = [entry for entry in entries if entry.role is Role.COORDINATOR]
        if len({e.name for e in leads}) != 1 or not any(e.is_active for e in leads):
            raise ValueError("exactly one coordinator, with an active key")
        if (self.previous is None) != (self.version == 1):
            raise ValueError("previous exactly after version 1")
        return self

    @property
    def coordinator(self) -> Principal:
        """The coordinator, with the key that counts now."""
        return next(p for p in self.principals if p.role is Role.COORDINATOR and p.is_active)

    @property
    def sites(self) -> tuple[Principal, ...]:
        """The active sites, by name."""
        return tuple(p for p in self.principals if p.role is Role.SITE and p.is_active)

    def get(self, name: str) -> Principal | None:
        """The principal of that name: its active entry, else the one that was revoked last."""
        found = [p for p in self.principals if p.name == name]
        return found[-1] if found else None

    def entry(self, key: PublicKey) -> Principal:
        """The principal who holds or held a key, whatever its status.

        Raises:
            StrangerError: Nobody does.
        """
        line = key.line
        found = next((p for p in self.principals if p.key == line), None)
        if found is None:
            raise StrangerError(
                "The signature is by a key that is not in the roster",
                expected="one of " + ", ".join(dict.fromkeys(p.name for p in self.principals)),
                found=key.fingerprint,
                hint="if it is a new site or a new key, the coordinator takes it in with "
                "`brainfed admit SITE.enrolment.json`; else import the newest roster",
            )
        return found

    def signer(self, key: PublicKey, round_number: int) -> Principal:
        """The principal whose key counts in a round.

        Raises:
            StrangerError: Nobody holds the key, or it is revoked since that round or an earlier.
        """
        found = self.entry(key)
        if found.revoked_since is not None and round_number >= found.revoked_since:
            raise StrangerError(
                "The signature is by a revoked key",
                expected=f"a key of {found.name} that counts in round {round_number}",
                found=f"{key.fingerprint}, revoked since round {found.revoked_since}",
                hint=f"ask {found.name} to sign with its new key",
            )
        return found

    def check_follows(self, old: "Roster", signer: PublicKey) -> None:
        """Check that this roster may come after an older one.

        Entries never vanish and a revocation is never taken back or moved. A roster is signed by
        the coordinator of the one before; one that replaces the coordinator's key, also by the
        recovery key.

        Args:
            old: A roster of a lower version, accepted before.
            signer: The key that signed this one.

        Raises:
            StrangerError: Signed by neither, or it names another coordinator or recovery key.
            ConflictError: An entry vanished or changed, or `previous` names another roster.
            WrongFederationError: Of another federation.
        """
        if old.federation is not None and self.federation != old.federation:
            raise WrongFederationError(
                "The roster is of another federation",
                expected=old.federation[:16],
                found=str(self.federation)[:16],
            )
        if (self.coordinator.name, self.recovery) != (old.coordinator.name, old.recovery):
            raise StrangerError(
                "The roster names another coordinator or another recovery key",
                expected=old.coordinator.name,
                found=self.coordinator.name,
            )
        is_new_key = self.coordinator.key != old.coordinator.key
        if signer.line != old.coordinator.key and not (is_new_key and signer.line == old.recovery):
            raise StrangerError(
                "The roster is not signed by the coordinator"
                + (" whose key it replaces, nor by the recovery key" if is_new_key else ""),
                expected=old.coordinator.public_key.fingerprint,
                found=signer.fingerprint,
            )
        if self.version == old.version + 1 and self.previous != old.digest:
            raise ConflictError(
                "The roster follows another one than that which lies here: "
                "the coordinator tells two stories",
                expected=old.digest[:16],
                found=str(self.previous)[:16],
            )
        self._check_entries(old)

    def _check_entries(self, old: "Roster") -> None:
        mine = {entry.key: entry for entry in self.principals}
        for before in old.principals:
            after = mine.get(before.key)
            if after is None or (after.name, after.role) != (before.name, before.role):
                raise ConflictError(
                    "A key has vanished from the roster, or changed its owner",
                    expected=f"{before.name}, {before.public_key.fingerprint}",
                    hint="keep both rosters and ask the coordinator",
                )
            if not before.is_active and after.revoked_since != before.revoked_since:
                raise ConflictError(
                    "A revocation was taken back or moved",
                    expected=f"{before.name}, revoked since round {before.revoked_since}",
                    found=f"since round {after.revoked_since}",
                    hint="keep both rosters and ask the coordinator",
                )

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical bytes."""
        return sha256(self.dumps())

    def allowed_signers(self) -> bytes:
        """The OpenSSH allowed-signers file: a line a key, one literal principal, no comment."""
        lines = [f'{p.name} namespaces="{p.namespace}" {p.key}\n' for p in self.principals]
        return "".join(lines).encode("ascii")

    def revoked_keys(self) -> bytes:
        """The keys that no longer count, a line each, as `ssh-keygen -Y verify -r` reads them."""
        return "".join(f"{p.key}\n" for p in self.principals if not p.is_active).encode("ascii")
