"""Report: one page for one kind of reader, from the files of a workspace."""

from dataclasses import dataclass
from datetime import date
from pathlib import Path

from brainfed.core import charts
from brainfed.core.metrics import Measure
from brainfed.core.progress import Progress, silent
from brainfed.errors import UsageError
from brainfed.formats import atomic, report_page
from brainfed.formats.dataset import Subset
from brainfed.formats.report_page import Block, Items, Page, Section, Text
from brainfed.formats.workspace import Workspace
from brainfed.steps import model_card
from brainfed.steps.report_facts import Reader, Report, gather
from brainfed.steps.report_figures import (
    all_measures,
    dice_by_round,
    distributions,
    test_figures,
    with_and_without,
)
from brainfed.steps.report_own import own_patients
from brainfed.steps.report_sections import (
    audited,
    carried,
    limits,
    plan_and_digests,
    test_patients,
    took_part,
)
from brainfed.steps.report_tables import (
    REGIONS,
    counted,
    figure,
    newest_with,
    overall_of,
    regions_of,
    round_name,
)


@dataclass(frozen=True, slots=True)
class Written:
    """What a report says, and where its page lies."""

    report: Report
    path: Path
    is_card: bool


def report(
    place: Workspace,
    reader: Reader | None = None,
    *,
    card: bool = False,
    out: Path | None = None,
    today: date,
    progress: Progress = silent,
) -> Written:
    """Write a report, or the model card, as one HTML file.

    Args:
        place: As for `gather`.
        reader: For whom; by the workspace's role where None. A card is for the public.
        card: Whether to write the model card of the final weights instead.
        out: Where; into `reports/` where None, in place of an older one.
        today: The day for the page.
        progress: Told of the audit's rounds.

    Raises:
        UsageError: A card for another reader than the public, or an outbox.
        ConflictError: Another file lies at `out`.
        ResourceError: The disk refuses.
        BrainfedError: As `gather`.
    """
    if card and reader not in {None, Reader.PUBLIC}:
        raise UsageError(
            "A model card is for the public",
            expected="--for public, or no --for",
            found=f"--for {reader}",
            hint="brainfed report --model-card",
        )
    told = gather(place, Reader.PUBLIC if card else reader, today=today, progress=progress)
    name = "model-card" if card else f"report.{told.reader}"
    path = place.reports / f"{name}.html" if out is None else out
    atomic.make_folder(place.reports)
    # Beside the reports, so that a killed command leaves nothing behind that nobody removes.
    with (
        atomic.scratch_folder(place.reports / name) as scratch,
        charts.private_cache(scratch),
    ):
        page = model_card.lay_out(told) if card else lay_out(told)
        report_page.write(path, page, is_private=told.reader is not Reader.PUBLIC)
    return Written(told, path, card)


def lay_out(told: Report) -> Page:
    """The page of a report; inside `charts.private_cache`."""
    sections = (
        in_short(told),
        limits(told),
        dice_by_round(told),
        test_figures(told),
        distributions(told),
        own_patients(told),
        all_measures(told),
        with_and_without(told),
        took_part(told),
        carried(told),
        plan_and_digests(told),
        audited(told),
        test_patients(told),
    )
    known = told.known
    whose = {
        Reader.SITE: f"Report of {told.party}, for its own people",
        Reader.COORDINATOR: f"Report of {told.party}, the coordinator",
        Reader.PUBLIC: "Public report",
    }[told.reader]
    return Page(
        title=f"{known.name}: {whose}",
        lead=f"Federation {known.digest[:16]}, {known.start.purpose}. Made on {told.day}.",
        banner=_banner(told),
        sections=tuple(section for section in sections if section is not None),
        foot=f"Made on {told.day} by brainfed {told.brainfed} from the files of {told.party}. "
        f"{report_page.FIRST_LINE}",
    )


def _banner(told: Report) -> str:
    if any(result.pictures for result in told.own):
        return report_page.PATIENT_IMAGES
    return report_page.PATIENT_FIGURES if told.reader is Reader.SITE else ""


def in_short(told: Report) -> Section:
    """What a reader in a hurry must know."""
    known = told.known
    n_rounds = known.plans[-1].plan.rounds
    closed = "None" if told.closed_round is None else str(told.closed_round)
    items = [f"Rounds closed: {closed} of {n_rounds}. Sites: {len(told.sites)}."]
    for subset in (Subset.VALIDATION, Subset.TEST):
        place = newest_with(told, subset)
        for region in regions_of(told) if place else ():
            row = overall_of(told, subset, Measure.DICE, region).get(place or (0, 0))
            if row is None or row.mean is None:
                continue
            sites = counted(row.n_sites, "site")
            if told.reader is not Reader.SITE and row.n_sites < len(told.sites):
                sites = f"{row.n_sites} of {len(told.sites)} sites"
            worst = ""
            if row.n_sites > 1:
                worst = f"; worst site {row.worst_site}: {figure(row.worst_mean)}"
            items.append(
                f"Round {round_name((row.round, row.edition))}, {subset} patients, "
                f"{REGIONS[region]}: Dice {figure(row.mean)} over {row.n} patients of "
                f"{sites}{worst}."
            )
    items.append(f"Audit of this folder: {told.audit.verdict}.")
    blocks: list[Block] = [Items(tuple(items))]
    if known.start.purpose != "real":
        words = f"This federation is a {known.start.purpose}: its figures are of no use elsewhere."
        blocks.insert(0, Text(words, is_warning=True))
    return Section("In short", blocks)
