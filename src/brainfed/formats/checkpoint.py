"""What a round of training keeps in `rounds/rNNNN/` for its own site.

`training.checkpoint`, `optimiser.state` and `local.layers` are safetensors files with one metadata
entry, `brainfed`, of JSON; no pickle, mode 0600, put in place by one rename. They hold what was
learned from patients and stay at the site. `docs/formats/checkpoint.md` describes them.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from safetensors.numpy import save

from brainfed.core.architecture import TensorTable
from brainfed.core.scoring import CaseScore
from brainfed.errors import MalformedError
from brainfed.formats import atomic, training_log

NAME = "training.checkpoint"
OPTIMISER = "optimiser.state"
LAYERS = "local.layers"
CURVES = "training.png"
TRAINING_FILES = (NAME, OPTIMISER, LAYERS, CURVES, training_log.NAME)
"""All that training leaves in the folder of its round and that never leaves the site."""
FORMAT, MOMENTS_FORMAT = "brainfed-checkpoint-2", "brainfed-optimiser-1"
LAYERS_FORMAT = "brainfed-local-layers-1"
LOG_COLUMNS = ("number", "n_steps", "loss", "rate", "dice", "n_samples")

Tensors = Mapping[str, NDArray[np.float32]]
_SCORES = TypeAdapter(tuple[CaseScore, ...])


@dataclass(frozen=True, slots=True)
class Best:
    """The best of the epochs so far, where a site stops by its own validation Dice."""

    epoch: int
    """From 1."""
    n_scored: int
    """Epochs that were scored."""
    weights: Tensors
    scores: tuple[CaseScore, ...]
    """Of the validation cases under these weights."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a round of training stood between two steps."""

    belongs: str
    """Digest of all that the round's weights follow from; another one makes this useless."""
    weights: Tensors
    moments: Tensors = field(default_factory=dict)
    scaler: Mapping[str, float] = field(default_factory=dict)
    """Of fp16's loss scale."""
    log: Sequence[tuple[float, ...]] = ()
    """Of each step that is done, `LOG_COLUMNS`."""
    incoming: tuple[CaseScore, ...] = ()
    """Scores of the validation cases before the first step."""
    best: Best | None = None
    """None where a round is as long as the plan says, and before the first epoch's end."""


@dataclass(frozen=True, slots=True)
class Layers:
    """A site's own values of the tensors that the plan keeps local, after a round."""

    round: int
    edition: int
    """Of the update that was trained with them."""
    tensors: Tensors


def write(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, in place of an older one.

    Raises:
        ResourceError: The disk refuses; an older checkpoint is left as it was.
    """
    tensors: dict[str, NDArray[Any]] = {
        "log": np.array(checkpoint.log, np.float64).reshape(-1, len(LOG_COLUMNS))
    }
    best = checkpoint.best
    of_best = {} if best is None else best.weights
    for prefix, some in (
        ("weights", checkpoint.weights),
        ("moments", checkpoint.moments),
        ("best", of_best),
    ):
        tensors |= {f"{prefix}/{name}": array for name, array in some.items()}
    about = {
        "format": FORMAT,
        "belongs": checkpoint.belongs,
        "scaler": dict(checkpoint.scaler),
        "incoming": _SCORES.dump_python(checkpoint.incoming, mode="json"),
        "best": None
        if best is None
        else {
            "epoch": best.epoch,
            "n_scored": best.n_scored,
            "scores": _SCORES.dump_python(best.scores, mode="json"),
        },
    }
    _write(path, tensors, about)


def read(path: Path) -> Checkpoint | None:
    """The checkpoint at this place; None where there is none, or a damaged one."""
    found = _read(path, FORMAT)
    if found is None:
        return None
    tensors, about = found
    try:
        log = tensors.pop("log").reshape(-1, len(LOG_COLUMNS))
        return Checkpoint(
            belongs=str(about["belongs"]),
            weights=_with_prefix(tensors, "weights/"),
            moments=_with_prefix(tensors, "moments/"),
            scaler={str(key): float(value) for key, value in about["scaler"].items()},
            log=[tuple(row) for row in log.tolist()],
            incoming=_SCORES.validate_python(about["incoming"]),
            best=_best(about["best"], tensors),
        )
    except (AttributeError, KeyError, ValueError, TypeError, ValidationError):
        return None


def _best(about: dict[str, Any] | None, tensors: Tensors) -> Best | None:
    if about is None:
        return None
    return Best(
        epoch=int(about["epoch"]),
        n_scored=int(about["n_scored"]),
        weights=_with_prefix(tensors, "best/"),
        scores=_SCORES.validate_python(about["scores"]),
    )


def write_moments(path: Path, moments: Tensors) -> None:
    """Write the moments of the optimiser after a round, in place of older ones.

    Raises:
        ResourceError: The disk refuses.
    """
    _write(path, dict(moments), {"format": MOMENTS_FORMAT})


def read_moments(path: Path) -> Tensors | None:
    """The moments at this place; None where there are none, or damaged ones."""
    found = _read(path, MOMENTS_FORMAT)
    return None if found is None else found[0]


def write_layers(path: Path, layers: Layers) -> None:
    """Write the layers that stay local, in place of those of an earlier edition.

    Raises:
        ResourceError: The disk refuses.
    """
    about = {"format": LAYERS_FORMAT, "round": layers.round, "edition": layers.edition}
    _write(path, dict(layers.tensors), about)


def read_layers(path: Path, table: TensorTable) -> Layers:
    """The layers at this place: unlike the other two, they can't be made again.

    Args:
        path: The file.
        table: Names and shapes that must be there.

    Raises:
        MalformedError: It is damaged, or not there, or holds other tensors.
    """
    found = _read(path, LAYERS_FORMAT)
    tensors, about = found or ({}, {})
    shapes = {name: array.shape for name, array in sorted(tensors.items())}
    numbers = (about.get("round"), about.get("edition"))
    is_float32 = all(array.dtype == np.float32 for array in tensors.values())
    if shapes != table or not is_float32 or not all(type(n) is int for n in numbers):
        raise MalformedError(
            "The layers that stay at this site are damaged",
            expected=f"the {len(table)} tensors of the plan's network.local, as they were written",
            found="what can't be read" if found is None else "other tensors",
            where=path,
            hint="bring this file back from a backup; if there is none, take it away: the site "
            "then goes on with its layers of an earlier round, or with none of its own",
        )
    return Layers(about["round"], about["edition"], tensors)


def _write(path: Path, tensors: dict[str, NDArray[Any]], about: dict[str, Any]) -> None:
    content = {name: np.asarray(array, order="C") for name, array in sorted(tensors.items())}
    about = about | {"sha256": _digest(content)}
    data = save(content, metadata={"brainfed": json.dumps(about)})
    atomic.write_bytes(path, data, mode=0o600, replace=True)


def _read(path: Path, wanted: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]] | None:
    """Tensors and JSON; what can't be read is worth nothing, and no reason to stop."""
    try:
        with safetensors.safe_open(path, framework="numpy") as content:
            about = json.loads((content.metadata() or {})["brainfed"])
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    except (OSError, KeyError, ValueError, TypeError, safetensors.SafetensorError):
        return None
    is_ours = isinstance(about, dict) and about.get("format") == wanted
    return (tensors, about) if is_ours and about.get("sha256") == _digest(tensors) else None


def _digest(tensors: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 over all values, in name order: safetensors itself would not see a changed one."""
    found = hashlib.sha256()
    for _, array in sorted(tensors.items()):
        found.update(array.tobytes())
    return found.hexdigest()


def _with_prefix(tensors: Tensors, prefix: str) -> dict[str, NDArray[np.float32]]:
    return {
        name.removeprefix(prefix): array
        for name, array in tensors.items()
        if name.startswith(prefix)
    }
