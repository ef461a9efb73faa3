"""`brainfed exclude` and `brainfed purge`: a patient, a case or a whole site leaves."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from brainfed.cli.console import COMMAND, Words, confirm, counted, say, show
from brainfed.cli.options import ErasureChoice, ExclusionChoice, Json, WorkspaceFolder, Yes
from brainfed.cli.place import working
from brainfed.errors import UsageError

if TYPE_CHECKING:
    from brainfed.steps.exclude import Chosen, Excluded
    from brainfed.steps.purge import Purged

BEYOND = (
    "What this can't reach: backups, snapshots, what a disk keeps of erased files, and everything "
    "that has left: past global weights keep what they learned (docs/how-to/withdrawal.md)."
)


def exclude(
    case: Annotated[
        str,
        typer.Argument(
            metavar="CASE",
            help="Real name or id of a case; for withdrawn and opted-out also of a patient.",
            show_default=False,
        ),
    ],
    reason: Annotated[
        ExclusionChoice,
        typer.Option(
            "--reason",
            metavar="REASON",
            help=f"One of {', '.join(get_args(ExclusionChoice))}.",
            show_default=False,
        ),
    ],
    yes: Yes = False,
    workspace: WorkspaceFolder = None,
    as_json: Json = False,
) -> None:
    """Take a case out for good, and erase all that was made of it here.

    With withdrawn or opted-out all cases of the patient go, and none is made of later visits. The
    case leaves the split from the next round on; its file, cache, pictures, rows and name are
    erased, and so are an update that was trained with it and never signed, and the layers that
    the plan keeps at this site. The scans themselves stay where they are.
    """
    from brainfed.formats.dataset import ExclusionReason
    from brainfed.steps import exclude as step

    with working(workspace, only=("site", "evaluator")) as place:
        chosen = step.choose(place, case, ExclusionReason(reason))
        if not chosen.already:
            say(*_chosen_words(chosen))
            if not (yes or confirm("Erase them for good?", flag="--yes")):
                raise UsageError(
                    "Nothing was erased", hint=f"brainfed exclude CASE --reason {reason}"
                )
        done = step.exclude(place, chosen)
    show(done, _exclude_words, as_json=as_json)


def _chosen_words(chosen: "Chosen") -> Words:
    whose = "one patient, who left" if chosen.patient is not None else "a patient who stays"
    ids = ", ".join(entry.id for entry in chosen.cases)
    yield f"{counted(len(chosen.cases), 'case')} of {whose}: {ids}."
    for path in chosen.updates:
        yield f"An update that may have learned from them and was never signed: {path.name}."
    if chosen.layers:
        yield (
            "This site's own layers, which may have learned from them, of "
            f"{counted(len(chosen.layers), 'round')}: the next round begins them anew, and past "
            "weights are no longer scored with them."
        )


def _exclude_words(done: "Excluded") -> Words:
    chosen = done.chosen
    n = counted(len(chosen.cases), "case")
    yield f"{n} {'excluded before' if chosen.already else f'excluded: {chosen.reason}'}. " + (
        f"{counted(done.n_cases, 'case')} left."
    )
    for path in chosen.updates:
        yield f"Erased, because it may have learned from them and was never signed: {path.name}"
    if chosen.layers:
        yield "Erased, because they may have learned from them: this site's own layers"
    if chosen.updates:
        yield "Next: brainfed train-round"
    if chosen.signed_update is not None:
        yield (
            f"{chosen.signed_update.name} is signed and may have left; it may have learned from "
            "them. If it has not left, remove it and its .sig, then run brainfed train-round "
            "again. If it has, tell the coordinator (docs/how-to/withdrawal.md)."
        )
    yield "Take the scans themselves out of their folder, if they are to go too."
    yield BEYOND


def purge(
    reason: Annotated[
        ErasureChoice,
        typer.Option(
            "--reason",
            metavar="REASON",
            help="ended: the work is done; left: this site takes part no more; ordered: by "
            "contract, ethics board or authority.",
            show_default=False,
        ),
    ],
    yes: Yes = False,
    workspace: WorkspaceFolder = None,
    as_json: Json = False,
) -> None:
    """Erase all that this workspace made of patients, and sign a statement of it.

    Cases, cache, pictures, tables, names and their key, split, reports, training logs and updates
    that were never signed. Federation, signed files, ledger and keys stay. The scans themselves
    stay where they are.
    """
    from brainfed.formats.erasure import ErasureReason
    from brainfed.steps import purge as step

    with working(workspace, only=("site", "evaluator")) as place:
        erased = step.there_is(place)
        if erased:
            say(f"To be erased in {place.root}: {', '.join(erased)}.")
            if not (yes or confirm("Erase all of it for good?", flag="--yes")):
                raise UsageError("Nothing was erased", hint=f"brainfed purge --reason {reason}")
        today = datetime.now(UTC).date()
        done = step.purge(place, reason=ErasureReason(reason), today=today)
        name = place.name
    show(done, lambda purged: _purge_words(purged, name), as_json=as_json)


def _purge_words(done: "Purged", name: str) -> Words:
    yield "There is nothing to erase." if done.already else f"Erased: {', '.join(done.erased)}."
    if done.statement is None:
        yield (
            "This workspace belongs to no federation, so there is nobody to state it to; a line of "
            "the ledger tells of it."
        )
    elif done.is_signed:
        file = f"federation/{done.statement.name}"
        yield f"The statement: {done.statement}"
        yield "Anybody who has the roster can check it:"
        yield (
            f"{COMMAND}ssh-keygen -Y verify -n brainfed -f federation/roster -I {name} "
            f"-s {file}.sig < {file}"
        )
        yield "Next: brainfed export --to FOLDER, and carry it to the coordinator."
    else:
        yield f"The statement, to be signed by your agent or token: {done.statement}"
        yield "Next: brainfed export --unsigned"
    if not done.already:
        yield (
            "With the key of the ids went the memory of who had withdrawn: take their scans out of "
            "the folder before `brainfed preprocess` is run here again."
        )
        yield BEYOND
