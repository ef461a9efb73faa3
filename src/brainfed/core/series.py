"""What the headers of a DICOM series say, and what can be said of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from brainfed.plan import Modality

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_MR_IMAGES = (
    "1.2.840.10008.5.1.4.1.1.4",  # MR Image Storage
    "1.2.840.10008.5.1.4.1.1.4.1",  # Enhanced MR Image Storage
    "1.2.840.10008.5.1.4.1.1.4.4",  # Legacy Converted Enhanced MR Image Storage
)


@dataclass(frozen=True, slots=True)
class SeriesFacts:
    """What the headers of a series say; a tag that is missing is empty or None."""

    series: str
    """SeriesInstanceUID."""
    number: int | None = None
    description: str = ""
    protocol: str = ""
    """ProtocolName: a sequence's on some scanners, a whole examination's on others."""
    modality: str = "MR"
    sop_class: str = _MR_IMAGES[0]
    image_type: tuple[str, ...] = ()
    scanning_sequence: tuple[str, ...] = ()
    photometric: str = "MONOCHROME2"
    burned_in: bool = False
    contrast_agent: str = ""
    echo_ms: float | None = None
    repetition_ms: float | None = None
    inversion_ms: float | None = None
    n_echoes: int = 1
    started: str = ""
    """Date and time of the acquisition as one text that sorts: `20240131101500.000000`."""
    n_files: int = 1
    n_slices: int = 1
    """Different positions; an enhanced file holds many."""
    n_images: int = 1
    """Slices times repetitions."""
    n_orientations: int = 1
    n_sizes: int = 1
    """Different numbers of rows and columns."""
    rows: int = 0
    columns: int = 0
    thickness_mm: float | None = None

    @property
    def is_derived(self) -> bool:
        """Whether the image type says that it was computed from other images."""
        return bool(self.image_type) and self.image_type[0].upper() == "DERIVED"

    def __str__(self) -> str:
        """For a person: number and description."""
        number = "series" if self.number is None else f"series {self.number}"
        return f'{number} "{self.description or self.protocol}"'


@dataclass(frozen=True, slots=True)
class Recognised:
    """The series is this modality."""

    modality: Modality


@dataclass(frozen=True, slots=True)
class Doubtful:
    """It may be one of these; a person must say."""

    modalities: tuple[Modality, ...]
    words: str


@dataclass(frozen=True, slots=True)
class NotOurs:
    """It is none of the four, or not a volume that can be used."""

    words: str
    would_be: tuple[Modality, ...] = ()
    """What it would be by its name, were it a volume."""


Verdict = Recognised | Doubtful | NotOurs


def wrong_kind(facts: SeriesFacts) -> str | None:
    """Why no rule and no person can make this series a scan of ours; None where they may."""
    if facts.sop_class.startswith(_SECONDARY_CAPTURE):
        return "a secondary capture, not a scanner's image"
    if facts.modality != "MR":
        return f"modality {facts.modality or 'not given'}, not MR"
    if facts.sop_class not in _MR_IMAGES:
        return f"not an MR image (SOP class {facts.sop_class or 'not given'})"
    if facts.burned_in:
        return "burned-in annotation: text in the pixels may name the patient"
    if facts.photometric != "MONOCHROME2":
        return f"not a grey image ({facts.photometric or 'PhotometricInterpretation not given'})"
    return None


def examination_protocols(study: Sequence[SeriesFacts]) -> frozenset[str]:
    """Protocol names that stand over several different series: they name the examination."""
    descriptions: dict[str, set[str]] = {}
    for facts in study:
        descriptions.setdefault(facts.protocol, set()).add(facts.description)
    return frozenset(name for name, found in descriptions.items() if len(found) > 1)


def texts_of(facts: SeriesFacts, examination: frozenset[str]) -> tuple[str, ...]:
    """The texts that speak of this series, the nearest first."""
    if not facts.protocol or facts.protocol in examination:
        return (facts.description,)
    return (facts.description, facts.protocol)
