"""Which MR sequence a DICOM series is, told from what its headers say.

Pure: headers are read in `formats.dicom_header`, the written rule in `core.sequence_rule`. A name
comes from the series' text and must fit its echo, repetition and inversion time. Whether contrast
was given is told from more than one sign: the agent's tag, the text, the order in time. What can't
be told becomes a question to a person.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from brainfed.core.contrast import judge_contrast
from brainfed.core.sequence_rule import SequenceRule
from brainfed.core.series import (
    Doubtful,
    NotOurs,
    Recognised,
    SeriesFacts,
    Verdict,
    examination_protocols,
    texts_of,
    wrong_kind,
)
from brainfed.plan import Modality


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why a modality of a study is not known, and which series it may be."""

    words: str
    series: tuple[SeriesFacts, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """What the series of one study are."""

    images: Mapping[Modality, SeriesFacts]
    doubts: Mapping[Modality, Doubt] = field(default_factory=dict)
    left_over: tuple[tuple[SeriesFacts, str], ...] = ()
    """Series that are not used, and why."""
    remarks: tuple[str, ...] = ()


def judge(study: Sequence[SeriesFacts], rule: SequenceRule) -> tuple[Verdict, ...]:
    """A verdict on each series of one study, in the same order."""
    examination = examination_protocols(study)
    seen = [_weighting(facts, rule, examination) for facts in study]
    t1s = [f for f, v in zip(study, seen, strict=True) if v == Recognised(Modality.T1)]
    by_series = judge_contrast(t1s, rule, examination)
    return tuple(
        by_series.get(facts.series, verdict) for facts, verdict in zip(study, seen, strict=True)
    )


def choose(study: Sequence[SeriesFacts], rule: SequenceRule) -> Choice:
    """Find the one series of each modality in one study.

    A derived series never stands where an original may. Of several, the one with more and thinner
    slices is taken; where none is the best, a person is asked.
    """
    verdicts = tuple(zip(study, judge(study, rule), strict=True))
    left = [(facts, v.words) for facts, v in verdicts if isinstance(v, NotOurs)]
    images: dict[Modality, SeriesFacts] = {}
    doubts: dict[Modality, Doubt] = {}
    remarks = []
    for modality in Modality:
        sure = [f for f, v in verdicts if v == Recognised(modality)]
        unsure = [
            (f, v.words)
            for f, v in verdicts
            if isinstance(v, Doubtful) and modality in v.modalities
        ]
        broken = [
            (f, f"{f}: {v.words}")
            for f, v in verdicts
            if isinstance(v, NotOurs) and modality in v.would_be and not f.is_derived
        ]
        outcome = _pick(modality, sure, unsure, broken)
        if isinstance(outcome, Doubt):
            doubts[modality] = outcome
        elif outcome is not None:
            images[modality] = outcome
            left += [(f, _why_not(f, outcome, modality)) for f in sure if f is not outcome]
            if outcome.is_derived:
                remarks.append(
                    f"{outcome}, taken as {modality}, is DERIVED; there is no ORIGINAL of it"
                )
    asked = {facts.series for doubt in doubts.values() for facts in doubt.series}
    for facts, verdict in verdicts:
        if isinstance(verdict, Doubtful) and facts.series not in asked:
            left.append((facts, f"{verdict.words}; another series is certain"))
    return Choice(images, doubts, tuple(left), tuple(remarks))


def _pick(
    modality: Modality,
    sure: list[SeriesFacts],
    unsure: list[tuple[SeriesFacts, str]],
    broken: list[tuple[SeriesFacts, str]],
) -> SeriesFacts | Doubt | None:
    """The series of a modality, or why a person must say; `broken` are ORIGINALs of no volume."""
    originals = [facts for facts in sure if not facts.is_derived]
    unsure_originals = [(facts, words) for facts, words in unsure if not facts.is_derived]
    if not originals and (unsure_originals or not sure):
        return _ask(unsure_originals or unsure)
    if not originals and broken:
        why = "; ".join(words for _, words in broken)
        listed = ", ".join(map(str, sure))
        return Doubt(f"{listed} is DERIVED, and its ORIGINAL can't be used: {why}", tuple(sure))
    candidates = originals or sure
    best = [c for c in candidates if not any(_is_better(other, c) for other in candidates)]
    if len(best) == 1:
        return best[0]
    return Doubt(
        f"can't tell which is the {modality}: {', '.join(map(str, best))} are equally good",
        tuple(best),
    )


def _ask(unsure: list[tuple[SeriesFacts, str]]) -> Doubt | None:
    if not unsure:
        return None
    words = dict.fromkeys(words for _, words in unsure)
    return Doubt("; ".join(words), tuple(facts for facts, _ in unsure))


def _is_better(one: SeriesFacts, other: SeriesFacts) -> bool:
    """More slices and not thicker, or thinner and not fewer."""
    mine, theirs = one.thickness_mm or 0.0, other.thickness_mm or 0.0
    if mine == 0 or theirs == 0:
        mine = theirs = 0.0  # not known: the number of slices alone
    thin, many = mine <= theirs, one.n_slices >= other.n_slices
    return thin and many and (mine < theirs or one.n_slices > other.n_slices)


def _why_not(facts: SeriesFacts, chosen: SeriesFacts, modality: Modality) -> str:
    if facts.is_derived and not chosen.is_derived:
        return f"{modality}, but DERIVED; {chosen} is the ORIGINAL"
    return f"{modality}, but {chosen} has more or thinner slices"


def _weighting(facts: SeriesFacts, rule: SequenceRule, examination: frozenset[str]) -> Verdict:
    """T1 (with or without contrast), T2, FLAIR, a doubt, or none of ours."""
    refused = _refusal(facts, rule)
    if refused:
        return NotOurs(refused)
    named: set[str] = set()
    for text in texts_of(facts, examination):
        named = named or {meaning for meaning, _ in rule.weightings.find(text)}
    weighting = "t1" if "t1" in named else "flair" if "flair" in named else "t2"
    modalities = (Modality.T1, Modality.T1CE) if weighting == "t1" else (Modality(weighting),)
    no_volume = _no_volume(facts, rule)
    if no_volume:
        return NotOurs(no_volume, would_be=modalities if named else ())
    if not named:
        return NotOurs("no word in its description names T1, T2 or FLAIR")
    if {"t1", "t2"} <= named:
        return Doubtful(_T1_OR_T2, f"can't tell T1 from T2: {facts} says both")
    misfit = _misfit(facts, rule, weighting)
    if misfit:
        return Doubtful(modalities, f"{facts} says {weighting.upper()}, but {misfit}")
    return Recognised(modalities[0])


_T1_OR_T2 = (Modality.T1, Modality.T1CE, Modality.T2)


def _misfit(facts: SeriesFacts, rule: SequenceRule, weighting: str) -> str | None:
    limits = getattr(rule.limits, weighting)
    for name in ("echo", "repetition", "inversion"):
        value = getattr(facts, f"{name}_ms")
        low, high = getattr(limits, f"{name}_ms")
        if value is not None and not low <= value <= high:
            return f"its {name} time is {value:g} ms, not {low:g} to {high:g}"
    return None


def _refusal(facts: SeriesFacts, rule: SequenceRule) -> str | None:
    """Why the series can't be one of ours, whatever its text says."""
    return wrong_kind(facts) or _excluded_by_values(facts, rule) or _excluded_by_words(facts, rule)


def _excluded_by_values(facts: SeriesFacts, rule: SequenceRule) -> str | None:
    for tag, values, reasons in (
        ("image type", facts.image_type, rule.image_types),
        ("scanning sequence", facts.scanning_sequence, rule.scanning_sequences),
    ):
        upper = {value.strip().upper() for value in values}
        for reason, words in reasons.items():
            for word in words:
                if word.upper() in upper:
                    return f"{reason} ({tag} {word})"
    return None


def _excluded_by_words(facts: SeriesFacts, rule: SequenceRule) -> str | None:
    lists = [rule.exclusions, rule.derived_exclusions] if facts.is_derived else [rule.exclusions]
    for phrases in lists:
        for reason, word in phrases.find(facts.description or facts.protocol):
            if reason:
                return f'{reason} ("{word}" in its description)'
    return None


def _no_volume(facts: SeriesFacts, rule: SequenceRule) -> str | None:
    if facts.n_orientations > 1:
        return f"a localizer: its slices lie in {facts.n_orientations} directions"
    if facts.n_echoes > 1:
        return f"{facts.n_echoes} echo times in one series: export each echo as a series"
    if facts.n_slices < rule.min_slices:
        return f"{facts.n_slices} slices; a head has {rule.min_slices} or more"
    if facts.n_sizes > 1:
        return "holds images of several sizes"
    if facts.n_images > facts.n_slices:
        return f"{facts.n_images} images at {facts.n_slices} places: not one volume"
    return None
