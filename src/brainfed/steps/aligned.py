"""The scans of one case in one space, and how they came there."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from brainfed.core.assembly import Placed
from brainfed.core.flaws import in_header_units
from brainfed.core.registration import Matrix, Registered
from brainfed.core.volume import Geometry
from brainfed.formats.atlas import Atlas
from brainfed.plan import Modality


@dataclass(frozen=True, slots=True)
class Motion:
    """How one scan was found to lie against another."""

    moving: str
    fixed: str
    found: Registered | None
    """None where the step was left out."""
    remark: str = ""
    """Why it was left out."""


@dataclass(slots=True)
class Aligned:
    """The scans of one case in one space."""

    reference: Modality
    images: Mapping[Modality, Placed]
    matrices: Mapping[Modality, Matrix]
    """Map a point of the case's space to the point of each scan."""
    label: Placed | None
    """None where the case has none."""
    brain: Placed
    space: Geometry
    """The grid of the space, along LPS."""
    atlas: Atlas | None
    motions: list[Motion] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    """What was left out, and why."""
    held: list[str] = field(default_factory=list)
    """What a person must look at before the case is used."""
    doubts: list[str] = field(default_factory=list)
    """Why the alignment is not trusted: the case is refused."""

    def forget_millimetres(self) -> None:
        """Say no distance, for the spacing is a convention."""
        self.held = [in_header_units(words) for words in self.held]
        self.doubts = [in_header_units(words) for words in self.doubts]
