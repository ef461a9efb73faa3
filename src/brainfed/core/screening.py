"""Screening: what the coordinator looks at before an update counts, in one pass over the values.

Everything comes from scalar products of the sites' changes, summed in float64 over pieces of one
length, in the order of the file. No bit of the global weights depends on them. They show what is
far from the others; what is near to the others and wrong all the same they can't show
(`docs/explanation/robustness.md`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

MOST_TIMES = 3.0
"""A change this many times as long as the median of the others', or as short, is flagged."""
LEAST_COSINE = -0.05
"""A change that points further away from the others' is flagged; about 0 is two ways at random."""
DICE_LOSS = 0.05
"""A loss of Dice by training that is flagged."""
COUNT_CHANGE = 0.1
"""A change of the count of patients since the site's last update that is flagged."""

ROOM_VALUES = 2**16
"""Values of all sites whose products are summed at a time: as float64 they fit a processor's
cache."""

Matrix = npt.NDArray[np.float64]
Values = npt.NDArray[np.float32]


class Flag(StrEnum):
    """What is unusual about an update."""

    UNCHANGED = "unchanged"
    """It equals the weights that it was trained from."""
    COPY = "copy"
    """It equals another site's update."""
    LARGE = "large"
    SMALL = "small"
    OPPOSED = "opposed"
    """Its change points away from the weighted mean of the others'."""
    WORSE = "worse"
    MORE_PATIENTS = "more-patients"
    """Than the site's enrolment declares."""
    OTHER_COUNT = "other-count"
    """Its patients are over a tenth more or fewer than in the site's update before."""


MEANING = {
    Flag.UNCHANGED: "it equals the weights that came: nothing was trained",
    Flag.COPY: "it equals the update of another site",
    Flag.LARGE: f"its change is over {MOST_TIMES:g} times as long as the others' median: another "
    "rate, a fault, or weights scaled on purpose",
    Flag.SMALL: f"its change is under a {MOST_TIMES:g}rd of the others' median: few steps or none",
    Flag.OPPOSED: "its change points away from the weighted mean of the others': other patients, "
    "wrong labels, or a turned sign",
    Flag.WORSE: f"by its own report training lost over {DICE_LOSS:g} of Dice",
    Flag.MORE_PATIENTS: "it was trained on more patients than the site enrolled with",
    Flag.OTHER_COUNT: "its number of patients changed by over a tenth since its update before",
}
"""What each flag means, and what may be behind it."""


@dataclass(frozen=True, slots=True)
class Reported:
    """What a site says of its own update; None where it doesn't."""

    n_patients: int
    n_enrolled: int | None
    """Patients that its enrolment declares."""
    n_before: int | None
    """Patients of its update in the last round that included it."""
    dice_before: float | None
    dice_after: float | None


@dataclass(frozen=True, slots=True)
class Screened:
    """One update, screened."""

    norm: float
    """Euclidean norm of its change of the weights."""
    cosine: float | None
    """Between its change and the weighted mean of the others'; None alone, or where one is 0."""
    flags: tuple[Flag, ...]


class Sums:
    """What is summed over the values of all changes: squares, and products with their mean."""

    def __init__(self, weights: Sequence[int], *, with_distances: bool = False) -> None:
        """Begin with nothing.

        Args:
            weights: Of the sites, in their order.
            with_distances: Whether products of each site with each other are summed too, which
                takes about as long as all else.
        """
        n_sites = len(weights)
        self._weights = np.array(weights, np.float64)
        self._changes = np.empty((n_sites, max(1, ROOM_VALUES // max(1, n_sites))))
        self.squares = np.zeros(n_sites)
        """Of each site's change."""
        self.along = np.zeros(n_sites)
        """Products of each change with the weighted sum of all."""
        self.total = 0.0
        """The square of that sum."""
        self._products = np.zeros((n_sites, n_sites)) if with_distances else None

    def add(self, parent: Values, updates: Values) -> None:
        """Add a stretch: values `(n,)` that came, and `(site, n)` of the updates."""
        n = self._changes.shape[1]
        for start in range(0, len(parent), n):
            piece = slice(start, start + n)
            before = parent[piece].astype(np.float64)
            changes = self._changes[:, : len(before)]
            np.copyto(changes, updates[:, piece])  # quicker than a subtraction that converts
            changes -= before
            # Not BLAS, whose own threads would wait for those that read and combine.
            together = np.einsum("i,ij->j", self._weights, changes)
            self.squares += np.einsum("ij,ij->i", changes, changes)
            self.along += np.einsum("ij,j->i", changes, together)
            self.total += float(np.einsum("j,j->", together, together))
            if self._products is not None:
                for i, row in enumerate(changes):
                    self._products[i, i:] += np.einsum("ij,j->i", changes[i:], row)

    @property
    def distances(self) -> Matrix | None:
        """Euclidean distances between the updates, `(site, site)`; None where not asked for."""
        if self._products is None:
            return None
        own = np.diag(self._products)
        products = np.triu(self._products) + np.triu(self._products, 1).T
        squared = own[:, None] + own[None, :] - 2 * products
        # What the subtraction leaves of equal updates is rounding.
        squared[squared < 1e-12 * (own[:, None] + own[None, :])] = 0
        return np.sqrt(squared)

    def cosine(self, site: int) -> float | None:
        """Between a site's change and the weighted mean of the others'; None where one is 0."""
        weight, square = float(self._weights[site]), float(self.squares[site])
        along = float(self.along[site]) - weight * square
        others = self.total - 2 * weight * float(self.along[site]) + weight * weight * square
        # What the subtraction leaves of nothing is rounding.
        if square == 0 or others <= 1e-12 * self.total:
            return None
        return along / math.sqrt(square * others)


def screen(sums: Sums, reported: Sequence[Reported]) -> tuple[Screened, ...]:
    """Norm, cosine and flags of each update, in the order of the sites."""
    norms = np.sqrt(sums.squares)
    rows = []
    for site, own in enumerate(reported):
        cosine, norm = sums.cosine(site), float(norms[site])
        flags = [
            *_of_the_change(norm, np.delete(norms, site), cosine),
            *([Flag.COPY] if norm > 0 and _is_twice(sums, site) else []),
            *_of_the_report(own),
        ]
        rows.append(Screened(norm, cosine, tuple(flags)))
    return tuple(rows)


def _is_twice(sums: Sums, site: int) -> bool:
    """Whether another site's sums are the same but for rounding, which no two changes' are."""
    same = np.isclose(sums.squares, sums.squares[site], rtol=1e-12, atol=0)
    same &= np.isclose(sums.along, sums.along[site], rtol=1e-9, atol=0)
    return int(same.sum()) > 1


def _of_the_change(norm: float, others: Matrix, cosine: float | None) -> list[Flag]:
    if norm == 0:
        return [Flag.UNCHANGED]
    found = []
    typical = float(np.median(others)) if len(others) else 0.0
    if typical > 0 and norm > MOST_TIMES * typical:
        found.append(Flag.LARGE)
    if norm < typical / MOST_TIMES:
        found.append(Flag.SMALL)
    if cosine is not None and cosine < LEAST_COSINE:
        found.append(Flag.OPPOSED)
    return found


def _of_the_report(own: Reported) -> list[Flag]:
    found = []
    known = own.dice_before is not None and own.dice_after is not None
    if known and (own.dice_before or 0) - (own.dice_after or 0) > DICE_LOSS:
        found.append(Flag.WORSE)
    if own.n_enrolled is not None and own.n_patients > own.n_enrolled:
        found.append(Flag.MORE_PATIENTS)
    if own.n_before is not None and abs(own.n_patients - own.n_before) > (
        COUNT_CHANGE * own.n_before
    ):
        found.append(Flag.OTHER_COUNT)
    return found
