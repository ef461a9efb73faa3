"""The sections of a report that are no scores: who took part, hand-overs, plan, audit, limits."""

from brainfed.core.architecture import n_parameters, network_table, tensor_table
from brainfed.formats import floor
from brainfed.formats.record import InputStatus
from brainfed.formats.report_page import Block, Cell, Facts, Items, Section, Table, Text
from brainfed.plan import Plan
from brainfed.steps.audit import Verdict
from brainfed.steps.handovers import HandOver
from brainfed.steps.report_facts import Part, Reader, Report
from brainfed.steps.report_tables import counted, patients, round_name


def limits(report: Report) -> Section:
    """What the page can't show."""
    items = [
        "Every figure is its site's own word. A signature shows whose word it is, not that it is "
        "true: nobody else has seen the scans.",
        "Choose by validation, report by test, once. Validation figures of the weights that were "
        "chosen by them are too good.",
        "Means hide patients. A site may do badly where the mean of all does well: look at the "
        "worst site first, and at the spread.",
        "The scores compare outlines with the labels that each site brought. They say nothing "
        "of benefit to a patient, and nothing of scanners, sites and patients that are not here.",
    ]
    if report.reader is not Reader.SITE:
        fewest = max(report.floor, floor.FEWEST_FOR_MEAN)
        items.append(
            f"Of groups of fewer than {fewest} patients nothing is stated but that; a site "
            "may hold back more. So means may lack the smallest sites, which need not be like the "
            "others. The floor limits what the figures tell of a patient; it is no proof that they "
            "tell nothing."
        )
    if report.reader is Reader.PUBLIC:
        items.append("Sites have numbers in place of names; who knows the sites may guess which.")
    if report.n_left_out:
        files = counted(report.n_left_out, "file")
        items.append(
            f"{files} with figures could not be used: damaged, or not signed by whom it names. "
            "“brainfed audit” says more of those that are signed."
        )
    return Section("What this page can't show", [Items(tuple(items))])


def took_part(report: Report) -> Section:
    """Each round's record, site by site."""
    if not report.closings:
        return Section("Who took part", [Text("No round has been closed yet.")])
    sites = [
        site
        for site in report.sites
        if any(part.site == site for closing in report.closings for part in closing.parts)
    ]
    rows: list[tuple[Cell | str, ...]] = []
    for closing in report.closings:
        parts = {part.site: part for part in closing.parts}
        n_in = sum(part.status is InputStatus.INCLUDED for part in closing.parts)
        name = Cell(round_name((closing.round, closing.edition)), closing.day)
        rows.append((name, str(n_in), *(_part_cell(parts.get(site)) for site in sites)))
    table = Table(
        caption="By round, as the coordinator's signed records say",
        columns=("round", "included", *sites),
        rows=tuple(rows),
        note="Included: its update is in the mean. Absent: no update had come when the round was "
        "closed; a record can't tell why. A dash: no site of the federation in that round.",
    )
    return Section("Who took part", [table])


def _part_cell(part: Part | None) -> Cell:
    if part is None:
        return Cell("–")
    if part.status is InputStatus.EXCLUDED:
        return Cell("left out", str(part.reason))
    if part.status is InputStatus.ABSENT:
        return Cell("absent")
    told = [] if part.share is None else [f"weight {100 * part.share:.0f} %"]
    told += [] if part.n_patients is None else [patients(part.n_patients)]
    return Cell("included", ", ".join(told))


def carried(report: Report) -> Section:
    """Hand-overs and megabytes."""
    to = "to the coordinator" if report.n_readers == 1 else f"to each of {report.n_readers} parties"
    entries = report.hand_overs
    total = HandOver(
        None,
        sum(entry.n_received for entry in entries),
        sum(entry.received_bytes for entry in entries),
        sum(entry.n_sent for entry in entries),
        sum(entry.sent_bytes for entry in entries),
    )
    rows = [_carried_row(_carried_name(entry), entry, report.n_readers) for entry in entries]
    rows.append(_carried_row("in all", total, report.n_readers))
    table = Table(
        caption="Signed files by round",
        columns=("round", "received", f"sent {to}", "carried in all"),
        rows=tuple(rows),
        note="Each signed file that lies here, with its signature, counted "
        "once; in all, what is sent counts once for each party of the newest roster. What was "
        "carried twice or in vain leaves no trace.",
    )
    return Section("Hand-overs and megabytes", [table])


def _carried_name(entry: HandOver) -> str:
    return "start, rosters, plans" if entry.round is None else str(entry.round)


def _carried_row(name: str, entry: HandOver, n_readers: int) -> tuple[Cell | str, ...]:
    n_files = entry.n_received + n_readers * entry.n_sent
    n_bytes = entry.received_bytes + n_readers * entry.sent_bytes
    return (
        name,
        Cell(counted(entry.n_received, "file"), _size(entry.received_bytes)),
        Cell(counted(entry.n_sent, "file"), _size(entry.sent_bytes)),
        Cell(counted(n_files, "file"), _size(n_bytes)),
    )


def _size(n_bytes: int) -> str:
    """A size in decimal units; nothing weighs 0.0 MB that is there."""
    if n_bytes < 100_000:
        return f"{n_bytes / 1000:.1f} kB"
    return f"{n_bytes / 1_000_000:.1f} MB"


def plan_figures(plan: Plan) -> tuple[tuple[str, str], ...]:
    """The plan in key figures."""
    rows, columns = plan.grid.size
    spacing = f"{plan.grid.in_plane_mm:g} mm" if plan.grid.in_plane_mm else "that of the space"
    optional = (f"{modality} (may lack)" for modality in plan.scans.optional)
    parts = f"{plan.split.validation:.0%} validation, {plan.split.test:.0%} test, by patient"
    return (
        ("Modalities", ", ".join((*plan.scans.required, *optional))),
        ("Regions", ", ".join(plan.scans.regions)),
        ("Patients", f"{plan.cohort.treatment}, from {plan.cohort.minimum_age_years} years"),
        ("Space", f"{plan.preparation.space}, brain mask {plan.preparation.brain}"),
        ("Grid", f"{rows} x {columns} pixels, in plane {spacing}"),
        ("Split", parts),
        ("Network", _network(plan)),
        ("Parameters", _parameters(plan)),
        *_training(plan),
        ("Rounds", str(plan.rounds)),
        ("Aggregation", f"{plan.aggregation.rule}, weighted by {plan.aggregation.weights}"),
        ("Quorum", f"{plan.participation.quorum_sites} sites"),
        ("Floor", f"{plan.participation.floor} patients"),
        ("Surface tolerance", f"{plan.evaluation.tolerance_mm:g} mm"),
        ("Lesion rules", f"BraTS 2023, {plan.evaluation.lesions}"),
        ("Licence of the weights", plan.terms.weights_licence),
        ("Seed", str(plan.seed)),
    )


def _network(plan: Plan) -> str:
    network = plan.network
    if network.n_dimensions == 0:
        return f"{network.architecture}: the sites' own, {counted(len(network.tensors), 'tensor')}"
    return f"{network.architecture}, {', '.join(map(str, network.channels))} channels"


def _parameters(plan: Plan) -> str:
    n = n_parameters(network_table(plan))
    n_local = n - n_parameters(tensor_table(plan))
    if not plan.network.local:
        return f"{n:,}"
    kept = counted(len(plan.network.local), "tensor")
    return f"{n:,}, {n_local:,} of them ({kept}) kept by each site"


def _training(plan: Plan) -> tuple[tuple[str, str], ...]:
    training = plan.training
    if plan.network.n_dimensions == 0:
        return (("Training", "by the sites' own program, which the plan doesn't describe"),)
    length = counted(training.epochs_per_round, "epoch")
    if not training.epochs_per_round:
        length = counted(training.steps_per_round, "step")
    return (
        ("Training", f"{length} a round, batch {training.batch}"),
        ("Optimiser", f"{training.optimiser}, rate {training.rate:g}, {training.schedule}"),
        ("Loss", str(training.loss)),
    )


def plan_and_digests(report: Report) -> Section:
    """The plan in force, and the digests by which files name each other."""
    known = report.known
    newest = known.plans[-1]
    blocks: list[Block] = [
        Text(
            f"Plan {known.name}, version {newest.version.version}, in force from round "
            f"{newest.from_round}. Purpose: {known.start.purpose}."
        ),
        Facts(plan_figures(newest.plan)),
    ]
    rows: list[tuple[Cell | str, ...]] = [("federation (start.json)", known.digest)]
    rows += [
        (f"plan, version {entry.version.version}", entry.version.digest) for entry in known.plans
    ]
    rows.append((f"roster, version {known.roster.version}", report.roster_digest))
    rows += [
        (f"global weights, round {round_name((told.round, told.edition))}", told.digest)
        for told in report.weights
    ]
    blocks.append(
        Table(
            caption="SHA-256 digests",
            is_prose=True,
            columns=("of", "digest"),
            rows=tuple(rows),
            note="A digest names a file by its content: whoever has the file can compute it.",
        )
    )
    return Section("Plan and digests", blocks)


def audited(report: Report) -> Section:
    """The verdict of this machine's own audit."""
    told = report.audit
    blocks: list[Block] = [
        Text(f"Verdict: {told.sentence}", is_warning=told.verdict is Verdict.DIVERGES),
        Text(
            "This is the audit that this machine made of its own folder when the page was written. "
            "It convinces only those who trust this machine: anybody else audits an archive for "
            "themselves (“brainfed audit FOLDER”)."
        ),
    ]
    if report.reader is Reader.SITE and told.verdict is Verdict.INCOMPLETE:
        blocks.append(
            Text("At a site this is as it should be: the other sites' updates never come here.")
        )
    kinds = ", ".join(f"{n} {kind}" for kind, n in told.kinds) or "none"
    keys = ", ".join(told.fingerprints) or "unknown"
    blocks.append(
        Facts(
            (
                ("Signed files looked at", str(told.n_files)),
                ("Findings", kinds),
                ("Coordinator's keys", keys),
            )
        )
    )
    return Section("Audit", blocks)


def _opened_for(report: Report) -> str:
    final = report.final
    if final is None:
        return "No final is here yet, so no test patient may be looked at."
    return (
        f"The final of {final.day} names the global weights of round "
        f"{round_name((final.round, final.edition))}: test patients may be opened for these alone."
    )


def test_patients(report: Report) -> Section:
    """How often each test split was opened."""
    rows: tuple[tuple[Cell | str, ...], ...]
    if report.reader is Reader.SITE:
        entry = report.opened[0]
        rows = ((entry.site, str(entry.n_times), str(entry.n_weights)),)
        columns: tuple[str, ...] = ("site", "times opened", "different weight files")
        how = "From this site's ledger, which brainfed writes to each time before it looks."
    else:
        opened = {entry.site: entry.n_weights for entry in report.opened}
        rows = tuple((site, str(opened.get(site, 0))) for site in report.sites)
        columns = ("site", "weight files with test figures")
        how = (
            "Of how many weight files each site has sent figures of its test patients. How often "
            "it looked without sending any, only its own ledger tells."
        )
    blocks: list[Block] = [
        Text(_opened_for(report)),
        Table(caption="Test patients", columns=columns, rows=rows, note=how),
    ]
    if any(entry.n_weights > 1 for entry in report.opened):
        blocks.insert(
            0,
            Text(
                "Test patients of a site were scored with more than one weight file. What was "
                "chosen after the first look is no longer measured by them.",
                is_warning=True,
            ),
        )
    return Section("Test patients", blocks)
