"""The outlines of one case against the true ones: every measure of every region, without torch."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from brainfed.core import lesions, measuring, metrics, surface
from brainfed.core.measuring import measure_all
from brainfed.core.metrics import Measure
from brainfed.core.scoring import CaseScore
from brainfed.formats import cache
from brainfed.formats.score_journal import MeasuredCase
from brainfed.plan import Evaluation, Region

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlines:
    """What is to be measured of one case; small, since it may go to another process."""

    case: str
    patient: str
    digest: str
    """SHA-256 over what was scored, but for the weights."""
    is_complete: bool
    is_nominal: bool
    regions: tuple[Region, ...]
    shape: tuple[int, ...]
    """`(z, y, x)`."""
    predicted: tuple[bytes, ...]
    """By region, as `packed` has it; likewise the true ones."""
    true: tuple[bytes, ...]
    besides: tuple[Mapping[Measure, float], ...]
    """What has been measured already, by region."""
    spacing_mm: tuple[float, float, float]
    """`(z, y, x)`; not used where it is nominal."""
    evaluation: Evaluation


def measure(outlines: Outlines) -> MeasuredCase:
    """Score one case by every measure that its spacing allows, in the order of its regions."""
    rows = []
    for number, region in enumerate(outlines.regions):
        prediction = _unpacked(outlines.predicted[number], outlines.shape)
        truth = _unpacked(outlines.true[number], outlines.shape)
        measured = measure_all(
            prediction,
            truth,
            spacing_mm=None if outlines.is_nominal else outlines.spacing_mm,
            tolerance_mm=outlines.evaluation.tolerance_mm,
            lesions=outlines.evaluation.lesions,
        )
        rows.append(
            CaseScore(
                case=outlines.case,
                patient=outlines.patient,
                region=region,
                n_voxels=int(np.count_nonzero(truth)),
                n_voxels_predicted=int(np.count_nonzero(prediction)),
                values=_in_order(measured | dict(outlines.besides[number])),
                is_complete=outlines.is_complete,
            )
        )
    return MeasuredCase(outlines.case, outlines.digest, tuple(rows), is_nominal=outlines.is_nominal)


def packed(masks: Sequence[Mask]) -> tuple[bytes, ...]:
    """Outlines with eight voxels a byte."""
    return tuple(np.packbits(mask).tobytes() for mask in masks)


def key_of(
    evaluation: Evaluation,
    regions: Sequence[Region],
    *modules: ModuleType,
    libraries: tuple[str, ...] = (),
    **parts: str | bool,
) -> str:
    """SHA-256 over all but the cases that decides what the scores are.

    Args:
        evaluation: The plan's rules.
        regions: Which are scored.
        modules: The code that makes the outlines; what measures them is known here.
        libraries: Those that the code calls besides SciPy, by the names of their packages.
        parts: What else counts, by name.
    """
    ours = (lesions, measuring, metrics, surface)
    code = cache.code_digest(*ours, *modules, libraries=("scipy", *libraries))
    rules = hashlib.sha256(evaluation.model_dump_json().encode()).hexdigest()
    return cache.key(code=code, rules=rules, regions=[str(r) for r in regions], **parts)


def _unpacked(bits: bytes, shape: tuple[int, ...]) -> Mask:
    n_voxels = int(np.prod(shape))
    flat = np.unpackbits(np.frombuffer(bits, np.uint8), count=n_voxels)
    return flat.reshape(shape).view(np.bool_)


def _in_order(values: Mapping[Measure, float]) -> dict[Measure, float]:
    return {m: values[m] for m in Measure if m in values}
