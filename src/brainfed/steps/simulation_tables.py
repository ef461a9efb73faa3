"""The tables of a simulation's page: what each arm reached, by protocol, beside the paper's."""

import statistics
from collections.abc import Sequence

from brainfed.core import paper_figures
from brainfed.core.claims import Claim, Verdict
from brainfed.core.contenders import Contender
from brainfed.formats.report_page import Cell, Table
from brainfed.formats.simulation_findings import Judged
from brainfed.steps.simulation_arms import (
    Arm,
    Measured,
    Protocol,
    dice,
    patient_values,
    soft_slice_dice,
)
from brainfed.steps.simulation_results import Simulation

DASH = "–"
VERDICTS = {
    Verdict.SHOWN: "shown",
    Verdict.NOT_SHOWN: "not shown",
    Verdict.OTHER_WAY: "shown the other way",
    Verdict.NOT_JUDGED: "not judged",
}
"""The verdicts in words."""
NO_BREAK = "\u00a0"
"""A space at which no line breaks."""
Row = tuple[Cell | str, ...]


def figure(value: float | None, digits: int = 3) -> str:
    """A figure as the paper prints them; a dash where there is none."""
    return DASH if value is None else f"{value:.{digits}f}"


def mean_of(values: Sequence[float]) -> float | None:
    """The mean, None of nothing."""
    return statistics.fmean(values) if values else None


def sd_of(values: Sequence[float]) -> float | None:
    """The sample standard deviation, None below two."""
    return statistics.stdev(values) if len(values) > 1 else None


def pooled_of(arms: Sequence[Arm]) -> Arm | None:
    """The arm that has all patients in one place."""
    return next((arm for arm in arms if arm.contender is Contender.POOLED), None)


def percent(value: float | None, pooled: float | None) -> str:
    """The share of pooled, with one decimal as in the paper."""
    return DASH if value is None or not pooled else f"{100 * value / pooled:.1f}{NO_BREAK}%"


def clean(told: Simulation, arms: Sequence[Arm]) -> Table:
    """Chosen on validation, reported on test."""
    pooled = pooled_of(arms)
    reference = mean_of(pooled.run_means(Protocol.CLEAN)) if pooled else None
    rows: list[Row] = []
    for arm in arms:
        means = arm.run_means(Protocol.CLEAN)
        rows.append((*_reached(told, arm, means), percent(mean_of(means), reference)))
    return Table(
        caption=f"Dice of test patients, protocol clean{_which(told, arms)}",
        columns=("method", "mean", "± between repeats", "highest", "runs", "of own pooled"),
        rows=tuple(rows),
        note="Mean over test patients of all sites and over repeats; the weights were chosen on "
        f"validation patients. {_between(told)} Test patients are scored with the chosen weights "
        "alone, so a spread within a run stands only in the table of the other protocol.",
    )


def paper(told: Simulation, arms: Sequence[Arm]) -> Table:
    """Chosen and reported on validation patients."""
    pooled = pooled_of(arms)
    protocol = Protocol.PAPER
    reference = mean_of(pooled.run_means(protocol)) if pooled else None
    soft_reference = mean_of(pooled.run_means(protocol, soft_slice_dice)) if pooled else None
    rows: list[Row] = []
    for arm in arms:
        means, points = arm.run_means(protocol), arm.point_means()
        spreads = [sd for run in points if (sd := sd_of(run)) is not None]
        soft = mean_of(arm.run_means(protocol, soft_slice_dice))
        rows.append(
            (
                *_reached(told, arm, means),
                percent(mean_of(means), reference),
                figure(mean_of([value for run in points for value in run])),
                figure(mean_of(spreads)),
                Cell(figure(soft), percent(soft, soft_reference)),
            )
        )
    return Table(
        caption=f"Dice of validation patients, protocol paper{_which(told, arms)}",
        columns=(
            "method",
            "mean",
            "± between repeats",
            "highest",
            "runs",
            "of own pooled",
            "mean of all points",
            "± within a run",
            "soft slice Dice",
        ),
        rows=tuple(rows),
        note="Mean over validation patients of all sites and over repeats, at the point that these "
        f"same patients chose; so it is too good. {_between(told)} Points: after each "
        "round, of ciil after each cycle, of iil after each site. Within a run: standard deviation "
        "over the points of a run, early ones too, mean over runs. Soft slice Dice is the paper's "
        "measure; an empty slice that is predicted empty counts as 1 there.",
    )


def _reached(told: Simulation, arm: Arm, means: Sequence[float]) -> Row:
    mean = mean_of(means)
    return (
        Cell(arm.name, f"rate {arm.rate:g}" if told.best else ""),
        Cell(figure(mean), share=mean),
        figure(sd_of(means)),
        figure(max(means, default=None)),
        str(len(means)),
    )


def _which(told: Simulation, arms: Sequence[Arm]) -> str:
    if not told.best:
        return ""
    return ", each at its best rate" if arms is told.best else ", one rate for all"


def _between(told: Simulation) -> str:
    if told.settings.is_folded:
        return (
            "Each repeat holds out another fold of the patients, so the spread between repeats is "
            "one between patients as well."
        )
    return "Repeats differ in their seed; the partition is the same."


def beside_the_paper(told: Simulation) -> Table:
    """Tables 2 and 3 of the paper, and the same figures of this simulation."""
    contenders = (Contender.POOLED, Contender.FL, Contender.CIIL, Contender.IIL)
    rows: list[Row] = []
    for row in paper_figures.ROWS:
        cells = [_printed(row.figures[contender]) for contender in contenders]
        rows.append((f"paper, {row.name}", *cells))
    ours = f"this simulation: {told.n_sites} sites, {told.settings.partition_name}"
    for words, measured in (("soft slice Dice", soft_slice_dice), ("Dice", dice)):
        arms = {c: next((a for a in told.shared if a.contender is c), None) for c in contenders}
        best = _as_printed(arms[Contender.POOLED], measured)[0]
        cells = [_ours(_as_printed(arms[contender], measured), best) for contender in contenders]
        rows.append((Cell(ours, words), *cells))
    return Table(
        caption="Beside tables 2 and 3 of the paper",
        columns=("", "pooled", "fl", "ciil", "iil"),
        rows=tuple(rows),
        note="Taken as the paper takes them: of pooled the best run; of fl and iil the mean over "
        "runs, and the spread between them; of ciil mean and spread over all cycles of all runs. "
        "Per cent: of the best pooled run. All on validation patients. The paper's figures are in "
        "soft slice Dice, of its own patients: set the per cent beside ours, not the Dice.",
    )


def _printed(one: paper_figures.Printed) -> Cell:
    spread = "" if one.sd is None else f"± {one.sd:.3f}"
    share = "" if one.percent_of_pooled is None else f", {one.percent_of_pooled:.1f} %"
    return Cell(f"{one.mean:.3f}", f"{spread}{share}")


def _as_printed(arm: Arm | None, measured: Measured) -> tuple[float | None, float | None]:
    """Mean and spread of an arm as the paper takes them."""
    if arm is None:
        return None, None
    means = arm.run_means(Protocol.PAPER, measured)
    if arm.contender is Contender.POOLED:
        return max(means, default=None), None
    if arm.contender is Contender.CIIL:
        means = tuple(value for run in arm.point_means(measured) for value in run)
    return mean_of(means), sd_of(means)


def _ours(found: tuple[float | None, float | None], best: float | None) -> Cell:
    mean, sd = found
    spread = "" if sd is None else f"± {sd:.3f}, "
    return Cell(figure(mean), "" if mean is None else f"{spread}{percent(mean, best)}")


def judged(told: Simulation, found: Judged) -> Table:
    """Every claim with its figure and the verdict."""
    which = "" if not told.best else f", {found.rates} rate"
    on = "test" if told.protocols[0] is Protocol.CLEAN else "validation"
    return Table(
        caption=f"Claims, on {on} patients{which}",
        columns=("claim", "verdict", "figure", "95 % interval", "could have shown", "n"),
        rows=tuple(_claim(claim) for claim in found.claims),
        note="Figures: differences of mean Dice; of a spread the ratio of the standard deviations "
        "between repeats; of the saw-tooth the difference of the mean drops. "
        "A claim is shown where the whole interval lies above 0, of the ratio above 1. "
        "“Could have shown”: the smallest true figure that this simulation would have shown four "
        "times in five (2.8 bootstrap standard errors; of a ratio by the F distribution). "
        "Intervals of patients: 9,999 resamples of the patients within their sites, of each "
        "patient's mean over repeats. They say nothing of other sites, nor of other "
        "trainings. Nothing is corrected for the number of claims.",
    )


def _claim(claim: Claim) -> Row:
    interval = DASH
    if claim.low is not None and claim.high is not None:
        interval = f"{claim.low:+.3f} to {claim.high:+.3f}".replace(" ", NO_BREAK)
    told = DASH if claim.estimate is None else f"{claim.estimate:+.3f}"
    least = DASH if claim.smallest is None else f"{claim.smallest:+.3f}"
    if claim.border:
        told, least, interval = (text.replace("+", "") for text in (told, least, interval))
    return (
        Cell(claim.says, claim.note),
        VERDICTS[claim.verdict].replace(" ", NO_BREAK),
        told,
        interval,
        least,
        str(claim.n) if claim.n else DASH,
    )


def site_by_site(told: Simulation, arms: Sequence[Arm]) -> Table | None:
    """Dice of each site's own weights on each site's patients."""
    local = next((arm for arm in arms if arm.contender is Contender.LOCAL), None)
    if local is None:
        return None
    protocol = told.protocols[0]
    values: dict[tuple[str, str], list[float]] = {}
    for run in local.runs:
        for outcome in run.outcomes:
            point = outcome.points[outcome.chosen]
            scores = outcome.test if protocol is Protocol.CLEAN else point.validation
            for patient, value in patient_values(scores).items():
                key = (outcome.site or "", told.sites_of[patient])
                values.setdefault(key, []).append(value)
    names = sorted({site for key in values for site in key})
    rows: list[Row] = []
    for trainer in names:
        found = [mean_of(values.get((trainer, site), [])) for site in names]
        rows.append((trainer, *(Cell(figure(value), share=value) for value in found)))
    on = "test" if protocol is Protocol.CLEAN else "validation"
    return Table(
        caption=f"Dice of each site's own weights, {on} patients",
        columns=("weights of", *names),
        rows=tuple(rows),
        note="Rows: whose weights, trained alone from the initial ones with as many passes as all "
        "others have. Columns: whose patients. Mean over patients and repeats.",
    )
