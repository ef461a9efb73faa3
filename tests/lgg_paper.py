"""The paper's comparison on real scans: `brainfed simulate` on ../shared/data/lgg-sites.

`make paper-lgg` runs it: three folds over the four real sites, then eight random sites, then the
first again with one key of the plan changed, to see why a claim fails. The fifth site, EZ, has one
patient and is looked at apart. It can be stopped and goes on; `FOLDER NAME` runs one part alone. At
the end it writes docs/results/paper-lgg.md of what is there, below the part that people wrote;
`page` only writes it. Weights and scans stay in the folder.
"""

import hashlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))

from brainfed import plan as plans
from brainfed.cli.simulation_options import METHODS
from brainfed.core.contenders import Contender
from brainfed.core.device import choose_device
from brainfed.core.labels import LabelProtocol
from brainfed.formats import dataset, federation, rounds, simulation, weights, workspace
from brainfed.formats.report_page import Block, Cell, Facts, Items, Section, Table, Text
from brainfed.formats.simulation_findings import run_of
from brainfed.steps.preprocess import Wish
from brainfed.steps.score_cases import read_cases, scores_of
from brainfed.steps.simulation_arms import Protocol
from brainfed.steps.simulation_claims import findings
from brainfed.steps.simulation_data import prepare
from brainfed.steps.simulation_report import lay_out
from brainfed.steps.simulation_results import read
from brainfed.steps.simulation_tables import figure, mean_of
from tests.lgg import SCANS, SITES, say

PLAN = REPO / "plans" / "paper-lgg.toml"
PAGE = REPO / "docs" / "results" / "paper-lgg.md"
APART = "EZ"
N_FOLDS = 3
FIRST = "real-sites"
MADE = "<!-- What follows is made by tests/lgg_paper.py. -->"


@dataclass(frozen=True)
class Part:
    """One simulation."""

    partition: str = "folder"
    epochs: str = "1"
    methods: str = METHODS
    changed: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the plan with other values."""
    rates: str = ""
    """Of the second comparison; the first is the plan's."""


PARTS = {
    FIRST: Part(epochs="1,2,4"),
    "eight-random-sites": Part(partition="equal:8"),
    "own-rates": Part(methods="pooled,fl,ciil,iil", rates="0.002,0.004,0.008"),
    "why-rounds": Part(methods="fl", changed={"rounds": 40}),
    "why-keep": Part(methods="fl,ciil", changed={"training": {"optimiser_state": "keep"}}),
    "why-cosine": Part(methods="fl,pooled", changed={"training": {"schedule": "cosine"}}),
}
RATED = ("Chosen on validation, reported on test", "Claims")
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
    """One part, from where it was."""
    part = PARTS[name]
    command = [str(Path(sys.executable).with_name("brainfed")), "simulate"]
    command += [str(plan_of(root, name)), "--data", str(scans_of_sites(root)), *HOW]
    command += ["--folds", str(N_FOLDS), "--partition", part.partition, "--epochs", part.epochs]
    command += ["--methods", part.methods, "--device", "cpu", "--out", str(root / name)]
    if part.rates:
        command += ["--rates", part.rates]
    if precision := os.environ.get("PRECISION"):
        command += ["--precision", precision]
    if name != FIRST and not (root / name).exists():
        # The same ids: another order of the cases would be as another seed.
        shutil.copytree(root / FIRST / "cases", root / name / "cases")
        if part.rates:
            at_shared_rate(root, name)
    done = subprocess.run(command, check=False)
    if done.returncode:
        sys.exit(f"{name}: exit code {done.returncode}")


def at_shared_rate(root: Path, name: str) -> None:
    """Take over the runs of the first part, which would come out the same to the bit."""
    part, folder = PARTS[name], root / name
    methods = [Contender(word) for word in part.methods.split(",")]
    rates = tuple(float(rate) for rate in part.rates.split(","))
    settings = replace(
        simulation.read_settings(root / FIRST),
        contenders=tuple(methods),
        epochs=(1,),
        rates=rates,
    )
    digest = hashlib.sha256(simulation.settings_bytes(settings)).hexdigest()
    for result in simulation.read_results(root / FIRST):
        if result.training.value in methods and result.epochs == 1:
            run = run_of(result).name
            shutil.copytree(root / FIRST / "runs" / run, folder / "runs" / run)
            simulation.write_result(folder, run, replace(result, settings=digest))


def plan_of(root: Path, name: str) -> Path:
    """The plan of a part."""
    changed = PARTS[name].changed
    if not changed:
        return PLAN
    content = plans.load(PLAN).model_dump()
    for key, value in changed.items():
        content[key] = content[key] | value if isinstance(value, dict) else value
    path = root / f"{name}.toml"
    path.write_text(plans.render(plans.build(content, str(path))))
    return path


def apart(root: Path) -> dict[str, list[float]]:
    """Dice of the patient of EZ under the final weights of each contender, fold by fold."""
    folder = root / FIRST
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
    text = cell if isinstance(cell, str) else cell.text
    if isinstance(cell, Cell) and cell.small:
        text += f" ({cell.small})"
    return text.replace("|", "\\|")


def section_lines(sections: Sequence[Section]) -> Iterator[str]:
    """Sections under headings of the third level."""
    for section in sections:
        lines = [line for block in section.blocks for line in lines_of(block)]
        if lines:
            yield from (f"### {section.title}", "", *lines)


def page(root: Path) -> str:
    """The whole page, of what is there."""
    by_hand = PAGE.read_text("utf-8").partition(MADE)[0] if PAGE.exists() else ""
    lines = [
        MADE,
        "",
        f"Machine: {os.cpu_count()} cores of {platform.machine()}, Python "
        f"{platform.python_version()}, torch {version('torch')}, brainfed {version('brainfed')}.",
        "",
    ]
    for name, part in PARTS.items():
        folder = root / name
        if part.changed or not simulation.read_results(folder):
            continue
        told = read(folder)
        seconds = sum(result.seconds for result in told.results)
        option = f"--rates {part.rates}" if part.rates else f"--partition {part.partition}"
        lines += [f"## {name.replace('-', ' ').capitalize()} (`{option}`)", ""]
        lines += [f"{len(told.results)} runs, {seconds / 60:.0f} minutes of one core in all.", ""]
        sections = lay_out(told, findings(told)).sections
        # Of the second comparison what the first hasn't said; the rest stands in its report.
        lines += section_lines([s for s in sections if not part.rates or s.title in RATED])
        if name == FIRST:
            lines += [f"### {APART} apart", "", *apart_lines(root)]
    lines += why_lines(root)
    return by_hand + "\n".join(lines).rstrip() + "\n"


def why_lines(root: Path) -> Iterator[str]:
    """The first part again with one key changed: those that have ended."""
    ended = [
        name
        for name, part in PARTS.items()
        if (part.changed or name == FIRST)
        and simulation.read_results(root / name)
        and not read(root / name).missing
    ]
    if len(ended) < 2:
        return
    yield "## The real sites with one key changed"
    yield ""
    yield "| plan | method | validation | test |"
    yield "|---|---|---|---|"
    for name in ended:
        key = json.dumps(PARTS[name].changed).strip("{}").replace('"', "")
        for arm in read(root / name).shared:
            if arm.contender in {Contender.POOLED, Contender.FL, Contender.CIIL}:
                seen, test = (mean_of(arm.run_means(p)) for p in (Protocol.PAPER, Protocol.CLEAN))
                cells = key or "as above", arm.name, figure(seen), figure(test)
                yield f"| {' | '.join(cells)} |"


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


def main(root: Path, parts: list[str]) -> None:
    """Do what is left to do."""
    if not SCANS.is_dir():
        sys.exit(f"The real scans are not here: {SCANS}")
    for name in parts if parts != ["page"] else ():
        say(name)
        simulated(root, name)
        PAGE.write_text(page(root), "utf-8")
    PAGE.write_text(page(root), "utf-8")
    say(f"written: {PAGE.relative_to(REPO)}")


if __name__ == "__main__":
    main(
        Path(sys.argv[1] if len(sys.argv) > 1 else "work/paper-lgg").resolve(),
        sys.argv[2:] or list(PARTS),
    )
