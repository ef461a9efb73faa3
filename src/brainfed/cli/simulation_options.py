"""The options of `brainfed simulate`."""

from pathlib import Path
from typing import Annotated

import typer

METHODS = "pooled,fl,ciil,iil,local,ensemble,average-once"

Data = Annotated[
    Path,
    typer.Option(
        "--data",
        metavar="FOLDER",
        help="Folder of scans as preprocess takes it, or one of such folders, a site each.",
        show_default=False,
    ),
]
Partition = Annotated[
    str,
    typer.Option(
        "--partition",
        metavar="KIND|FILE.csv",
        help="Which patient is at which site: folder, brats2018, equal:K, size-skew:K, "
        "label-skew:K, or a table as brainfed simulate partition and FeTS write it.",
    ),
]
Out = Annotated[
    Path, typer.Option("--out", metavar="FOLDER", help="For results; a new or earlier one.")
]
SkipIncomplete = Annotated[
    bool,
    typer.Option("--skip-incomplete", metavar="", help="Go on without cases that are refused."),
]
Methods = Annotated[str, typer.Option("--methods", metavar="LIST", help="What is compared.")]
Epochs = Annotated[
    str | None,
    typer.Option(
        "--epochs",
        metavar="LIST",
        help="Epochs per round of fl, such as 1,2,4, each with as many passes in all; without "
        "it the plan's.",
        show_default=False,
    ),
]
Seeds = Annotated[
    int | None,
    typer.Option(
        "--seeds",
        min=1,
        metavar="N",
        help="Do everything from so many seeds; 3 if neither this nor --folds is given.",
        show_default=False,
    ),
]
Folds = Annotated[
    int | None,
    typer.Option(
        "--folds",
        min=2,
        metavar="N",
        help="Cross-validation: so many repeats, each with a seed of its own, hold out other "
        "patients, and in the end everybody once.",
        show_default=False,
    ),
]
Rates = Annotated[
    str | None,
    typer.Option(
        "--rates",
        metavar="LIST",
        help="Learning rates to try for every method alike; the first is the shared one. "
        "Without it the plan's.",
        show_default=False,
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        min=1,
        metavar="N",
        help="Processes of one thread each; one per core if not given, a single one with "
        "--device cuda.",
        show_default=False,
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        metavar="ADDRESS",
        help="A Dask scheduler, such as tls://host:8786, in place of local processes; its "
        "workers see the same folders.",
        show_default=False,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        metavar="",
        help="Prepare the scans, then only print rounds, epochs, hand-overs, bytes and the "
        "time to expect.",
    ),
]
