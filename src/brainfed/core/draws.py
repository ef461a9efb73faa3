"""Random numbers as functions of a seed and a place, with no state between them.

Two places that differ in any number have nothing in common, and nothing depends on what was drawn
before. The bits are numpy's; another version of it may give others.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Stream(IntEnum):
    """What numbers are drawn for; those of different streams have nothing in common."""

    SEED = 0
    ALL = 1
    WITH_TUMOUR = 2
    WITHOUT = 3
    COORDINATES = 4
    PLACE = 5
    DROPOUT = 6


def random_of(seed: int, stream: Stream, first: int, second: int = 0) -> np.random.Generator:
    """The generator of a place; all numbers are at least 0."""
    return np.random.default_rng((seed, stream, first, second))


def sample_seed(seed: int, step: int, row: int) -> int:
    """The seed of one sample of a step, from 0 to 2^63 - 1."""
    words = np.random.SeedSequence((seed, Stream.SEED, step, row))
    return int(words.generate_state(1, np.uint64)[0]) >> 1


def dropout_seed(seed: int, step: int, rank: int) -> int:
    """The seed of what one process drops in a step, from 0 to 2^63 - 1."""
    words = np.random.SeedSequence((seed, Stream.DROPOUT, step, rank))
    return int(words.generate_state(1, np.uint64)[0]) >> 1


class Shuffled:
    """Numbers in random order, used up before they are shuffled again, without end."""

    def __init__(self, numbers: NDArray[np.intp], seed: int, stream: Stream) -> None:
        self._numbers, self._seed, self._stream = numbers, seed, stream
        self._epoch, self._order = -1, numbers

    def take(self, first: int, n: int) -> list[int]:
        """The `n` numbers from position `first` of the endless row."""
        return [self._at(position) for position in range(first, first + n)]

    def _at(self, position: int) -> int:
        epoch, place = divmod(position, len(self._numbers))
        if epoch != self._epoch:
            random = random_of(self._seed, self._stream, epoch)
            self._epoch, self._order = epoch, random.permutation(self._numbers)
        return int(self._order[place])
