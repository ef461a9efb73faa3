"""Which scores a claim is judged on: worked out by hand from scores that are formulas."""

from dataclasses import replace
from pathlib import Path

import pytest

from brainfed.core.claims import Claim, Verdict
from brainfed.core.contenders import Contender, Run, Training
from brainfed.formats import simulation
from brainfed.formats.simulation import HandOver
from brainfed.steps.simulation_arms import Arm, Protocol
from brainfed.steps.simulation_claims import drops_of, findings
from brainfed.steps.simulation_results import Simulation, read
from tests.simulated import SITES, Asked, a_simulation

N_PATIENTS = sum(SITES.values())
ENDS = {
    Contender.POOLED: 0.80,
    Contender.FL: 0.79,
    Contender.CIIL: 0.75,
    Contender.IIL: 0.70,
    Contender.LOCAL: 0.60,
    Contender.ENSEMBLE: 0.72,
    Contender.AVERAGE_ONCE: 0.55,
}


def level(asked: Asked) -> float:
    """Nothing but the method counts."""
    return ENDS[asked.contender] if asked.passes else 0.0


def claims_of(told: Simulation, place: int = 0) -> dict[str, Claim]:
    return {claim.name: claim for claim in findings(told).judged[place].claims}


def simulated(folder: Path, **options: object) -> Simulation:
    a_simulation(folder, **{"score": level} | options)  # type: ignore[arg-type]
    return read(folder)


def test_every_claim_is_the_difference_that_it_names(tmp_path: Path) -> None:
    claims = claims_of(simulated(tmp_path))
    expected = {
        "fl-within-2-percent-of-pooled": 0.79 - 0.98 * 0.80,
        "fl-above-ciil": 0.04,
        "fl-above-iil": 0.09,
        "fl-above-single-sites": 0.19,
        "ciil-above-single-sites": 0.15,
        "iil-above-single-sites": 0.10,
        "ensemble-above-single-sites": 0.12,
        "average-once-above-single-sites": -0.05,
    }
    found = {name: claims[name].estimate for name in expected}
    assert found == pytest.approx(expected)
    assert {claims[name].n for name in expected} == {N_PATIENTS}
    wrong = {name for name in expected if claims[name].verdict is not Verdict.SHOWN}
    assert wrong == {"average-once-above-single-sites"}
    assert claims["average-once-above-single-sites"].verdict is Verdict.OTHER_WAY
    rest = {"ciil-spread-above-fl", "iil-spread-above-fl", "ciil-saws"}
    assert set(claims) == set(expected) | rest


def test_claims_are_judged_on_test_patients_where_there_are_some(tmp_path: Path) -> None:
    def better_on_test(asked: Asked) -> float:
        return level(asked) + (0.1 if asked.is_test and asked.contender is Contender.FL else 0)

    for name, has_test, expected in (("with", True, 0.14), ("without", False, 0.04)):
        told = simulated(tmp_path / name, score=better_on_test, has_test=has_test)
        assert findings(told).protocol == ("clean" if has_test else "paper")
        assert claims_of(told)["fl-above-ciil"].estimate == pytest.approx(expected)


def test_repeats_of_a_patient_are_averaged_first(tmp_path: Path) -> None:
    def by_seed(asked: Asked) -> float:
        return level(asked) + (0.03 * asked.repeat if asked.contender is Contender.FL else 0)

    claim = claims_of(simulated(tmp_path, score=by_seed))["fl-above-iil"]
    assert claim.estimate == pytest.approx(0.09 + 0.03)
    assert claim.n == N_PATIENTS


def test_with_folds_each_patient_counts_once(tmp_path: Path) -> None:
    claims = claims_of(simulated_spread(tmp_path))
    assert claims["fl-above-iil"].n == 3 * N_PATIENTS
    assert claims["fl-above-iil"].estimate == pytest.approx(0.09 + 0.002 - 0.02)
    assert "other patients" in claims["iil-spread-above-fl"].note


def simulated_spread(folder: Path) -> Simulation:
    """IIL's repeats are ten times as far apart as FL's."""

    def spread(asked: Asked) -> float:
        steps = {Contender.IIL: 0.02, Contender.FL: 0.002}.get(asked.contender, 0.0)
        return level(asked) + steps * asked.repeat

    return simulated(folder, score=spread, is_folded=True)


def test_the_spread_between_repeats_is_that_of_their_means(tmp_path: Path) -> None:
    claims = claims_of(simulated_spread(tmp_path))
    assert claims["iil-spread-above-fl"].estimate == pytest.approx(10)
    assert claims["iil-spread-above-fl"].verdict is Verdict.SHOWN
    assert claims["ciil-spread-above-fl"].estimate == pytest.approx(0)


def test_a_repeat_that_one_of_two_lacks_is_not_compared(tmp_path: Path) -> None:
    def by_seed(asked: Asked) -> float:
        return level(asked) + 0.03 * asked.repeat * (asked.contender is Contender.FL)

    missing = "ciil-rate-0.001-repeat-3"
    told = simulated(tmp_path, score=by_seed, leave_out=[missing])
    claims = claims_of(told)
    assert claims["fl-above-ciil"].estimate == pytest.approx(0.04 + 0.015)
    assert claims["fl-above-iil"].estimate == pytest.approx(0.09 + 0.03)
    assert told.missing == (missing,)


def test_single_sites_count_by_their_mean_on_every_sites_patients(tmp_path: Path) -> None:
    def own_is_best(asked: Asked) -> float:
        is_home = asked.weights_of == asked.site
        return level(asked) + (0.3 if is_home and asked.contender is Contender.LOCAL else 0)

    claim = claims_of(simulated(tmp_path, score=own_is_best))["fl-above-single-sites"]
    # Each patient has one home of three.
    assert claim.estimate == pytest.approx(0.79 - (0.60 + 0.3 / 3))


def test_a_method_that_was_not_run_leaves_its_claims_unjudged(tmp_path: Path) -> None:
    told = simulated(tmp_path, contenders=(Contender.FL, Contender.CIIL))
    claims = claims_of(told)
    assert claims["fl-within-2-percent-of-pooled"].note == "no run of pooled"
    assert claims["ensemble-above-single-sites"].note == "no run of ensemble, local"
    judged = {name for name, c in claims.items() if c.verdict is not Verdict.NOT_JUDGED}
    assert judged == {"fl-above-ciil", "ciil-saws"}


def test_fl_is_the_one_whose_epochs_were_named_first(tmp_path: Path) -> None:
    def by_epochs(asked: Asked) -> float:
        return level(asked) - 0.01 * asked.epochs * (asked.contender is Contender.FL)

    for epochs, expected in (((1, 2), 0.03), ((2, 1), 0.02)):
        told = simulated(tmp_path / str(epochs), score=by_epochs, epochs=epochs)
        assert claims_of(told)["fl-above-ciil"].estimate == pytest.approx(expected)


def test_the_best_rate_is_chosen_on_validation_of_the_first_repeat(tmp_path: Path) -> None:
    def misleading(asked: Asked) -> float:
        """The high rate is better on validation in the first repeat, and worse everywhere else."""
        if asked.rate == 0.001 or asked.contender is not Contender.FL:
            return level(asked)
        return level(asked) + (0.1 if not asked.is_test and asked.repeat == 0 else -0.1)

    told = simulated(tmp_path, score=misleading, rates=(0.001, 0.003))
    rates = {arm.contender: arm.rate for arm in told.best}
    assert rates[Contender.FL] == 0.003
    assert {rate for c, rate in rates.items() if c is not Contender.FL} == {0.001}
    assert [judged.rates for judged in findings(told).judged] == ["shared", "best"]
    assert claims_of(told, 1)["fl-above-ciil"].estimate == pytest.approx(0.04 - 0.1)
    assert claims_of(told, 0)["fl-above-ciil"].estimate == pytest.approx(0.04)
    assert told.missing == ()


def test_the_rate_of_a_relay_is_chosen_by_the_weights_that_it_chose(tmp_path: Path) -> None:
    """Not by what its last site hands on: the engine runs the other repeats by the same rule."""

    def likes_it_high(asked: Asked) -> float:
        return level(asked) + (0.1 if asked.rate == 0.003 else 0)

    simulated(tmp_path, score=likes_it_high, rates=(0.001, 0.003))
    for result in simulation.read_results(tmp_path):
        if result.training is Training.IIL and result.rate == 0.003:
            (outcome,) = result.outcomes
            *points, last = outcome.points
            forgot = replace(last, validation=tuple(replace(s, dice=0) for s in last.validation))
            changed = replace(outcome, points=(*points, forgot), chosen=len(points) - 1)
            run = Run(result.training, result.repeat, result.epochs, result.rate)
            simulation.write_result(tmp_path, run.name, replace(result, outcomes=(changed,)))
    (iil,) = (arm for arm in read(tmp_path).best if arm.contender is Contender.IIL)
    assert iil.rate == 0.003


def test_a_repeat_at_the_best_rate_that_has_not_ended_is_missing(tmp_path: Path) -> None:
    def likes_it_high(asked: Asked) -> float:
        return level(asked) + (0.1 if asked.rate == 0.003 else 0)

    left_out = [f"ciil-rate-{rate}-repeat-3" for rate in (0.001, 0.003)]
    told = simulated(tmp_path, score=likes_it_high, rates=(0.001, 0.003), leave_out=left_out)
    assert told.missing == tuple(left_out)


def test_the_saw_tooth_is_what_is_lost_between_sending_and_getting_back(tmp_path: Path) -> None:
    entries = [
        HandOver(hand_over=1, round=0, dice=0.2, is_own=False),
        HandOver(hand_over=1, round=1, dice=0.6, is_own=True),
        HandOver(hand_over=2, round=4, dice=0.45, is_own=False),
        HandOver(hand_over=2, round=5, dice=0.7, is_own=True),
        HandOver(hand_over=3, round=8, dice=0.72, is_own=False),
        HandOver(hand_over=3, round=9, dice=0.8, is_own=True),
    ]
    assert drops_of(entries) == pytest.approx([0.15, -0.02])
    claim = claims_of(simulated(tmp_path))["ciil-saws"]
    # The builder's eight hand-overs leave seven drops; ciil falls by 0.15 x, fl by 0.01 x.
    mean = sum(1 + 0.1 * (n % 3) for n in range(2, 9)) / 7
    assert claim.estimate == pytest.approx(0.14 * mean)
    assert (claim.n, claim.verdict) == (7, Verdict.SHOWN)


def arm_of(told: Simulation, contender: Contender) -> Arm:
    return next(arm for arm in told.shared if arm.contender is contender)


def test_a_run_is_reported_at_its_chosen_point(tmp_path: Path) -> None:
    def falls(asked: Asked) -> float:
        """Best after two passes; iil takes its last weights all the same."""
        return 0.8 - 0.1 * abs(asked.passes - 2)

    told = simulated(tmp_path, score=falls)
    for contender, expected in (
        (Contender.POOLED, 0.8),
        (Contender.CIIL, 0.8),
        (Contender.IIL, 0.6),
        (Contender.AVERAGE_ONCE, 0.6),
    ):
        arm = arm_of(told, contender)
        for protocol in Protocol:
            assert arm.run_means(protocol) == pytest.approx((expected,) * 3), contender
    assert arm_of(told, Contender.CIIL).point_means()[0] == pytest.approx((0.7, 0.8, 0.7, 0.6))
