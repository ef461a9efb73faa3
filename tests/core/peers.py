"""Libraries of others that our numbers are held against; skipped where they aren't installed."""

import warnings
from types import ModuleType
from typing import Any

import numpy as np
import pytest

Mask = np.ndarray
Spacing = tuple[float, float, float]


def peer(module: str) -> ModuleType:
    """A peer's module; both warn of their own use of NumPy, SciPy or torch when imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(module, reason=f"{module} is a development dependency")


def surface_distances(prediction: Mask, truth: Mask, spacing_mm: Spacing) -> dict[str, Any]:
    """DeepMind's, for two outlines that aren't empty (which it can't do with NumPy 2)."""
    metrics = peer("surface_distance.metrics")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return metrics.compute_surface_distances(truth, prediction, spacing_mm)


def hd95(prediction: Mask, truth: Mask, spacing_mm: Spacing) -> float:
    found = surface_distances(prediction, truth, spacing_mm)
    return float(peer("surface_distance.metrics").compute_robust_hausdorff(found, 95))


def nsd(prediction: Mask, truth: Mask, spacing_mm: Spacing, tolerance_mm: float) -> float:
    found = surface_distances(prediction, truth, spacing_mm)
    metrics = peer("surface_distance.metrics")
    return float(metrics.compute_surface_dice_at_tolerance(found, tolerance_mm))
