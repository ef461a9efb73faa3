"""How well one scan explains another: normalised mutual information, and a search by it.

The sum of the entropies of both scans over that of the pair (C. Studholme et al., An overlap
invariant entropy measure of 3D medical image alignment, Pattern Recognition 1999): 1 where they
know nothing of each other, 2 where each determines the other. A few thousand points tell it well
enough and take under a millisecond, so thousands of positions can be tried.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from brainfed.core.rigid import Square, Vector, motion
from brainfed.core.volume import Floats, Geometry, Mask

N_BINS = 24
MIN_OVERLAP = 0.5
"""Of the smaller head; a position with less is no candidate."""
STEPS = (8.0, 4.0, 2.0, 1.0)
"""Of the climb, in degrees and millimetres."""


@dataclass(frozen=True, slots=True)
class View:
    """One side of a comparison: a scan, where it counts, and where its head is."""

    values: Floats
    """`(z, y, x)`, like the masks."""
    region: Mask
    head: Mask
    geometry: Geometry

    def to_millimetres(self) -> Square:
        """The matrix from voxel `(x, y, z)` to LPS millimetres."""
        result = np.eye(4)
        axes = np.array(self.geometry.direction).reshape(3, 3)
        result[:3, :3] = axes * self.geometry.spacing_mm
        result[:3, 3] = self.geometry.origin_mm
        return result

    def binned(self, blur_mm: float) -> npt.NDArray[np.intp]:
        """The smoothed values in bins of equal width; `N_BINS` where the scan doesn't count."""
        sigma = [blur_mm / mm for mm in self.geometry.spacing_mm[::-1]]
        smooth = gaussian_filter(self.values, sigma, mode="nearest", truncate=3.0)
        low, high = np.quantile(smooth[self.region], (0.001, 0.999))
        scaled = (smooth - low) * (N_BINS / max(high - low, np.finfo(np.float32).tiny))
        return np.where(self.region, np.clip(scaled, 0, N_BINS - 1), N_BINS).astype(np.intp)


class Similarity:
    """Scores positions of one scan in another, by points drawn from the first.

    Args:
        fixed: The scan whose points are drawn, from its region.
        moving: The scan in which they are looked up.
        blur_mm: Both are smoothed by this standard deviation.
        n_points: So many are drawn, always the same.
    """

    def __init__(self, fixed: View, moving: View, *, blur_mm: float, n_points: int) -> None:
        region = np.flatnonzero(fixed.region)
        some = np.random.default_rng(1).choice(region, min(n_points, region.size), replace=False)
        places = np.stack([*np.unravel_index(some, fixed.region.shape)[::-1], np.ones(some.size)])
        self._points = fixed.to_millimetres() @ places
        self._bins = fixed.binned(blur_mm).ravel()[some] * (N_BINS + 1)
        self._in_head = fixed.head.ravel()[some]
        self._moving = moving.binned(blur_mm).ravel()
        self._head = moving.head.ravel()
        self._size = np.array(moving.geometry.size)[:, None]
        self._steps = np.array([1, self._size[0, 0], self._size[0, 0] * self._size[1, 0]])
        self._to_index = np.linalg.inv(moving.to_millimetres())
        volumes = [
            np.count_nonzero(view.head) * float(np.prod(view.geometry.spacing_mm))
            for view in (fixed, moving)
        ]
        n_head = int(np.count_nonzero(self._in_head))
        self._n_smaller = max(1.0, n_head * min(1.0, volumes[1] / max(volumes[0], 1.0)))

    def measure(self, square: Square) -> tuple[float, float]:
        """Normalised mutual information, and the share of the smaller head that lies in the other.

        Args:
            square: Maps a point of the fixed scan to one of the moving scan.
        """
        index = np.rint((self._to_index @ square)[:3] @ self._points).astype(np.intp)
        within = np.all((index >= 0) & (index < self._size), axis=0)
        places = self._steps @ index[:, within]
        overlap = np.count_nonzero(self._head[places] & self._in_head[within]) / self._n_smaller
        pairs = self._bins[within] + self._moving[places]
        joint = np.bincount(pairs, minlength=N_BINS * (N_BINS + 1))
        return _normalised(joint.reshape(N_BINS, N_BINS + 1)[:, :N_BINS]), overlap

    def score(self, square: Square) -> float:
        """What a search maximises: the information, or below it the overlap where that is small."""
        information, overlap = self.measure(square)
        return information if overlap >= MIN_OVERLAP else overlap


def search(
    similarity: Similarity, starts: Sequence[Vector], centre: Vector, *, n_climbs: int = 4
) -> Vector:
    """Score all starts, climb from the best, and give the highest top."""
    scores = [similarity.score(motion(start, centre)) for start in starts]
    best = np.argsort(scores)[::-1][:n_climbs]
    tops = [climb(similarity, starts[i], centre, steps=STEPS) for i in best]
    return max(tops, key=lambda top: top[0])[1]


def climb(
    similarity: Similarity, start: Vector, centre: Vector, *, steps: Sequence[float]
) -> tuple[float, Vector]:
    """Walk uphill along each of the six axes, with ever smaller steps, as long as it goes up.

    Args:
        similarity: What to climb on.
        start: Where from.
        centre: What the turns are about.
        steps: In degrees and millimetres, falling.

    Returns:
        The score and the place of the top.
    """
    best, vector = similarity.score(motion(start, centre)), start
    for step in steps:
        for _ in range(12):
            before, origin = best, vector
            for axis in range(6):
                for move in (step, -step):
                    tried = vector.copy()
                    tried[axis] += move
                    score = similarity.score(motion(tried, centre))
                    if score > best:
                        best, vector = score, tried
                        break
            if best <= before:
                break
            # The whole round's way once more: valleys are seldom along an axis.
            tried = 2 * vector - origin
            score = similarity.score(motion(tried, centre))
            if score > best:
                best, vector = score, tried
    return best, vector


def _normalised(joint: npt.NDArray[np.intp]) -> float:
    total = joint.sum()
    if total == 0:
        return 1.0

    def entropy(counts: npt.NDArray[np.intp]) -> float:
        shares = counts[counts > 0] / total
        return -float(shares @ np.log(shares))

    of_pair = entropy(joint.ravel())
    return (entropy(joint.sum(0)) + entropy(joint.sum(1))) / of_pair if of_pair > 0 else 1.0
