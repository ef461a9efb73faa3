"""`brainfed admit` and `brainfed start`: the coordinator brings a federation to life."""

from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brainfed.cli.console import Words, counted, say, show, size_words
from brainfed.cli.options import Fingerprints, Json, WorkspaceFolder
from brainfed.cli.place import check_fingerprints, confirm_fingerprint, working

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from brainfed.plan import Plan
    from brainfed.steps.admit import Admitted, Candidate
    from brainfed.steps.start import Started


def admit(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="ENROLMENT...", help="The sites' enrolments, each with its .sig beside it."
        ),
    ],
    fingerprint: Fingerprints = None,
    workspace: WorkspaceFolder = None,
    as_json: Json = False,
) -> None:
    """Take sites into the roster, or their new keys, after you have compared each fingerprint.

    Shows the fingerprint of each enrolment and asks. Ask the site by telephone or in person: the
    fingerprint is all that tells its file from a forged one.
    """
    from brainfed.steps import admit as step

    def ask(candidate: "Candidate") -> bool:
        declared = (
            "" if candidate.n_patients is None else f" (about {candidate.n_patients} patients)"
        )
        say(f"{candidate.name}{declared} asks to be admitted as {candidate.role} with the key")
        say(f"  {candidate.fingerprint}")
        if candidate.replaces is not None:
            say("It replaces the key", f"  {candidate.replaces}")
        return confirm_fingerprint(candidate.name, candidate.fingerprint, fingerprint)

    check_fingerprints(fingerprint)
    with working(workspace, only="coordinator") as place:
        admitted = step.admit(place, files, confirm=ask)
    show(admitted, _admit_words, as_json=as_json)


def _admit_words(done: "Admitted") -> Words:
    for verb, names in (
        ("Admitted", done.admitted),
        ("In the roster already", done.already),
        ("Not admitted", done.declined),
    ):
        if names:
            yield f"{verb}: {', '.join(names)}"
    sites = ", ".join(done.sites) or "no site"
    yield f"Roster, version {done.version}: {sites}"
    yield "Next: more sites (brainfed admit), or brainfed start PLAN; brainfed status tells which."


def start(
    plan: Annotated[
        Path, typer.Argument(metavar="PLAN", help="The plan, a TOML file.", show_default=False)
    ],
    weights: Annotated[
        Path | None,
        typer.Option(
            "--weights",
            metavar="FILE",
            help="Begin with the weights of a safetensors file, not with random ones; an external "
            "network needs it.",
            show_default=False,
        ),
    ] = None,
    workspace: WorkspaceFolder = None,
    as_json: Json = False,
) -> None:
    """Freeze the plan and make the first global weights.

    The completed plan, the roster and the weights of round 0 are signed and put into the outbox.
    From here on the plan can't be changed.
    """
    from brainfed.steps.start import start_federation

    with working(workspace, only="coordinator") as place:
        today = datetime.now(UTC).date()
        make = _initial_weights if weights is None else partial(_given_weights, weights)
        started = start_federation(
            place, plan, initial_weights=make, today=today, are_given=weights is not None
        )
    show(started, _start_words, as_json=as_json)


_BRING_WEIGHTS = "`brainfed start PLAN --weights FILE`; see docs/how-to/own-trainer.md"


def _initial_weights(plan: "Plan") -> "dict[str, npt.NDArray[np.float32]]":
    """As `core.unet` makes them; torch is loaded only when they are to be made."""
    from brainfed.core.architecture import check_own

    check_own(plan, "initialise", instead=_BRING_WEIGHTS)
    from brainfed.core.unet import initial_weights

    return initial_weights(plan)


def _given_weights(path: Path, plan: "Plan") -> "dict[str, npt.NDArray[np.float32]]":
    from brainfed.core.architecture import tensor_table
    from brainfed.formats.given_weights import read_tensors

    return read_tensors(path, tensor_table(plan), local=plan.network.local)


def _start_words(done: "Started") -> Words:
    verb = "was started before" if done.already else "has started"
    yield f"The federation of the plan {done.plan.name} {verb}."
    yield f"  its digest: {done.federation}"
    size = size_words(4 * (done.n_parameters - done.n_local))
    kept = f", of which each site keeps {done.n_local:,} to itself" if done.n_local else ""
    yield (
        f"The network has {done.n_parameters:,} weights{kept} ({size} a file); "
        f"{counted(done.plan.rounds, 'round')}; sites: {', '.join(done.sites)}"
    )
    yield "Next: brainfed export --to FOLDER, and carry the files to every site."
