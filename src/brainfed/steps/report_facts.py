"""What a report says, gathered from the files of a workspace for one kind of reader.

Three readers: a site about itself, with its own patients; the coordinator; and the public. The last
two see only what signed files say, the floor applied once more; the public sees numbers in place of
the sites' names.
"""

from collections import Counter
from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum
from importlib.metadata import version

from brainfed.core.progress import Progress, silent
from brainfed.formats import document, federation, floor, ledger, rounds
from brainfed.formats.federation import Federation
from brainfed.formats.final import Final
from brainfed.formats.ledger import Event
from brainfed.formats.record import InputStatus
from brainfed.formats.roster import Role
from brainfed.formats.workspace import Workspace
from brainfed.steps.audit import Verdict, audit
from brainfed.steps.handovers import HandOver, hand_overs, n_readers
from brainfed.steps.over_sites import Overall, Unseen, overall
from brainfed.steps.own_results import OwnResult, own_results, own_standings
from brainfed.steps.standings import (
    Standing,
    Standings,
    arranged,
    globals_in_force,
    limited,
    standings,
)


class Reader(StrEnum):
    """For whom a report is."""

    SITE = "site"
    COORDINATOR = "coordinator"
    PUBLIC = "public"


@dataclass(frozen=True, slots=True)
class Part:
    """A site's part in one aggregation."""

    site: str
    status: InputStatus
    reason: str | None
    """Why the coordinator left its update out."""
    share: float | None
    """Of the total weight, 0 to 1; None where patients below the floor could be counted by it, and
    for the public."""
    n_patients: int | str | None
    """Trained on, or "fewer than" the floor; None where its update isn't here."""


@dataclass(frozen=True, slots=True)
class Closing:
    """One round as its record tells it."""

    round: int
    edition: int
    day: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class AuditTold:
    """What an audit of this workspace found; no path and no name of a file."""

    verdict: Verdict
    sentence: str
    n_files: int
    n_wrong: int
    n_missing: int
    kinds: tuple[tuple[str, int], ...]
    """How many of each kind of finding."""
    fingerprints: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Opened:
    """How often a site's test patients were looked at."""

    site: str
    n_times: int
    """At the site: lines of its ledger. Elsewhere: weight files it sent test figures of."""
    n_weights: int
    """Different weight files."""


@dataclass(frozen=True, slots=True)
class WeightsTold:
    """Global weights, named by their digest."""

    round: int
    edition: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that a page says, as data."""

    reader: Reader
    party: str
    """Whose workspace it was made from."""
    day: str
    brainfed: str
    known: Federation
    floor: int
    closed_round: int | None
    standings: tuple[Standing, ...]
    overall: tuple[Overall, ...]
    n_left_out: int
    """Files whose figures could not be used."""
    closings: tuple[Closing, ...]
    hand_overs: tuple[HandOver, ...]
    n_readers: int
    weights: tuple[WeightsTold, ...]
    """Those in force, by round."""
    begins_with_given: bool
    """Whether the coordinator brought the weights of round 0."""
    roster_digest: str
    """Of the newest roster."""
    versions: tuple[str, ...]
    """Of the libraries that the weight files name."""
    external: tuple[str, ...]
    """Evaluators: they score and don't train."""
    final: Final | None
    audit: AuditTold
    opened: tuple[Opened, ...]
    own: tuple[OwnResult, ...]
    """At a site: its tables of cases; empty for all others."""
    sites: tuple[str, ...]
    """Everybody who trains or scores, as the reader may know them."""


def gather(
    place: Workspace, reader: Reader | None, *, today: date, progress: Progress = silent
) -> Report:
    """Read everything that a report says.

    Args:
        place: A site's, an evaluator's or the coordinator's workspace.
        reader: For whom; by the workspace's role where None.
        today: The day for the page.
        progress: Told of the audit's rounds.

    Raises:
        WrongRoleError: The reader's report is made in another party's workspace.
        NotReadyError: The federation hasn't started here.
        FileRefusedError: A file of the federation was changed after it was accepted.
        ConflictError: Two finals lie here.
        LedgerError: The ledger is damaged.
    """
    if reader is None:
        reader = Reader.COORDINATOR if place.role is Role.COORDINATOR else Reader.SITE
    if reader is Reader.SITE:
        place.require(Role.SITE, Role.EVALUATOR)
    else:
        place.require(Role.COORDINATOR)
    known = federation.load(place)
    at_least = max(entry.plan.participation.floor for entry in known.plans)
    told = standings(place, known)
    final = rounds.verify_final(place, known)
    own, n_unread = own_results(place) if reader is Reader.SITE else ((), 0)
    rows = told.rows
    if reader is Reader.SITE:
        rows = arranged([*rows, *own_standings(own, place)])
    else:
        rows = limited(rows, at_least)
    roles = {Role.SITE, Role.EVALUATOR}
    report = Report(
        reader=reader,
        party=place.name,
        day=today.isoformat(),
        brainfed=version("brainfed"),
        known=known,
        floor=at_least,
        closed_round=rounds.newest_round(place),
        standings=rows,
        overall=overall(rows),
        n_left_out=len(told.left_out) + n_unread,
        closings=_closings(place, known, told, at_least),
        hand_overs=hand_overs(place, known),
        n_readers=n_readers(place, known),
        weights=_weights(place),
        begins_with_given=rounds.begins_with_given(place),
        roster_digest=document.sha256(known.roster.dumps()),
        versions=told.versions,
        external=tuple(
            dict.fromkeys(p.name for p in known.roster.principals if p.role is Role.EVALUATOR)
        ),
        final=None if final is None else final[0],
        audit=_audit(place, progress),
        opened=_opened(place, told, reader),
        own=own,
        sites=tuple(dict.fromkeys(p.name for p in known.roster.principals if p.role in roles)),
    )
    return _numbered(report) if reader is Reader.PUBLIC else report


def _closings(
    place: Workspace, known: Federation, told: Standings, at_least: int
) -> tuple[Closing, ...]:
    """Each round's newest record, checked."""
    found = []
    for number in rounds.numbers(place):
        paths = rounds.records(place, number)
        if not paths:
            continue
        record, _ = rounds.verify_record(paths[-1], known)
        trained = {
            entry.sender: _count(told.n_trained.get((number, entry.sender)), at_least)
            for entry in record.inputs
        }
        total = sum(entry.weight for entry in record.inputs)
        # Where somebody is below the floor, the shares would give the number away.
        is_small = any(isinstance(n, str) for n in trained.values())
        parts = tuple(
            Part(
                entry.sender,
                entry.status,
                None if entry.reason is None else str(entry.reason),
                None if is_small or not total else entry.weight / total,
                trained[entry.sender],
            )
            for entry in record.inputs
        )
        found.append(Closing(number, record.edition, record.day, parts))
    return tuple(found)


def _count(n_patients: int | None, at_least: int) -> int | str | None:
    return None if n_patients is None else floor.count(n_patients, at_least)


def _weights(place: Workspace) -> tuple[WeightsTold, ...]:
    return tuple(WeightsTold(*about, digest) for about, digest in globals_in_force(place).items())


def _audit(place: Workspace, progress: Progress) -> AuditTold:
    done = audit([place.root], progress=progress)
    kinds = Counter(str(finding.kind) for finding in done.findings)
    n_wrong = sum(finding.kind.is_wrong for finding in done.findings)
    return AuditTold(
        verdict=done.verdict,
        sentence=done.sentence,
        n_files=done.n_files,
        n_wrong=n_wrong,
        n_missing=len(done.findings) - n_wrong,
        kinds=tuple(sorted(kinds.items())),
        fingerprints=done.fingerprints,
    )


def _opened(place: Workspace, told: Standings, reader: Reader) -> tuple[Opened, ...]:
    if reader is Reader.SITE:
        lines = [e for e in ledger.read(place.ledger_path) if e["event"] == Event.OPENED_TEST]
        return (Opened(place.name, len(lines), len({line["weights"] for line in lines})),)
    return tuple(Opened(site, n, n) for site, n in sorted(told.tested.items()))


def _numbered(report: Report) -> Report:
    """With numbers in place of names, in the names' order; the coordinator knows which is which."""
    names = {name: f"site {number}" for number, name in enumerate(sorted(report.sites), start=1)}

    def part(entry: Part) -> Part:
        return replace(entry, site=names.get(entry.site, "a site"), share=None)

    def mean(row: Overall) -> Overall:
        unseen = tuple(Unseen(names[entry.site], entry.n_at_most) for entry in row.unseen)
        worst = None if row.worst_site is None else names[row.worst_site]
        return replace(row, worst_site=worst, unseen=unseen)

    return replace(
        report,
        party="the coordinator",
        sites=tuple(names.values()),
        external=tuple(names[name] for name in report.external),
        standings=tuple(replace(row, site=names[row.site]) for row in report.standings),
        overall=tuple(mean(row) for row in report.overall),
        closings=tuple(
            replace(closing, parts=tuple(part(entry) for entry in closing.parts))
            for closing in report.closings
        ),
        opened=tuple(replace(entry, site=names[entry.site]) for entry in report.opened),
    )
