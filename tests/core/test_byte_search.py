"""Words in bytes: all that stand there are found, wherever the pieces are cut."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainfed.core.byte_search import expected_by_chance, find

LETTERS = st.text("abAB01", min_size=4, max_size=7).map(str.encode)


@settings(max_examples=25, deadline=None)
@given(
    data=st.text("abAB01", max_size=80).map(str.encode),
    words=st.lists(LETTERS, max_size=6),
    cut=st.integers(1, 20),
)
def test_it_finds_what_a_plain_search_finds(data: bytes, words: list[bytes], cut: int) -> None:
    blocks = [data[at : at + cut] for at in range(0, len(data), cut)]
    right = {w.lower(): data.lower().find(w.lower()) for w in words if w.lower() in data.lower()}
    assert find(blocks, words) == right


def test_a_word_across_many_short_pieces_is_found_with_its_place() -> None:
    assert find([b"...M", b"u", b"", b"e", b"ller"], [b"mUELLER"]) == {b"mueller": 3}


def test_a_word_of_three_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="3 bytes"):
        find([b"abc"], [b"abc"])


def test_chance_is_what_is_counted_in_random_bytes() -> None:
    data = np.random.default_rng(0).integers(0, 256, 2**22, np.uint8).tobytes()
    words = [f"{n:04d}".encode() for n in range(10_000)]
    expected = expected_by_chance(words, len(data))
    assert expected == pytest.approx(10_000 * 2**22 / 2**32)
    assert abs(len(find([data], words)) - expected) < 5 * expected**0.5


def test_letters_in_two_cases_are_twice_as_likely() -> None:
    assert expected_by_chance([b"ABCD"], 2**32) == pytest.approx(16)
    assert expected_by_chance([b"1234"], 2**32) == pytest.approx(1)
