"""The written rule: its words, its file, and a site's own over it."""

import importlib.resources
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainfed.core.sequence_rule import (
    MAX_RULE_BYTES,
    Phrases,
    SequenceRule,
    Timing,
    TimingTable,
    WordLists,
    default_rule,
    parse_rule,
    tokens,
)
from brainfed.errors import BrainfedError, ScanError

FORMAT = 'format = "brainfed-sequences-0"\n'


def parsed(text: str) -> object:
    return parse_rule((FORMAT + text).encode(), "my-rule.toml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("T1_SE-tra", "t 1 se tra"),
        ("Après  GADO", "apres gado"),
        ("AXT1", "ax t 1"),
        ("3DT1w", "3 d t 1 w"),
        ("part12 pat2", "part 12 pat 2"),
        ("kontrastsız", "kontrastsiz"),
        ("T1+C", "t 1 + c"),
        ("C-", "c -"),
        ("T1-C", "t 1 c"),
        ("T2*", "t 2 *"),
        ("造影後", "造 影 後"),
        ("Ｔ１", "t 1"),
        ("", ""),
    ],
)
def test_a_text_is_parted_into_words(text: str, words: str) -> None:
    assert " ".join(tokens(text)) == words


@given(st.text(max_size=60))
def test_any_text_is_parted_and_its_words_stay_what_they_are(text: str) -> None:
    words = tokens(text)
    assert all(word and not word.isspace() for word in words)
    assert tokens(" ".join(w for w in words if w != "-")) == tuple(w for w in words if w != "-")


def test_of_phrases_that_overlap_the_longest_counts() -> None:
    phrases = Phrases({"with": ["contrast"], "without": ["w/o contrast"]})
    assert phrases.find("T1 W/O CONTRAST") == (("without", "w/o contrast"),)
    assert phrases.find("T1 CONTRAST w/o contrast") == (
        ("without", "w/o contrast"),
        ("with", "contrast"),
    )


def test_a_complete_copy_of_our_rule_is_our_rule() -> None:
    ours = importlib.resources.files("brainfed.core").joinpath("sequences.toml").read_bytes()
    assert parse_rule(ours, "copy") == default_rule()


def test_a_file_that_changes_nothing_is_our_rule() -> None:
    assert parsed("") == default_rule()


def test_a_sites_word_leaves_the_other_lists() -> None:
    rule = parsed('[words]\nnative = ["Post"]\n')
    assert rule.contrasts.find("T1 post") == (("native", "Post"),)
    assert default_rule().contrasts.find("T1 post") == (("contrast", "post"),)


def test_a_site_lifts_an_exclusion() -> None:
    rule = parsed('[words]\nallowed = ["sella"]\n')
    assert [reason for reason, _ in default_rule().exclusions.find("T1 sella")] == [
        "another part of the body"
    ]
    assert [reason for reason, _ in rule.exclusions.find("T1 sella")] in ([""], [])


def test_a_site_adds_an_exclusion_and_changes_a_number() -> None:
    rule = parsed('min_slices = 30\n[excluded]\n"a trial of ours" = ["studie x"]\n')
    assert rule.min_slices == 30
    assert rule.exclusions.find("T1 Studie X") == (("a trial of ours", "studie x"),)
    assert rule.exclusions.find("T1 localizer")


def test_a_site_replaces_the_limits_of_one_weighting() -> None:
    limits = "echo_ms = [0, 20]\nrepetition_ms = [1, 900]\ninversion_ms = [0, 0]\n"
    rule = parsed(f"[limits.t1]\n{limits}")
    assert rule.limits.t1.echo_ms == (0, 20)
    assert rule.limits.t2 == default_rule().limits.t2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("minimum = 3", "unknown key `minimum`"),
        ('[words]\nt3 = ["t3"]', "unknown key `words.t3`"),
        ("[limits.pd]", "unknown key `limits.pd`"),
        ("min_slices = 1", "wrong `min_slices`"),
        ('min_slices = "10"', "wrong `min_slices`"),
        ('[words]\nt1 = "t1"', "wrong `words.t1`"),
        ('[words]\nt1 = ["-"]', "wrong `words.t1"),
        ('[words]\ncontrast = ["x y"]\nnative = ["x-y"]', "wrong `word`"),
        ("words = 3", "wrong `words`"),
        ("[limits.t1]\necho_ms = [9, 1]\nrepetition_ms = [1, 2]\ninversion_ms = [0, 1]", "echo_ms"),
        ("[limits.t1]\necho_ms = [0, 1]", "repetition_ms"),
        ("a = ", "not a TOML file"),
        ('[excluded]\n"a" = [3]', "wrong `excluded.a"),
    ],
)
def test_a_wrong_rule_is_refused_by_name(text: str, words: str) -> None:
    with pytest.raises(ScanError) as caught:
        parsed(text)
    assert words in caught.value.message
    assert caught.value.where == "my-rule.toml"


def test_a_rule_without_its_format_is_refused() -> None:
    with pytest.raises(ScanError, match="format"):
        parse_rule(b"min_slices = 12\n", "rule")


def test_a_rule_of_another_format_or_size_is_refused() -> None:
    with pytest.raises(ScanError, match="wrong `format`"):
        parse_rule(b'format = "brainfed-sequences-9"\n', "rule")
    with pytest.raises(ScanError, match="too large"):
        parse_rule(b"#" * (MAX_RULE_BYTES + 1), "rule")


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_a_rule_or_one_of_our_errors(data: bytes) -> None:
    try:
        parse_rule(data, "rule")
    except BrainfedError as error:
        assert isinstance(error, ScanError)
    else:
        raise AssertionError("hypothesis does not write a whole rule")


def test_every_key_of_the_rule_is_on_its_page() -> None:
    root = Path(__file__).resolve().parents[2]
    page = (root / "docs" / "formats" / "sequences.md").read_text("utf-8")
    table = page.split("## Keys")[1].split("## How words")[0]
    nested = {"words": WordLists, "limits": TimingTable}
    for name in SequenceRule.model_fields:
        inner = nested.get(name)
        keys = [f"{name}.{key}" for key in inner.model_fields] if inner else [name]
        for key in keys:
            assert f"`{key}`" in table or f'`{key}."reason"`' in table, key
    assert all(f"`{key}`" in table for key in Timing.model_fields)
    for example in (page, (root / "docs" / "how-to" / "dicom.md").read_text("utf-8")):
        for block in re.findall(r"```toml\n(.*?)```", example, re.DOTALL):
            assert parse_rule(block.encode(), "page") != default_rule()
