"""The vectors that another implementation can run, against the code that is used."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainfed.core import rules
from brainfed.core.averaging import capped
from brainfed.plan import Aggregation, Rule
from tests.core import averaging_vectors, plain_rules

CASES = json.loads(averaging_vectors.PATH.read_text())["cases"]


def values(text: str) -> np.ndarray:
    return np.array([int(word, 16) for word in text.split()], "<u4").view("<f4")


def text_of(array: np.ndarray) -> str:
    return " ".join(f"{word:08x}" for word in array.view("<u4").tolist())


def settings_of(case: dict[str, Any]) -> Aggregation:
    return Aggregation.model_validate(case["settings"] | {"rule": Rule(case["settings"]["rule"])})


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_the_rules_give_the_bits_of_the_vectors(case) -> None:
    settings = settings_of(case)
    weights = capped([site["n"] for site in case["sites"]], settings.max_weight_fraction)
    found, state = rules.apply(
        settings,
        values(case["parent"]),
        [values(site["values"]) for site in case["sites"]],
        weights,
        [values(case["state"][word]) for word in settings.rule.state if case["state"]],
    )
    assert list(weights) == case["weights"]
    assert text_of(found) == case["expected"]
    after = dict(zip(settings.rule.state, map(text_of, state), strict=True))
    assert after == case["expected_state"]


def test_the_file_is_what_the_plain_rules_write() -> None:
    assert averaging_vectors.PATH.read_text() == averaging_vectors.text()


def test_the_vectors_hold_every_rule_and_every_setting_that_changes_bits() -> None:
    named = {name for case in CASES for name in case["settings"]}
    assert {case["settings"]["rule"] for case in CASES} == {str(rule) for rule in Rule}
    assert named == set(Aggregation.model_fields) - {"weights"}


@given(
    st.sampled_from(list(Rule)),
    st.integers(5, 9),
    st.sampled_from([0.0, 0.05, 1.0]),
    st.integers(0, 2**32 - 1),
)
def test_the_rules_give_the_bits_of_the_plain_ones_on_any_values(rule, n, clip, seed) -> None:
    random = np.random.default_rng(seed)
    parent = random.normal(0, 0.1, 7).astype(np.float32)
    updates = [parent + random.normal(0, 0.05, 7).astype(np.float32) for _ in range(n)]
    counts = random.integers(1, 500, n).tolist()
    settings = Aggregation(rule=rule, clip_norm=clip, max_weight_fraction=0.3)
    weights, expected, _ = plain_rules.apply(
        settings.model_dump(), parent.tolist(), [u.tolist() for u in updates], counts, {}
    )
    found, _ = rules.apply(settings, parent, updates, weights)
    assert list(capped(counts, 0.3)) == weights
    assert text_of(found) == plain_rules.to_hex(expected)
