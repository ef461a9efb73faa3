"""A results folder of a simulation whose every score is a formula; nothing is trained."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brainfed import plan as plans
from brainfed.core.contenders import TRAINED_AS, Contender, Run, Training
from brainfed.formats import simulation
from brainfed.formats.simulation import (
    HandOver,
    Outcome,
    PatientScore,
    Point,
    RunResult,
    Settings,
    SiteCounts,
)
from brainfed.plan import Plan, Region
from tests.builders import a_plan

BRATS_2018 = {
    "CBICA": 88,
    "TCIA02": 34,
    "TCIA01": 22,
    "2013": 20,
    "TCIA08": 14,
    "TCIA03": 12,
    "TCIA04": 8,
    "TCIA06": 8,
    "TCIA05": 4,
}
"""Patients with a high-grade glioma by the institution in their names."""
SITES = {"site-a": 6, "site-b": 4, "site-c": 3}
"""Patients to test, and as many to validate; twice as many train."""
N_PASSES = 4
LIMITS = {
    Contender.POOLED: 0.84,
    Contender.FL: 0.83,
    Contender.CIIL: 0.79,
    Contender.IIL: 0.74,
    Contender.LOCAL: 0.62,
    Contender.ENSEMBLE: 0.78,
    Contender.AVERAGE_ONCE: 0.66,
}
"""Where the Dice of each contender ends after many passes."""


@dataclass(frozen=True)
class Asked:
    """What a score is of."""

    contender: Contender
    repeat: int
    rate: float
    epochs: int
    weights_of: str | None
    site: str
    patient: str
    passes: float
    is_test: bool


Score = Callable[[Asked], float]


def a_score(asked: Asked) -> float:
    """Rises with passes, falls at the wrong rate; patients and repeats differ a little."""
    random = np.random.default_rng(
        [*asked.patient.encode(), asked.repeat, *asked.contender.encode(), asked.epochs]
    )
    limit = LIMITS[asked.contender] - (0.05 if asked.rate > 0.001 else 0)
    if asked.contender is Contender.CIIL:
        limit += 0.03 * (-1) ** int(asked.passes) - 0.02 * asked.repeat
    if asked.weights_of is not None and asked.weights_of != asked.site:
        limit -= 0.1
    dice = limit * (1 - 0.9 * 0.45**asked.passes) + random.normal(0, 0.03)
    return float(np.clip(dice, 0, 1))


def simulated_plan(**changes: object) -> Plan:
    """A plan of four passes."""
    return a_plan(rounds=N_PASSES, name="walk", **changes)


def a_simulation(
    folder: Path,
    *,
    contenders: Sequence[Contender] = tuple(Contender),
    n_repeats: int = 3,
    is_folded: bool = False,
    has_test: bool = True,
    epochs: Sequence[int] = (1, 2),
    rates: Sequence[float] = (0.001,),
    score: Score = a_score,
    leave_out: Sequence[str] = (),
    partition_name: str = "folder",
    plan: Plan | None = None,
) -> Settings:
    """Write the settings and the result of every run, but for those left out by name."""
    counts = tuple(
        SiteCounts(
            site=site, n_train=2 * n, n_validation=n, n_test=n if has_test else 0, n_slices=20 * n
        )
        for site, n in SITES.items()
    )
    settings = Settings(
        plan=plans.render(plan or simulated_plan()),
        dataset="ab" * 32,
        partition="cd" * 32,
        partition_name=partition_name,
        contenders=tuple(contenders),
        n_repeats=n_repeats,
        is_folded=is_folded,
        epochs=tuple(epochs),
        rates=tuple(rates),
        device="cpu",
        precision="float32",
        sites=(counts,) * n_repeats,
    )
    simulation.write_settings(folder, settings)
    for training in sorted({TRAINED_AS[c] for c in contenders}):
        for rate in rates:
            for number in epochs if training is Training.FL else (1,):
                for repeat in range(n_repeats):
                    run = Run(training, repeat, number, rate)
                    if run.name not in leave_out:
                        result = _result(settings, run, score, has_test=has_test)
                        simulation.write_result(folder, run.name, result)
    return settings


def _result(settings: Settings, run: Run, score: Score, *, has_test: bool) -> RunResult:
    wanted = [c for c in settings.contenders if TRAINED_AS[c] is run.training]
    outcomes = [
        _outcome(run, contender, site, score, is_folded=settings.is_folded, has_test=has_test)
        for contender in wanted
        for site in (tuple(SITES) if contender is Contender.LOCAL else (None,))
    ]
    watched = run.repeat == 0 and run.training in {Training.FL, Training.CIIL}
    return RunResult(
        settings=hashlib.sha256(simulation.settings_bytes(settings)).hexdigest(),
        training=run.training,
        repeat=run.repeat,
        epochs=run.epochs,
        rate=run.rate,
        n_sites=len(SITES),
        outcomes=tuple(outcomes),
        forgetting=_forgetting(run) if watched else (),
        optimiser_state="keep" if run.training is Training.POOLED else "reset",
        sequential_steps=100,
        weight_bytes=1_000_000,
        audit=f"re-derived: every signature fits, {run.name}",
        n_test_opened=3 * len(outcomes) if has_test else 0,
        seconds=12.5,
    )


def _outcome(
    run: Run,
    contender: Contender,
    site: str | None,
    score: Score,
    *,
    is_folded: bool,
    has_test: bool,
) -> Outcome:
    def scores(passes: float, *, is_test: bool) -> tuple[PatientScore, ...]:
        found = []
        for home, n in SITES.items():
            for number in range(n):
                # With folds other patients are held out each time.
                fold = f"{run.repeat}" if is_folded else ""
                patient = f"{home}-{'test' if is_test else 'validation'}-{fold}{number}"
                asked = Asked(
                    contender,
                    run.repeat,
                    run.rate,
                    run.epochs,
                    site,
                    home,
                    patient,
                    passes,
                    is_test,
                )
                dice = score(asked)
                found.append(
                    PatientScore(
                        site=home,
                        patient=patient,
                        region=Region.WT,
                        dice=dice,
                        soft_slice_dice=(1 + dice) / 2,
                    )
                )
        return tuple(found)

    places = _places(run, contender)
    points = tuple(
        Point(
            round=number,
            passes=passes,
            hand_overs=hand_overs,
            validation=scores(passes, is_test=False),
        )
        for number, passes, hand_overs in places
    )
    chosen = len(points) - 1
    if contender in {Contender.POOLED, Contender.FL, Contender.CIIL}:
        means = [np.mean([s.dice for s in point.validation]) for point in points[1:]]
        chosen = 1 + int(np.argmax(means))
    return Outcome(
        contender=contender,
        site=site,
        points=points,
        chosen=chosen,
        test=scores(points[chosen].passes, is_test=True) if has_test else (),
    )


def _places(run: Run, contender: Contender) -> list[tuple[int, float, int]]:
    """Round, passes and hand-overs of each point, as the steps count them."""
    n_sites = len(SITES)
    if contender is Contender.POOLED:
        return [(n, float(n), n_sites) for n in range(N_PASSES + 1)]
    if contender is Contender.FL:
        n_rounds = N_PASSES // run.epochs
        return [(n, float(n * run.epochs), 2 * n_sites * n) for n in range(n_rounds + 1)]
    if contender is Contender.CIIL:
        return [(n_sites * n, float(n), 2 * n_sites * n) for n in range(N_PASSES + 1)]
    if contender is Contender.IIL:
        return [(n, N_PASSES * n / n_sites, 3 * n) for n in range(n_sites + 1)]
    if contender is Contender.AVERAGE_ONCE:
        return [(0, 0.0, 0), (1, float(N_PASSES), 2 * n_sites)]
    return [(1, float(N_PASSES), 2 * n_sites if contender is Contender.ENSEMBLE else 0)]


def _forgetting(run: Run) -> tuple[HandOver, ...]:
    """Eight times weights came and were sent; only `ciil` forgets."""
    falls = 0.15 if run.training is Training.CIIL else 0.01
    found = []
    for number in range(1, 9):
        sent = 0.85 - 0.5 * 0.6**number
        came = 0.85 - 0.5 * 0.6 ** (number - 1) - falls * (1 + 0.1 * (number % 3))
        for dice, is_own in ((max(came, 0.0), False), (sent, True)):
            entry = HandOver(
                hand_over=number, round=number - (not is_own), dice=dice, is_own=is_own
            )
            found.append(entry)
    return tuple(found)
