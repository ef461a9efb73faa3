"""What each arm of a simulation cost, how it was trained, and what its audit says."""

import statistics
from collections.abc import Sequence

from brainfed.core.contenders import Contender
from brainfed.formats.report_page import Block, Cell, Facts, Section, Table, Text
from brainfed.plan import OptimiserState
from brainfed.steps.report_tables import counted
from brainfed.steps.simulation_arms import Arm, ArmRun, curve, point_mean
from brainfed.steps.simulation_claims import WITHIN
from brainfed.steps.simulation_results import Simulation
from brainfed.steps.simulation_tables import DASH, NO_BREAK, Row, pooled_of

_STATES: dict[str, str] = {
    OptimiserState.RESET: "reset before each round",
    OptimiserState.KEEP: "kept from round to round",
}


def costs(told: Simulation) -> Section:
    """Budgets, arm by arm."""
    enough = _enough(told.shared)
    rows = [_cost_row(arm, enough) for arm in told.shared]
    table = Table(
        caption="What a run costs, mean over repeats",
        columns=(
            "method",
            "passes",
            "steps one after the other",
            "rounds",
            "hand-overs",
            "carried",
            "hand-overs to the chosen weights",
            "hand-overs to 98 % of pooled",
        ),
        rows=tuple(rows),
        note="A hand-over: one file between a site and the coordinator, one way. Rounds: of ciil "
        "and iil the turns of single sites. Steps: those of sites that work at the same time count "
        "once. To 98 % of pooled: until the mean over repeats of validation Dice first reaches "
        "98 % of the pooled weights'. With pooled the scans themselves leave, once from each site.",
    )
    return Section("What it costs", [table])


def _enough(arms: Sequence[Arm]) -> float | None:
    pooled = pooled_of(arms)
    if pooled is None:
        return None
    return WITHIN * statistics.fmean(point_mean(run.chosen_point) for run in pooled.runs)


def _cost_row(arm: Arm, enough: float | None) -> Row:
    ends = [run.last_point for run in arm.runs]
    steps = statistics.fmean(run.result.sequential_steps for run in arm.runs)
    return (
        arm.name,
        _number(statistics.fmean(end.passes for end in ends)),
        f"{steps:,.0f}",
        _number(statistics.fmean(end.round for end in ends)),
        Cell(_number(statistics.fmean(end.hand_overs for end in ends)), _scoring(arm)),
        _carried(arm),
        _number(statistics.fmean(run.chosen_point.hand_overs for run in arm.runs)),
        DASH if enough is None else _first_enough(arm, enough),
    )


def _number(value: float) -> str:
    """A mean of counts, without decimals where it is whole."""
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"


def _scoring(arm: Arm) -> str:
    if arm.contender is not Contender.CIIL:
        return ""
    scored = statistics.fmean(run.result.n_sites * len(run.trained_points()) for run in arm.runs)
    return f"and {_number(scored)} to score each cycle"


def _carried(arm: Arm) -> Cell | str:
    if arm.contender is Contender.POOLED:
        return f"the{NO_BREAK}scans"
    n_bytes = statistics.fmean(map(_carried_bytes, arm.runs))
    return f"{n_bytes / 1e6:,.1f}{NO_BREAK}MB"


def _carried_bytes(run: ArmRun) -> int:
    """Of an ensemble each site sends one file and is given those of all, as one hand-over."""
    n_sites, weight_bytes = run.result.n_sites, run.result.weight_bytes
    if run.outcomes[0].contender is Contender.ENSEMBLE:
        return (n_sites + n_sites * n_sites) * weight_bytes
    return run.last_point.hand_overs * weight_bytes


def _first_enough(arm: Arm, enough: float) -> str:
    return next((_number(p.hand_overs) for p in curve(arm) if p.mean >= enough), "never")


def trained(told: Simulation) -> Section:
    """How each arm was trained, and what the audits of the runs say."""
    arms = {(arm.name, arm.rate): arm for arm in (*told.shared, *told.best)}
    rows: list[Row] = [
        (
            arm.name,
            f"{arm.rate:g}",
            _STATES.get(arm.runs[0].result.optimiser_state, arm.runs[0].result.optimiser_state),
            str(len(arm.runs)),
            f"{statistics.fmean(run.result.seconds for run in arm.runs):,.0f} s",
        )
        for arm in arms.values()
    ]
    table = Table(
        caption="Each arm",
        columns=("method", "rate", "optimiser state", "runs", "time of a run"),
        rows=tuple(rows),
        note="In a repeat all begin with the same initial weights. Local, ensemble and "
        "average-once are read off one training. Time: of all processes together, scoring too.",
    )
    n_opened = sum(result.n_test_opened for result in told.results)
    opened = (
        f"A site's test patients were looked at {n_opened:,} times over all runs, always with "
        "weights that were chosen without them."
    )
    words = "Each run is a federation of its own, by the same steps and signed files as a real one."
    blocks: list[Block] = [table, Text(opened), Text(f"{words} Their audits:"), _audits(told)]
    return Section("How each was trained, and its audit", blocks)


def _audits(told: Simulation) -> Facts:
    """How many runs have which verdict, with one sentence of each: they differ in their rounds."""
    sentences: dict[str, list[str]] = {}
    for result in told.results:
        verdict = result.audit.partition(":")[0]
        sentences.setdefault(verdict, []).append(result.audit)
    return Facts(
        tuple(
            (f"{counted(len(found), 'run')} {verdict}, for example", found[0])
            for verdict, found in sorted(sentences.items())
        )
    )
