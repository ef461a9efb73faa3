"""What a site finds in its reports folder: its own tables of cases, and the pictures of some."""

import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from brainfed.core.scoring import CaseScore, patient_scores
from brainfed.errors import ScanError
from brainfed.formats import floor, score_table
from brainfed.formats.dataset import Subset
from brainfed.formats.score_table import About, ScoredSpace
from brainfed.formats.scores import Group
from brainfed.formats.workspace import Workspace
from brainfed.steps.standings import Source, Standing, globals_in_force

FEWEST_FOR_QUARTILES = 4
"""Of fewer there is nothing between them; the site itself may see the values."""


@dataclass(frozen=True, slots=True)
class OwnPicture:
    """The picture of one case: outlines over the scan."""

    case: str
    png: bytes


@dataclass(frozen=True, slots=True)
class OwnResult:
    """One table of cases about global weights in force, scored on the plan's grid."""

    about: About
    edition: int
    rows: tuple[CaseScore, ...]
    pictures: tuple[OwnPicture, ...]

    @property
    def round(self) -> int:
        """Of the weights."""
        return self.about.round or 0

    @property
    def subset(self) -> Subset:
        """Whose cases."""
        return Subset(self.about.subset or Subset.VALIDATION)


def own_results(place: Workspace) -> tuple[tuple[OwnResult, ...], int]:
    """The tables about global weights in force, by round and subset, and how many can't be read.

    Tables of other weights, of ready label maps and in native space are for other pages.
    """
    in_force = {digest: about for about, digest in globals_in_force(place).items()}
    found, n_unread = [], 0
    for path in sorted(place.reports.glob("evaluate.*.csv")):
        try:
            about = score_table.read_about(path)
            if about.weights not in in_force or about.space is not ScoredSpace.PLAN:
                continue
            rows = score_table.read_table(path)
        except ScanError:
            n_unread += 1
            continue
        edition = in_force[about.weights][1]
        found.append(OwnResult(about, edition, rows, tuple(_pictures(path, rows))))
    found.sort(key=lambda result: (result.round, result.subset))
    return tuple(found), n_unread


def own_standings(results: Iterable[OwnResult], place: Workspace) -> Iterator[Standing]:
    """The tables as standings of this site, nothing withheld."""
    for result in results:
        for group, rows in _groups(result.rows):
            measures = dict.fromkeys(measure for row in rows for measure in row.values)
            for region in dict.fromkeys(row.region for row in rows):
                for measure in measures:
                    values = list(patient_scores(rows, region, measure).values())
                    if values:
                        yield Standing(
                            round=result.round,
                            edition=result.edition,
                            site=place.name,
                            subset=result.subset,
                            group=group,
                            measure=measure,
                            region=region,
                            n=len(values),
                            mean=statistics.fmean(values),
                            sd=statistics.stdev(values) if len(values) > 1 else None,
                            quartiles=_quartiles(values),
                            source=Source.TABLE,
                        )


def _groups(rows: tuple[CaseScore, ...]) -> Iterator[tuple[Group, tuple[CaseScore, ...]]]:
    """All patients; and where some lack a modality, those who do and those who don't."""
    groups = floor.groups_of(rows)
    for group, those in groups.items():
        if group is Group.ALL or (groups[Group.COMPLETE] and groups[Group.INCOMPLETE]):
            yield group, tuple(row for row in rows if row.patient in those)


def _quartiles(values: list[float]) -> tuple[float, float, float] | None:
    if len(values) < FEWEST_FOR_QUARTILES:
        return None
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return (low, middle, high)


def _pictures(table: Path, rows: tuple[CaseScore, ...]) -> Iterator[OwnPicture]:
    for case in dict.fromkeys(row.case for row in rows):
        path = score_table.picture_path(table, case)
        if path.is_file():
            yield OwnPicture(case, path.read_bytes())
