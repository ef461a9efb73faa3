"""`rounds/r0001/training.jsonl`: how a round of training went at this site; never exchanged.

`docs/formats/training-log.md` describes it. It holds figures of small groups of patients as they
are, so it stays at the site; the update's manifest holds what may leave.
"""

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from brainfed.core.progress import FinishedStep
from brainfed.core.scoring import Summary
from brainfed.errors import ScanError
from brainfed.formats import atomic

NAME = "training.jsonl"
MAX_STEP_LINES = 200
"""A line is the mean over as many steps as it takes to need no more lines than this."""


def write(
    path: Path,
    *,
    incoming: Sequence[Summary],
    steps: Sequence[FinishedStep],
    result: Sequence[Summary],
    seconds: float,
    device: str,
) -> None:
    """Write the log of the steps so far, in place of the one before.

    May be called again and again while training runs: whoever reads sees one log or the next.

    Args:
        path: Where.
        incoming: Scores of the weights that training began with.
        steps: The steps so far, ascending.
        result: Scores of the weights that it ended with; none while it runs.
        seconds: Of training alone, so far.
        device: Where it was computed.

    Raises:
        ResourceError: The disk refuses.
    """
    lines = [_score_line("incoming", summary) for summary in incoming]
    lines += _step_lines(steps)
    lines += [_score_line("result", summary) for summary in result]
    n_steps = steps[-1].number if steps else 0
    lines.append({"n_steps": n_steps, "seconds": round(seconds, 3), "device": device})
    data = "".join(json.dumps(line) + "\n" for line in lines)
    atomic.write_bytes(path, data.encode("ascii"), mode=0o600, replace=True)


def n_steps(path: Path) -> int:
    """The steps that a log tells of.

    Raises:
        ScanError: It is missing or damaged.
    """
    try:
        last = json.loads(path.read_text(encoding="ascii").splitlines()[-1])
        return int(last["n_steps"])
    except (OSError, ValueError, LookupError, TypeError):
        raise ScanError(
            "The training log can't be read",
            where=path,
            hint="run `brainfed train-round` again, with the round's update moved away",
        ) from None


def _step_lines(steps: Sequence[FinishedStep]) -> list[dict[str, Any]]:
    every = max(1, math.ceil(len(steps) / MAX_STEP_LINES))
    lines = []
    for start in range(0, len(steps), every):
        some = steps[start : start + every]
        loss = statistics.fmean(step.loss for step in some)
        dice = statistics.fmean(step.dice for step in some)
        line = {"step": some[-1].number, "loss": round(loss, 6), "dice": round(dice, 6)}
        lines.append(line | {"rate": some[-1].rate})
    return lines


def _score_line(which: str, summary: Summary) -> dict[str, Any]:
    return {
        "weights": which,
        "subset": "validation",
        "measure": str(summary.measure),
        "region": str(summary.region),
        "n": summary.n,
        "mean": summary.mean,
        "sd": summary.sd,
    }
