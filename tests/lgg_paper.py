"""The paper's comparison on real scans: `brainfed simulate` on ../shared/data/lgg-sites.

`make paper-lgg` runs it: three folds over the four real sites, then eight random sites; the fifth
site, EZ, has one patient and is looked at apart. It can be stopped and goes on. At the end it
writes docs/results/paper-lgg.md of what is there; `page` only writes it. Weights and scans stay in
the folder.
"""

import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))

from brainfed.core.contenders import Contender
from brainfed.core.device import choose_device
from brainfed.core.labels import LabelProtocol
from brainfed.formats import dataset, federation, rounds, simulation, weights, workspace
from brainfed.formats.report_page import Block, Cell, Facts, Items, Section, Table, Text
from brainfed.formats.simulation_findings import run_of
from brainfed.steps.preprocess import Wish
from brainfed.steps.score_cases import read_cases, scores_of
from brainfed.steps.simulation_claims import findings
from brainfed.steps.simulation_data import prepare
from brainfed.steps.simulation_report import lay_out
from brainfed.steps.simulation_results import read
from tests.lgg import SCANS, SITES, say

PLAN = REPO / "plans" / "paper-lgg.toml"
PAGE = REPO / "docs" / "results" / "paper-lgg.md"
APART = "EZ"
N_FOLDS = 3
PARTITIONS = {"real-sites": "folder", "eight-random-sites": "equal:8"}
EPOCHS = {"real-sites": "1,2,4", "eight-random-sites": "1"}
HOW = ("--labels", "whole-tumour", "--spacing-nominal")


def scans_of_sites(root: Path) -> Path:
    """A folder of links to the folders of the sites that can be split."""
    folder = root / "scans"
    folder.mkdir(parents=True, exist_ok=True)
    for name in SITES:
        link = folder / name
        if not link.exists():
            link.symlink_to(SCANS / name.upper())
    return folder


def simulated(root: Path, name: str) -> None:
    """One partition, from where it was."""
    command = [str(Path(sys.executable).with_name("brainfed")), "simulate", str(PLAN)]
    command += ["--data", str(scans_of_sites(root)), *HOW, "--folds", str(N_FOLDS)]
    command += ["--partition", PARTITIONS[name], "--epochs", EPOCHS[name]]
    command += ["--device", "cpu", "--out", str(root / name)]
    if precision := os.environ.get("PRECISION"):
        command += ["--precision", precision]
    done = subprocess.run(command, check=False)
    if done.returncode:
        sys.exit(f"{name}: exit code {done.returncode}")


def apart(root: Path) -> dict[str, list[float]]:
    """Dice of the patient of EZ under the final weights of each contender, fold by fold."""
    folder = root / "real-sites"
    plan = read(folder).plan
    how = Wish(protocol=LabelProtocol.WHOLE_TUMOUR, spacing_nominal=True)
    prepared = prepare(root / "apart", SCANS / APART, plan, how)
    entries = dataset.read_index(prepared.data)
    found: dict[str, list[float]] = {}
    for result in simulation.read_results(folder):
        for outcome in result.outcomes:
            if outcome.contender in {Contender.LOCAL, Contender.ENSEMBLE}:
                continue
            place = workspace.find(folder / "runs" / run_of(result).name / "lead")
            known = federation.load(place)
            path = rounds.global_path(place, outcome.points[outcome.chosen].round)
            assert path is not None
            rows = scores_of(
                weights.read_tensors(path, known.table),
                plan,
                read_cases(prepared.data, entries, plan),
                device=choose_device("cpu"),
            )
            name = outcome.contender.value
            if outcome.contender is Contender.FL:
                name += f", {result.epochs} epochs a round" if result.epochs > 1 else ", 1 epoch"
            found.setdefault(name, []).append(statistics.fmean(row.dice for row in rows))
    return found


def lines_of(block: Block) -> Iterator[str]:
    """A block of a report page in Markdown; drawings are left out."""
    if isinstance(block, Table):
        yield f"**{block.caption}**"
        yield ""
        yield f"| {' | '.join(block.columns)} |"
        yield f"|{'---|' * len(block.columns)}"
        for row in block.rows:
            yield f"| {' | '.join(_cell(cell) for cell in row)} |"
        if block.note:
            yield ""
            yield block.note
    elif isinstance(block, Text):
        yield block.text
    elif isinstance(block, Items):
        yield from (f"- {item}" for item in block.items)
    elif isinstance(block, Facts):
        yield from (f"- {name}: {value}" for name, value in block.pairs)
    else:
        return
    yield ""


def _cell(cell: Cell | str) -> str:
    text = cell if isinstance(cell, str) else f"{cell.text} {cell.small}".strip()
    return text.replace("|", "\\|")


def section_lines(sections: Sequence[Section]) -> Iterator[str]:
    """Sections under headings of the third level."""
    for section in sections:
        lines = [line for block in section.blocks for line in lines_of(block)]
        if lines:
            yield from (f"### {section.title}", "", *lines)


def page(root: Path) -> str:
    """The whole page, of what is there."""
    notes = REPO / "docs" / "results" / "paper-lgg-notes.md"
    lines = [
        "# The paper's comparison on real scans",
        "",
        "Made by `make paper-lgg` (`PRECISION=bf16` here); only the part up to the first table is",
        "written by hand, in `paper-lgg-notes.md`.",
        "",
        *notes.read_text("utf-8").splitlines(),
        "",
        f"Machine: {platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, torch {version('torch')}, brainfed {version('brainfed')}.",
        "",
    ]
    for name, kind in PARTITIONS.items():
        folder = root / name
        if not simulation.read_results(folder):
            continue
        told = read(folder)
        lines += [f"## {name.replace('-', ' ').capitalize()} (`--partition {kind}`)", ""]
        lines += section_lines(lay_out(told, findings(told)).sections)
        if name == "real-sites":
            lines += [f"### {APART} apart", "", *apart_lines(root)]
    return "\n".join(lines).rstrip() + "\n"


def apart_lines(root: Path) -> Iterator[str]:
    """The one patient of the site that can't be split."""
    yield f"Dice of the one patient of {APART}, whom no run has seen, fold by fold. One patient"
    yield "says nothing about a method; it is here because the site is."
    yield ""
    yield f"| weights |{''.join(f' fold {n + 1} |' for n in range(N_FOLDS))}"
    yield f"|---|{'---|' * N_FOLDS}"
    for name, values in sorted(apart(root).items()):
        yield f"| {name} |{''.join(f' {value:.3f} |' for value in values)}"
    yield ""


def main(root: Path, only_page: bool) -> None:
    """Do what is left to do."""
    if not SCANS.is_dir():
        sys.exit(f"The real scans are not here: {SCANS}")
    for name in PARTITIONS if not only_page else ():
        say(name)
        simulated(root, name)
        PAGE.write_text(page(root), "utf-8")
    PAGE.write_text(page(root), "utf-8")
    say(f"written: {PAGE.relative_to(REPO)}")


if __name__ == "__main__":
    main(
        Path(sys.argv[1] if len(sys.argv) > 1 else "work/paper-lgg").resolve(),
        only_page=sys.argv[2:] == ["page"],
    )
