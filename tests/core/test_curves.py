"""The picture of a round shows its numbers, and the same numbers give the same file."""

import io
import math
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from brainfed.core import charts, curves
from brainfed.core.curves import training_curves
from brainfed.core.metrics import Measure
from brainfed.core.scoring import Summary
from brainfed.plan import Region


@dataclass
class AStep:
    number: int
    loss: float
    dice: float
    rate: float = 0.01


def falling(n: int = 200) -> list[AStep]:
    """Loss from 2 to near 0, Dice from 0 to near 1."""
    share = [math.exp(-5 * number / n) for number in range(1, n + 1)]
    return [AStep(number, 2 * s, 1 - s) for number, s in enumerate(share, start=1)]


def scored(dice: float | None, measure: Measure = Measure.DICE) -> Summary:
    return Summary(
        Region.WT, measure, n=3 if dice else 0, mean=dice, sd=None, median=dice, worst=()
    )


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path) -> None:
    with charts.private_cache(tmp_path):
        pass


def pixels(png: bytes) -> np.ndarray:
    from matplotlib.image import imread

    return np.asarray(imread(io.BytesIO(png)))[..., :3]


def rows_of(png: bytes, colour: str) -> dict[int, float]:
    """Mean row of the pixels of a colour, by column."""
    wanted = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    rows, columns = np.nonzero(np.abs(pixels(png) - wanted).max(axis=2) < 0.02)
    return {int(c): float(rows[columns == c].mean()) for c in np.unique(columns)}


def test_it_is_a_png_of_900_by_450() -> None:
    png = training_curves(falling(), incoming=[scored(0.1)], result=[scored(0.8)])
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", png[16:24]) == (900, 450)
    assert len(png) < 150_000


def test_the_loss_falls_and_the_dice_rises_in_panels_of_their_own() -> None:
    png = training_curves(falling(), incoming=[], result=[])
    loss, dice = rows_of(png, curves.LOSS), rows_of(png, curves.DICE)
    assert max(loss) < min(dice)
    assert loss[min(loss)] < loss[max(loss)] - 100
    assert dice[min(dice)] > dice[max(dice)] + 100


def test_the_same_numbers_give_the_same_bytes_and_others_dont() -> None:
    first = training_curves(falling(), incoming=[scored(0.1)], result=[scored(0.8)])
    assert training_curves(falling(), incoming=[scored(0.1)], result=[scored(0.8)]) == first
    assert training_curves(falling(), incoming=[scored(0.1)], result=[scored(0.7)]) != first


def test_only_the_dice_of_the_validation_patients_is_marked() -> None:
    without = training_curves(falling(), incoming=[], result=[])
    soft = scored(0.5, Measure.SOFT_SLICE_DICE)
    assert training_curves(falling(), incoming=[soft], result=[scored(None)]) == without


@pytest.mark.parametrize("n_steps", [0, 1, 2])
def test_a_round_of_hardly_any_step_is_drawn(n_steps: int) -> None:
    png = training_curves(falling(200)[:n_steps], incoming=[], result=[scored(0.8)])
    assert bool(rows_of(png, curves.LOSS)) == (n_steps > 0)


def test_a_resumed_round_is_drawn_where_its_steps_belong() -> None:
    whole, rest = falling(), falling()[100:]
    loss = rows_of(training_curves(rest, incoming=[], result=[]), curves.LOSS)
    all_of_it = rows_of(training_curves(whole, incoming=[], result=[]), curves.LOSS)
    assert min(loss) > min(all_of_it) + 100
    assert max(loss) == pytest.approx(max(all_of_it), abs=3)
