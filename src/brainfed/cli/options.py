"""The options that commands share, each with one name and one help text everywhere.

Choices are spelled out as Literals, because the Enums that they name live in modules whose import
costs help a second; a test holds both against each other.
"""

from pathlib import Path
from typing import Annotated, Literal, get_args

import typer

RoleChoice = Literal["coordinator", "site", "evaluator", "approver", "auditor"]
SubsetChoice = Literal["validation", "test"]
SpaceChoice = Literal["plan", "native"]
LabelChoice = Literal[
    "brats2012", "brats2017", "brats2023", "brats2024-post", "msd", "whole-tumour"
]

ReaderChoice = Literal["site", "coordinator", "public"]
ExclusionChoice = Literal["withdrawn", "opted-out", "duplicate", "bad-label", "bad-scan"]
ErasureChoice = Literal["ended", "left", "ordered"]
ReasonChoice = Literal[
    "late", "withdrew", "failed-screening", "not-reachable", "ethics", "other"
]  # of `formats.record.Reason` those that a coordinator can give

Labels = Annotated[
    LabelChoice | None,
    typer.Option(
        "--labels",
        metavar="PROTOCOL",
        help="What the label values mean, where cases.csv doesn't say; never guessed: "
        f"{', '.join(get_args(LabelChoice))}.",
        show_default=False,
    ),
]
SpacingNominal = Annotated[
    bool,
    typer.Option(
        "--spacing-nominal",
        metavar="",
        help="The voxel size in the headers is a convention, not a measurement.",
    ),
]
Sequences = Annotated[
    Path | None,
    typer.Option(
        "--sequences",
        metavar="FILE",
        help="A rule of your own that names DICOM series, in place of brainfed's.",
        show_default=False,
    ),
]
Jobs = Annotated[int, typer.Option("--jobs", min=1, metavar="N", help="Cases at a time.")]
WorkspaceFolder = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        metavar="FOLDER",
        help="The workspace; without it, this folder or the nearest one above that is one.",
        show_default=False,
    ),
]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key",
        metavar="FILE",
        help="A key that is there: a private Ed25519 key of OpenSSH, which stays where it is, or "
        "the .pub of one in an ssh-agent or a hardware token.",
        show_default=False,
    ),
]
Passphrase = Annotated[
    bool,
    typer.Option("--passphrase", metavar="", help="Ask for a passphrase that protects the key."),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json", metavar="", help="Print the result as one JSON object; words go to stderr."
    ),
]
Yes = Annotated[
    bool,
    typer.Option("--yes", metavar="", help="Answer yes to questions; never to a fingerprint."),
]
Fingerprints = Annotated[
    list[str] | None,
    typer.Option(
        "--fingerprint",
        metavar="SHA256:...",
        help="A fingerprint that you compared by a second channel, in place of the question; "
        "may be given again.",
        show_default=False,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="cpu|cuda|cuda:N",
        autocompletion=lambda: ["cpu", "cuda"],
        help="Where to compute; without it, CUDA where there is one.",
        show_default=False,
    ),
]
PrecisionChoice = Literal["float32", "bf16", "fp16"]
Precision = Annotated[
    PrecisionChoice | None,
    typer.Option(
        "--precision",
        metavar="float32|bf16|fp16",
        help="Of the convolutions; without it bf16 or fp16 on CUDA, float32 on a CPU.",
        show_default=False,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        metavar="N",
        help="CPU threads; the same number gives the same digest again.",
        show_default=False,
    ),
]
