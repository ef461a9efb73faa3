"""Which of many words stand in a stream of bytes, whatever their case.

It finds what stands there as text. A word that was written in another way (compressed, encrypted,
as a number, turned round) it doesn't find.
"""

from collections.abc import Collection, Iterable

import numpy as np

SHORTEST = 4
"""Bytes of a word; shorter ones stand in any large file by chance."""
_KEY = 3
"""Bytes by which a place is first looked at."""


def find(blocks: Iterable[bytes], words: Collection[bytes]) -> dict[bytes, int]:
    """The words that stand in a stream, and where each does first.

    A table of all triples of bytes says where a word may begin; only there the word itself is
    compared, so thousands of words cost hardly more than one.

    Args:
        blocks: The stream in pieces of any length.
        words: Each at least `SHORTEST` bytes; letters A to Z count as a to z.

    Returns:
        Offset of the first occurrence in bytes, by word in small letters.

    Raises:
        ValueError: A word is too short.
    """
    wanted: dict[bytes, list[bytes]] = {}
    for word in sorted({word.lower() for word in words}):
        if len(word) < SHORTEST:
            raise ValueError(f"a word of {len(word)} bytes")
        wanted.setdefault(word[:_KEY], []).append(word)
    begins = np.zeros(2 ** (8 * _KEY), np.bool_)
    for key in wanted:
        begins[int.from_bytes(key, "little")] = True
    overlap = max((len(word) for ones in wanted.values() for word in ones), default=1) - 1
    found: dict[bytes, int] = {}
    rest, start = b"", 0
    for block in blocks if wanted else ():
        text = rest + block.lower()
        for at in _places(text, begins):
            for word in wanted[text[at : at + _KEY]]:
                if word not in found and text.startswith(word, at):
                    found[word] = start + at
        kept = min(overlap, len(text))
        start += len(text) - kept
        rest = text[len(text) - kept :]
    return found


def _places(text: bytes, begins: np.ndarray) -> list[int]:
    """Where one of the triples begins."""
    values = np.frombuffer(text, np.uint8).astype(np.uint32)
    if values.size < _KEY:
        return []
    keys = values[:-2] | values[1:-1] << 8 | values[2:] << 16
    return [int(at) for at in np.flatnonzero(begins[keys])]


def expected_by_chance(words: Collection[bytes], n_bytes: int) -> float:
    """How many words are to be expected in so many bytes of pure chance.

    The bytes of weights are not pure chance, so this is a rough measure.
    """
    total = 0.0
    for word in {word.lower() for word in words}:
        n_letters = sum(1 for byte in word if ord("a") <= byte <= ord("z"))
        total += n_bytes * 2.0**n_letters / 256.0 ** len(word)
    return total
