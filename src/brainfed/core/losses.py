"""What training makes small: functions of logits and truth over the whole batch.

The sums run over all slices of the batch, so an empty slice costs little and no slice divides by
its own small area; per-slice Dice with a tiny smoothing term did not learn. Each region has its
own sums; the loss is the mean over the regions.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from brainfed.plan import Loss

LossFunction = Callable[[Tensor, Tensor], Tensor]
"""From logits and truth, both float32 (slice, region, y, x), to a scalar."""


def log_dice(logits: Tensor, truth: Tensor) -> Tensor:
    """log(sum P + sum T + 1) - log(2 sum PT + 1), P = sigmoid(logits): the paper's loss.

    0 for a perfect answer; minus the logarithm of the batch's soft Dice with smoothing 1.
    """
    total, overlap = _sums(logits, truth)
    return (torch.log(total + 1) - torch.log(2 * overlap + 1)).mean()


def dice_cross_entropy(logits: Tensor, truth: Tensor) -> Tensor:
    """1 - (2 sum PT + 1) / (sum P + sum T + 1), plus the mean binary cross-entropy in nats."""
    total, overlap = _sums(logits, truth)
    dice = (2 * overlap + 1) / (total + 1)
    return 1 - dice.mean() + functional.binary_cross_entropy_with_logits(logits, truth)


def loss_function(loss: Loss) -> LossFunction:
    """The function of the plan's word."""
    match loss:
        case Loss.LOG_DICE:
            return log_dice
        case Loss.DICE_CE:
            return dice_cross_entropy


def _sums(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """The sums of P and T, and of PT, of each region over slices and pixels."""
    probability = torch.sigmoid(logits)
    over = (0, 2, 3)
    return probability.sum(over) + truth.sum(over), (probability * truth).sum(over)
