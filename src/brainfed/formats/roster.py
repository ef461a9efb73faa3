"""The roster: who takes part, under which key, in which role (`docs/formats/roster.md`).

From `roster.json` brainfed writes `federation/roster`, an OpenSSH allowed-signers file, so that
`ssh-keygen -Y verify` answers the same question with a tool of the hospital's own.
"""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from brainfed.core import sshsig
from brainfed.core.sshsig import PublicKey
from brainfed.errors import StrangerError
from brainfed.formats.document import Digest, Document, Header, KeyLine, Name


class PrincipalRole(StrEnum):
    """What a principal may sign."""

    COORDINATOR = "coordinator"
    SITE = "site"
    EVALUATOR = "evaluator"
    APPROVER = "approver"
    AUDITOR = "auditor"


class Status(StrEnum):
    """Whether a principal's key still counts."""

    ACTIVE = "active"
    REVOKED = "revoked"


class Principal(Document):
    """One party and its key."""

    name: Name
    role: PrincipalRole
    key: KeyLine
    recipient: Annotated[str, Field(pattern=r"^age1[a-z0-9]{58}$")] | None = None
    status: Status = Status.ACTIVE
    revoked_since: Annotated[int, Field(ge=0)] | None = None
    """First round in which the key no longer counts; null while active."""
    n_patients: Annotated[int, Field(ge=0)] | None = None
    """Number of patients declared at enrolment; null where not declared."""

    @property
    def public_key(self) -> PublicKey:
        """The key, parsed."""
        return sshsig.parse_public_key(self.key)


class Roster(Header):
    """All principals, sorted by name; the version only rises."""

    kind: Literal["roster"] = "roster"
    version: Annotated[int, Field(ge=1)]
    federation: Digest | None = None
    """Digest of start.json; null before the start."""
    principals: tuple[Principal, ...]

    @model_validator(mode="after")
    def _sound(self) -> Self:
        names = [principal.name for principal in self.principals]
        keys = {principal.key for principal in self.principals}
        if names != sorted(set(names)) or len(keys) != len(names):
            raise ValueError("principals sorted by name, each name and each key once")
        if len([p for p in self.principals if p.role is PrincipalRole.COORDINATOR]) != 1:
            raise ValueError("exactly one coordinator")
        if any(
            (p.status is Status.REVOKED) != (p.revoked_since is not None) for p in self.principals
        ):
            raise ValueError("revoked_since exactly where the status is revoked")
        return self

    @property
    def coordinator(self) -> Principal:
        """The one coordinator."""
        return next(p for p in self.principals if p.role is PrincipalRole.COORDINATOR)

    @property
    def sites(self) -> tuple[Principal, ...]:
        """The active sites, by name."""
        return tuple(
            p for p in self.principals if p.role is PrincipalRole.SITE and p.status is Status.ACTIVE
        )

    def get(self, name: str) -> Principal | None:
        """The principal of that name."""
        return next((p for p in self.principals if p.name == name), None)

    def holder(self, key: PublicKey) -> Principal:
        """The active principal who holds a key.

        Raises:
            StrangerError: Nobody does, or the key is revoked.
        """
        found = next((p for p in self.principals if p.key == key.line), None)
        if found is None:
            raise StrangerError(
                "The signature is by a key that is not in the roster",
                expected="one of " + ", ".join(p.name for p in self.principals),
                found=key.fingerprint,
                hint="if it is a new site, the coordinator admits it with `brainfed admit`",
            )
        if found.status is Status.REVOKED:
            raise StrangerError(
                "The signature is by a revoked key",
                found=f"{found.name}, revoked since round {found.revoked_since}",
                hint=f"ask {found.name} to sign with its new key",
            )
        return found

    def allowed_signers(self) -> bytes:
        """The OpenSSH allowed-signers file: one literal principal a line, no comment."""
        lines = [
            f'{p.name} namespaces="{sshsig.NAMESPACE}" {p.key}\n'
            for p in self.principals
            if p.role is not PrincipalRole.APPROVER
        ]
        return "".join(lines).encode("ascii")
