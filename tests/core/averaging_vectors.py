"""The cases of `docs/formats/averaging-vectors.json`; `python -m tests.core.averaging_vectors`
writes the file anew, by the plain rules alone.
"""

import json
import random
from pathlib import Path
from typing import Any

from tests.core.plain_rules import apply, f32, from_hex, to_hex

PATH = Path(__file__).resolve().parents[2] / "docs" / "formats" / "averaging-vectors.json"
ABOUT = (
    "Cases of docs/formats/averaging.md. Float32 values as their bits in hexadecimal, largest byte "
    "first. Sites are in name order; n is the count that weights_by names. weights is what "
    "max_weight_fraction makes of the counts. A state that is not there is that of the first round."
)
EDGES = "80000000 3f800000 3f800001 00000001 7f7fffff 3dcccccd bf800000"


def a_case(
    name: str,
    settings: dict[str, Any],
    counts: list[int],
    *,
    n_values: int = 6,
    state: tuple[str, ...] = (),
    far: dict[int, float] | None = None,
    updates: list[str] | None = None,
) -> dict[str, Any]:
    """Random values, the same for the same name, and what the plain rules make of them.

    `far` scales the change of a site; `updates` gives all values.
    """
    draw = random.Random(name)
    parent = [f32(draw.gauss(0, 0.1)) for _ in range(n_values)]
    made = [
        [f32(p + draw.gauss(0, 0.01) * (far or {}).get(site, 1.0)) for p in parent]
        for site in range(len(counts))
    ]
    if updates is not None:
        made = [from_hex(text) for text in updates]
        parent = [0.0] * len(made[0])
    before = {word: [f32(abs(draw.gauss(0, 0.002))) for _ in parent] for word in state}
    weights, values, after = apply(settings, parent, made, counts, before)
    return {
        "name": name,
        "settings": settings,
        "parent": to_hex(parent),
        "sites": [
            {"name": f"site-{number}", "n": count, "values": to_hex(update)}
            for number, (count, update) in enumerate(zip(counts, made, strict=True))
        ],
        "state": {word: to_hex(found) for word, found in before.items()},
        "weights": weights,
        "expected": to_hex(values),
        "expected_state": {word: to_hex(found) for word, found in after.items()},
    }


def every_case() -> list[dict[str, Any]]:
    """One or more for each rule and each setting that changes bits."""
    mean = {"rule": "fedavg"}
    momentum = {"rule": "fedavgm", "server_rate": 0.7, "server_momentum": 0.9}
    adam = {
        "rule": "fedadam",
        "server_rate": 0.01,
        "server_momentum": 0.9,
        "second_momentum": 0.99,
        "adaptivity": 0.001,
    }
    even = ["80000000 3f800000 00000001", "80000000 3f800001 00000000"]
    odd_edges = " ".join(reversed(EDGES.split()))
    krum = {"rule": "krum", "n_dishonest": 1}
    pairs = ["00000000 3f800000", "00000000 3f800000", "3f800000 00000000", "3f800000 00000000"]
    return [
        a_case("mean by counts", mean, [12, 7, 3]),
        a_case("mean of edges", mean, [3, 2], updates=[EDGES, odd_edges]),
        a_case("mean: minus zero, a tie, a subnormal", mean, [1, 1], updates=even),
        a_case("mean of one site", mean, [9]),
        a_case("cap on weights", mean | {"max_weight_fraction": 0.4}, [90, 20, 15]),
        a_case("cap below one in three", mean | {"max_weight_fraction": 0.2}, [90, 20, 15]),
        a_case(
            "clipping, over one fold",
            mean | {"clip_norm": 0.2},
            [10, 11, 12],
            n_values=300,
            far={1: 9.0},
        ),
        a_case("momentum, first round", momentum, [12, 7, 3]),
        a_case("momentum, later round", momentum, [12, 7, 3], state=("momentum",)),
        a_case("adam, first round", adam, [12, 7, 3]),
        a_case("adam, later round", adam, [12, 7, 3], state=("first", "second")),
        a_case("adam, clipped", adam | {"clip_norm": 0.02}, [12, 7, 3], far={0: 5.0}),
        a_case("median of five", {"rule": "median"}, [1, 2, 3, 4, 5]),
        a_case("median of four", {"rule": "median"}, [1, 2, 3, 4]),
        a_case("median of minus zeros", {"rule": "median"}, [1, 1], updates=even),
        a_case("trimmed mean of six", {"rule": "trimmed-mean", "trim_fraction": 0.2}, [5] * 6),
        a_case("trimmed mean of ten", {"rule": "trimmed-mean", "trim_fraction": 0.3}, [5] * 10),
        a_case("krum", krum, [5] * 5, far={2: 20.0}),
        a_case(
            "krum, equals: the first in name order", krum, [1] * 5, updates=[*pairs, EDGES[:17]]
        ),
        a_case("krum, clipped", krum | {"clip_norm": 0.015}, [5] * 5, far={0: 8.0}),
    ]


def text() -> str:
    """The whole file."""
    return json.dumps({"about": ABOUT, "version": 1, "cases": every_case()}, indent=1) + "\n"


if __name__ == "__main__":
    PATH.write_text(text())
