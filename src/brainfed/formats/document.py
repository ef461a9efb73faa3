"""Signed JSON: a canonical JSON file and the signature beside it (`docs/formats/signed-json.md`).

The kinds themselves are one module each: `enrolment`, `roster`, `start`, `record`.
"""

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from brainfed.core import canonical
from brainfed.errors import MalformedError, TooLargeError
from brainfed.formats import atomic, signature
from brainfed.plan import SLUG

MAX_JSON_BYTES = 4 * 2**20
FORMAT: Literal[0] = 0
"""Version of all exchanged formats; an unknown field is refused, a new field is a new version."""

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=SLUG)]
Count = Annotated[int, Field(ge=0, lt=2**29)]


def _real_day(text: str) -> str:
    """Refuse a day that no calendar has; the pattern alone would take 2026-99-99."""
    date.fromisoformat(text)
    return text


Day = Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"), AfterValidator(_real_day)]
KeyLine = Annotated[str, Field(pattern=r"^ssh-ed25519 [A-Za-z0-9+/]{68}$")]
Purpose = Literal["real", "simulation", "drill"]


class Document(BaseModel):
    """A closed, frozen piece of an exchanged file; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

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

    version: Annotated[int, Field(ge=1)]
    """1 at the start, one more with every amendment."""
    digest: Digest
    """SHA-256 of the complete plan text."""


class Header(Document):
    """The fields that every signed JSON file begins with."""

    format: Literal[0] = FORMAT
    """Version of the format."""


AnyDocument = TypeVar("AnyDocument", bound=Header)


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
        data = stream.read(MAX_JSON_BYTES + 1)
    if len(data) > MAX_JSON_BYTES:
        raise TooLargeError("The JSON file is too large", expected="at most 4 MiB", where=path)
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
