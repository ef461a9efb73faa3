"""The release: what leaves with one update, who can read it, what was checked.

`docs/formats/release.md`. For the site alone: its engineer makes it, its officer reads it as a
page, its approver signs another file, the approval, which names that page by its digest.
"""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from brainfed.core.canonical import MAX_INTEGER
from brainfed.formats.document import (
    Belonging,
    Count,
    Day,
    Digest,
    Document,
    Edition,
    Name,
    PartyName,
    PlanVersion,
)
from brainfed.formats.manifest import Versions
from brainfed.formats.roster import Role

Sentence = Annotated[str, Field(min_length=1, max_length=4000)]
Word = Annotated[str, Field(max_length=400)]
Bytes = Annotated[int, Field(ge=0, le=MAX_INTEGER)]
Amount = Annotated[int, Field(ge=0, le=MAX_INTEGER)]
"""In millionths."""
Share = Annotated[int, Field(ge=0, le=1_000_000)]
"""In millionths of 1."""


class What(StrEnum):
    """What a reader can read."""

    UPDATE = "update"
    """These very weights, under this site's name."""
    GLOBAL = "global weights"
    """What the coordinator makes of them; in a relay these very weights."""


class Reader(Document):
    """Somebody who will be able to read the weights, or what is made of them."""

    name: PartyName
    role: Role
    what: What


class Leaving(Document):
    """One file that is due."""

    name: Word
    what: Word
    n_bytes: Bytes
    digest: Digest
    """Of the file itself, before it is encrypted."""
    encrypted_for: tuple[PartyName, ...]
    """Who alone can open it on the way; empty where it travels in the clear."""


class TensorFacts(Document):
    """One tensor of the update beside that of its parent."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    shape: tuple[Annotated[int, Field(ge=1, le=MAX_INTEGER)], ...]
    n_bytes: Bytes
    norm: Amount
    """Euclidean, in millionths."""
    change: Amount
    """Euclidean norm of update less parent, in millionths."""
    share: Share
    """Of the squared norm of the whole change, in millionths."""


class Told(Document):
    """A number, or a group of numbers, that goes along."""

    file: Word
    field: Word
    value: Word
    why: Sentence
    floor: Sentence
    """What the floor says of it."""


class Result(StrEnum):
    """How a check ended."""

    PASSED = "passed"
    FOUND = "found"
    """Something is there that should not be; a person must look."""
    NOT_CHECKED = "not checked"


class Check(Document):
    """One thing that was checked."""

    what: Sentence
    result: Result
    details: Sentence


class Attack(Document):
    """How well losses tell training from validation patients, under some weights."""

    weights: Literal["update", "parent"]
    auc: Share
    """Chance that a training patient has the smaller loss, ties half, in millionths."""
    low: Share
    """95 % interval of it, bootstrap over patients."""
    high: Share
    true_positives: Share
    """Share of the training patients below a loss that only `false_positives` of the others are."""
    false_positives: Share


class Membership(Document):
    """The membership test; it bounds one attack."""

    n_train: Count
    """Patients that were looked at."""
    n_validation: Count
    attacks: tuple[Attack, ...]
    """Of the update, then of its parent; empty where it can't be measured."""
    words: Sentence
    """Why it can't be measured, or what limits it."""


class Release(Belonging):
    """What a release page says, as data; all numbers are integers."""

    kind: Literal["release"] = "release"
    sender: Name
    round: Annotated[int, Field(ge=1, le=9999)]
    edition: Edition
    plan: PlanVersion
    parent: Digest
    update: Digest
    page: Digest
    """Of the page for people, which lies beside this file."""
    n_patients: Count
    sentence: Sentence
    """The first one of the page."""
    readers: tuple[Reader, ...]
    files: tuple[Leaving, ...]
    tensors: tuple[TensorFacts, ...]
    change: Amount
    """Euclidean norm of the whole change, in millionths."""
    relative_change: Amount
    """That over the norm of the parent, in millionths of 1."""
    numbers: tuple[Told, ...]
    checks: tuple[Check, ...]
    membership: Membership
    software: Versions
    """That made the update; its manifest says it too."""
    made_by: Annotated[str, Field(pattern=r"^[0-9A-Za-z.+]{1,32}$")]
    """Version of brainfed that made this release."""
    day: Day

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.update not in {file.digest for file in self.files}:
            raise ValueError("the update is among the files")
        return self
