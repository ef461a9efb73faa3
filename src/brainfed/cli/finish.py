"""`brainfed finish`: which global weights the federation ends with; and the table behind it."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from brainfed.cli import completion
from brainfed.cli.console import Table, Words, counted, show
from brainfed.cli.options import Json, WorkspaceFolder
from brainfed.cli.place import working

if TYPE_CHECKING:
    from brainfed.core.best_round import RoundScore
    from brainfed.steps.compare_rounds import RoundsCompared
    from brainfed.steps.finish import Finished


def finish(
    round_number: Annotated[
        int | None,
        typer.Option(
            "--round",
            min=0,
            metavar="R",
            autocompletion=completion.rounds,
            help="Which round, only where validation can't tell.",
            show_default=False,
        ),
    ] = None,
    workspace: WorkspaceFolder = None,
    as_json: Json = False,
) -> None:
    """Sign the final: the federation ends with the best round's global weights.

    The best round is that of the highest mean Dice over the sites' validation patients; `brainfed
    status --rounds` shows the figures. Sites that have imported the final may open their test
    patients, once, for these weights alone. No further round is closed. It can't be taken back.
    """
    from brainfed.steps import finish as step

    with working(workspace, only="coordinator") as place:
        done = step.finish(place, round_number=round_number, today=datetime.now(UTC).date())
    show(done, _finish_words, as_json=as_json)


def _finish_words(done: "Finished") -> Words:
    final, told = done.final, done.told
    verb = "was signed before" if done.already else "is signed"
    edition = f", edition {final.edition}" if final.edition > 1 else ""
    yield f"The final {verb}: round {final.round}{edition} of {done.rounds_planned}."
    yield f"The weights: {final.weights}"
    best = told.best_score
    if done.by_validation and best is not None:
        yield f"Chosen on validation: {best_words(told, best)}."
    elif best is not None:
        yield (
            f"The figures here now name another round, {told.best}: {best_words(told, best)}. The "
            "final stays."
        )
    else:
        yield "Named by a person: validation can't tell which round is best."
    yield from blind_words(told)
    if done.n_local:
        yield (
            "These weights do not run outside of the sites: "
            f"{counted(done.n_local, 'tensor')} of the network stayed there. So `brainfed predict` "
            "and `brainfed evaluate` work at the sites alone."
        )
    yield f"The final: {done.path}"
    yield (
        "No further round is closed. Each site may now open its test patients, once, for these "
        "weights alone: `brainfed import FOLDER`, then `brainfed evaluate --subset test`."
    )
    yield "Next: brainfed export --to FOLDER, and carry the files to every site."


def rounds_words(told: "RoundsCompared") -> Words:
    """The table of all rounds, what is best in it, and what it doesn't show."""
    mean = "Dice" if len(told.regions) == 1 else "Mean Dice"
    yield (
        f"{mean} of {', '.join(told.regions)} in 3-D on the sites' validation patients, by round "
        "of the global weights"
    )
    rows = [_row(told, entry) for entry in told.rounds]
    yield Table(("round", *told.sites, "compared", "patients", ""), rows)
    if not told.is_whole:
        yield "Only what this site told itself; the coordinator has all sites' figures."
        return
    best = told.best_score
    if best is None:
        yield "Validation can't tell which round is best: no two rounds can be compared."
    else:
        edition = told.best_edition or 1
        which = f"{best.round}, edition {edition}" if edition > 1 else str(best.round)
        yield f"The best round is {which}: {best_words(told, best)}."
    yield from blind_words(told)
    yield (
        "Each site's figures come rounded to a hundredth; of equal rounds the earlier one is best. "
        "Signatures show who told them, not that they are true."
    )


def best_words(told: "RoundsCompared", best: "RoundScore") -> str:
    """The best round's figure, and over whose patients."""
    return (
        f"Dice {best.mean or 0.0:.4f} over {counted(best.n or 0, 'patient')} of "
        f"{', '.join(told.compared)}"
    )


def blind_words(told: "RoundsCompared") -> Words:
    """Whose patients the comparison doesn't see, and which rounds it leaves out."""
    if told.unseen:
        yield "Not seen in it:"
        yield from (f"- {entry.site}: {entry.why}" for entry in told.unseen)
    if told.not_compared and told.compared:
        yield "Not compared:"
        yield from (f"- {sentence}" for sentence in told.not_compared)
    if told.left_out:
        yield f"Files that could not be used: {', '.join(told.left_out)}"


def _row(told: "RoundsCompared", entry: "RoundScore") -> tuple[object, ...]:
    by_site = {score.site: score for score in entry.sites}
    cells = []
    for site in told.sites:
        score = by_site.get(site)
        if score is None:
            cells.append("-")
        elif score.mean is None:
            cells.append(f"n < {score.n + 1}")
        else:
            cells.append(f"{score.mean:.3f} ({score.n})")
    mean = None if entry.mean is None else round(entry.mean, 4)
    shown = None if mean is None else f"{mean:.4f}"
    return (str(entry.round), *cells, shown, entry.n, "best" if told.best == entry.round else "")
