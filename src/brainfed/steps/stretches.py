"""Go through many weight files at once, stretch by stretch, in memory that doesn't grow.

All files hold the same tensors in the same order without a gap, so a stretch of values is the same
piece of every file. Aggregation and audit stand on this one walk: the first reads files that are
checked on the way, the second files that have been checked.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from brainfed.core.rules import PIECE, Known, Whole, combine, needs_whole
from brainfed.errors import MalformedError
from brainfed.formats import weights as weight_files
from brainfed.plan import Aggregation

ROOM_VALUES = 2**22
"""Values of all files together that lie in memory (16 MiB)."""
MOST_VALUES = 2**18
"""Of one file."""

Values = npt.NDArray[np.float32]
Combined = tuple[Values, tuple[Values, ...]]
Look = Callable[[Values, Values], object]
Tell = Callable[[int], object]


class Source(Protocol):
    """Where the values of one file come from."""

    def rewind(self) -> None:
        """Go back to the first value."""

    def read_into(self, values: Values) -> None:
        """Fill an array with the next values."""


class OpenFile:
    """The values of a file that has been checked."""

    def __init__(self, stream: BufferedReader, path: Path, first_value: int = 0) -> None:
        self._stream, self._path = stream, path
        self._start = weight_files.data_start(path) + 4 * first_value
        self.rewind()

    def rewind(self) -> None:
        """See `Source`."""
        self._stream.seek(self._start)

    def read_into(self, values: Values) -> None:
        """See `Source`."""
        if self._stream.readinto(values.view(np.uint8).data) != values.nbytes:
            raise MalformedError("The weight file has become shorter", where=self._path)


@dataclass(frozen=True)
class Sources:
    """The files of one aggregation."""

    parent: Source
    updates: Sequence[Source]
    """In name order of their sites."""
    state: Sequence[Source] = ()
    """Of the round before, one for each word of the rule; none in its first round."""

    def __iter__(self) -> Iterator[Source]:
        yield from (self.parent, *self.updates, *self.state)


@dataclass(frozen=True)
class Stretch:
    """What was computed of one stretch."""

    start: int
    """Of the first value."""
    result: Values
    """The new global values."""
    state: tuple[Values, ...]
    """The rule's new state."""


def n_in_a_stretch(n_sources: int, n_values: int) -> int:
    """Values of each file that are read at a time, a multiple of `PIECE`."""
    most = min(MOST_VALUES, max(PIECE, ROOM_VALUES // n_sources // PIECE * PIECE))
    return min(most, -(-n_values // PIECE) * PIECE)


def stretches(
    settings: Aggregation,
    sources: Sources,
    weights: Sequence[int],
    n_values: int,
    *,
    threads: ThreadPoolExecutor,
    n_threads: int,
    look: Look = lambda parent, updates: None,
    tell: Tell = lambda _: None,
) -> Iterator[Stretch]:
    """Combine the updates by the plan's rule, from the first value to the last.

    The bits depend neither on the number of threads nor on the length of a stretch.

    Args:
        settings: The rule.
        sources: What is read.
        weights: Of the sites.
        n_values: In each file.
        threads: Who reads and computes.
        n_threads: How many they are.
        look: Shown the values that came and `(site, n)` of the updates, stretch after stretch; the
            arrays hold other values afterwards.
        tell: Told of values that are finished, of one pass or two together.

    Raises:
        QuorumError: Too few sites for krum.
        FileRefusedError: A file is not what it should be.
    """
    every = list(sources)
    rows = np.empty((len(every), n_in_a_stretch(len(every), n_values)), "<f4")
    known = Known((1.0,) * len(sources.updates))
    begun = 0
    if sources.updates and needs_whole(settings):
        whole = Whole(settings, len(sources.updates))
        for start, read in _read(every, rows, n_values, threads, n_threads):
            parent, updates, _ = _parted(read, sources)
            _all(
                threads.map(
                    lambda index, p=parent, u=updates: whole.add(index, p, u),
                    range(whole.n_sums),
                )
            )
            tell(start + len(parent))
        known, begun = whole.known(), n_values
        for source in every:
            source.rewind()
    for start, read in _read(every, rows, n_values, threads, n_threads):
        parent, updates, state = _parted(read, sources)

        def part(
            piece: slice, p: Values = parent, u: Values = updates, s: Values = state
        ) -> Combined:
            return combine(
                settings,
                p[piece],
                [row[piece] for row in u],
                weights,
                tuple(row[piece] for row in s),
                known=known,
            )

        seen = threads.submit(look, parent, updates)  # first: it takes the longest
        found = list(threads.map(part, _pieces(len(parent), n_threads)))
        seen.result()
        yield Stretch(
            start,
            np.concatenate([result for result, _ in found]),
            tuple(
                np.concatenate(words) for words in zip(*(kept for _, kept in found), strict=True)
            ),
        )
        tell(begun + start + len(parent))


def _read(
    every: Sequence[Source],
    rows: Values,
    n_values: int,
    threads: ThreadPoolExecutor,
    n_threads: int,
) -> Iterator[tuple[int, Values]]:
    """Fill the rows, stretch after stretch; each thread reads its own files."""

    def fill(first: int, n: int) -> None:
        for source, row in zip(every[first::n_threads], rows[first::n_threads], strict=True):
            source.read_into(row[:n])

    for start in range(0, n_values, rows.shape[1]):
        n = min(rows.shape[1], n_values - start)
        _all(threads.map(fill, range(n_threads), [n] * n_threads))
        yield start, rows[:, :n]


def _parted(read: Values, sources: Sources) -> tuple[Values, Values, Values]:
    last = 1 + len(sources.updates)
    return read[0], read[1:last], read[last:]


def _pieces(n_values: int, n_threads: int) -> list[slice]:
    """One part for each thread, each but the last a multiple of `PIECE`."""
    n = max(1, -(-n_values // (n_threads * PIECE))) * PIECE
    return [slice(start, min(start + n, n_values)) for start in range(0, n_values, n)]


def _all(results: Iterator[object]) -> None:
    """Wait for all; the first error is raised."""
    for _ in results:
        pass
