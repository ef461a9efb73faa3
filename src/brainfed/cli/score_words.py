"""What `brainfed evaluate` says of scores."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from brainfed.cli.console import Table, Words, counted, visible

if TYPE_CHECKING:
    from brainfed.core.comparison import Difference
    from brainfed.core.scoring import Summary
    from brainfed.plan import Evaluation
    from brainfed.steps.evaluate import EvaluateResult, Scored
    from brainfed.steps.score_maps import MapsResult

SHOWN = {
    "dice": "Dice",
    "hd95-surface": "HD95 surface, mm",
    "nsd": "NSD",
    "lesion-dice": "lesion-wise Dice",
}
"""The measures for the screen; all others stand in the table."""
GROUPS = {"complete": "every modality", "incomplete": "a modality missing"}
N_NAMED = 10
"""Cases that are named one by one."""


def weights_words(done: "EvaluateResult") -> Words:
    """The result of weights on a site's cases."""
    yield (
        f"{_whose(done)}, on the {done.subset} part, {_space(done)}: "
        f"{counted(done.n_patients, 'patient')}, {counted(done.n_cases, 'case')}"
    )
    yield from _kept(done.n_kept)
    if done.layers_are_drawn:
        yield (
            "This site has no layers of its own yet, which the plan keeps local: those that the "
            "plan's seed draws stand in for them, and nobody has trained these."
        )
    yield _means(done, done.evaluation)
    yield from _apart(done)
    yield from _notes(done.summaries)
    yield from _nominal(done.n_nominal, done.n_cases)
    yield from _lowest(done.summaries)
    if done.against is not None:
        yield from _compared(done, done.against)
    yield ""
    yield "For this site alone, never to leave it:"
    yield f"- every measure of every case: {done.report_path}"
    if done.against is not None:
        yield f"- likewise of the second weights: {done.against.report_path}"
    if done.pictures:
        beside = done.report_path.with_suffix(".*.png")
        yield f"- outlines of the best, the median and the worst case: {beside}"
    yield from _leaving(done)


def maps_words(done: "MapsResult") -> Words:
    """The result of ready label maps."""
    rules = "by the plan's rules" if done.has_plan else "by the rules of a plan's defaults"
    yield (
        f"Ready label maps, {rules} (NSD within {done.evaluation.tolerance_mm:g} mm, lesions as "
        f"{done.evaluation.lesions}): {counted(done.n_patients, 'patient')}, "
        f"{counted(done.n_cases, 'case')}"
    )
    yield from _kept(done.n_kept)
    yield _means(done, done.evaluation)
    yield from _notes(done.summaries)
    if done.missing:
        yield (
            f"{counted(len(done.missing), 'case')} without a prediction, counted as missed in "
            f"every region: {_named(done.missing)}"
        )
    if done.without_truth:
        yield (
            f"{counted(len(done.without_truth), 'prediction')} without a truth, not scored: "
            f"{_named(done.without_truth)}"
        )
    yield from _nominal(done.n_cases if done.is_nominal else 0, done.n_cases)
    yield from _lowest(done.summaries)
    yield f"Every measure of every case, for this site alone: {done.report_path}"
    yield "Nothing of this leaves the site: brainfed makes no score file of ready label maps."


def _whose(scored: "Scored") -> str:
    manifest = scored.weights.manifest
    return f"Round {manifest.round}, {manifest.kind} weights of {manifest.sender}"


def _space(done: "EvaluateResult") -> str:
    return "on the scans' own grids" if done.space == "native" else "on the plan's grid"


def _kept(n_kept: int) -> Iterator[str]:
    if n_kept:
        yield f"Going on from an interrupted evaluation: {counted(n_kept, 'case')} scored before."


def _means(done: "Scored | MapsResult", evaluation: "Evaluation") -> Table:
    bounds = {(i.measure, i.region): (i.low, i.high) for i in done.intervals}
    rows = []
    for s in done.summaries:
        if s.measure not in SHOWN:
            continue
        between = _between(bounds.get((s.measure, s.region)))
        name = SHOWN[s.measure]
        if s.measure == "nsd":
            name += f" within {evaluation.tolerance_mm:g} mm"
        rows.append((name, str(s.region), s.n, s.mean, s.sd, s.median, between))
    columns = ("over patients", "region", "n", "mean", "sd", "median", "95 % interval")
    return Table(columns, rows)


def _apart(done: "EvaluateResult") -> Iterator[Table]:
    """Patients who lack a modality beside those who don't, where there are both."""
    rows = [
        (GROUPS[group], str(s.region), s.n, s.mean, s.sd, s.median)
        for group, summaries in done.apart.items()
        for s in summaries
        if s.measure == "dice"
    ]
    if rows:
        yield Table(("Dice of patients with", "region", "n", "mean", "sd", "median"), rows)


def _between(bounds: tuple[float | None, float | None] | None) -> str | None:
    if bounds is None or bounds[0] is None or bounds[1] is None:
        return None
    return f"{bounds[0]:.3f} to {bounds[1]:.3f}"


def _notes(summaries: "Iterable[Summary]") -> Iterator[str]:
    if any(s.measure == "hd95-surface" for s in summaries):
        yield (
            "A region that was missed, or found where there is none, counts: Dice 0, and as HD95 "
            "the largest distance (374 mm on the grid of BraTS, elsewhere the grid's diagonal)."
        )


def _nominal(n_nominal: int, n_cases: int) -> Iterator[str]:
    if not n_nominal:
        return
    what = "no mm, no ml, and no NSD, whose tolerance is in mm"
    if n_nominal == n_cases:
        yield f"The spacing of these scans is a convention, not a measurement: {what}."
    else:
        yield (
            f"The spacing of {n_nominal} of {counted(n_cases, 'case')} is a convention, not a "
            f"measurement: they have {what}; n says how many patients a figure is over."
        )


def _lowest(summaries: "Iterable[Summary]") -> Iterator[str]:
    for summary in summaries:
        if summary.measure == "dice" and summary.worst:
            worst = ", ".join(f"{visible(who)} {value:.3f}" for who, value in summary.worst)
            yield f"Lowest Dice of patients, {summary.region}: {worst}"


def _compared(done: "EvaluateResult", second: "Scored") -> Iterator[str | Table]:
    yield ""
    yield f"Less the scores of: {_whose(second)}, patient by patient"
    yield Table(
        ("difference", "region", "n", "mean", "95 % interval", "p", "effect"),
        [_difference_row(d) for d in done.differences if d.measure in SHOWN],
    )
    yield (
        "Above 0, the first weights have the larger figure: better for Dice and NSD, worse for "
        "HD95. p: Wilcoxon's signed ranks, two-sided, patients without a difference left out, not "
        "corrected for the number of rows. effect: matched rank-biserial correlation, -1 to 1."
    )


def _difference_row(d: "Difference") -> tuple[object, ...]:
    p = None if d.p is None else ("<0.001" if d.p < 0.001 else d.p)
    between = _between((d.low, d.high))
    return SHOWN[d.measure], str(d.region), d.n, d.mean, between, p, d.effect


def _leaving(done: "EvaluateResult") -> Iterator[str]:
    if done.score_path is not None:
        yield (
            "What the floor allows of it, as groups of patients, is in the score file; `brainfed "
            f"inspect` shows it, `brainfed export` signs it: {done.score_path}"
        )
    elif done.space == "native":
        yield "Nothing of this leaves the site: score files are of the plan's grid."
    elif done.weights.manifest.kind != "global":
        yield "Nothing of this leaves the site: score files are of global weights."
    else:
        yield (
            "Nothing of this leaves the site in this round: the patients differ by fewer than the "
            "floor from those of the figures that left before."
        )


def _named(cases: Sequence[str]) -> str:
    shown = ", ".join(visible(case) for case in cases[:N_NAMED])
    return shown + (f" and {len(cases) - N_NAMED} more" if len(cases) > N_NAMED else "")
