"""The claims of the paper, judged on the runs of a simulation."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

from brainfed.core.claims import Claim, about_drops, about_patients, about_spread
from brainfed.core.contenders import Contender
from brainfed.formats.simulation import HandOver
from brainfed.formats.simulation_findings import Findings, Judged
from brainfed.steps.simulation_arms import Arm, Protocol
from brainfed.steps.simulation_results import Simulation

WITHIN = 0.98
"""Share of pooled that FL is claimed to reach: within 2 %."""
COLLABORATIVE = (
    Contender.FL,
    Contender.CIIL,
    Contender.IIL,
    Contender.ENSEMBLE,
    Contender.AVERAGE_ONCE,
)
_WEAK = "weak: few repeats say little of a spread"
_FOLDED = "weak: few repeats, each with other patients"
_ONE_SITE = "weak: one site in one repeat"


def findings(told: Simulation) -> Findings:
    """All claims, at the shared rate, and at each arm's best where several were tried."""
    judged = [Judged(rates="shared", claims=claims(told, told.shared))]
    if told.best:
        judged.append(Judged(rates="best", claims=claims(told, told.best)))
    return Findings(settings=told.digest, protocol=told.protocols[0].value, judged=tuple(judged))


def claims(told: Simulation, arms: Sequence[Arm]) -> tuple[Claim, ...]:
    """Every claim about these arms; `fl` is the one with the epochs that were named first."""
    protocol = told.protocols[0]
    by_contender: dict[Contender, Arm] = {}
    for arm in arms:
        by_contender.setdefault(arm.contender, arm)
    fl, pooled = Contender.FL, Contender.POOLED
    within = _difference(
        "fl-within-2-percent-of-pooled", "FL is within 2 % of pooled", "FL less 0.98 of pooled"
    )
    found = [_compared(told, protocol, by_contender, within, (fl, pooled), share=WITHIN)]
    relays = (Contender.CIIL, Contender.IIL)
    for other in relays:
        name, word = f"fl-above-{other}", other.upper()
        claim = _difference(name, f"FL is above {word}", f"FL less {word}")
        found.append(_compared(told, protocol, by_contender, claim, (fl, other)))
    found += [_spread(told, protocol, by_contender, other) for other in relays]
    for other in COLLABORATIVE:
        name, word = f"{other}-above-single-sites", _word(other)
        claim = _difference(
            name, f"{word} is above the mean single site", f"{word} less the mean of sites alone"
        )
        found.append(_compared(told, protocol, by_contender, claim, (other, Contender.LOCAL)))
    found.append(_saw_tooth(by_contender))
    return tuple(found)


def _difference(name: str, says: str, figure: str) -> Claim:
    return Claim(name=name, says=says, figure=f"{figure}, mean Dice over patients", border=0.0)


def _word(contender: Contender) -> str:
    return {
        Contender.ENSEMBLE: "The ensemble",
        Contender.AVERAGE_ONCE: "Average-once",
    }.get(contender, contender.upper())


def _compared(
    told: Simulation,
    protocol: Protocol,
    arms: dict[Contender, Arm],
    claim: Claim,
    pair: tuple[Contender, Contender],
    *,
    share: float = 1.0,
) -> Claim:
    """Judge a difference on the patients of the repeats that both have ended."""
    if absent := [contender for contender in pair if contender not in arms]:
        return _without(claim, absent)
    first, second = (arms[contender] for contender in pair)
    both = first.repeats & second.repeats
    values = [arm.by_patient(protocol, both) for arm in (first, second)]
    return about_patients(claim, values[0], values[1], told.sites_of, share=share)


def _spread(
    told: Simulation, protocol: Protocol, arms: dict[Contender, Arm], other: Contender
) -> Claim:
    word = other.upper()
    claim = Claim(
        name=f"{other}-spread-above-fl",
        says=f"{word}'s spread between repeats is larger than FL's",
        figure=f"standard deviation between repeats, {word} over FL",
        border=1.0,
        note=_FOLDED if told.settings.is_folded else _WEAK,
    )
    if absent := [contender for contender in (other, Contender.FL) if contender not in arms]:
        return _without(claim, absent)
    first, second = (arms[contender].run_means(protocol) for contender in (other, Contender.FL))
    return about_spread(claim, first, second)


def _saw_tooth(arms: dict[Contender, Arm]) -> Claim:
    claim = Claim(
        name="ciil-saws",
        says="A site's training Dice saws under CIIL, more than under FL",
        figure="mean drop of a site's training Dice until weights come back, CIIL less FL",
        border=0.0,
        note=_ONE_SITE,
    )
    drops = {c: drops_of(watched(arms[c])) for c in (Contender.CIIL, Contender.FL) if c in arms}
    if absent := [c for c in (Contender.CIIL, Contender.FL) if not drops.get(c)]:
        return _without(claim, absent, "no hand-overs of")
    return about_drops(claim, drops[Contender.CIIL], drops[Contender.FL])


def watched(arm: Arm) -> tuple[HandOver, ...]:
    """The hand-overs of the site whose training Dice was followed, in their order."""
    found = next((run.result.forgetting for run in arm.runs if run.result.forgetting), ())
    return tuple(sorted(found, key=lambda entry: (entry.hand_over, entry.is_own)))


def drops_of(entries: Sequence[HandOver]) -> list[float]:
    """How far the training Dice fell between what the site sent and what came back next."""
    return [
        sent.dice - came.dice
        for sent, came in itertools.pairwise(entries)
        if sent.is_own and not came.is_own
    ]


def _without(claim: Claim, absent: Sequence[Contender], why: str = "no run of") -> Claim:
    return replace(claim, note=f"{why} {', '.join(absent)}")
