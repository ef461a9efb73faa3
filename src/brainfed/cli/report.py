"""`brainfed report`: one page, and its gist in the terminal."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brainfed.cli.console import Table, Words, progress, show
from brainfed.cli.options import Json, ReaderChoice, WorkspaceFolder
from brainfed.cli.place import working

if TYPE_CHECKING:
    from brainfed.formats.final import Final
    from brainfed.plan import Region
    from brainfed.steps.handovers import HandOver
    from brainfed.steps.over_sites import Overall
    from brainfed.steps.report import Written
    from brainfed.steps.report_facts import (
        AuditTold,
        Closing,
        Opened,
        Reader,
        Report,
        WeightsTold,
    )
    from brainfed.steps.standings import Standing

SITE_COLUMNS = 5
"""Sites beside each other in one table of the terminal; more go into the next."""
CURVE_ROWS, CURVE_COLUMNS = 8, 60


def report(
    reader: Annotated[
        ReaderChoice | None,
        typer.Option(
            "--for",
            metavar="site|coordinator|public",
            help="Who is to read it; without it, whose workspace this is.",
            show_default=False,
        ),
    ] = None,
    model_card: Annotated[
        bool,
        typer.Option(
            "--model-card",
            metavar="",
            help="The public card of the final weights, with the items of CLAIM and TRIPOD+AI.",
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Where to write the page; without it, into reports/.",
            show_default=False,
        ),
    ] = None,
    workspace: WorkspaceFolder = None,
    as_json: Json = False,
) -> None:
    """Write one HTML page of where the federation stands: scores, sites, hand-overs, audit.

    A site's page is about its own patients and must not leave it. The coordinator's and the public
    page say only what signed files say, under the floor. The page needs no network and can be
    printed.
    """
    from brainfed.steps import report as step
    from brainfed.steps.report_facts import Reader

    with working(workspace) as place, progress() as bar:
        done = step.report(
            place,
            None if reader is None else Reader(reader),
            card=model_card,
            out=out,
            today=datetime.now(UTC).date(),
            progress=bar,
        )
    show(_facts(done) if as_json else done, _words, as_json=as_json)


OTHERS_ALONE = (
    "A dash: nothing was stated, and the mean of that round is over the others' patients alone, so "
    "it can't be compared with other rounds."
)


@dataclass(frozen=True, kw_only=True)
class ReportFacts:
    """A report; without single patients, who stand in the page of their site."""

    page: Path
    is_model_card: bool
    federation: str
    """Its digest."""
    plan: str
    """Digest of the newest version."""
    reader: "Reader"
    party: str
    """Whose workspace it was made from."""
    day: str
    brainfed: str
    """The version that made it."""
    floor: int
    closed_round: int | None
    sites: tuple[str, ...]
    standings: "tuple[Standing, ...]"
    overall: "tuple[Overall, ...]"
    n_left_out: int
    """Files whose figures could not be used."""
    closings: "tuple[Closing, ...]"
    hand_overs: "tuple[HandOver, ...]"
    n_readers: int
    weights: "tuple[WeightsTold, ...]"
    """Those in force, by round."""
    final: "Final | None"
    audit: "AuditTold"
    opened: "tuple[Opened, ...]"


def _facts(done: "Written") -> ReportFacts:
    told = done.report
    return ReportFacts(
        page=done.path,
        is_model_card=done.is_card,
        federation=told.known.digest,
        plan=told.known.plans[-1].version.digest,
        reader=told.reader,
        party=told.party,
        day=told.day,
        brainfed=told.brainfed,
        floor=told.floor,
        closed_round=told.closed_round,
        sites=told.sites,
        standings=told.standings,
        overall=told.overall,
        n_left_out=told.n_left_out,
        closings=told.closings,
        hand_overs=told.hand_overs,
        n_readers=told.n_readers,
        weights=told.weights,
        final=told.final,
        audit=told.audit,
        opened=told.opened,
    )


def _words(done: "Written") -> Words:
    from brainfed.steps.report_tables import regions_of

    told = done.report
    for region in regions_of(told):
        yield from _of_region(told, region)
    yield f"Audit of this folder: {told.audit.verdict}."
    yield (
        "Each figure is its site's own word. For research only, not a medical device. The page "
        "says what it can't show."
    )
    yield f"The page: {done.path}"
    if told.reader == "site":
        yield "It shows single patients of this site and must not leave it."


def _of_region(told: "Report", region: "Region") -> Words:
    """Rounds by sites, and the curve of the mean over all patients."""
    from brainfed.core.metrics import Measure
    from brainfed.formats.dataset import Subset
    from brainfed.steps.report_tables import REGIONS, overall_of, round_name, rows_of

    rows = rows_of(told, Subset.VALIDATION, Measure.DICE, region)
    over = overall_of(told, Subset.VALIDATION, Measure.DICE, region)
    yield f"Dice, {REGIONS[region]} ({region}), validation patients"
    if not rows:
        yield "No site has stated a figure of any round yet."
        yield ""
        return
    cells = {(row.round, row.edition, row.site): _cell(row, over) for row in rows}
    sites = [site for site in told.sites if any(row.site == site for row in rows)]
    for first in range(0, len(sites), SITE_COLUMNS):
        some = sites[first : first + SITE_COLUMNS]
        body = [
            (
                round_name(place),
                None if mean.mean is None else f"{mean.mean:.2f}",
                mean.n,
                *(cells.get((*place, site), "-") for site in some),
            )
            for place, mean in over.items()
        ]
        yield Table(("round", "all", "patients", *some), body)
    if any((*place, site) not in cells for place in over for site in sites):
        yield OTHERS_ALONE
    newest = over[max(over)]
    if newest.unseen:
        names = ", ".join(f"{u.site} (fewer than {u.n_at_most + 1})" for u in newest.unseen)
        yield f"Round {newest.round}: not in the mean are the patients of {names}."
    points = [(row.round, row.mean, "*") for row in over.values() if row.mean is not None]
    if len(points) > 1:
        worst = [(row.round, row.worst_mean, "o") for row in over.values() if row.n_sites > 1]
        yield from _curve([*((n, v, m) for n, v, m in worst if v is not None), *points])
    yield ""


def _cell(row: "Standing", over: "dict[tuple[int, int], Overall]") -> str:
    mean = over[row.round, row.edition]
    if row.mean is None:
        return str(row.n)
    is_worst = mean.n_sites > 1 and row.site == mean.worst_site
    return f"{row.mean:.2f}{' worst' if is_worst else ''}"


def _curve(points: list[tuple[int, float, str]]) -> Words:
    """Values by round in plain characters, at most `CURVE_COLUMNS` wide; later points on top."""
    first, last = min(n for n, _, _ in points), max(n for n, _, _ in points)
    low, high = min(value for _, value, _ in points), max(value for _, value, _ in points)
    height = max(high - low, 0.01)
    width = min(CURVE_COLUMNS, max(2, 4 * (last - first) + 1))
    grid = [[" "] * width for _ in range(CURVE_ROWS)]
    for number, value, mark in points:
        column = round((number - first) / max(last - first, 1) * (width - 1))
        row = round((high - value) / height * (CURVE_ROWS - 1))
        grid[min(row, CURVE_ROWS - 1)][column] = mark
    for number, line in enumerate(grid):
        label = {0: f"{high:.2f}", CURVE_ROWS - 1: f"{high - height:.2f}"}.get(number, "")
        yield f"  {label:>5} |{''.join(line)}".rstrip()
    yield f"        +{'-' * width}"
    yield f"         {first}{f'round {last}':>{max(width - len(str(first)), 8)}}"
    marks = {mark for _, _, mark in points}
    yield "        * all patients" + (", o the worst site" if "o" in marks else "")
