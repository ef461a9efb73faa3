"""The rules of aggregation once more, from `docs/formats/averaging.md`, in plain Python.

Slow and independent of brainfed: Python's floats are float64, `fractions` is exact, `struct` rounds
to float32. It makes the test vectors, and the tests hold it against the code that is used.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

Values = list[float]
Settings = Mapping[str, Any]


def f32(value: float) -> float:
    """The nearest float32, ties to even."""
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def f64(value: Fraction) -> float:
    """The nearest float64, ties to even: Python divides integers so."""
    return value.numerator / value.denominator


def to_hex(values: Sequence[float]) -> str:
    """The bits of float32 values."""
    return " ".join(struct.pack(">f", value).hex() for value in values)


def from_hex(text: str) -> Values:
    """See `to_hex`."""
    return [float(struct.unpack(">f", bytes.fromhex(word))[0]) for word in text.split()]


def capped(counts: Sequence[int], most: float) -> list[int]:
    """Weights of which none has more than a share of the total."""
    share = Fraction(str(most))
    for level in range(max(counts), 0, -1):
        lowered = [min(count, level) for count in counts]
        if level <= share * sum(lowered):
            break
    return lowered


def mean(column: Sequence[float], weights: Sequence[int]) -> float:
    """The weighted mean of one place in float64, every step exact and then rounded."""
    total = column[0] * weights[0]
    for value, weight in list(zip(column, weights, strict=True))[1:]:
        added = Fraction(total) + Fraction(value) * weight
        # A sum of nothing but minus zeros keeps the sign, which a fraction has not.
        total = f64(added) if added else total + value * weight
    quotient = Fraction(total) / sum(weights)
    return f64(quotient) if quotient else total


def squared_distance(a: Values, b: Values) -> float:
    """Sum of squares by pieces of 8,192 and 256 lanes."""
    lanes = [0.0] * 256
    for start in range(0, len(a), 8192):
        pairs = zip(a[start : start + 8192], b[start : start + 8192], strict=True)
        square = [(x - y) * (x - y) for x, y in pairs]
        square += [0.0] * (8192 - len(square))
        lanes = [x + y for x, y in zip(lanes, folded(square, 256), strict=True)]
    return folded(lanes, 1)[0]


def folded(values: Values, n_left: int) -> Values:
    """The second half is added to the first until so many are left."""
    while len(values) > n_left:
        half = len(values) // 2
        values = [x + y for x, y in zip(values[:half], values[half:], strict=True)]
    return values


def clipped(parent: Values, update: Values, most: float) -> Values:
    """The update with its change shortened to a norm."""
    norm = math.sqrt(squared_distance(update, parent))
    if not 0 < most < norm:
        return update
    scale = most / norm
    return [f32((u - p) * scale + p) for u, p in zip(update, parent, strict=True)]


def middle(column: Sequence[float], n_cut: int) -> float:
    """The mean of what is left when so many are cut off at each end."""
    total = 0.0
    kept = sorted(column)[n_cut : len(column) - n_cut]
    for value in kept:
        total = total + value
    return total / len(kept)


def nearest(updates: Sequence[Values], n_dishonest: int) -> int:
    """The site that krum takes."""
    scores = []
    for one in updates:
        distances = sorted(squared_distance(other, one) for other in updates if other is not one)
        score = 0.0
        for distance in distances[: len(updates) - n_dishonest - 2]:
            score = score + distance
        scores.append(score)
    return scores.index(min(scores))


def apply(
    settings: Settings,
    parent: Values,
    updates: Sequence[Values],
    counts: Sequence[int],
    state: Mapping[str, Values],
) -> tuple[list[int], Values, dict[str, Values]]:
    """The weights of the sites, the new global values and the rule's new state."""
    rule, n_sites = settings["rule"], len(updates)
    weights = capped(counts, settings.get("max_weight_fraction", 1.0))
    short = [clipped(parent, update, settings.get("clip_norm", 0.0)) for update in updates]
    columns = list(zip(*short, strict=True))
    if rule == "krum":
        return weights, short[nearest(updates, settings["n_dishonest"])], {}
    if rule == "median":
        return weights, [f32(middle(column, (n_sites - 1) // 2)) for column in columns], {}
    if rule == "trimmed-mean":
        n_cut = math.floor(n_sites * Fraction(str(settings["trim_fraction"])))
        return weights, [f32(middle(column, n_cut)) for column in columns], {}
    means = [mean(column, weights) for column in columns]
    if rule == "fedavg":
        return weights, [f32(value) for value in means], {}
    changes = [m - p for m, p in zip(means, parent, strict=True)]
    rate, beta = settings["server_rate"], settings["server_momentum"]
    if rule == "fedavgm":
        old = state.get("momentum")
        kept = changes if old is None else [beta * v + c for v, c in zip(old, changes, strict=True)]
        momentum = [f32(value) for value in kept]
        moved = [f32(p + rate * v) for p, v in zip(parent, momentum, strict=True)]
        return weights, moved, {"momentum": momentum}
    assert rule == "fedadam"
    beta2, tau = settings["second_momentum"], settings["adaptivity"]
    first = state.get("first", [0.0] * len(parent))
    second = state.get("second", [f32(tau * tau)] * len(parent))
    m = [f32(beta * a + (1 - beta) * c) for a, c in zip(first, changes, strict=True)]
    v = [f32(beta2 * a + (1 - beta2) * (c * c)) for a, c in zip(second, changes, strict=True)]
    moved = [f32(p + rate * a / (math.sqrt(b) + tau)) for p, a, b in zip(parent, m, v, strict=True)]
    return weights, moved, {"first": m, "second": v}
