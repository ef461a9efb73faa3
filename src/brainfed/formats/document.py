"""Signed JSON: a canonical JSON file and the signature beside it (`docs/formats/signed-json.md`).

The kinds themselves are one module each: `enrolment`, `roster`, `start`, `record`.
"""

import hashlib
from datetime import date
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, Self, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from brainfed.core import canonical, sshsig
from brainfed.errors import MalformedError, TooLargeError, UsageError, WrongRoundError
from brainfed.formats import atomic, signature
from brainfed.plan import MAX_TOTAL_WEIGHT, SLUG, check_name

MAX_JSON_BYTES = 4 * 2**20
FORMAT: Literal[1] = 1
"""Version of all exchanged formats; an unknown field is refused, a new field is a new version."""

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def _usable_name(text: str) -> str:
    """Refuse what no file system of the parties can carry, such as `con`."""
    try:
        check_name(text.removesuffix(RELEASE))
    except UsageError as error:
        raise ValueError(error.message) from None
    return text


RELEASE = ".release"
"""Ends the name of an approver: `hospital-a.release` lets updates of hospital-a leave."""
DRILL = "drill-"
"""Begins the name of every party of a drill, and of no other: an enrolment says no purpose, and by
its name alone a throw-away key is never admitted to a real federation."""
Name = Annotated[str, Field(pattern=SLUG), AfterValidator(_usable_name)]
PartyName = Annotated[
    str, Field(pattern=SLUG[:-1] + r"(\.release)?$"), AfterValidator(_usable_name)
]
"""Of any principal, approvers too."""
ApproverName = Annotated[
    str, Field(pattern=SLUG[:-1] + r"\.release$"), AfterValidator(_usable_name)
]
Count = Annotated[int, Field(ge=0, lt=MAX_TOTAL_WEIGHT)]


def _real_day(text: str) -> str:
    """Refuse a day that no calendar has; the pattern alone would take 2026-99-99."""
    date.fromisoformat(text)
    return text


Day = Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"), AfterValidator(_real_day)]


def _one_spelling(line: str) -> str:
    """Refuse a key line that says the same key in another way."""
    try:
        line_of_key = sshsig.parse_public_key(line).line
    except MalformedError as error:
        raise ValueError(str(error)) from None
    if line_of_key != line:
        raise ValueError("the key's type and its base64 text, one space between them, no comment")
    return line


KeyLine = Annotated[str, Field(max_length=400), AfterValidator(_one_spelling)]
Recipient = Annotated[str, Field(pattern=r"^age1[a-z0-9]{58}$")]
Round = Annotated[int, Field(ge=0, le=9999)]
Edition = Annotated[int, Field(ge=1, le=99)]
RosterVersion = Annotated[int, Field(ge=1, le=9999)]
Purpose = Literal["real", "simulation", "drill"]


def is_of_drill(name: str) -> bool:
    """Whether a principal takes part in a drill."""
    return name.startswith(DRILL)


def check_purpose(name: str, purpose: str, what: str, where: Path) -> None:
    """Refuse what belongs to a drill outside of one, and the other way round.

    Args:
        name: The party that it was brought to.
        purpose: What it was made for.
        what: It, for the message.
        where: Its file.

    Raises:
        WrongRoundError: The two don't go together.
    """
    if is_of_drill(name) != (purpose == "drill"):
        raise WrongRoundError(
            f"{what} is of a drill" if purpose == "drill" else f"{what} is not of a drill",
            expected="files of the same drill" if is_of_drill(name) else "files made in earnest",
            found=f"purpose {purpose}",
            where=where,
            hint="only `brainfed drill` uses files of a drill; ask the sender for the real ones"
            if purpose == "drill"
            else "leave the workspace of the drill alone: `brainfed drill` works in it",
        )


class Document(BaseModel):
    """A closed, frozen piece of an exchanged file; unknown fields are refused."""

    # A kind of file costs time when its first one is read, not with every command's start.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    def dumps(self) -> bytes:
        """The canonical bytes."""
        return canonical.dumps(self.model_dump(mode="json"))

    @classmethod
    def loads(cls, data: bytes) -> Self:
        """Read canonical bytes.

        Raises:
            MalformedError: Not canonical, an unknown or missing field, or a wrong value.
        """
        canonical.loads(data)
        try:
            document = cls.model_validate_json(data, strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise MalformedError(
                f"Not a {cls.__name__.lower()} of format {FORMAT}",
                expected=first["msg"],
                where=".".join(str(part) for part in first["loc"]) or None,
                hint="the sender's brainfed may be newer than yours",
            ) from None
        if document.dumps() != data:  # a field left to its default, or false for 0
            raise MalformedError(
                f"Not a {cls.__name__.lower()} of format {FORMAT}",
                expected="every field present, null where unused, each of its own type",
            )
        return document


class PlanVersion(Document):
    """Which version of the plan is in force."""

    version: Annotated[int, Field(ge=1, le=9999)]
    """1 at the start, one more with every amendment."""
    digest: Digest
    """SHA-256 of the complete plan text."""


class Header(Document):
    """The fields that every signed JSON file begins with."""

    format: Literal[1] = FORMAT
    """Version of the format."""


class Belonging(Header):
    """What every signed JSON file of a federation that has started says of itself."""

    purpose: Purpose
    federation: Digest
    """Digest of start.json."""
    sender: PartyName
    """The principal whose key signs it."""
    roster_version: RosterVersion
    """The newest roster that the sender knew."""


AnyDocument = TypeVar("AnyDocument", bound=Header)


def sha256(data: bytes) -> str:
    """The digest by which files name each other, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def read(path: Path, kind: type[AnyDocument]) -> AnyDocument:
    """Read a signed JSON file whose signature has been checked.

    Raises:
        TooLargeError: Over 4 MiB.
        MalformedError: Not of this kind and format.
    """
    return kind.loads(read_capped(path))


def read_capped(path: Path) -> bytes:
    """The bytes of a JSON file.

    Raises:
        TooLargeError: Over 4 MiB.
    """
    with path.open("rb") as stream:
        return capped(stream, path)


def capped(stream: BinaryIO, where: Path) -> bytes:
    """The bytes of a JSON file that is open.

    Raises:
        TooLargeError: Over 4 MiB.
    """
    data = stream.read(MAX_JSON_BYTES + 1)
    if len(data) > MAX_JSON_BYTES:
        raise TooLargeError("The JSON file is too large", expected="at most 4 MiB", where=where)
    return data


def kind_of(data: bytes) -> str:
    """The `kind` field of canonical JSON bytes.

    Raises:
        MalformedError: Not canonical JSON, or no kind.
    """
    content: Any = canonical.loads(data)
    kind = content.get("kind") if isinstance(content, dict) else None
    if not isinstance(kind, str):
        raise MalformedError("The JSON file doesn't say its kind", expected="a field `kind`")
    return kind


def write_signed(path: Path, document: Header, key: Ed25519PrivateKey) -> str:
    """Write a document and its signature; gives its digest (hexadecimal).

    Raises:
        ConflictError: There is such a file already.
    """
    atomic.write_bytes(path, document.dumps())
    return signature.sign_file(path, key).hex()
