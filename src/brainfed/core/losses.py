"""What training makes small: functions of logits and truth over the whole batch.

The sums run over all samples and all space of the batch, so an empty slice costs little and no
slice divides by its own small area; per-slice Dice with a tiny smoothing term did not learn. Each
region has its own sums; the loss is the mean over the regions. Where several processes share a
batch, it is the sums that are added up, since the mean of the losses of parts is not the loss.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from brainfed.plan import Loss

Reduce = Callable[[Tensor], Tensor]
"""Adds up sums over all processes that share a batch, and lets their gradient through."""


def alone(sums: Tensor) -> Tensor:
    """The sums of the only process there is."""
    return sums


def batch_loss(
    outputs: Sequence[Tensor], truth: Tensor, loss: Loss, *, reduce: Reduce = alone
) -> tuple[Tensor, Tensor]:
    """The loss of a batch, and how well it was outlined.

    `log-dice`, the paper's: log(sum P + sum T + 1) - log(2 sum PT + 1), P = sigmoid(logits), which
    is minus the logarithm of the batch's soft Dice with smoothing 1. `dice-ce`: 1 minus that Dice,
    plus the mean binary cross-entropy in nats. With deep supervision the loss is the mean over the
    outputs, each with half the weight of the one before.

    Args:
        outputs: Logits float32 (sample, region, *space), the finest first, each half as fine.
        truth: float32 (sample, region, *space), 0 or 1, as fine as the first.
        loss: Which one.
        reduce: Where the batch is shared by several processes.

    Returns:
        The loss, and the soft Dice of the finest output from 0 to 1, the mean over the regions and
        without gradient; scalars.
    """
    n_regions = truth.shape[1]
    parts = [_sums(logits, _as_fine_as(logits, truth), loss) for logits in outputs]
    sums = reduce(torch.stack(parts))
    total, overlap = sums[:, :n_regions], sums[:, n_regions : 2 * n_regions]
    dice = (2 * overlap + 1) / (total + 1)
    if loss is Loss.LOG_DICE:
        losses = (torch.log(total + 1) - torch.log(2 * overlap + 1)).mean(1)
    else:
        losses = 1 - dice.mean(1) + sums[:, -2] / sums[:, -1]
    weights = torch.tensor([0.5**level for level in range(len(outputs))])
    weights = (weights / weights.sum()).to(losses.device, non_blocking=True)
    return (losses * weights).sum(), dice[0].mean().detach()


def _as_fine_as(logits: Tensor, truth: Tensor) -> Tensor:
    """The truth at every second, fourth ... voxel, so that it stays 0 or 1."""
    every = truth.shape[2] // logits.shape[2]
    places = (slice(None, None, every),) * (truth.ndim - 2)
    return truth[(slice(None), slice(None), *places)]


def _sums(logits: Tensor, truth: Tensor, loss: Loss) -> Tensor:
    """Sums of P and T and sums of PT of each region; of the cross-entropy, and of its values."""
    probability = torch.sigmoid(logits)
    over = (0, *range(2, logits.ndim))
    parts = [probability.sum(over) + truth.sum(over), (probability * truth).sum(over)]
    if loss is Loss.DICE_CE:
        cross_entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction="sum")
        parts.append(torch.stack((cross_entropy, torch.full_like(cross_entropy, truth.numel()))))
    return torch.cat(parts)
