"""A plan in simple sentences, for the person at a site who agrees to it."""

from typing import TYPE_CHECKING

from brainfed.cli.console import Words, counted, size_words

if TYPE_CHECKING:
    from brainfed.plan import Plan

REGIONS = {"WT": "the whole tumour", "TC": "the tumour core", "ET": "the enhancing tumour"}
"""Regions for people."""


MADE = {
    "fedavg": "their mean",
    "fedavgm": "a step towards their mean",
    "fedadam": "a step towards their mean",
    "median": "the median of each weight",
    "trimmed-mean": "the mean of each weight without its largest and smallest values",
    "krum": "the weights of the one site that is nearest to the others",
}
"""What each rule makes of the sites' weights."""


def plan_in_words(plan: "Plan") -> Words:
    """What is trained, on whom, how long, and what leaves the site."""
    from brainfed.core.architecture import n_parameters, network_table, tensor_table

    n_weights, n_sent = n_parameters(network_table(plan)), n_parameters(tensor_table(plan))
    regions = ", ".join(f"{REGIONS[region]} ({region})" for region in plan.scans.regions)
    rows, columns = plan.grid.size
    edge = f"{plan.grid.in_plane_mm:g} mm" if plan.grid.in_plane_mm else "their own"
    yield f"The plan {plan.name}"
    yield (
        f"- What is trained: a network ({_network(plan)}, {n_weights:,} weights, "
        f"{size_words(4 * n_sent)} a file) that outlines {regions} in MR images of the head."
    )
    if plan.network.architecture == "external":
        yield (
            "- brainfed doesn't train it: this site's own program does, which this plan doesn't "
            "describe."
        )
    yield from _kept(plan, n_weights - n_sent)
    yield from _patients(plan)
    yield f"- Slices are axial, {rows} x {columns} pixels, pixel edge {edge}."
    yield from _rounds(plan)
    yield from _leaving(plan)
    yield from _terms(plan)


def _kept(plan: "Plan", n_weights: int) -> Words:
    """What of the network never leaves a site."""
    local = plan.network.local
    if not local:
        return
    shown = ", ".join((*local[:3], "...") if len(local) > 3 else local)
    yield (
        f"- {counted(len(local), 'tensor')} of it ({n_weights:,} weights) never leave a site; each "
        f"has its own: {shown}."
    )
    if plan.network.architecture != "external":
        yield (
            "  What is sent can't be run without them: nobody but these sites can outline scans "
            "with it or score it, and a site that hasn't trained yet begins them from chance."
        )


def _network(plan: "Plan") -> str:
    network = plan.network
    if network.architecture == "external":
        return f"the sites' own, of {counted(len(network.tensors), 'tensor')}"
    return f"{network.n_dimensions}-D U-Net, {counted(len(network.channels), 'level')}"


def _patients(plan: "Plan") -> Words:
    when = {
        "pre-operative": "before surgery",
        "post-operative": "after surgery",
        "any": "before or after surgery",
    }
    visits = "the first visit of each" if plan.cohort.first_visit_only else "all visits"
    age = plan.cohort.minimum_age_years
    aged = f" aged {age} years or more" if age else " of any age"
    yield (
        f"- Patients{aged}, scanned {when[plan.cohort.treatment]}, {visits}. Where headers can't "
        "tell this, the site answers for it."
    )
    images = ", ".join(plan.scans.required) or "none"
    optional = ", ".join(plan.scans.optional)
    may = f"; may be missing: {optional}" if optional else ""
    yield f"- Images of each case: {images}{may}; and the tumour outlined by hand."
    yield from _preparation(plan)
    parts = plan.split
    yield (
        f"- Of the patients, {parts.validation:.0%} are kept for validation and {parts.test:.0%} "
        "for the test; the others train the network."
    )


def _preparation(plan: "Plan") -> Words:
    how = plan.preparation
    where = {
        "scan": "They stay on the scans' own grid, which must be one already",
        "reference": f"They are brought into the space of the {how.reference} scan, at 1 mm",
        "atlas": f"They are brought into the space of the atlas {how.atlas}, which the site needs",
        "mni152": "They are brought into the space of the MNI152 template",
    }
    if how.space == "scan" or how.registration:
        moved = "" if how.space == "scan" else f"; the others are registered to {how.reference}"
    else:
        moved = "; the scans of a case are taken to lie on each other"
    masks = {
        "head": "no brain extraction",
        "classical": "the brain is cut out by brainfed",
        "deepbet": "the brain is cut out by the network deepbet, which the site needs",
        "given": "the site brings brain masks",
    }
    yield f"- {where[how.space]}{moved}; {masks[how.brain]}."


def _rounds(plan: "Plan") -> Words:
    training = plan.training
    if plan.network.architecture == "external":
        length = "as the sites agreed"
    elif training.steps_per_round:
        length = f"for {counted(training.steps_per_round, 'step')}"
    else:
        passes = counted(training.epochs_per_round, "pass", "passes")
        length = f"for {passes} over its training slices"
    if plan.method != "fl":
        yield from _turns(plan, length)
        return
    rule, weights = plan.aggregation.rule, plan.aggregation.weights
    counts = f"a site counts by its number of training {weights}"
    if weights == "equal" or rule not in {"fedavg", "fedavgm", "fedadam"}:
        counts = "all sites count alike"
    yield (
        f"- {counted(plan.rounds, 'round')}. In each, a site trains {length} and sends its "
        f"weights; the coordinator sends back {MADE[rule]}, in which {counts}."
    )
    yield (
        f"- A round is closed with the weights of at least "
        f"{counted(plan.participation.quorum_sites, 'site')}."
    )


def _turns(plan: "Plan", length: str) -> Words:
    """A relay: one site a round."""
    training = plan.training
    tour = "round and round"
    if plan.method == "iil":
        tour = "once to each"
        if training.patience:
            length = (
                "until its own validation Dice has not risen for "
                f"{counted(training.patience, 'pass', 'passes')} over its training slices, "
                f"{training.epochs_per_round} at most,"
            )
    yield (
        f"- The sites train one after the other, {tour}, in an order drawn by the plan's seed; "
        f"{counted(plan.rounds, 'turn')} at most. At its turn a site trains {length} and sends "
        "its weights. The coordinator passes them on as they are: the next site gets this site's "
        "own weights, not a mean of several."
    )


def _leaving(plan: "Plan") -> Words:
    floor = plan.participation.floor
    group = (
        f"only where they stand for at least {floor} patients"
        if floor > 1
        else "even where they stand for two patients (the plan's floor is 1)"
    )
    yield "- What leaves this site in every round, as one signed file:"
    yield "  - the weights, which have been learned from its patients;"
    yield "  - the numbers of patients, cases and slices that it trained on;"
    if plan.network.architecture != "external":
        yield f"  - mean and spread of the Dice of its validation patients, {group};"
    yield "  - a keyed digest of the split, and the versions of the libraries."
    if plan.network.architecture != "external":
        yield "  After each `brainfed evaluate` a second one: scores of global weights, likewise."
    yield "  No image, no outline, no name, no path, no time of day."
    if plan.exchange.approval:
        yield (
            "- Each update needs the signature of this site's approver before it leaves: `brainfed "
            "release` shows what leaves, `brainfed release --approve` signs."
        )
    yield (
        "- No check of numbers proves that nothing of a patient can be drawn out of the weights. "
        "Treat them as the parties agreed."
    )


def _terms(plan: "Plan") -> Words:
    agreement = plan.terms.agreement_sha256
    yield f"- Intended use: {plan.terms.intended_use}"
    yield f"- Licence of the global weights: {plan.terms.weights_licence}"
    yield (
        f"- Agreement between the parties: SHA-256 {agreement}"
        if agreement
        else "- Agreement between the parties: the plan names none."
    )
