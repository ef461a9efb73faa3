"""`brainfed predict`: label maps of scans, by a federation's weights, in or outside a workspace."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from brainfed.cli.console import Table, Words, counted, progress, say, show, show_all_the_same
from brainfed.cli.options import (
    Device,
    Fingerprints,
    Json,
    LabelChoice,
    Sequences,
    SpacingNominal,
    Threads,
    WorkspaceFolder,
)
from brainfed.cli.place import check_fingerprints, confirm_fingerprint, find_if_any

if TYPE_CHECKING:
    from brainfed.steps.predict_rows import PredictResult
    from brainfed.steps.trust_weights import Trusted


def predict(
    weights: Annotated[
        Path,
        typer.Argument(
            metavar="WEIGHTS",
            help="Global weights, a .safetensors file with its .sig beside it.",
            show_default=False,
        ),
    ],
    scans: Annotated[
        Path,
        typer.Argument(
            metavar="SCANS",
            help="Folder of scans in any layout that preprocess reads, the folder of one case, or "
            "a cases.csv.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT",
            help="Folder for the label maps and pictures; no file in it is written over.",
            show_default=False,
        ),
    ],
    labels: Annotated[
        LabelChoice,
        typer.Option(
            "--labels",
            metavar="PROTOCOL",
            help="What the values of the label maps are to mean: "
            f"{', '.join(get_args(LabelChoice))}.",
            show_default=False,
        ),
    ],
    start: Annotated[
        Path | None,
        typer.Option(
            "--start",
            metavar="START.json",
            help="The federation's start, its .sig beside it; else that of the workspace, or the "
            "one beside the weights.",
            show_default=False,
        ),
    ] = None,
    fingerprint: Fingerprints = None,
    mirror: Annotated[
        bool,
        typer.Option(
            "--mirror", metavar="", help="Ask for the flipped image too, in twice the time."
        ),
    ] = False,
    atlas: Annotated[
        Path | None,
        typer.Option(
            "--atlas",
            metavar="FILE",
            help="The plan's atlas, where the workspace hasn't it.",
            show_default=False,
        ),
    ] = None,
    sequences: Sequences = None,
    spacing_nominal: SpacingNominal = False,
    device: Device = None,
    threads: Threads = None,
    workspace: WorkspaceFolder = None,
    as_json: Json = False,
) -> None:
    """Outline tumours in scans by global weights; for research only, not for diagnosis.

    Writes for each case a label map as NIfTI on the case's own scan, and a picture; no label is
    needed, and one that is there is not looked at. Needs no workspace: a global weight file,
    start.json and their signatures do. It can be stopped and run again. A corrected label map goes
    back through preprocess, by the cases.csv that is written beside.
    """
    from brainfed.core.labels import LabelProtocol
    from brainfed.formats import sequence_rule
    from brainfed.steps import predict as step
    from brainfed.steps.predict_rows import RefusedPredictionsError

    check_fingerprints(fingerprint)
    place = find_if_any(workspace)
    wish = step.Wish(
        weights=weights,
        scans=scans,
        out=out,
        protocol=LabelProtocol(labels),
        start=start,
        mirror=mirror,
        atlas=atlas,
        rule=sequence_rule.load(sequences) if sequences else None,
        spacing_nominal=spacing_nominal,
    )
    try:
        with progress() as bar:
            done = step.predict(
                wish,
                place,
                tell=lambda trusted: _whose(trusted, fingerprint),
                device=device,
                threads=threads,
                progress=bar,
            )
    except RefusedPredictionsError as error:
        show_all_the_same(error, error.result, _words, as_json=as_json)
        raise typer.Exit(error.exit_code) from None
    show(done, _words, as_json=as_json)


def _whose(trusted: "Trusted", given: list[str] | None) -> None:
    """Say who signed the weights; outside a workspace nobody but a person can vouch for the key."""
    manifest = trusted.file.manifest
    say(
        f"Global weights of round {manifest.round} of {trusted.known.prefix}, "
        f"signed by {trusted.coordinator}:",
        f"  {trusted.fingerprint}",
    )
    if given:
        confirm_fingerprint(trusted.coordinator, trusted.fingerprint, given)
    elif trusted.start_path is not None:
        say(
            "That key stands in start.json itself, so it proves nothing yet: ask "
            f"{trusted.coordinator} by telephone or in person to read you the fingerprint. Whether "
            "the key was revoked since the start can't be seen here."
        )


def _words(done: "PredictResult") -> Words:
    yield f"{done.warning}. Weights {done.weights[:16]}, labels {done.protocol}."
    rows = [
        (
            row.name,
            str(row.status),
            str(row.reference) if row.reference else None,
            ", ".join(str(modality) for modality in row.modalities) or None,
            *(_rounded((row.volumes_ml or {}).get(region)) for region in done.regions),
            row.reason or "; ".join(row.remarks),
        )
        for row in done.rows
    ]
    yield Table(("case", "", "grid of", "seen", *(f"{r} ml" for r in done.regions), "remark"), rows)
    if done.left_out:
        names = ", ".join(str(region) for region in done.left_out)
        yield f"Not in the label maps: {names}. {done.protocol} has no value for it."
    yield f"{counted(len(done.rows), 'case')}; label maps and pictures in {done.out}"
    yield (
        "Next: look at them. To train on them, correct each, then fill LabelOrigin and empty Doubt "
        f"in {done.table}, and brainfed preprocess that table"
    )


def _rounded(ml: float | None) -> str | None:
    return None if ml is None else f"{ml:.1f}"
