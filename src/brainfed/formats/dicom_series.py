"""DICOM files as series: which files belong together, and what their headers say together."""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from brainfed.core.series import SeriesFacts
from brainfed.errors import ScanError
from brainfed.formats.dicom_header import Header
from brainfed.formats.found_case import ScanFile

_SAME_PLACE_MM = 0.05
_SAME_DIRECTION = 0.02


def files_in(folder: Path) -> Iterator[Path]:
    """All files in a folder and those in it, in order of name, hidden ones left out.

    Raises:
        ScanError: A folder can't be read.
    """

    def refuse(error: OSError) -> None:
        raise ScanError(
            "The folder of scans can't be read",
            found=error.strerror,
            where=error.filename,
            hint="check the path and who may read it, then run the command again",
        ) from error

    for root, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(root, name)
            if not name.startswith(".") and path.is_file():
                yield path


def by_series(headers: Iterable[Header]) -> dict[str, list[Header]]:
    """Headers by SeriesInstanceUID; an image that is there twice counts once."""
    found: dict[str, dict[str, Header]] = defaultdict(dict)
    for header in headers:
        # Under two patients it isn't the same image, whatever its UID says.
        image = f"{header.patient}\\{header.instance or header.path}"
        found[header.series].setdefault(image, header)
    return {series: list(images.values()) for series, images in found.items()}


def scan_file(members: Sequence[Header]) -> ScanFile:
    """How a series is named: the folder that holds all of its files, and its UID."""
    return ScanFile(common_folder(members), series=members[0].series)


def facts_of(members: Sequence[Header]) -> SeriesFacts:
    """What the headers of one series say together."""
    first = members[0]
    places, n_orientations = _places(members)
    echoes = {round(h.echo_ms, 1) for h in members if h.echo_ms is not None}
    n_images = sum(max(1, len(h.slices)) for h in members)
    return SeriesFacts(
        series=first.series,
        number=first.number,
        description=first.description,
        protocol=first.protocol,
        modality=_odd_one(members, "modality", "MR"),
        sop_class=_odd_one(members, "sop_class", first.sop_class),
        image_type=_image_type(members),
        scanning_sequence=first.scanning_sequence,
        photometric=_odd_one(members, "photometric", "MONOCHROME2"),
        burned_in=any(h.burned_in for h in members),
        contrast_agent=next((h.contrast_agent for h in members if h.contrast_agent), ""),
        echo_ms=first.echo_ms,
        repetition_ms=first.repetition_ms,
        inversion_ms=first.inversion_ms,
        n_echoes=max(1, len(echoes)),
        started=min((h.started for h in members if h.started), default=""),
        n_files=len(members),
        n_slices=places or n_images,
        n_images=n_images,
        n_orientations=n_orientations,
        n_sizes=len({(h.rows, h.columns) for h in members}),
        rows=first.rows,
        columns=first.columns,
        thickness_mm=first.thickness_mm,
    )


def common_folder(headers: Sequence[Header]) -> Path:
    """The deepest folder that holds all of these files."""
    return Path(os.path.commonpath([header.path.parent for header in headers]))


def _odd_one(members: Sequence[Header], name: str, usual: str) -> str:
    """The value of the first file that differs from the usual one, else that."""
    values = (str(getattr(header, name)) for header in members)
    return next((value for value in values if value != usual), usual)


def _image_type(members: Sequence[Header]) -> tuple[str, ...]:
    """All values that any file has; one derived image makes the series derived."""
    derived = [h for h in members if h.image_type[:1] == ("DERIVED",)]
    ordered = [*derived, *members]
    return tuple(dict.fromkeys(value for header in ordered for value in header.image_type))


def _places(members: Sequence[Header]) -> tuple[int, int]:
    """Number of different slice positions and directions; no positions where a file has none."""
    slices = [s for header in members for s in header.slices]
    if not slices or any(not header.slices for header in members):
        return 0, 1
    directions: list[npt.NDArray[np.float64]] = []
    for s in slices:
        mine = np.array(s.orientation, np.float64)
        if not any(np.abs(mine - other).max() <= _SAME_DIRECTION for other in directions):
            directions.append(mine)
    normal = np.cross(directions[0][:3], directions[0][3:])
    along = np.sort(np.array([s.position_mm for s in slices]) @ normal)
    return 1 + int(np.count_nonzero(np.diff(along) > _SAME_PLACE_MM)), len(directions)
