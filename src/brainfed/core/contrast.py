"""Whether a T1-weighted series was made with contrast, by more than one sign.

The signs are the agent's tag, the series' text, and the order in time among the T1-weighted series
of the study.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from brainfed.core.sequence_rule import SequenceRule, tokens
from brainfed.core.series import Doubtful, Recognised, SeriesFacts, Verdict, texts_of
from brainfed.plan import Modality


def judge_contrast(
    t1s: Sequence[SeriesFacts], rule: SequenceRule, examination: frozenset[str]
) -> dict[str, Verdict]:
    """T1, T1ce or a doubt for each T1-weighted series of one study, by SeriesInstanceUID.

    Args:
        t1s: All T1-weighted series of the study.
        rule: Knows the words.
        examination: Protocol names that stand over several series.
    """
    signs = [_contrast_signs(facts, rule, examination) for facts in t1s]
    return {sign.facts.series: _with_or_without(sign, signs) for sign in signs}


@dataclass(frozen=True, slots=True)
class _Signs:
    """What a T1-weighted series says about contrast: True with, False without, None nothing."""

    facts: SeriesFacts
    text: bool | None
    agent: bool | None
    contradicts_itself: bool
    """The text says both."""

    @property
    def is_with(self) -> bool:
        return bool(self.text or self.agent)

    def is_before(self, other: "_Signs") -> bool:
        """Whether it was acquired before the other; False where the times aren't known."""
        mine, theirs = self.facts.started, other.facts.started
        return bool(mine and theirs) and mine < theirs


def _contrast_signs(facts: SeriesFacts, rule: SequenceRule, examination: frozenset[str]) -> _Signs:
    """The signs of the text and of the agent's tag."""
    texts = texts_of(facts, examination)
    said = {meaning for text in texts for meaning, _ in rule.contrasts.find(text)} - {"neutral"}
    agent = tokens(facts.contrast_agent)
    return _Signs(
        facts,
        text="contrast" in said if len(said) == 1 else None,
        agent=agent not in rule.no_agents if agent else None,
        contradicts_itself=len(said) > 1,
    )


def _with_or_without(sign: _Signs, study: Sequence[_Signs]) -> Verdict:
    """T1 or T1ce, by two signs that agree and none that doesn't.

    Of a T1 without contrast, one of the two is that nothing says otherwise.
    """
    others = [other for other in study if other is not sign and not other.contradicts_itself]
    after_native = any(not other.is_with and other.is_before(sign) for other in others)
    after_contrast = any(other.is_with and other.is_before(sign) for other in others)
    before_contrast = any(other.is_with and sign.is_before(other) for other in others)
    named = {"its text": sign.text, "the agent's tag": sign.agent}
    yes = [name for name, value in named.items() if value is True]
    no = [name for name, value in named.items() if value is False]
    if not sign.contradicts_itself:
        if not no and len(yes) + after_native >= 2 and yes:
            return Recognised(Modality.T1CE)
        if not yes and not after_contrast and (sign.text is False or before_contrast):
            return Recognised(Modality.T1)
    if sign.contradicts_itself:
        why = "says both"
    elif yes and no:
        why = f"disagrees with itself: {yes[0]} says with contrast, {no[0]} without"
    elif yes:
        why = f"says with contrast by {yes[0]} alone"
    elif after_contrast:
        why = f"{'says without' if no else 'says nothing of'} contrast, but follows a T1 with it"
    else:
        why = f"says without contrast by {no[0]} alone" if no else "says nothing of contrast"
    words = f"can't tell T1 from T1ce: {sign.facts} {why}"
    return Doubtful((Modality.T1, Modality.T1CE), words)
