"""`brainfed withdraw` as it is typed."""

from pathlib import Path

import pytest

from brainfed.steps.aggregate import aggregate
from tests.cli.typed import Typed, too_wide
from tests.federation import TODAY, Small
from tests.steps.test_withdraw import C, a_history, send


def flat(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture
def small(tmp_path: Path) -> Small:
    """hospital-c took part in rounds 2 and 3 of 3."""
    return a_history(tmp_path, "ab", "abc", "abc")


def test_it_says_which_weights_are_free_and_what_must_be_trained_again(
    typed: Typed, small: Small
) -> None:
    words = ("withdraw", C, "--from-round", "2", "--workspace", small.coordinator.root)
    answer = typed(*words)
    assert answer.code == 0
    assert too_wide(answer.out) == []
    text = flat(answer.out)
    assert "hospital-c took part in rounds 2, 3." in text
    assert "The last global weights free of it are those of round 1." in text
    assert "To be trained again without it: rounds 2, 3." in text
    assert "brainfed start PLAN --weights FILE" in text
    assert f"brainfed revoke {C}" in text
    assert "--again" not in text
    as_json = typed(*words, "--json").json
    assert as_json["last_free"] == 1
    assert as_json["train_again"] == [2, 3]
    assert len(as_json["files"]) == 6


def test_from_a_later_round_on_it_says_that_the_weights_before_still_carry_the_site(
    typed: Typed, small: Small
) -> None:
    answer = typed("withdraw", C, "--from-round", "3", "--workspace", small.coordinator.root)
    text = flat(answer.out)
    assert "the weights of round 2 still carry it" in text
    assert "Free of it is only what begins again in round 2." in text
    assert "its weights still carry it, from earlier rounds" in text
    assert f"brainfed aggregate --again --without {C} --reason withdrew" in text
    assert "are then free of it" not in text


def test_of_its_first_round_alone_averaging_again_is_enough(typed: Typed, tmp_path: Path) -> None:
    small = a_history(tmp_path, "ab", "abc")
    send(small, 3, "a")
    answer = typed("withdraw", C, "--from-round", "2", "--workspace", small.coordinator.root)
    text = flat(answer.out)
    assert "its weights are then free of it" in text
    assert "of hospital-a: they are trained again" in text


def test_a_site_that_took_part_in_nothing_is_only_to_be_revoked(
    typed: Typed, tmp_path: Path
) -> None:
    small = a_history(tmp_path, "ab")
    send(small, 2, "abc")
    answer = typed("withdraw", C, "--from-round", "2", "--workspace", small.coordinator.root)
    text = flat(answer.out)
    assert "took part in no closed round: no global weights carry it" in text
    assert f"brainfed aggregate --without {C} --reason withdrew" in text
    assert "hand-over" not in text
    aggregate(small.coordinator, today=TODAY)
    later = typed("withdraw", C, "--from-round", "2", "--workspace", small.coordinator.root)
    assert "took part in round 2" in flat(later.out)


def test_a_name_that_is_not_there_is_a_usage_error(typed: Typed, small: Small) -> None:
    words = ("withdraw", "hospital-x", "--from-round", "1", "--workspace", small.coordinator.root)
    answer = typed(*words, "--json")
    assert answer.code == 2
    assert "hospital-c" in answer.json["error"]["expected"]
