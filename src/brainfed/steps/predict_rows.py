"""What became of each case of a prediction, for the screen of whoever has the scans."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from brainfed.core.labels import LabelProtocol
from brainfed.errors import ScanError
from brainfed.plan import Modality, Region


class Status(StrEnum):
    """What became of a case."""

    PREDICTED = "predicted"
    KEPT = "kept"  # a file was there, and stays as it is
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One case."""

    name: str
    """That of its files in the folder."""
    status: Status
    reference: Modality | None = None
    """The scan on whose grid the label map lies."""
    modalities: tuple[Modality, ...] = ()
    """What the network saw."""
    volumes_ml: Mapping[Region, float | None] | None = None
    remarks: tuple[str, ...] = ()
    reason: str | None = None
    """Why it was refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictResult:
    """What lies in the folder now."""

    warning: str
    rows: tuple[Row, ...]
    weights: str
    """Digest of the weight file."""
    round: int
    federation: str
    coordinator: str
    fingerprint: str
    protocol: LabelProtocol
    regions: tuple[Region, ...]
    """That the label maps tell."""
    left_out: tuple[Region, ...]
    """That the network finds too, and the protocol can't hold."""
    out: Path
    table: Path

    def count(self, status: Status) -> int:
        """Cases of this status."""
        return sum(row.status is status for row in self.rows)


class RefusedPredictionsError(ScanError):
    """Some cases can't be predicted; all others are."""

    def __init__(self, result: PredictResult) -> None:
        """Of a result with refused cases in it."""
        refused = [row for row in result.rows if row.status is Status.REFUSED]
        super().__init__(
            f"Not predicted: {len(refused)} of {len(result.rows)} cases",
            found="; ".join(f"{row.name}: {row.reason}" for row in refused[:3]),
            where=result.out,
            hint="mend these scans, or name what is what in a cases.csv, and run the same again",
        )
        self.result = result
