"""`brainfed demo`: a whole federation on generated scans, in one folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brainfed.cli.console import COMMAND, Table, Words, progress, say, show
from brainfed.cli.options import Json

if TYPE_CHECKING:
    from brainfed.steps.demo import DemoResult


def demo(
    out: Annotated[
        Path, typer.Option("--out", metavar="FOLDER", help="A new or empty folder.")
    ] = Path("demo"),
    scans_only: Annotated[
        bool,
        typer.Option("--scans-only", metavar="", help="Write the generated scans and stop."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Run a whole federation on generated scans, in about three minutes.

    Four sites and a coordinator, each in a workspace of its own, by the same steps and signed
    files as in earnest; beside it pooled training and each site alone. Run again, it goes on.
    """
    if scans_only:
        from brainfed.steps import phantoms

        with progress() as bar:
            folders = phantoms.write_consortium(out / "scans", progress=bar)
        show(Scans(folders), _scans_words, as_json=as_json)
        return
    from brainfed.steps import demo as step

    with progress() as bar:

        def tell(what: str, done: int, total: int, note: str = "") -> None:
            if what in step.TOLD:
                bar.hide()
                say(f"{what}, {done} of {total}: {note}")
            bar(what, done, total, note)

        done = step.demo(out, progress=tell)
    show(done, _demo_words, as_json=as_json)


@dataclass(frozen=True)
class Scans:
    """Generated scans."""

    scans: dict[str, Path]
    """The folder of each site."""


def _scans_words(done: Scans) -> Words:
    yield "Generated scans, labels as in BraTS 2017 (--labels brats2017):"
    yield from (f"- {folder}" for folder in done.scans.values())


def _demo_words(done: "DemoResult") -> Words:
    sites = list(done.n_patients)
    yield f"\nDice ({done.region}) of the global weights on each site's validation patients"
    rows = [(r.round, *(r.by_site[site] for site in sites), r.mean) for r in done.rounds]
    yield Table(("round", *sites, "all patients"), rows)
    yield ""
    yield "The same passes over the data, scored on all sites' validation patients"
    best = max(done.alone, key=lambda site: done.alone[site])
    yield Table(
        ("training", "Dice"),
        [
            ("federated, the last round", done.rounds[-1].mean),
            ("pooled: all scans in one place", done.pooled),
            (f"the best site alone ({best})", done.alone[best]),
        ],
    )
    patients = ", ".join(f"{site} {n}" for site, n in done.n_patients.items())
    yield f"Patients: {patients}. Phantoms, one run: it shows that the parts work together."
    yield f"\nAudit of the coordinator's folder: {done.audit}"
    yield f"\nEverything lies in {done.folder}: a workspace for the coordinator and for each site,"
    yield "the scans, and the stick. Look around, for instance:"
    yield f"{COMMAND}cd {done.folder}/uni-lead && brainfed status"
    yield f"{COMMAND}brainfed audit {done.folder}/uni-lead"
    yield f"\nCheck the signature of the last global weights without brainfed, in {done.folder}:"
    yield f"{COMMAND}{done.check}"
