"""The 2-D U-Net of the paper and its family: any depth, width, number of modalities and regions.

Names and shapes of the weights are those of `core.architecture.tensor_table`, so a file of weights
can be checked without torch and loaded here as it is.
"""

import hashlib
import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from brainfed.core.architecture import tensor_table
from brainfed.plan import Activation, Norm, Plan


class Block(nn.Module):
    """Two 3x3 convolutions, each followed by its norm (if any) and the non-linearity.

    Dropout stands between the two and drops single values, as the authors' code does.
    """

    def __init__(self, n_in: int, n_out: int, plan: Plan, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, padding=1)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1)
        with_norm = plan.network.norm is Norm.INSTANCE
        self.norm1 = nn.InstanceNorm2d(n_out, affine=True) if with_norm else nn.Identity()
        self.norm2 = nn.InstanceNorm2d(n_out, affine=True) if with_norm else nn.Identity()
        leaky = plan.network.activation is Activation.LEAKY_RELU
        self.activation = nn.LeakyReLU(0.01) if leaky else nn.ReLU()
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """From (slice, n_in, y, x) to (slice, n_out, y, x)."""
        x = self.dropout(self.activation(self.norm1(self.conv1(x))))
        return self.activation(self.norm2(self.conv2(x)))  # type: ignore[no-any-return]


class UNet(nn.Module):
    """The plan's network: logits of each region from an image of all modalities.

    Each encoder level halves the one above by max pooling; each decoder level doubles the one
    below by nearest-neighbour upsampling and reads it beside its skip connection (paper: no
    convolution after the upsampling, no batch norm).
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        network = plan.network
        halvings = len(network.channels) - 1
        widths = (len(plan.scans.modalities), *network.channels)
        self.encoder = nn.ModuleDict()
        self.decoder = nn.ModuleDict()
        for level in range(1, len(widths)):
            dropout = network.dropout if level in network.dropout_levels else 0.0
            block = Block(widths[level - 1], widths[level], plan, dropout=dropout)
            self.encoder[f"level{level}"] = block
        for level in range(halvings, 0, -1):
            block = Block(widths[level + 1] + widths[level], widths[level], plan)
            self.decoder[f"level{level}"] = block
        self.head = nn.Conv2d(network.channels[0], len(plan.scans.regions), 1)

    def forward(self, x: Tensor) -> Tensor:
        """From image (slice, modality, y, x) to logits (slice, region, y, x), not yet sigmoid."""
        skips: list[Tensor] = []
        for block in self.encoder.values():
            x = block(functional.max_pool2d(x, 2) if skips else x)
            skips.append(x)
        for block, skip in zip(self.decoder.values(), reversed(skips[:-1]), strict=True):
            x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
            x = block(torch.cat((x, skip), dim=1))
        return self.head(x)  # type: ignore[no-any-return]


def initial_weights(plan: Plan) -> dict[str, np.ndarray]:
    """The weights of round 0: he_uniform convolutions, zero biases, norms that change nothing.

    Each tensor has its own stream of random numbers, made from the plan's seed and its name, so
    the same plan gives the same bits, and nothing but the plan decides. Convolutions are uniform
    within +-sqrt(6 / fan_in) (paper: he_uniform; 3x3 kernels have fan_in 9 n_in).

    Returns:
        float32 arrays by name, names and shapes of `tensor_table(plan)`.
    """
    weights: dict[str, np.ndarray] = {}
    for name, shape in tensor_table(plan).items():
        if len(shape) == 4:
            digest = hashlib.sha256(f"{plan.seed} {name}".encode()).digest()
            random = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))
            limit = np.float32(math.sqrt(6 / math.prod(shape[1:])))
            weights[name] = (2 * random.random(shape, dtype=np.float32) - 1) * limit
        else:
            one = ".norm" in name and name.endswith(".weight")
            weights[name] = np.full(shape, 1.0 if one else 0.0, dtype=np.float32)
    return weights
