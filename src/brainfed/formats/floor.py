"""What may be said about small groups of patients: the plan's floor, applied to figures that leave.

Below the floor a count is only "fewer than", and a mean or standard deviation is left out.
"""

from collections.abc import Iterable
from typing import Literal

from brainfed.core.scoring import Summary
from brainfed.formats.manifest import Score, ScoredWeights


def count(n_patients: int, floor: int) -> int | str:
    """The number of patients, or that it is below the floor."""
    return n_patients if n_patients >= floor else f"fewer than {floor}"


def scores(
    summaries: Iterable[Summary],
    *,
    weights: ScoredWeights,
    subset: Literal["train", "validation", "test"],
    floor: int,
) -> tuple[Score, ...]:
    """Summaries as an exchanged file states them: in millionths, and nothing below the floor."""
    stated = []
    for summary in summaries:
        n = count(summary.n, floor)
        enough = isinstance(n, int)
        stated.append(
            Score(
                weights=weights,
                subset=subset,
                measure=summary.measure,
                region=summary.region,
                n=n,
                mean=_millionths(summary.mean) if enough else None,
                sd=_millionths(summary.sd) if enough else None,
            )
        )
    return tuple(stated)


def _millionths(value: float | None) -> int | None:
    return None if value is None else round(value * 1_000_000)
