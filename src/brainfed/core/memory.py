"""How much memory a step of training will take, told before it begins."""

import math

import torch
from torch import Tensor

from brainfed.core.losses import batch_loss
from brainfed.core.unet import UNet
from brainfed.plan import Optimiser, Plan

N_MOMENTS = {Optimiser.ADAM: 2, Optimiser.ADAMW: 2, Optimiser.SGD: 1}
"""Arrays as large as the weights that an optimiser keeps."""
N_WORKING = 6
"""Tensors as large as the largest one that the backward pass needs at a time, as measured:
gradients on their way, what oneDNN lays out anew."""


def training_bytes(plan: Plan, n_ranks: int = 1) -> int:
    """Weights, gradients, moments, and what one batch leaves behind for the backward pass.

    In float32; mixed precision takes less. Counted by a forward pass on torch's `meta` device,
    which computes nothing and takes no memory. The training set is not among it.

    Args:
        plan: The plan.
        n_ranks: Processes that share each batch; told is the need of one of them.
    """
    shape = plan.network.patch or plan.grid.size
    n_rows = math.ceil(plan.training.batch / n_ranks)
    kept: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        # Held, so that no other storage can get its address.
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.device("meta"):
        model = UNet(plan).train()
        image = torch.empty(n_rows, len(plan.scans.modalities), *shape)
        truth = torch.empty(n_rows, len(plan.scans.regions), *shape)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            batch_loss(model.outputs(image), truth, plan.training.loss)
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    activations = [
        tensor.untyped_storage().nbytes() for key, tensor in kept.items() if key not in weights
    ]
    n = sum(math.prod(parameter.shape) for parameter in model.parameters())
    arrays = 2 + N_MOMENTS[plan.training.optimiser]
    return 4 * n * arrays + sum(activations) + N_WORKING * max(activations)
