"""Screening: what the coordinator looks at before an update counts, in one pass over the values.

Everything comes from the scalar products of the sites' changes, summed in float64 stretch by
stretch in the order of the file. No bit of the global weights depends on them. They show what is
far from the others; what is near to the others and wrong all the same they can't show
(`docs/explanation/robustness.md`).
"""

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

PIECE = 2**14
"""Values whose products are summed at a time; they fit a processor's cache."""

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


class Products:
    """Scalar products of all sites' changes, `(site, site)`."""

    def __init__(self, n_sites: int) -> None:
        self.matrix: Matrix = np.zeros((n_sites, n_sites))
        self._changes = np.empty((n_sites, PIECE))

    def add(self, parent: Values, updates: Values) -> None:
        """Add a stretch: values `(n,)` that came, and `(site, n)` of the updates."""
        for start in range(0, len(parent), PIECE):
            piece = slice(start, start + PIECE)
            before = parent[piece].astype(np.float64)
            changes = self._changes[:, : len(before)]
            np.copyto(changes, updates[:, piece])  # quicker than a subtraction that converts
            changes -= before
            self.matrix += changes @ changes.T

    @property
    def distances(self) -> Matrix:
        """Euclidean distances between the updates, `(site, site)`."""
        own = np.diag(self.matrix)
        squared = own[:, None] + own[None, :] - 2 * self.matrix
        # What the subtraction leaves of equal updates is rounding.
        squared[squared < 1e-12 * (own[:, None] + own[None, :])] = 0
        return np.sqrt(squared)


def cosine_to_others(products: Matrix, weights: Sequence[int], site: int) -> float | None:
    """Cosine between a site's change and the weighted mean of the others'."""
    w = np.array(weights, np.float64)
    w[site] = 0
    along = float(products[site] @ w)
    length = float(np.sqrt(products[site, site]) * np.sqrt(max(0.0, float(w @ products @ w))))
    return along / length if length > 0 else None


def screen(
    products: Products, weights: Sequence[int], reported: Sequence[Reported]
) -> tuple[Screened, ...]:
    """Norm, cosine and flags of each update, in the order of the sites."""
    norms = np.sqrt(np.diag(products.matrix))
    distances = products.distances
    rows = []
    for site, own in enumerate(reported):
        cosine = cosine_to_others(products.matrix, weights, site)
        others = np.delete(norms, site)
        flags = [
            *_of_the_change(float(norms[site]), others, cosine),
            *([Flag.COPY] if (np.delete(distances[site], site) == 0).any() else []),
            *_of_the_report(own),
        ]
        rows.append(Screened(float(norms[site]), cosine, tuple(flags)))
    return tuple(rows)


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
