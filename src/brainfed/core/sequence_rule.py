"""The written rule that names MR sequences: words, values and limits (`docs/formats/sequences.md`).

The rule itself is data, `sequences.toml` beside this module; a site's own file is laid over it.
What follows from it for a series is told in `core.sequences`.
"""

import functools
import importlib.resources
import json
import re
import tomllib
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from brainfed.errors import ScanError
from brainfed.plan import Section

MAX_RULE_BYTES = 262_144
FORMAT = "brainfed-sequences-0"
_WHERE = "brainfed/core/sequences.toml"
_HINT = "docs/formats/sequences.md lists the keys"

# What vendors write in one word, parted: AXT1, 3DT1, sT1W, FLAIRpost.
_GLUED = (
    (re.compile(r"(?<=[a-z])(?=[A-Z])"), " "),
    (
        re.compile(r"(?<![a-z])(?:ax|axi|axial|sag|cor|tra|trans)(?=t[12]|flair|mprage)", re.I),
        r"\g<0> ",
    ),
    (re.compile(r"(?<=[23])d(?=t[12]|flair)|(?<![a-z])[es](?=t[12]w)", re.I), r"\g<0> "),
    (re.compile(r"mprage|flair|bravo|f?spgr|vibe", re.I), r"\g<0> "),
)
# Words of letters, numbers, plus, star, a minus behind something ("C-"), and each sign of a script
# that is written without spaces by itself.
_TOKEN = re.compile(r"[a-z]+|[а-яё]+|\d+|[+*]|(?<=[\w(])-(?![^\W_])|[^\W\d_]")
_UNPARTED = str.maketrans({"ı": "i", "ł": "l", "ø": "o", "đ": "d", "_": " "})

Tokens = tuple[str, ...]


def tokens(text: str) -> Tokens:
    """Part a text into words that can be compared: no capitals, no accents, no separators."""
    text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    for pattern, replacement in _GLUED:
        text = pattern.sub(replacement, text)
    return tuple(_TOKEN.findall(text.casefold().translate(_UNPARTED)))


class Phrases:
    """Phrases with a meaning each, looked for in texts; where two overlap the longer counts."""

    def __init__(self, meanings: Mapping[str, Iterable[str]]) -> None:
        self._meaning = {
            tokens(phrase): (meaning, phrase)
            for meaning, phrases in meanings.items()
            for phrase in phrases
        }
        self._longest = max((len(phrase) for phrase in self._meaning), default=0)

    def find(self, text: str) -> tuple[tuple[str, str], ...]:
        """Meaning and phrase of all that is found, the longest first."""
        words = list(tokens(text))
        found = []
        for length in range(min(self._longest, len(words)), 0, -1):
            for start in range(len(words) - length + 1):
                hit = self._meaning.get(tuple(words[start : start + length]))
                if hit:
                    found.append(hit)
                    words[start : start + length] = [""] * length  # no other phrase takes these
        return tuple(found)


def _rising(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] > limits[1]:
        raise ValueError("the lower limit comes first")
    return limits


def _searchable(word: str) -> str:
    if not tokens(word):
        raise ValueError("a word has letters or digits")
    return word


Limits = Annotated[tuple[float, float], AfterValidator(_rising)]
Word = Annotated[str, Field(max_length=60), AfterValidator(_searchable)]
Words = tuple[Word, ...]
Reasons = dict[str, Words]


class WordLists(Section):
    """Words of a series description by what they mean."""

    t1: Words
    t2: Words
    flair: Words
    contrast: Words
    """With contrast."""
    native: Words
    """Without contrast."""
    neutral: Words
    """Hold a word of contrast or native and mean neither."""
    allowed: Words
    """Found before an exclusion, they lift it."""
    no_agent: Words
    """In the tag ContrastBolusAgent: there was none."""


class Timing(Section):
    """Limits, in ms and inclusive, of a sequence's numbers."""

    echo_ms: Limits
    repetition_ms: Limits
    inversion_ms: Limits


class TimingTable(Section):
    """Limits of each weighting."""

    t1: Timing
    t2: Timing
    flair: Timing


class SequenceRule(Section):
    """The whole rule."""

    format: Literal["brainfed-sequences-0"]
    min_slices: int = Field(ge=2, le=1000)
    """A series with fewer is no volume of a head."""
    words: WordLists
    excluded: Reasons
    """Words of a description that exclude, by reason."""
    excluded_when_derived: Reasons
    """Words that exclude where the image type says DERIVED."""
    image_types: Reasons
    """Values of ImageType that exclude."""
    scanning_sequences: Reasons
    """Values of ScanningSequence that exclude."""
    limits: TimingTable

    @model_validator(mode="after")
    def _one_meaning_a_word(self) -> Self:
        seen: dict[Tokens, str] = {}
        for name in ("contrast", "native", "neutral"):
            for word in getattr(self.words, name):
                other = seen.setdefault(tokens(word), name)
                if other != name:
                    raise ValueError(f'"{word}" stands under {other} and under {name}')
        return self

    @functools.cached_property
    def weightings(self) -> Phrases:
        """Finds t1, t2, flair."""
        return Phrases({name: getattr(self.words, name) for name in ("t1", "t2", "flair")})

    @functools.cached_property
    def contrasts(self) -> Phrases:
        """Finds contrast, native, neutral."""
        names = ("contrast", "native", "neutral")
        return Phrases({name: getattr(self.words, name) for name in names})

    @functools.cached_property
    def exclusions(self) -> Phrases:
        """Finds reasons to exclude, and what lifts them (meaning: the empty text)."""
        return Phrases({**self.excluded, "": self.words.allowed})

    @functools.cached_property
    def derived_exclusions(self) -> Phrases:
        """Likewise, for derived series."""
        return Phrases({**self.excluded_when_derived, "": self.words.allowed})

    @functools.cached_property
    def no_agents(self) -> frozenset[Tokens]:
        """The texts that name no agent."""
        return frozenset(tokens(word) for word in self.words.no_agent)


@functools.cache
def default_rule() -> SequenceRule:
    """The rule that comes with brainfed."""
    return _validate(_default_content(), _WHERE)


def parse_rule(data: bytes, where: str | Path) -> SequenceRule:
    """Read a site's rule, and lay it over the default one.

    Numbers replace those of the default rule; words come in addition, and a word leaves the default
    lists (of `words`, or of the exclusions) in which the site doesn't have it.

    Args:
        data: UTF-8 TOML, at most 256 KiB.
        where: Name for messages.

    Raises:
        ScanError: Not TOML, an unknown key, a wrong value, or a word with two meanings.
    """
    if len(data) > MAX_RULE_BYTES:
        raise ScanError(
            "The rule of sequences is too large",
            expected=f"at most {MAX_RULE_BYTES} B",
            found=f"{len(data)} B",
            where=where,
        )
    try:
        content = tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ScanError(
            "The rule of sequences is not a TOML file",
            found=error,
            where=where,
            hint="mend the line it names",
        ) from None
    merged = _default_content()
    for table in (
        "words",
        "excluded",
        "excluded_when_derived",
        "image_types",
        "scanning_sequences",
    ):
        if isinstance(content.get(table), dict):
            content[table] = _lay_over(merged[table], content[table])
    if isinstance(content.get("limits"), dict):
        content["limits"] = {**merged["limits"], **content["limits"]}
    if "format" not in content:
        del merged["format"]  # a site's file says itself what it is
    return _validate({**merged, **content}, where)


def _default_content() -> dict[str, Any]:
    return tomllib.loads(
        importlib.resources.files("brainfed.core").joinpath("sequences.toml").read_text("utf-8")
    )


def _lay_over(ours: dict[str, list[str]], theirs: dict[str, Any]) -> dict[str, Any]:
    """Add their words to our lists, and take them out of those where they don't have them."""
    named = {
        tokens(word)
        for words in theirs.values()
        if isinstance(words, list)
        for word in words
        if isinstance(word, str)
    }
    kept = {key: [w for w in words if tokens(w) not in named] for key, words in ours.items()}
    added = {
        key: [*kept.get(key, []), *words] if isinstance(words, list) else words
        for key, words in theirs.items()
    }
    return {**kept, **added}


def _validate(content: dict[str, Any], where: str | Path) -> SequenceRule:
    try:
        # Through JSON, where strict typing still lets a list be a tuple.
        return SequenceRule.model_validate_json(json.dumps(content, default=str), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        unknown = first["type"] == "extra_forbidden"
        raise ScanError(
            f"The rule of sequences has an unknown key `{key}`"
            if unknown
            else f"The rule of sequences has a wrong `{key or 'word'}`",
            expected=None if unknown else first["msg"].removeprefix("Value error, "),
            where=where,
            hint=_HINT,
        ) from None
