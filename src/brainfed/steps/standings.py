"""Standings: what every site measured of each round's global weights, from its signed files.

A site speaks in two places: in the manifest of its update, of the weights that came (validation,
all patients), and in its score files. Both are its own word; a signature shows whose. What the
floor took from a figure at its site is not here; `limited` applies it once more for readers.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from brainfed.core.metrics import Measure
from brainfed.errors import BrainfedError, StrangerError
from brainfed.formats import document, floor, rounds, signature, verify, weights
from brainfed.formats.dataset import Subset
from brainfed.formats.federation import Federation
from brainfed.formats.manifest import Manifest, ScoredWeights
from brainfed.formats.record import Record
from brainfed.formats.roster import Role
from brainfed.formats.scores import Group, Scores
from brainfed.formats.workspace import Workspace
from brainfed.plan import Region


class Source(StrEnum):
    """Where a figure stands."""

    UPDATE = "update"
    """In the manifest of the site's update of the round after."""
    SCORES = "scores"
    """In a score file."""
    TABLE = "table"
    """In a table of cases at the site itself: nothing is withheld, and nothing of it leaves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One measure of one round's global weights over one group of a site's patients."""

    round: int
    edition: int
    site: str
    subset: Subset
    group: Group
    measure: Measure
    region: Region
    n: int | str
    """Patients, or "fewer than" a floor."""
    mean: float | None
    """In the measure's unit; None below the floor, as all that follows."""
    sd: float | None
    """Sample standard deviation."""
    quartiles: tuple[float, float, float] | None
    """Lower, median, upper; None also where the group is too small for them."""
    source: Source

    @property
    def what(self) -> "What":
        """What it is about, whoever measured it."""
        return (self.round, self.edition, self.subset, self.group, self.measure, self.region)

    @property
    def n_at_most(self) -> int:
        """The most patients that it can stand for."""
        return self.n if isinstance(self.n, int) else int(self.n.rpartition(" ")[2]) - 1


What = tuple[int, int, Subset, Group, Measure, Region]


@dataclass(frozen=True, slots=True)
class Standings:
    """All that the signed files of a workspace say."""

    rows: tuple[Standing, ...]
    """By round, site, subset, group, measure and region; one each."""
    n_trained: Mapping[tuple[int, str], int]
    """Patients that each update was trained on, by round and site."""
    tested: Mapping[str, int]
    """By site, of how many weight files it sent figures of its test patients."""
    versions: tuple[str, ...]
    """Of the libraries that the updates name, each with its name."""
    left_out: tuple[str, ...]
    """Names of files that could not be used: damaged, or of another sender or plan."""


def standings(place: Workspace, known: Federation) -> Standings:
    """Read what the signed files of a workspace say of the global weights in force.

    Each file's signature is checked anew. A superseded edition's figures are not taken.
    """
    in_force = {digest: about for about, digest in globals_in_force(place).items()}
    updates: list[Manifest] = []
    scores: list[Scores] = []
    left_out: list[str] = []
    for number in rounds.numbers(place):
        for path in [
            *rounds.update_paths(place, number),
            *rounds.signed(place, number, "*.scores.json"),
        ]:
            try:
                if path.suffix == ".json":
                    scores.append(_scores(path, known))
                else:
                    updates.append(_update(path, known))
            except BrainfedError:
                left_out.append(path.name)
    tested = {(s.sender, s.weights) for s in scores for f in s.figures if f.subset == "test"}
    return Standings(
        rows=arranged(
            [
                *(row for manifest in updates for row in _of_update(manifest, in_force)),
                *(row for told in scores for row in _of_scores(told, in_force)),
            ]
        ),
        n_trained={(m.round, m.sender): m.n_patients or 0 for m in updates},
        tested=Counter(site for site, _ in tested),
        versions=tuple(sorted({f"{k} {v}" for m in updates for k, v in m.versions.items()})),
        left_out=tuple(left_out),
    )


def globals_in_force(place: Workspace) -> dict[tuple[int, int], str]:
    """Digest of each round's global weights, by round and edition in force."""
    found = {}
    for number in rounds.numbers(place):
        path = rounds.global_path(place, number)
        if path is None:
            continue
        edition = weights.read_manifest(path).edition
        records = [document.read(p, Record) for p in rounds.records(place, number)]
        told = {record.edition: record.global_digest for record in records}
        found[number, edition] = told.get(edition) or signature.digest_of(path).hex()
    return found


def arranged(rows: Iterable[Standing]) -> tuple[Standing, ...]:
    """In order, and of several that say the same thing that of the richest source."""
    best: dict[tuple[object, ...], Standing] = {}
    for row in sorted(rows, key=lambda row: list(Source).index(row.source)):
        best[row.site, row.what] = row
    subsets, measures, regions = list(Subset), list(Measure), list(Region)
    return tuple(
        sorted(
            best.values(),
            key=lambda row: (
                row.round,
                row.edition,
                row.site,
                subsets.index(row.subset),
                row.group,
                measures.index(row.measure),
                regions.index(row.region),
            ),
        )
    )


def limited(rows: Iterable[Standing], at_least: int) -> tuple[Standing, ...]:
    """The rows as they may be shown outside their site: the floor applied once more.

    An older file may state what today's rules withhold: figures that are not rounded, quartiles of
    few patients, or a group that can be subtracted from all.
    """
    rows = [_limited(row, at_least) for row in rows]
    told = {(row.site, row.what) for row in rows if isinstance(row.n, int)}
    return tuple(row for row in rows if row.group is Group.ALL or told >= _both_groups(row))


def _both_groups(row: Standing) -> set[tuple[str, What]]:
    number, edition, subset, _, measure, region = row.what
    groups = (Group.COMPLETE, Group.INCOMPLETE)
    return {(row.site, (number, edition, subset, group, measure, region)) for group in groups}


def _limited(row: Standing, at_least: int) -> Standing:
    if row.n_at_most < at_least:
        n = floor.count(row.n_at_most, at_least)
        return replace(row, n=n, mean=None, sd=None, quartiles=None)
    n = row.n_at_most
    quartiles = None
    if row.quartiles is not None and n >= floor.FEWEST_FOR_QUARTILES:
        low, middle, high = row.quartiles
        quartiles = (round(low, 2), round(middle, 2), round(high, 2))
    return replace(
        row,
        mean=_rounded(row.mean if n >= floor.FEWEST_FOR_MEAN else None),
        sd=_rounded(row.sd if n >= floor.FEWEST_FOR_SD else None),
        quartiles=quartiles,
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _update(path: Path, known: Federation) -> Manifest:
    signed = signature.verify_file(path)
    manifest = weights.read_manifest(path)
    signer = known.roster.signer(signed.key, manifest.round)
    if (signer.name, signer.role) != (manifest.sender, Role.SITE):
        raise StrangerError("The file is not signed by the site that it names", where=path)
    verify.check_belongs(manifest, known, path)
    return manifest


def _scores(path: Path, known: Federation) -> Scores:
    signed = signature.verify_file(path)
    return verify.check_document(Scores, document.read_capped(path), signed, known)


def _of_update(manifest: Manifest, in_force: dict[str, tuple[int, int]]) -> Iterator[Standing]:
    about = in_force.get(manifest.parent or "")
    if about is None:
        return
    for score in manifest.scores:
        if score.weights is ScoredWeights.INCOMING:
            yield Standing(
                round=about[0],
                edition=about[1],
                site=manifest.sender,
                subset=Subset(score.subset),
                group=Group.ALL,
                measure=score.measure,
                region=score.region,
                n=score.n,
                mean=_value(score.mean),
                sd=_value(score.sd),
                quartiles=None,
                source=Source.UPDATE,
            )


def _of_scores(scores: Scores, in_force: dict[str, tuple[int, int]]) -> Iterator[Standing]:
    about = in_force.get(scores.weights)
    if about is None:
        return
    for figure in scores.figures:
        quartiles = None
        if figure.q1 is not None and figure.median is not None and figure.q3 is not None:
            quartiles = (figure.q1 / 1e6, figure.median / 1e6, figure.q3 / 1e6)
        yield Standing(
            round=about[0],
            edition=about[1],
            site=scores.sender,
            subset=Subset(figure.subset),
            group=figure.group,
            measure=figure.measure,
            region=figure.region,
            n=figure.n,
            mean=_value(figure.mean),
            sd=_value(figure.sd),
            quartiles=quartiles,
            source=Source.SCORES,
        )


def _value(millionths: int | None) -> float | None:
    return None if millionths is None else millionths / 1_000_000
