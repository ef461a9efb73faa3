"""The model card: what the final weights are, for whoever wants to use them."""

from brainfed.core.checklists import Checklist, checklists
from brainfed.formats.dataset import Subset
from brainfed.formats.record import InputStatus
from brainfed.formats.report_page import (
    FIRST_LINE,
    Block,
    Cell,
    Facts,
    Page,
    Section,
    Table,
    Text,
)
from brainfed.plan import Plan
from brainfed.steps.report_facts import Report, WeightsTold
from brainfed.steps.report_figures import distributions
from brainfed.steps.report_sections import audited, limits, plan_figures, test_patients
from brainfed.steps.report_tables import (
    LEGEND,
    counted,
    newest_figures,
    newest_with,
    round_name,
)
from brainfed.steps.statements import statements

EMPTY = "empty: for the authors"


def lay_out(told: Report) -> Page:
    """The card's page; inside `charts.private_cache`."""
    known = told.known
    return Page(
        title=f"{known.name}: model card",
        lead=f"Federation {known.digest[:16]}, {known.start.purpose}. Made on {told.day}.",
        sections=(
            _what(told),
            _data(told),
            Section("Plan", [Facts(plan_figures(plan_of_card(told)))]),
            _scores(told),
            distributions(told),
            limits(told),
            audited(told),
            test_patients(told),
            *(_checklist(entry, told) for entry in checklists()),
        ),
        foot=f"Made on {told.day} by brainfed {told.brainfed} from the signed files of the "
        f"federation. {FIRST_LINE}",
    )


def card_weights(told: Report) -> WeightsTold | None:
    """The final weights; without a signed final the newest global ones."""
    if told.final is not None:
        return WeightsTold(told.final.round, told.final.edition, told.final.weights)
    return told.weights[-1] if told.weights else None


def plan_of_card(told: Report) -> Plan:
    """The plan that the weights were made under."""
    chosen = card_weights(told)
    return told.known.plan_of(0 if chosen is None else chosen.round)


def _what(told: Report) -> Section:
    chosen, known = card_weights(told), told.known
    if chosen is None:
        return Section("What it is", [Text("There are no global weights yet.")])
    blocks: list[Block] = []
    if told.final is None:
        blocks.append(
            Text(
                "The coordinator has signed no final. This card is about the newest global "
                "weights, which may not be those that the federation ends with.",
                is_warning=True,
            )
        )
    if known.start.purpose != "real":
        blocks.append(
            Text(
                f"This federation is a {known.start.purpose}: its weights and figures are of no "
                "use elsewhere.",
                is_warning=True,
            )
        )
    network = plan_of_card(told).network
    if network.local and network.n_dimensions:  # of the sites' own nobody here knows what they are
        blocks.append(
            Text(
                "These weights do not run outside of their sites: "
                f"{counted(len(network.local), 'tensor')} of the network stayed at each site, "
                "which has its own. A site's figures are of these weights with its own layers.",
                is_warning=True,
            )
        )
    number = round_name((chosen.round, chosen.edition))
    licence = told.final.weights_licence if told.final else plan_of_card(told).terms.weights_licence
    blocks.append(
        Facts(
            (
                ("Weights", "final" if told.final else "newest global weights"),
                (
                    "Round",
                    f"{number} of {plan_of_card(told).rounds}",
                ),
                ("SHA-256 of the weight file", chosen.digest),
                ("Licence", licence),
                ("For", "research on outlining brain tumours in MR images"),
                ("Not for", "diagnosis, treatment, or any decision about a patient"),
                ("Software", ", ".join(told.versions) or "not stated"),
            )
        )
    )
    return Section("What it is", blocks)


def _data(told: Report) -> Section:
    """Who trained the weights, with how many patients, above the floor."""
    plan = plan_of_card(told)
    text = (
        f"MR scans of the head with {', '.join(plan.scans.required)}"
        f"{_optional(plan)}; {plan.cohort.treatment}; patients from "
        f"{plan.cohort.minimum_age_years} years. The scans never left their sites."
    )
    chosen = card_weights(told)
    n_rounds: dict[str, int] = {}
    patients: dict[str, str] = {}
    for closing in told.closings:
        if chosen is not None and closing.round > chosen.round:
            continue
        for part in closing.parts:
            if part.status is InputStatus.INCLUDED:
                n_rounds[part.site] = n_rounds.get(part.site, 0) + 1
                patients[part.site] = "–" if part.n_patients is None else str(part.n_patients)
    if not n_rounds:
        return Section("Data", [Text(text), Text("No site has trained these weights yet.")])
    rows = tuple((site, patients[site], str(n_rounds[site])) for site in sorted(n_rounds, key=_by))
    table = Table(
        caption="Who trained these weights",
        columns=("site", "patients trained on", "rounds"),
        rows=rows,
        note="By each site's newest update. Validation and test patients are others.",
    )
    return Section("Data", [Text(text), table])


def _by(site: str) -> tuple[int, str]:
    return (len(site), site)


def _optional(plan: Plan) -> str:
    optional = ", ".join(plan.scans.optional)
    return f" and, where a case has them, {optional}" if optional else ""


def _scores(told: Report) -> Section:
    chosen = card_weights(told)
    blocks: list[Block] = [Text(LEGEND)]
    for subset in (Subset.TEST, Subset.VALIDATION):
        place = newest_with(told, subset)
        if place is not None and chosen is not None and place != (chosen.round, chosen.edition):
            blocks.append(
                Text(
                    f"No site has stated figures of its {subset} patients with these weights; the "
                    f"newest there are, of round {round_name(place)}, follow.",
                    is_warning=True,
                )
            )
        blocks += newest_figures(told, subset)
    if len(blocks) == 1:
        blocks = [Text("No site has stated a figure yet.")]
    return Section("Scores", blocks)


def _checklist(checklist: Checklist, told: Report) -> Section:
    rows: list[tuple[Cell | str, ...]] = []
    n_filled = 0
    said = statements(told, plan_of_card(told), card_weights(told))
    for item in checklist.items:
        words = said.get(item.fill, "")
        n_filled += bool(words)
        rows.append((item.number, item.text, words or Cell("", EMPTY)))
    table = Table(
        caption=f"{checklist.title}: {n_filled} of {len(rows)} items begun from the files",
        is_prose=True,
        columns=("item", "asks for", "what the files say"),
        rows=tuple(rows),
        note=f"Items in our own short words; the original counts: {checklist.source}. What the "
        "files say seldom fills an item: the authors complete it.",
    )
    return Section(checklist.title, [table])
