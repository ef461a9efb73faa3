"""What is read off the runs of a simulation: every score as a row, and the claims with verdicts.

`scores.csv` and `claims.json` in the results folder, both made again from `results/*.json`
whenever the page is (`docs/formats/simulation.md`).
"""

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from brainfed.core.claims import Claim
from brainfed.core.cohort import Subset
from brainfed.core.comparison import CONFIDENCE, N_RESAMPLES
from brainfed.core.contenders import Run
from brainfed.errors import ConflictError
from brainfed.formats import atomic
from brainfed.formats.simulation import Digest, Outcome, Point, RunResult

CSV_NAME = "scores.csv"
CLAIMS_NAME = "claims.json"
CLAIMS_FORMAT: Literal["brainfed-claims-1"] = "brainfed-claims-1"
COLUMNS = (
    "run",
    "contender",
    "epochs",
    "repeat",
    "rate",
    "weights_of",
    "round",
    "passes",
    "hand_overs",
    "chosen",
    "subset",
    "site",
    "patient",
    "region",
    "dice",
    "soft_slice_dice",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Claims judged under one choice of rates."""

    rates: Literal["shared", "best"]
    """`shared`: all have the first rate; `best`: each the one that is best on validation."""
    claims: tuple[Claim, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """The claims of a simulation and what the figures say of them."""

    format: Literal["brainfed-claims-1"] = CLAIMS_FORMAT
    settings: Digest
    """Digest of `simulation.json`."""
    protocol: Literal["clean", "paper"]
    """`clean`: judged on test patients; `paper`: on those that chose the weights too."""
    n_resamples: int = N_RESAMPLES
    """Of each bootstrap."""
    confidence: float = CONFIDENCE
    """Of each interval."""
    judged: tuple[Judged, ...]

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


_FINDINGS = TypeAdapter(Findings)


def write_claims(folder: Path, findings: Findings) -> Path:
    """Write `claims.json`, in place of an older one.

    Raises:
        ResourceError: The disk refuses.
    """
    path = folder / CLAIMS_NAME
    data = _FINDINGS.dump_json(findings, indent=1) + b"\n"
    atomic.write_bytes(path, data, mode=0o600, replace=True)
    return path


def read_claims(folder: Path) -> Findings:
    """Read `claims.json`, as it was written.

    Raises:
        ConflictError: It is missing or damaged.
    """
    path = folder / CLAIMS_NAME
    try:
        return _FINDINGS.validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        found = error.strerror if isinstance(error, OSError) else error.errors()[0]["msg"]
        raise ConflictError(
            f"{CLAIMS_NAME} is missing or damaged",
            found=found,
            where=path,
            hint="run `brainfed simulate` again: it judges the claims anew",
        ) from None


def write_scores(folder: Path, results: Iterable[RunResult]) -> Path:
    """Write `scores.csv`, in place of an older one.

    Raises:
        ResourceError: The disk refuses.
    """
    path = folder / CSV_NAME
    with atomic.new_file(path, mode=0o600, replace=True) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8", newline="", write_through=True)
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for result in results:
            writer.writerows(_lines_of(result))
        text.detach()
    return path


def run_of(result: RunResult) -> Run:
    """The run whose result it is."""
    return Run(result.training, result.repeat, result.epochs, result.rate)


def _lines_of(result: RunResult) -> Iterator[tuple[object, ...]]:
    """A row for each score of validation at each point, and of test where that was looked at."""
    run = run_of(result)
    for outcome in result.outcomes:
        number = run.repeat + 1
        rate, site = f"{run.rate:g}", outcome.site or ""
        about = (run.name, outcome.contender, run.epochs, number, rate, site)
        for place, point in enumerate(outcome.points):
            chosen = place == outcome.chosen
            yield from _lines(about, outcome, point, Subset.VALIDATION, is_chosen=chosen)
        chosen_point = outcome.points[outcome.chosen]
        yield from _lines(about, outcome, chosen_point, Subset.TEST, is_chosen=True)


def _lines(
    about: tuple[object, ...], outcome: Outcome, point: Point, subset: Subset, *, is_chosen: bool
) -> Iterator[tuple[object, ...]]:
    scores = outcome.test if subset is Subset.TEST else point.validation
    where = (point.round, f"{point.passes:g}", point.hand_overs, "yes" if is_chosen else "no")
    for score in scores:
        figures = (f"{score.dice:.6f}", f"{score.soft_slice_dice:.6f}")
        yield *about, *where, subset, score.site, score.patient, score.region, *figures
