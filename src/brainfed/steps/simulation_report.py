"""The page of a simulation: what each way to learn reached, beside what the paper printed.

Made from the results folder alone, as often as wanted, also while runs are still missing.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from brainfed.core import charts, paper_figures
from brainfed.core.architecture import n_parameters, network_table
from brainfed.core.contenders import Contender, passes_of
from brainfed.core.partition import Kind
from brainfed.formats import atomic, report_page
from brainfed.formats.report_page import Block, Facts, Items, Page, Section, Text
from brainfed.formats.simulation_findings import Findings, write_claims, write_scores
from brainfed.plan import Modality, Region
from brainfed.steps import simulation_claims, simulation_figures, simulation_tables
from brainfed.steps.report_sections import plan_figures
from brainfed.steps.simulation_arms import Arm, Protocol
from brainfed.steps.simulation_costs import costs, trained
from brainfed.steps.simulation_results import Simulation, read
from brainfed.steps.simulation_tables import VERDICTS, figure, mean_of, percent, pooled_of

NAME = "report.html"


@dataclass(frozen=True, slots=True)
class Written:
    """What was written of a simulation."""

    page: Path
    csv: Path
    claims: Path
    findings: Findings
    missing: tuple[str, ...]
    """Runs that haven't ended, and are not in the figures."""


def write_report(folder: Path) -> Written:
    """Write `scores.csv`, `claims.json` and `report.html` into a results folder.

    Args:
        folder: It holds `simulation.json` and `results/`.

    Raises:
        NotReadyError: There is no simulation, or none of its runs has ended.
        ConflictError: A file is damaged, or of another simulation, or the page's place is taken.
        ResourceError: The disk refuses.
    """
    told = read(folder)
    csv = write_scores(folder, told.results)
    found = simulation_claims.findings(told)
    claims = write_claims(folder, found)
    page = folder / NAME
    # Beside the page, so that a killed command leaves nothing behind that nobody removes.
    with atomic.scratch_folder(folder / "report") as scratch, charts.private_cache(scratch):
        report_page.write(page, lay_out(told, found), is_private=True)
    return Written(page, csv, claims, found, told.missing)


def lay_out(told: Simulation, found: Findings) -> Page:
    """The page; inside `charts.private_cache`."""
    sections = (
        what_it_is_not(told),
        in_short(told, found),
        _protocol_section(told, Protocol.CLEAN),
        _claims(told, found),
        _protocol_section(told, Protocol.PAPER),
        simulation_figures.against_hand_overs(told),
        simulation_figures.against_passes(told),
        simulation_figures.forgetting(told),
        simulation_figures.distributions(told),
        _site_by_site(told),
        costs(told),
        trained(told),
        _what_it_is(told),
    )
    settings = told.settings
    return Page(
        title=f"{told.plan.name}: a simulation",
        lead=f"{told.n_sites} sites, partition {settings.partition_name}, {settings.n_repeats} "
        f"{'folds' if settings.is_folded else 'seeds'}. Settings {told.digest[:16]}.",
        banner=report_page.PATIENT_FIGURES,
        sections=tuple(section for section in sections if section is not None),
        foot=f"Made by brainfed {version('brainfed')} from {len(told.results)} runs. "
        f"{report_page.FIRST_LINE}",
    )


def what_it_is_not(told: Simulation) -> Section:
    """In so many words, from the settings, what sets it apart from the paper."""
    items = [
        _whose_patients(told),
        *_other_network(told),
        *_other_training(told),
        "Not the paper's measure, but where “soft slice Dice” stands. Dice here is of a patient's "
        "whole volume at threshold 0.5; the paper's is of probabilities, slice by slice, and an "
        "empty slice that is outlined as empty counts as 1. The two can't be compared.",
        "Not a federation of hospitals. All sites were folders of one machine, with throw-away "
        "keys; nothing was carried, and nobody was late.",
    ]
    if told.protocols[0] is Protocol.PAPER:
        items.append(
            "Not a test. The plan holds out no test patients, so the patients that chose the "
            "weights report on them too, and every figure is too good. Claims are judged on them."
        )
    return Section("What this is not", [Items(tuple(items))])


def _whose_patients(told: Simulation) -> str:
    n = _n_patients(told)
    theirs = f"{paper_figures.N_PATIENTS} high-grade patients of BraTS 2018"
    if n != paper_figures.N_PATIENTS:
        return f"Not the paper's data: {n} patients here, {theirs} there."
    if told.settings.partition_name == Kind.BRATS2018:
        return f"As far as names and number tell, the paper's data: {theirs}."
    return f"As many patients as the paper's {theirs}; whether they are the same isn't known here."


def _n_patients(told: Simulation) -> int:
    return sum(site.n_train + site.n_validation + site.n_test for site in told.settings.sites[0])


def _other_network(told: Simulation) -> list[str]:
    n, theirs = n_parameters(network_table(told.plan)), paper_figures.N_PARAMETERS
    size = told.plan.grid.size
    items = []
    if n != theirs:
        word = "smaller" if n < theirs else "larger"
        items.append(f"A {word} network: {n:,} parameters, where the paper's has {theirs:,}.")
    if size != paper_figures.GRID:
        there = " x ".join(map(str, paper_figures.GRID))
        items.append(f"Another grid: {size[0]} x {size[1]} pixels, where the paper has {there}.")
    scans = told.plan.scans
    if (scans.modalities, scans.regions) != ((Modality.FLAIR,), (Region.WT,)):
        items.append(
            f"Another task: {', '.join(scans.regions)} from {', '.join(scans.modalities)}, where "
            "the paper outlines the whole tumour from FLAIR."
        )
    return items


def _other_training(told: Simulation) -> list[str]:
    training = told.plan.training
    theirs = {
        "batch": (training.batch, paper_figures.BATCH),
        "rate": (told.settings.rates[0], paper_figures.RATE),
        "loss": (training.loss, "log-dice"),
        "optimiser": (training.optimiser, "adam"),
        "schedule": (training.schedule, "constant"),
    }
    told_apart = [f"{name} {a} instead of {b}" for name, (a, b) in theirs.items() if a != b]
    if any(value != default for _, value, default in _augmented(told)):
        told_apart.append("with augmentation")
    return [f"Another training: {', '.join(told_apart)}."] if told_apart else []


def _augmented(told: Simulation) -> list[tuple[str, float, float]]:
    augmentation = told.plan.training.augmentation
    fields = type(augmentation).model_fields
    return [(name, getattr(augmentation, name), field.default) for name, field in fields.items()]


def in_short(told: Simulation, found: Findings) -> Section:
    """What a reader in a hurry must know."""
    settings, protocol = told.settings, told.protocols[0]
    ended = len(told.results)
    passes = f"{passes_of(told.plan)} passes over the patients"
    iil = "; iil stops earlier where it may" if Contender.IIL in settings.contenders else ""
    items = [f"{ended} runs have ended, each with {passes}{iil}."]
    pooled = pooled_of(told.shared)
    reference = mean_of(pooled.run_means(protocol)) if pooled else None
    reached = [_reached(arm, protocol, reference) for arm in told.shared]
    on = "test" if protocol is Protocol.CLEAN else "validation"
    items.append(
        f"Mean Dice of {on} patients, at rate {settings.rates[0]:g}: {'; '.join(reached)}."
    )
    for judged in found.judged:
        verdicts = Counter(VERDICTS[claim.verdict] for claim in judged.claims)
        counted = ", ".join(f"{verdicts[word]} {word}" for word in VERDICTS.values())
        which = f", {judged.rates} rate" if told.best else ""
        items.append(f"Claims{which}: {counted}.")
    blocks: list[Block] = [Items(tuple(items))]
    if told.missing:
        named = ", ".join(told.missing[:5])
        more = f" and {len(told.missing) - 5} more" if len(told.missing) > 5 else ""
        words = f"Runs that haven't ended are not in these figures: {named}{more}."
        blocks.insert(0, Text(words, is_warning=True))
    return Section("In short", blocks)


def _reached(arm: Arm, protocol: Protocol, reference: float | None) -> str:
    mean = mean_of(arm.run_means(protocol))
    if reference is None or arm.contender is Contender.POOLED:
        return f"{arm.name} {figure(mean)}"
    return f"{arm.name} {figure(mean)} ({percent(mean, reference)} of pooled)"


def _protocol_section(told: Simulation, protocol: Protocol) -> Section | None:
    if protocol not in told.protocols:
        return None
    table = simulation_tables.clean if protocol is Protocol.CLEAN else simulation_tables.paper
    kinds: list[Sequence[Arm]] = [told.shared, told.best] if told.best else [told.shared]
    blocks: list[Block] = [table(told, arms) for arms in kinds]
    if told.best:
        tried = len(told.settings.rates)
        blocks.insert(0, Text(f"Each method was tried with {tried} rates on the first repeat."))
    if protocol is Protocol.CLEAN:
        return Section("Chosen on validation, reported on test", blocks)
    blocks.append(simulation_tables.beside_the_paper(told))
    return Section("As the paper reports: the same patients choose and report", blocks)


def _claims(told: Simulation, found: Findings) -> Section:
    tables: list[Block] = [simulation_tables.judged(told, judged) for judged in found.judged]
    words = "Not shown is not refuted: the last column but one says how much could have been seen."
    return Section("Claims", [Text(words), *tables])


def _site_by_site(told: Simulation) -> Section | None:
    table = simulation_tables.site_by_site(told, told.shared)
    return None if table is None else Section("Each site alone, on all sites", [table])


def _what_it_is(told: Simulation) -> Section:
    settings = told.settings
    sizes = ", ".join(
        f"{s.site} {s.n_train} + {s.n_validation} + {s.n_test}" for s in settings.sites[0]
    )
    pairs = (
        ("Patients of each site (train + validation + test), first repeat", sizes),
        ("Digest of the cases", settings.dataset[:16]),
        ("Digest of the partition", settings.partition[:16]),
        ("Device", ", ".join(filter(None, (settings.device, settings.precision))) or "as found"),
        *plan_figures(told.plan),
    )
    return Section("Settings", [Facts(pairs)])
