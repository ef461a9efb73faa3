"""The erasure: a site states what it has erased, and what it keeps (`docs/formats/erasure.md`)."""

from enum import StrEnum
from typing import Literal, Self

from pydantic import model_validator

from brainfed.formats.document import Belonging, Count, Day, Digest, Edition
from brainfed.formats.manifest import FewerThan


class ErasureReason(StrEnum):
    """Why a site erased its data."""

    ENDED = "ended"
    """The work of the federation is done."""
    LEFT = "left"
    """The site takes part no more."""
    ORDERED = "ordered"
    """A contract, an ethics board or an authority demands it."""


class Erased(StrEnum):
    """What was erased, as far as it was there."""

    CACHE = "cache"
    CASES = "cases"
    IDENTITIES = "identities"
    """The key of the ids, and the way back to names."""
    INDEX = "index"
    PICTURES = "pictures"
    """The quality page and its parts."""
    REPORTS = "reports"
    """And scores that were never signed."""
    SPLIT = "split"
    TABLES = "tables"
    """`cases.csv`, `review.csv` and `sent.json`."""
    TRAINING_LOGS = "training-logs"
    UPDATES = "unsigned-updates"


class Kept(StrEnum):
    """What brainfed keeps in the workspace."""

    FEDERATION = "federation"
    KEYS = "keys"
    LEDGER = "ledger"
    SIGNED_WEIGHTS = "signed-weights"
    """Global weights and the site's signed updates, with the records."""


class Erasure(Belonging):
    """What one site erased in its workspace."""

    kind: Literal["erasure"] = "erasure"
    edition: Edition
    """1; more where the site made cases again and erased them again."""
    reason: ErasureReason
    n_patients: Count | FewerThan
    """Patients with a case, or "fewer than" the floor."""
    n_cases: Count | None
    """Cases; null below the floor."""
    dataset: Digest | None
    """Digest of all cases; null where there was no index."""
    split: Digest | None
    """Keyed digest of the split, as in the site's updates; null where there was none."""
    erased: tuple[Erased, ...]
    """Sorted, each once."""
    kept: tuple[Kept, ...]
    """Sorted, each once."""
    day: Day

    @model_validator(mode="after")
    def _sound(self) -> Self:
        for words in (self.erased, self.kept):
            if list(words) != sorted(set(words)):
                raise ValueError("words sorted, each once")
        if isinstance(self.n_patients, str) != (self.n_cases is None):
            raise ValueError("n_cases is null exactly where the patients are below the floor")
        return self
