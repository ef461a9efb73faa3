"""What can be wrong with a scan: every flaw by name, and how grave it is.

`docs/formats/inspection.md` says of each what it means, where its limit is and what to do.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from brainfed.errors import BrainfedError, ScanError
from brainfed.plan import Modality


class Severity(StrEnum):
    """What follows from a flaw."""

    ERROR = "error"  # the case is refused
    HELD = "held"  # the case is made, and used only once a person has accepted it
    WARNING = "warning"  # said, no more


class Flaw(StrEnum):
    """One kind of thing that is wrong with a scan."""

    # Of the file
    BAD_NAME = "bad-name"
    UNREADABLE = "unreadable"
    NOT_A_FILE = "not-a-file"
    OTHER_FORMAT = "other-format"
    BAD_HEADER = "bad-header"
    NOT_3D = "not-3d"
    TOO_LARGE = "too-large"
    TOO_THIN = "too-thin"
    TRUNCATED = "truncated"
    TOO_LONG = "too-long"
    DAMAGED = "damaged"
    CHANGED = "changed"
    # Of the place of its voxels
    UNITS = "units"
    NO_ORIENTATION = "no-orientation"
    NOT_ORTHONORMAL = "not-orthonormal"
    MIRRORED = "mirrored"
    TWO_PLACES = "two-places"
    POSITION = "position"
    SPACING = "spacing"
    UNEVEN_GAPS = "uneven-gaps"
    LARGE_FIELD = "large-field"
    SMALL_FIELD = "small-field"
    FEW_SLICES = "few-slices"
    # Of an image
    NOT_FINITE = "not-finite"
    CONSTANT = "constant"
    NEGATIVE = "negative"
    FEW_VALUES = "few-values"
    UNDERSHOOT = "undershoot"
    NORMALISED = "normalised"
    # Of a label or a brain mask
    LABEL_VALUES = "label-values"
    LABEL_SCALED = "label-scaled"
    EMPTY_LABEL = "empty-label"
    MASK_VALUES = "mask-values"
    # Of a label beside its images
    OEDEMA_ENHANCES = "oedema-enhances"
    ENHANCING_DARK = "enhancing-dark"
    TUMOUR_DARK = "tumour-dark"
    CONTRAST_SWAPPED = "contrast-swapped"

    @property
    def severity(self) -> Severity:
        """What follows from it: mostly, that the case is refused."""
        return _MILDER.get(self, Severity.ERROR)


_MILDER = {
    Flaw.TWO_PLACES: Severity.HELD,
    Flaw.LARGE_FIELD: Severity.HELD,
    Flaw.FEW_VALUES: Severity.HELD,
    Flaw.LABEL_SCALED: Severity.HELD,
    Flaw.SMALL_FIELD: Severity.WARNING,
    Flaw.FEW_SLICES: Severity.WARNING,
    Flaw.UNDERSHOOT: Severity.WARNING,
    Flaw.NORMALISED: Severity.WARNING,
    Flaw.EMPTY_LABEL: Severity.WARNING,
    Flaw.OEDEMA_ENHANCES: Severity.WARNING,
    Flaw.ENHANCING_DARK: Severity.WARNING,
    Flaw.TUMOUR_DARK: Severity.WARNING,
    Flaw.CONTRAST_SWAPPED: Severity.WARNING,
}


@dataclass(frozen=True, slots=True)
class Finding:
    """A flaw that does not refuse the scan at once."""

    flaw: Flaw
    severity: Severity
    words: str
    """One sentence for a person, with the figures."""
    modality: Modality | None = None
    """Whose; None for the label, the mask, or the case as a whole."""

    def __str__(self) -> str:
        """The sentence, with whose it is."""
        return self.words if self.modality is None else f"{self.modality}: {self.words}"


IN_MILLIMETRES = frozenset({Flaw.SMALL_FIELD, Flaw.LARGE_FIELD, Flaw.TWO_PLACES})
"""Findings about distances; they mean nothing where the spacing is a convention."""
_MILLIMETRES = re.compile(r"(?<=[\d)]) mm\b")


def in_header_units(words: str) -> str:
    """The words for a scan whose spacing is a convention: its figures are no millimetres.

    >>> in_header_units("two searches ended 12 mm apart")
    'two searches ended 12 header units apart'
    """
    return _MILLIMETRES.sub(" header units", words)


def forget_millimetres(error: ScanError) -> None:
    """Let an error about such a scan say no millimetres."""
    error.message = in_header_units(error.message)
    error.found = error.found and in_header_units(error.found)
    error.expected = error.expected and in_header_units(error.expected)


def finding(flaw: Flaw, words: str, modality: Modality | None = None) -> Finding:
    """A finding of the severity that its flaw has."""
    return Finding(flaw, flaw.severity, words, modality)


class FlawedScanError(ScanError):
    """A scan with a flaw for which it is refused; `flaw` says which."""

    def __init__(
        self,
        flaw: Flaw,
        message: str,
        *,
        expected: object = None,
        found: object = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, expected=expected, found=found, hint=hint)
        self.flaw = flaw

    def __reduce__(self) -> tuple[object, ...]:
        return (
            _rebuild,
            (self.flaw, self.message, self.where, self.expected, self.found, self.hint),
        )


def _rebuild(
    flaw: Flaw,
    message: str,
    where: str | None,
    expected: str | None,
    found: str | None,
    hint: str | None,
) -> BrainfedError:
    error = FlawedScanError(flaw, message, expected=expected, found=found, hint=hint)
    error.where = where
    return error
