"""What the files of a federation say of an item of a checklist (`core/checklists.toml`).

Each statement is what follows from the plan, the records and the figures, and no more: it begins an
item, and the authors complete it.
"""

from brainfed.formats.report_page import FIRST_LINE
from brainfed.formats.scores import Group
from brainfed.plan import Plan
from brainfed.steps.report_facts import Report, WeightsTold
from brainfed.steps.report_sections import plan_figures
from brainfed.steps.report_tables import NAMES, REGIONS


def statements(told: Report, plan: Plan, weights: WeightsTold | None) -> dict[str, str]:
    """The statements by the word that the checklists name them with; empty: nothing to say.

    Args:
        told: What the files say.
        plan: The one that the weights were made under.
        weights: Those that the card is about.
    """
    return (
        _of_study(told, plan, weights)
        | _of_data(told, plan)
        | _of_network(told, plan)
        | _of_figures(told)
    )


def _of_study(told: Report, plan: Plan, weights: WeightsTold | None) -> dict[str, str]:
    regions = ", ".join(f"{REGIONS[region]} ({region})" for region in plan.scans.regions)
    version = told.known.in_force(0 if weights is None else weights.round).version
    final = "Not chosen yet: no final is signed."
    if told.final is not None:
        final = f"The coordinator named round {told.final.round}, signed on {told.final.day}."
    return {
        "technology": f"Deep learning: a network ({plan.network.architecture}), trained "
        f"at several sites and averaged by {plan.aggregation.rule}, without moving scans.",
        "use": f"{FIRST_LINE} No clinical role is claimed.",
        "goal": f"Development and evaluation of a network that outlines {regions} in MR images.",
        "final": final,
        "protocol": f"The plan, version {version.version}, SHA-256 {version.digest}.",
        "availability": f"Weights: licence {plan.terms.weights_licence}. Scans: with the sites.",
        "software": ", ".join((*told.versions, f"page by brainfed {told.brainfed}, open source")),
        "limits": "Under “What this page can't show”: what follows from how they are made.",
        "updating": "No file tells of any.",
        "privacy": "Scans and the scores of single patients stay at their sites. Weights, counts "
        "of patients and summary figures of groups leave; weights are learned from patients.",
    }


def _of_data(told: Report, plan: Plan) -> dict[str, str]:
    cohort, split = plan.cohort, plan.split
    optional = ", ".join(plan.scans.optional)
    outside = f", {len(told.external)} of which only score" if told.external else ""
    visits = "first visit only" if cohort.first_visit_only else "all visits"
    rows, columns = plan.grid.size
    steps = [f"into the space {plan.preparation.space}"]
    if plan.preparation.registration:
        steps.append("registered to one scan of the case")
    steps += [
        f"brain mask {plan.preparation.brain}",
        f"axial slices of {rows} x {columns} pixels",
        f"z-score over the {plan.intensity.zscore}",
    ]
    return {
        "sources": f"{len(told.sites)} sites{outside}; no file says whence their scans come.",
        "eligibility": f"By the plan: {cohort.treatment} scans, from {cohort.minimum_age_years} "
        f"years, {visits}. Each site answers for its patients.",
        "treatment": f"By the plan: {cohort.treatment} scans.",
        "preprocessing": f"{'; '.join(steps)}. A person reviews what is doubtful.",
        "missing": f"{optional} may lack and are then zeros; a case without another is not used."
        if optional
        else "A case that lacks a modality is not used.",
        "reference": "Labels that each site brought, in a label protocol that it names.",
        "split": f"At each site by chance, from the plan's seed: {split.validation:.0%} of the "
        f"patients for validation, {split.test:.0%} for test, the rest for training.",
        "disjoint": "Patients, within each site; a patient of two sites would not be noticed.",
        "inputs": f"Voxels of {', '.join(plan.scans.modalities)}; nothing else of a patient.",
        "assessors": "Nobody: images are read as they are.",
        "numbers": "Under “Data” and “Scores”, by site, above the floor.",
    }


def _of_network(told: Report, plan: Plan) -> dict[str, str]:
    facts = dict(plan_figures(plan))
    fraction = plan.training.foreground_fraction
    closed = "none" if told.closed_round is None else told.closed_round
    rounds = f"{plan.rounds} rounds planned, {closed} closed."
    begin = (
        "Weights that the coordinator brought; no file says how they were made."
        if told.begins_with_given
        else f"Drawn by chance from the plan's seed {plan.seed}; nothing was trained before."
    )
    if plan.network.n_dimensions == 0:
        return {
            "model": f"{facts['Network']}. Parameters: {facts['Parameters']}.",
            "initial": begin,
            "training": f"{facts['Training']}; {rounds}",
        }
    whole = "Plan and weight file give the whole."
    if plan.network.local:
        whole = "Plan and weight file give all but what the sites keep."
    return {
        "model": f"{facts['Network']}, norm {plan.network.norm}, activation "
        f"{plan.network.activation}. Parameters: {facts['Parameters']}. {whole}",
        "initial": begin,
        "training": f"{facts['Training']}; {facts['Optimiser']}; loss {facts['Loss']}; {rounds}",
        "ensemble": "None: one network.",
        "imbalance": f"{fraction:.0%} of each batch from slices with tumour."
        if fraction
        else "No method for it: batches keep the natural mix.",
        "output": "A probability for each voxel and region; outlined from 0.5, fixed beforehand.",
    }


def _of_figures(told: Report) -> dict[str, str]:
    has_groups = any(row.group is not Group.ALL for row in told.standings)
    by_group = ", and with and without all modalities" if has_groups else ""
    always = {
        "internal": "Validation and test patients are of the same sites as those trained on, under "
        "the same plan.",
        "external": f"{', '.join(told.external)} score and don't train."
        if told.external
        else "None: no evaluator is in the roster.",
    }
    if not told.standings:
        return always
    measures = dict.fromkeys(row.measure for row in told.standings)
    sets = "One set of weights for all."
    if told.known.first_plan.network.local:
        sets = "Layers of each site's own; all other weights are the same."
    return always | {
        "measures": "; ".join(NAMES[measure] for measure in measures),
        "statistics": "Mean and standard deviation over patients, quartiles from 20 patients on. "
        "No intervals and no tests over sites: those need single patients, who stay there.",
        "robustness": f"Site by site, the worst one marked{by_group}.",
        "clusters": f"{sets} Site by site, the worst one marked{by_group}.",
        "scores": "Under “Scores”, by site and over all.",
        "precision": "Standard deviations under “Scores”; no intervals.",
    }
