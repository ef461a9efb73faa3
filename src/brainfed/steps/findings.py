"""What an audit can find, one thing at a time."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from brainfed.errors import (
    BrainfedError,
    ConflictError,
    ResourceError,
    SignatureError,
    StrangerError,
    UnsignedError,
)


class FindingKind(StrEnum):
    """What an audit can find."""

    SIGNATURE = "signature"
    """A signature is damaged, or not one over the file's bytes."""
    SIGNER = "signer"
    """Signed by a key that can't sign it."""
    CONTENT = "content"
    """Not what its format, the plan or the federation says."""
    TWO_STORIES = "two stories"
    """Two signed files contradict each other."""
    HISTORY = "history"
    """A roster or an amendment doesn't follow the one before."""
    RECORD = "record"
    """A record isn't what the plan, the roster and the updates make it."""
    ARITHMETIC = "arithmetic"
    """Global weights are not the mean of their updates."""
    NAME = "name"
    """A file lies under another name than its content's."""
    DERIVED = "derived"
    """An unsigned file isn't the one that follows from the signed ones."""
    UNSIGNED = "unsigned"
    """A file of the federation without a signature: it counts as missing."""
    MISSING = "missing"
    """Something that a signed file names isn't here."""

    @property
    def is_wrong(self) -> bool:
        """Whether something is wrong, rather than not here."""
        return self not in {FindingKind.UNSIGNED, FindingKind.MISSING}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong or missing."""

    kind: FindingKind
    sentence: str
    file: Path | None = None
    round: int | None = None


def finding_of(error: BrainfedError, file: Path | None, round_number: int | None = None) -> Finding:
    """An error, raised over a file, as a finding."""
    kind = next((k for of, k in _KINDS_OF_ERRORS if isinstance(error, of)), FindingKind.CONTENT)
    parts = [f"{error.message}."]
    if error.expected is not None:
        parts.append(f"Expected: {error.expected}.")
    if error.found is not None:
        parts.append(f"Found: {error.found}.")
    return Finding(kind, " ".join(parts), file, round_number)


def twins(
    findings: list[Finding],
    what: str,
    versions: Iterable[tuple[str, Path]],
    round_number: int | None,
) -> None:
    """Alarm where several digests claim one place; names every file.

    Args:
        findings: Where the finding goes.
        what: The place, as in "two ...".
        versions: Digest and path of each file that claims it.
        round_number: Its round.
    """
    places: dict[str, list[Path]] = {}
    for digest, path in versions:
        places.setdefault(digest, []).append(path)
    if len(places) > 1:
        told = "; ".join(
            f"{digest[:16]} in {', '.join(str(path) for path in paths)}"
            for digest, paths in sorted(places.items())
        )
        last = sorted(places.items())[-1][1][0]
        sentence = f"Two stories about {what}: {told}."
        findings.append(Finding(FindingKind.TWO_STORIES, sentence, last, round_number))


_KINDS_OF_ERRORS = (
    (SignatureError, FindingKind.SIGNATURE),
    (UnsignedError, FindingKind.UNSIGNED),
    (StrangerError, FindingKind.SIGNER),
    (ConflictError, FindingKind.TWO_STORIES),
    (ResourceError, FindingKind.MISSING),
)
