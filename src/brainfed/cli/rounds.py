"""`brainfed aggregate`: how a round is closed."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from brainfed.cli import completion
from brainfed.cli.console import Table, Words, progress, show
from brainfed.cli.options import Json, ReasonChoice, WorkspaceFolder
from brainfed.cli.place import working
from brainfed.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from brainfed.steps.aggregate import Aggregated
    from brainfed.steps.taking_part import Wishes


def aggregate(
    without: Annotated[
        list[str] | None,
        typer.Option(
            "--without",
            metavar="SITE",
            autocompletion=completion.sites,
            help="A site to leave out; once for each, with a --reason each.",
            show_default=False,
        ),
    ] = None,
    reason: Annotated[
        list[str] | None,
        typer.Option(
            "--reason",
            metavar="REASON",
            autocompletion=lambda: list(get_args(ReasonChoice)),
            help=f"Why: {', '.join(get_args(ReasonChoice))}. It stands in the record.",
            show_default=False,
        ),
    ] = None,
    words: Annotated[
        str,
        typer.Option(
            "--words",
            metavar="TEXT",
            help="Why, in your own words; they stay in this workspace's ledger.",
            show_default=False,
        ),
    ] = "",
    again: Annotated[
        bool, typer.Option("--again", help="Close the newest closed round once more.")
    ] = False,
    with_: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            metavar="SITE",
            autocompletion=completion.sites,
            help="With --again: a site to take in again that was left out.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the table and what is unusual; write nothing.")
    ] = False,
    workspace: WorkspaceFolder = None,
    as_json: Json = False,
) -> None:
    """Close the open round: make the next global weights from the sites' updates.

    Every update is checked and screened on the way; a table shows what is unusual, and --dry-run
    shows it before anything is written. The signed record says who took part with which file, and
    why a site was left out. --again makes a new edition of the newest closed round, with late
    updates in it or sites out of it. With too few updates the exit code is 7.
    """
    from brainfed.steps import aggregate as step

    wishes = _wishes(without or [], reason or [], with_ or [], again=again)
    with working(workspace, only="coordinator") as place, progress() as bar:
        done = step.aggregate(
            place,
            today=datetime.now(UTC).date(),
            wishes=wishes,
            words=words,
            dry_run=dry_run,
            progress=bar,
        )
    show(done, _aggregate_words, as_json=as_json)


def _wishes(
    without: "Sequence[str]", reasons: "Sequence[str]", taken_in: "Sequence[str]", *, again: bool
) -> "Wishes":
    from brainfed.formats.record import Reason
    from brainfed.steps.taking_part import Wishes

    if len(without) != len(reasons):
        raise UsageError(
            "Every site that is left out needs its reason",
            expected="as many --reason as --without, in their order",
            found=f"{len(without)} --without, {len(reasons)} --reason",
            hint="brainfed aggregate --without hospital-a --reason not-reachable",
        )
    if taken_in and not again:
        raise UsageError(
            "--with takes a site in again, so it needs --again",
            hint="without --again nobody is left out but by --without",
        )
    for word in reasons:
        if word not in get_args(ReasonChoice):
            raise UsageError(
                "This is no reason for leaving a site out",
                expected=", ".join(get_args(ReasonChoice)),
                found=word,
                where="--reason",
                hint="use other, and tell why with --words",
            )
    named = {name: Reason(word) for name, word in zip(without, reasons, strict=True)}
    return Wishes(without=named, taken_in=tuple(taken_in), again=again)


def _aggregate_words(done: "Aggregated") -> Words:
    edition = "" if done.edition == 1 else f", edition {done.edition}"
    is_closed = done.path is not None
    yield (
        f"Round {done.round}{edition} is closed."
        if is_closed
        else f"Round {done.round}{edition} would be closed with these; nothing was written."
    )
    yield Table(
        ("site", "", "patients", "weight", "Dice before", "Dice after"),
        [
            (
                part.site,
                str(part.status) if part.reason is None else f"{part.status}: {part.reason}",
                part.n_patients,
                f"{100 * part.share:.1f} %",
                part.dice_before,
                part.dice_after,
            )
            for part in done.parts
        ],
    )
    yield (
        "Dice: as the sites report it on their validation patients, with the weights that came "
        "and with their own; a dash where the floor forbids it."
    )
    screened = [part for part in done.parts if part.change_norm is not None]
    if screened:
        yield Table(
            ("site", "change", "cosine", "unusual"),
            [(p.site, p.change_norm, p.cosine, ", ".join(p.flags) or "-") for p in screened],
        )
        yield (
            "Change: Euclidean norm of an update minus the weights that came; cosine: between that "
            "change and the weighted mean of the others'."
        )
    yield from _distance_words(done)
    yield from _flag_words(done)
    if done.to_train_again:
        yield (
            f"{', '.join(done.to_train_again)} trained from the edition that this one supersedes: "
            f"that update no longer counts, the round must be trained again there."
        )
    if not is_closed:
        yield "Next: brainfed aggregate, with --without SITE --reason REASON for whom you leave out"
        return
    yield f"The global weights: {done.path}"
    yield f"The record: {done.record}"
    if done.next_site is not None:
        yield f"The next turn, where the plan has one more, is that of {done.next_site}."
    yield "Next: brainfed export --to FOLDER, and carry the files to every site."


def _distance_words(done: "Aggregated") -> Words:
    included = [part for part in done.parts if part.distances]
    if 2 < len(included) <= MOST_IN_A_MATRIX:
        yield "Euclidean distances between the updates:"
        rows = [(part.site, *part.distances) for part in included]
        yield Table(("", *(part.site for part in included)), rows)


def _flag_words(done: "Aggregated") -> Words:
    from brainfed.core.screening import MEANING

    flagged = {flag for part in done.parts for flag in part.flags}
    if not flagged:
        return
    yield "Flags, to be looked into before the files are carried; nothing was left out for them:"
    yield from (f"- {flag}: {MEANING[flag]}" for flag in MEANING if flag in flagged)
    if done.path is not None:
        yield (
            "To leave a site out after all: brainfed aggregate --again --without SITE "
            "--reason failed-screening"
        )


MOST_IN_A_MATRIX = 8
"""Sites whose distances fit a screen; `--json` has all."""
