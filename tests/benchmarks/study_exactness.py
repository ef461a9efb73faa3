"""How far a mean is from the correctly rounded one: `python tests/benchmarks/study_exactness.py`.

Values like a trained network's and changes like a round's, 2 to 64 sites. The correctly rounded
mean comes from integers: a float32 times 2^149 is one, so sums are exact. Beside brainfed's rule
the running float32 means of FLARE and Flower, written down operation by operation, in the order of
arrival. Of many more values only those are computed exactly whose float64 mean lies so near to the
middle between two float32 that brainfed's could be wrong. Takes a minute; writes its table into
`docs/results/aggregate.md`.
"""

import platform
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.marked import rewrite

from brainfed.core.averaging import weighted_mean

PAGE = Path(__file__).resolve().parents[2] / "docs" / "results" / "aggregate.md"
N_VALUES, SITES, N_ORDERS = 20_000, (2, 3, 4, 8, 16, 32, 64), 20
N_MANY, N_AT_ONCE = 8_000_000, 400_000
N_REGIONS, SITES_OF_REGIONS = 4, 64
Values = np.ndarray
Rule = Callable[[Sequence[Values], Sequence[int]], Values]


def brainfed(updates: Sequence[Values], weights: Sequence[int]) -> Values:
    return weighted_mean(updates, weights)


def flare(updates: Sequence[Values], weights: Sequence[int]) -> Values:
    """`WeightedAggregationHelper` of nvflare 2.9.0 on torch tensors."""
    total = torch.from_numpy(updates[0]).mul(weights[0])
    for values, weight in zip(updates[1:], weights[1:], strict=True):
        total.add_(torch.from_numpy(values), alpha=weight)
    return total.div_(sum(weights)).numpy()


def flower(updates: Sequence[Values], weights: Sequence[int]) -> Values:
    """`aggregate_arrayrecords` of flwr 1.41.0."""
    factors = [weight / sum(weights) for weight in weights]
    total = updates[0] * factors[0]
    for values, factor in zip(updates[1:], factors[1:], strict=True):
        total += values * factor
    return total


RULES: dict[str, Rule] = {"brainfed": brainfed, "FLARE": flare, "Flower": flower}


def correctly_rounded(updates: Sequence[Values], weights: Sequence[int]) -> Values:
    """The float32 nearest to the exact mean, ties to even."""
    scaled = [[int(value) for value in u.astype(np.float64) * 2.0**149] for u in updates]
    total = sum(weights)
    found = np.empty(len(updates[0]), np.float32)
    for place, column in enumerate(zip(*scaled, strict=True)):
        exact = Fraction(sum(v * w for v, w in zip(column, weights, strict=True)), total << 149)
        found[place] = nearest_float32(exact)
    return found


def nearest_float32(exact: Fraction) -> np.float32:
    """One of the two float32 beside a fraction."""
    guess = np.float32(float(exact))
    beside = [np.nextafter(guess, np.float32(s * np.inf)) for s in (-1, 1)]
    every = [guess, *(np.float32(value) for value in beside)]

    def key(value: np.float32) -> tuple[Fraction, int]:
        # Of two that are as near, the one whose last bit is zero.
        return abs(Fraction(float(value)) - exact), int(value.view(np.uint32)) & 1

    return min(every, key=key)


def ordered(values: Values) -> Values:
    """Integers of which neighbours differ by one where float32 do."""
    bits = values.view(np.int32).astype(np.int64)
    return np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)


def some_updates(n_sites: int, n_values: int, seed: int) -> tuple[list[Values], list[int]]:
    """Weights as He et al. draw them for 3 x 3 convolutions of 16 to 512 channels, and changes."""
    random = np.random.default_rng((n_sites, seed))
    scale = np.sqrt(2 / (9 * 2.0 ** random.integers(4, 10, n_values))).astype("<f4")
    parent = random.standard_normal(n_values, np.float32) * scale
    tenth = np.float32(0.1) * scale
    updates = [
        parent + tenth * random.standard_normal(n_values, np.float32) for _ in range(n_sites)
    ]
    return updates, random.integers(5, 200, n_sites).tolist()


def n_wrong(n_sites: int) -> tuple[int, int]:
    """Values of many that brainfed doesn't round correctly, and those that were near to it."""
    wrong, n_near = 0, 0
    for seed in range(N_MANY // N_AT_ONCE):
        updates, weights = some_updates(n_sites, N_AT_ONCE, 1000 + seed)
        products = [u.astype(np.float64) * w for u, w in zip(updates, weights, strict=True)]
        mean = sum(products[1:], products[0]) / sum(weights)
        # Each of n - 1 additions and the division is off by 2^-53 of what it gives, at most.
        bound = 2.0**-52 * n_sites * sum(map(np.abs, products)) / sum(weights)
        found = weighted_mean(updates, weights)
        middles = [
            (found.astype(np.float64) + np.nextafter(found, np.float32(s * np.inf))) / 2
            for s in (-1, 1)
        ]
        near = np.any([np.abs(mean - middle) <= bound for middle in middles], axis=0)
        exact = correctly_rounded([u[near] for u in updates], weights)
        wrong += int((found[near] != exact).sum())
        n_near += int(near.sum())
    return wrong, n_near


def by_region() -> tuple[int, int, int]:
    """Values of many that differ from brainfed's where regional coordinators hand on something.

    Their means as float32; their sums as float64, added up; the running float64 sum, passed from
    region to region in the order of the sites.
    """
    differ = np.zeros(3, int)
    n = SITES_OF_REGIONS // N_REGIONS
    for seed in range(N_MANY // N_AT_ONCE):
        updates, weights = some_updates(SITES_OF_REGIONS, N_AT_ONCE, 2000 + seed)
        ours, total = weighted_mean(updates, weights), sum(weights)
        parts = [slice(start, start + n) for start in range(0, SITES_OF_REGIONS, n)]
        means = [weighted_mean(updates[part], weights[part]) for part in parts]
        sums, running = [], np.full(N_AT_ONCE, -0.0)
        for part in parts:
            region = np.full(N_AT_ONCE, -0.0)
            for values, weight in zip(updates[part], weights[part], strict=True):
                region += values.astype(np.float64) * weight
                running += values.astype(np.float64) * weight
            sums.append(region)
        found = (
            weighted_mean(means, [sum(weights[part]) for part in parts]),
            (sum(sums[1:], sums[0]) / total).astype("<f4"),
            (running / total).astype("<f4"),
        )
        differ += [int((ordered(f) != ordered(ours)).sum()) for f in found]
    return differ[0], differ[1], differ[2]


def n_results(rule: Rule, updates: list[Values], weights: list[int]) -> int:
    """Different results over orders of arrival; brainfed takes the sites in name order."""
    found = set()
    for seed in range(N_ORDERS):
        order = np.random.default_rng(seed).permutation(len(updates)).tolist()
        if rule is brainfed:
            order = sorted(order)
        found.add(rule([updates[i] for i in order], [weights[i] for i in order]).tobytes())
    return len(found)


def main() -> None:
    rows = []
    for n_sites in SITES:
        updates, weights = some_updates(n_sites, N_VALUES, 0)
        exact = ordered(correctly_rounded(updates, weights))
        cells = []
        for name, rule in RULES.items():
            away = np.abs(ordered(rule(updates, weights)) - exact)
            share, farthest = (away > 0).mean(), int(away.max())
            orders = n_results(rule, updates, weights)
            words = "0" if share == 0 else f"{100 * share:.1f} % (at most {farthest})"
            cells.append(f"{words} | {orders}")
            sys.stderr.write(f"{n_sites} sites, {name}: {share}, {farthest}, {orders}\n")
        many, n_near = n_wrong(n_sites)
        sys.stderr.write(f"{n_sites} sites: {many} of {n_near} of {N_MANY}\n")
        rows.append(f"| {n_sites} | {many} ({n_near}) | {' | '.join(cells)} |")
    means, sums, chain = by_region()
    sys.stderr.write(f"by region: {means}, {sums}, {chain}\n")
    text = f"""## Exactness

Made by `python tests/benchmarks/study_exactness.py`: {N_VALUES:,} values for each number of sites,
weights 5 to 199. Share of the values that are not the correctly rounded mean, and by how many units
in the last place at most. "Results": different ones (by their bits) of {N_ORDERS} orders of
arrival.

| sites | of {N_MANY:,}, brainfed | brainfed | results | FLARE | results | Flower | results |
|---|---|---|---|---|---|---|---|
{chr(10).join(rows)}

The first column is of as many other values for each number of sites; in brackets those that were
near enough to a wrong last bit to be computed exactly. brainfed adds in float64 and rounds once to
float32: the last bit can differ from the correctly rounded one only where the exact mean lies next
to the middle between two float32. A large number of units means a value near zero, where what is
left after cancelling is small against what was added.

If {N_REGIONS} regional coordinators of {SITES_OF_REGIONS // N_REGIONS} sites each stood between
([scale](../explanation/scale.md)), so many of {N_MANY:,} values would be other ones: {means:,} if
regions hand on their mean in float32, {sums:,} if they hand on their sum in float64, and {chain:,}
if the running sum in float64 goes from region to region in the order of the sites' names.

numpy {np.__version__}, torch {version("torch")}, {platform.machine()}.
"""
    sys.stdout.write(text)
    rewrite(PAGE, "exactness", text)


if __name__ == "__main__":
    main()
