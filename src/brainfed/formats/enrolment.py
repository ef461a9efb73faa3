"""The enrolment: a party asks to take part, signed by its own key (`docs/formats/enrolment.md`)."""

from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from brainfed.core import sshsig
from brainfed.errors import StrangerError, UsageError
from brainfed.formats import document, signature
from brainfed.formats.document import RELEASE, Count, Header, KeyLine, PartyName, Recipient
from brainfed.formats.roster import Role


class Enrolment(Header):
    """A party's name and public key."""

    kind: Literal["enrolment"] = "enrolment"
    name: PartyName
    """Its short name; its principal in the roster."""
    role: Role
    """What it asks to be; never the coordinator."""
    key: KeyLine
    """Its public key, without a comment."""
    recipient: Recipient | None = None
    """Its age recipient for encrypted couriers; null where it has none."""
    n_patients: Count | None = None
    """Patients it expects to train on; null where it doesn't say."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.role is Role.COORDINATOR:
            raise ValueError("the coordinator doesn't enrol")
        if self.name.endswith(RELEASE) != (self.role is Role.APPROVER):
            raise ValueError(f"a name that ends with {RELEASE} exactly for approvers")
        return self


def read_verified(path: Path) -> Enrolment:
    """Read an enrolment and check that its own key signed it.

    Raises:
        UsageError: There is no such file.
        FileRefusedError: Unsigned, damaged, malformed, or signed by another key than it names.
    """
    if not path.is_file():
        raise UsageError(
            "There is no such file",
            expected="an enrolment",
            where=path,
            hint="name it as it lies on the medium: `brainfed admit SITE.enrolment.json`",
        )
    data = document.read_capped(path)
    signer = signature.verify_bytes(data, path)
    enrolment = Enrolment.loads(data)
    check_own(enrolment, signer, path)
    return enrolment


def check_own(enrolment: Enrolment, signer: sshsig.PublicKey, where: Path) -> None:
    """Check that the key that an enrolment names has signed it.

    Raises:
        StrangerError: Another key has.
    """
    own = sshsig.parse_public_key(enrolment.key)
    if signer != own:
        raise StrangerError(
            "The enrolment is signed by another key than the one it names",
            expected=own.fingerprint,
            found=signer.fingerprint,
            where=where,
            hint="ask the site for a fresh enrolment",
        )
