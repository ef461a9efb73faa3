"""The network's tensor table, computed from the plan alone, without torch.

Import, aggregation and audit hold every file's tensor names and shapes against this table, on
machines that may lack torch; a test holds `core.unet` against it.
"""

import hashlib
import math

from brainfed.core import canonical
from brainfed.plan import Norm, Plan, render

TensorTable = dict[str, tuple[int, ...]]
"""Shape of each float32 tensor by name, in name order."""


def tensor_table(plan: Plan) -> TensorTable:
    """Names and shapes of the plan's weights, in name order.

    Convolutions are `(out, in, 3, 3)`, the last one `(region, channel, 1, 1)`; level 1 is full
    resolution. A decoder level reads the upsampled level below beside its skip connection.
    """
    channels = plan.network.channels
    table: TensorTable = {}

    def block(name: str, n_in: int, n_out: int) -> None:
        for conv, width in (("1", n_in), ("2", n_out)):
            table[f"{name}.conv{conv}.weight"] = (n_out, width, 3, 3)
            table[f"{name}.conv{conv}.bias"] = (n_out,)
            if plan.network.norm is Norm.INSTANCE:
                table[f"{name}.norm{conv}.weight"] = (n_out,)
                table[f"{name}.norm{conv}.bias"] = (n_out,)

    n_in = len(plan.scans.modalities)
    for level, n_out in enumerate(channels, start=1):
        block(f"encoder.level{level}", n_in, n_out)
        n_in = n_out
    for level in range(len(channels) - 1, 0, -1):
        block(f"decoder.level{level}", channels[level] + channels[level - 1], channels[level - 1])
    table["head.weight"] = (len(plan.scans.regions), channels[0], 1, 1)
    table["head.bias"] = (len(plan.scans.regions),)
    return dict(sorted(table.items()))


def n_parameters(table: TensorTable) -> int:
    """The number of float32 values in all tensors."""
    return sum(math.prod(shape) for shape in table.values())


def network_digest(plan: Plan) -> str:
    """SHA-256 (hexadecimal) of the plan's table `network` and of its tensor table."""
    content = {
        "network": render(plan, ("network",)),
        "tensors": [[name, *shape] for name, shape in tensor_table(plan).items()],
    }
    return hashlib.sha256(canonical.dumps(content)).hexdigest()
