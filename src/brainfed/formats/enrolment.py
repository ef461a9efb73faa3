"""The enrolment: a site asks to take part, signed by its own key (`docs/formats/enrolment.md`)."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from brainfed.core import sshsig
from brainfed.errors import StrangerError, UsageError
from brainfed.formats import document, signature
from brainfed.formats.document import Count, Header, KeyLine, Name


class Enrolment(Header):
    """A site's name and public key."""

    kind: Literal["enrolment"] = "enrolment"
    name: Name
    """The site's short name; its principal in the roster."""
    key: KeyLine
    """Its Ed25519 public key, without a comment."""
    recipient: Annotated[str, Field(pattern=r"^age1[a-z0-9]{58}$")] | None = None
    """Its age recipient for encrypted couriers; null where it has none."""
    n_patients: Count | None = None
    """Patients it expects to train on; null where it doesn't say."""


def read_verified(path: Path) -> Enrolment:
    """Read an enrolment and check that its own key signed it.

    Raises:
        UsageError: There is no such file.
        FileRefusedError: Unsigned, damaged, malformed, or signed by another key than it names.
    """
    if not path.is_file():
        raise UsageError(
            "There is no such file", expected="an enrolment", where=path, hint="check the path"
        )
    data = document.read_capped(path)
    key = signature.verify_bytes(data, path)
    enrolment = Enrolment.loads(data)
    if key != sshsig.parse_public_key(enrolment.key):
        raise StrangerError(
            "The enrolment is signed by another key than the one it names",
            expected=sshsig.parse_public_key(enrolment.key).fingerprint,
            found=key.fingerprint,
            where=path,
            hint="ask the site for a fresh enrolment",
        )
    return enrolment
