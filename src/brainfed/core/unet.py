"""The U-Net of the paper and its family: 2-D or 3-D, any depth, width, modalities and regions.

Names and shapes of the weights are those of `core.architecture.network_table`, so a file of weights
can be checked without torch and loaded here as it is. Below, `space` stands for y, x in 2-D and
for z, y, x in 3-D.
"""

import hashlib
import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from brainfed.core.architecture import network_table
from brainfed.plan import Activation, Norm, Plan

CONVOLUTION: dict[int, type[nn.Conv2d | nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
CONVOLVE = {2: functional.conv2d, 3: functional.conv3d}
CONVOLVE_TRANSPOSED = {2: functional.conv_transpose2d, 3: functional.conv_transpose3d}
INSTANCE_NORM = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
MAX_POOL = {2: functional.max_pool2d, 3: functional.max_pool3d}


class Block(nn.Module):
    """Two convolutions of three voxels an edge, each followed by norm (if any) and non-linearity.

    Dropout stands between the two and drops single values, as the authors' code does.
    """

    def __init__(self, n_in: int, n_out: int, plan: Plan, *, dropout: float = 0.0) -> None:
        super().__init__()
        n = plan.network.n_dimensions
        self.conv1 = CONVOLUTION[n](n_in, n_out, 3, padding=1)
        self.conv2 = CONVOLUTION[n](n_out, n_out, 3, padding=1)
        with_norm = plan.network.norm is Norm.INSTANCE
        self.norm1 = INSTANCE_NORM[n](n_out, affine=True) if with_norm else nn.Identity()
        self.norm2 = INSTANCE_NORM[n](n_out, affine=True) if with_norm else nn.Identity()
        leaky = plan.network.activation is Activation.LEAKY_RELU
        # In place: neither norm nor convolution needs what it gave to find its gradient.
        self.activation = nn.LeakyReLU(0.01, inplace=True) if leaky else nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, below: Tensor | None = None) -> Tensor:
        """From (sample, n_in, *space) to (sample, n_out, *space).

        In the decoder x is the skip connection, and `below` the level below, half as fine.
        """
        x = self.conv1(x) if below is None else convolve_beside(self.conv1, below, x)
        x = self.dropout(self.activation(normalised(self.norm1, x)))
        return self.activation(normalised(self.norm2, self.conv2(x)))  # type: ignore[no-any-return]


def normalised(norm: nn.Module, x: Tensor) -> Tensor:
    """Instance norm; on a CPU as a group norm of one channel a group, the same in half the time.

    On CUDA that would be slower: autocast computes a group norm in float32.
    """
    if isinstance(norm, nn.InstanceNorm2d | nn.InstanceNorm3d) and x.device.type == "cpu":
        return functional.group_norm(x, x.shape[1], norm.weight, norm.bias, norm.eps)
    return norm(x)  # type: ignore[no-any-return]


def convolve_beside(conv: nn.Conv2d | nn.Conv3d, below: Tensor, skip: Tensor) -> Tensor:
    """`conv(cat((doubled below, skip)))`, doubled by nearest-neighbour upsampling, but cheaper.

    Of the three taps along an axis two fall on the same voxel of `below`, so their weights can be
    added first: that is a transposed convolution of four taps and stride 2. It multiplies 4/9 as
    often in 2-D and 8/27 in 3-D, and neither the doubled level nor the joined one is ever built.
    """
    n, space = below.shape[1], range(2, skip.ndim)
    kernel = conv.weight[:, :n]
    for axis in space:
        nothing = torch.zeros_like(kernel.narrow(axis, 0, 1))
        kernel = torch.cat((kernel, nothing), axis) + torch.cat((nothing, kernel), axis)
    kernel = kernel.flip(tuple(space)).transpose(0, 1)
    doubled = CONVOLVE_TRANSPOSED[len(space)](below, kernel, stride=2, padding=1)
    return doubled + CONVOLVE[len(space)](skip, conv.weight[:, n:], conv.bias, padding=1)


class UNet(nn.Module):
    """The plan's network: logits of each region from an image of all modalities.

    Each encoder level halves the one above by max pooling; each decoder level doubles the one
    below by nearest-neighbour upsampling and reads it beside its skip connection (paper: no
    convolution after the upsampling, no batch norm). With deep supervision each decoder level
    below full resolution has a head too, which training alone looks at.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        network, n = plan.network, plan.network.n_dimensions
        halvings = len(network.channels) - 1
        n_regions = len(plan.scans.regions)
        widths = (len(plan.scans.modalities), *network.channels)
        self.pool = MAX_POOL[n]
        self.patch = network.patch
        """Edges (z, y, x) of what the network sees at a time in 3-D; empty in 2-D."""
        self.encoder = nn.ModuleDict()
        self.decoder = nn.ModuleDict()
        self.deep = nn.ModuleDict()
        for level in range(1, len(widths)):
            dropout = network.dropout if level in network.dropout_levels else 0.0
            block = Block(widths[level - 1], widths[level], plan, dropout=dropout)
            self.encoder[f"level{level}"] = block
        for level in range(halvings, 0, -1):
            block = Block(widths[level + 1] + widths[level], widths[level], plan)
            self.decoder[f"level{level}"] = block
        for level in range(halvings, 1, -1) if network.deep_supervision else ():
            self.deep[f"level{level}"] = CONVOLUTION[n](widths[level], n_regions, 1)
        self.head = CONVOLUTION[n](network.channels[0], n_regions, 1)

    def forward(self, x: Tensor) -> Tensor:
        """From image (sample, modality, *space) to logits (sample, region, *space), no sigmoid."""
        return self.head(self._decoded(x)[0])  # type: ignore[no-any-return]

    def outputs(self, x: Tensor) -> tuple[Tensor, ...]:
        """Logits as `forward` gives them, then those of the deep heads, each half as fine."""
        decoded = self._decoded(x)
        heads = (self.head, *reversed(list(self.deep.values())))
        return tuple(head(level) for head, level in zip(heads, decoded, strict=False))

    def _decoded(self, x: Tensor) -> list[Tensor]:
        """What each decoder level makes of the image, the finest first."""
        skips: list[Tensor] = []
        for block in self.encoder.values():
            x = block(self.pool(x, 2) if skips else x)
            skips.append(x)
        levels: list[Tensor] = []
        for block, skip in zip(self.decoder.values(), reversed(skips[:-1]), strict=True):
            x = block(skip, below=x)
            levels.insert(0, x)
        return levels


def initial_weights(plan: Plan) -> dict[str, np.ndarray]:
    """All weights before round 1: he_uniform convolutions, zero biases, norms that change nothing.

    Each tensor has its own stream of random numbers, made from the plan's seed and its name, so
    the same plan gives the same bits, and nothing but the plan decides. Convolutions are uniform
    within +-sqrt(6 / fan_in) (paper: he_uniform; 3x3 kernels have fan_in 9 n_in, 3x3x3 ones
    27 n_in).

    Returns:
        float32 arrays by name, names and shapes of `network_table(plan)`.
    """
    weights: dict[str, np.ndarray] = {}
    for name, shape in network_table(plan).items():
        if len(shape) > 1:
            digest = hashlib.sha256(f"{plan.seed} {name}".encode()).digest()
            random = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))
            limit = np.float32(math.sqrt(6 / math.prod(shape[1:])))
            weights[name] = (2 * random.random(shape, dtype=np.float32) - 1) * limit
        else:
            one = ".norm" in name and name.endswith(".weight")
            weights[name] = np.full(shape, 1.0 if one else 0.0, dtype=np.float32)
    return weights
