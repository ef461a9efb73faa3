"""The results folder of a simulation: what was asked, and what each run found.

`simulation.json` says what the folder is of; `results/<run>.json` holds the scores of one run, and
is written when the run has ended; `scores.csv` is all of them as rows. They hold figures of single
patients, under throw-away ids: local files, never exchanged (`docs/formats/simulation.md`).
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from brainfed.core.contenders import Contender, Training
from brainfed.errors import ConflictError, NotReadyError
from brainfed.formats import atomic
from brainfed.plan import Region

NAME = "simulation.json"
FORMAT: Literal["brainfed-simulation-1"] = "brainfed-simulation-1"
RESULT_FORMAT: Literal["brainfed-simulated-run-1"] = "brainfed-simulated-run-1"

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteCounts:
    """The patients of one site of the partition in one repeat."""

    site: str
    n_train: int
    n_validation: int
    n_test: int
    n_slices: int
    """Slices to train on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a simulation is of. A folder holds one; another one is refused there."""

    format: Literal["brainfed-simulation-1"] = FORMAT
    plan: str
    """Its whole text, defaults written out."""
    dataset: Digest
    """Digest of the sorted (case id, case digest) pairs."""
    partition: Digest
    """Digest of the sites' patients and their subsets, of all repeats."""
    partition_name: str
    """As it was asked for, such as `equal:8`, or the name of a file."""
    contenders: tuple[Contender, ...]
    n_repeats: int
    is_folded: bool
    """Whether each repeat holds out another fold of the patients; else they differ in the seed."""
    epochs: tuple[int, ...]
    """Per round, of `fl`."""
    rates: tuple[float, ...]
    """Tried for every contender; the first is the plan's, shared by all in the main comparison."""
    device: str
    precision: str
    sites: tuple[tuple[SiteCounts, ...], ...]
    """Of each repeat."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientScore:
    """The scores of one region of one patient, the mean over its cases."""

    site: str
    patient: str
    """Keyed id, the same in all runs of a simulation."""
    region: Region
    dice: float
    """3-D, at threshold 0.5: 0 to 1."""
    soft_slice_dice: float
    """The measure of the paper's code: 0 to 1, not comparable with the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """The weights that stand at some point of a run, scored on all sites' validation patients."""

    round: int
    """Of the run's own federation; 0 is before any training."""
    passes: float
    """Over every training patient, so far; of `iil` the mean over patients."""
    hand_overs: int
    """Of files between a site and the coordinator, so far."""
    validation: tuple[PatientScore, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one contender reached in one run."""

    contender: Contender
    site: str | None
    """Whose own weights, for `local`."""
    points: tuple[Point, ...]
    """In order; one for those that are scored at the end alone."""
    chosen: int
    """Index of the point that the contender's rule chooses, on validation where it has a choice."""
    test: tuple[PatientScore, ...]
    """Of the chosen weights, on all sites' test patients; empty where the split has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandOver:
    """One site's training patients under the weights that came to it, and those it sent."""

    hand_over: int
    """Counted from 1 at this site."""
    round: int
    dice: float
    """Mean over the patients it trains on, and the plan's regions."""
    is_own: bool
    """Whether the site has just trained them; else they came to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """What one run found."""

    format: Literal["brainfed-simulated-run-1"] = RESULT_FORMAT
    settings: Digest
    """Digest of `simulation.json`."""
    training: Training
    repeat: int
    epochs: int
    rate: float
    n_sites: int
    outcomes: tuple[Outcome, ...]
    forgetting: tuple[HandOver, ...] = ()
    """Of the first site in name order, where it was asked for (`fl`, `ciil`, first repeat)."""
    optimiser_state: str
    sequential_steps: int
    """Optimiser steps one after the other; what sites do at the same time counts once."""
    weight_bytes: int
    """Of one weight file."""
    audit: str
    """The verdict on the coordinator's folder, in one sentence."""
    n_test_opened: int
    """Times that a site's test patients were looked at."""
    seconds: float
    """Of all processes together, training and scoring."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


_SETTINGS, _RESULT = TypeAdapter(Settings), TypeAdapter(RunResult)


def result_path(folder: Path, run_name: str) -> Path:
    """Where the scores of a run lie."""
    return folder / "results" / f"{run_name}.json"


def settings_bytes(settings: Settings) -> bytes:
    """The file, the same bytes for the same settings."""
    return _SETTINGS.dump_json(settings, indent=1) + b"\n"


def write_settings(folder: Path, settings: Settings) -> None:
    """Write `simulation.json`; one that lies there must be the same.

    Raises:
        ConflictError: The folder is of another simulation.
        ResourceError: The disk refuses.
    """
    path, data = folder / NAME, settings_bytes(settings)
    if not path.exists():
        atomic.make_folder(folder)
        atomic.write_bytes(path, data)
        return
    old = read_settings(folder)
    if old != settings:
        names = [field.name for field in fields(old)]
        different = [name for name in names if getattr(old, name) != getattr(settings, name)]
        words = dict.fromkeys(_ASKED_BY.get(name, name) for name in different)
        raise _of_another(path, f"another {', '.join(words)}")


_ASKED_BY = {
    "dataset": "scans (--data, --labels)",
    "partition": "--partition",
    "partition_name": "--partition",
    "contenders": "--methods",
    "n_repeats": "--seeds or --folds",
    "is_folded": "--seeds or --folds",
    "epochs": "--epochs",
    "rates": "--rates",
    "device": "--device",
    "precision": "--precision",
    "sites": "number of patients at the sites",
}
"""The option that decides on a setting."""


def check_plan(folder: Path, plan: str) -> None:
    """Refuse a folder that holds the simulation of another plan.

    Args:
        folder: The results folder, which needn't exist yet.
        plan: The whole text of the plan.

    Raises:
        ConflictError: It does, or is damaged.
    """
    if (folder / NAME).exists() and read_settings(folder).plan != plan:
        raise _of_another(folder / NAME, "another plan")


def _of_another(path: Path, found: str) -> ConflictError:
    return ConflictError(
        "This folder holds the results of another simulation",
        expected="the same plan, scans, partition, methods and options",
        found=found,
        where=path,
        hint="give another folder with --out",
    )


def read_settings(folder: Path) -> Settings:
    """Read `simulation.json`.

    Raises:
        NotReadyError: There is none.
        ConflictError: It is damaged.
    """
    settings: Settings = read_checked(folder / NAME, _SETTINGS)
    return settings


def write_result(folder: Path, run_name: str, result: RunResult) -> None:
    """Write what a run found.

    Raises:
        ResourceError: The disk refuses.
    """
    path = result_path(folder, run_name)
    atomic.make_folder(path.parent)
    atomic.write_bytes(path, _RESULT.dump_json(result, indent=1) + b"\n", replace=True)


def read_result(folder: Path, run_name: str) -> RunResult | None:
    """What a run found; None where it hasn't ended.

    Raises:
        ConflictError: The file is damaged.
    """
    path = result_path(folder, run_name)
    result: RunResult | None = read_checked(path, _RESULT) if path.exists() else None
    return result


def read_results(folder: Path) -> tuple[RunResult, ...]:
    """What all runs that have ended found, in the order of their names.

    Raises:
        ConflictError: A file is damaged.
    """
    return tuple(
        read_checked(path, _RESULT) for path in sorted((folder / "results").glob("*.json"))
    )


AGAIN = "remove it and run `brainfed simulate` again: what it was made of is still there"


def read_checked(path: Path, adapter: TypeAdapter[Any], *, hint: str = AGAIN) -> Any:
    """A JSON file of a simulation.

    Args:
        path: The file.
        adapter: What it must be.
        hint: What to do where it is damaged.

    Raises:
        NotReadyError: There is none.
        ConflictError: It is damaged.
    """
    try:
        return adapter.validate_json(path.read_bytes())
    except FileNotFoundError:
        raise NotReadyError(
            "There is no simulation here", where=path, hint="`brainfed simulate PLAN --data FOLDER`"
        ) from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ConflictError(
            f"{path.name} is damaged",
            expected=first["msg"],
            found=".".join(str(part) for part in first["loc"]),
            where=path,
            hint=hint,
        ) from None
