"""The network's tensor table, computed from the plan alone, without torch.

Import, aggregation and audit hold every file's tensor names and shapes against this table, on
machines that may lack torch; a test holds `core.unet` against it.
"""

import hashlib
import math

from brainfed.core import canonical
from brainfed.errors import PlanError
from brainfed.plan import Architecture, Norm, Plan, render

TensorTable = dict[str, tuple[int, ...]]
"""Shape of each tensor by name, in name order."""


def tensor_table(plan: Plan) -> TensorTable:
    """Names and shapes of the weights that travel, in name order: all but the plan's `local`."""
    local = frozenset(plan.network.local)
    return {name: shape for name, shape in network_table(plan).items() if name not in local}


def network_table(plan: Plan) -> TensorTable:
    """Names and shapes of all the network's weights, in name order, those that stay local too.

    Convolutions are `(out, in, 3, 3)`, the heads `(region, channel, 1, 1)`, in 3-D with one edge
    more; level 1 is full resolution. A decoder level reads the upsampled level below beside its
    skip connection; with deep supervision each below full resolution has a head of its own. Of an
    external network they are the plan's `tensors`, also those that are no float32.
    """
    network = plan.network
    if network.architecture is Architecture.EXTERNAL:
        lines = (line.split(" ") for line in network.tensors)
        return {name: tuple(int(edge) for edge in edges) for name, _, *edges in sorted(lines)}
    channels, n = network.channels, network.n_dimensions
    table: TensorTable = {}

    def block(name: str, n_in: int, n_out: int) -> None:
        for conv, width in (("1", n_in), ("2", n_out)):
            table[f"{name}.conv{conv}.weight"] = (n_out, width, *(3,) * n)
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
    heads = {"head": channels[0]}
    if network.deep_supervision:
        heads |= {f"deep.level{level}": channels[level - 1] for level in range(2, len(channels))}
    for name, width in heads.items():
        table[f"{name}.weight"] = (len(plan.scans.regions), width, *(1,) * n)
        table[f"{name}.bias"] = (len(plan.scans.regions),)
    return dict(sorted(table.items()))


INSTEAD = (
    "use your own program on the global weights, then `brainfed export --weights FILE` with what "
    "it trained; see docs/how-to/own-trainer.md"
)


def check_own(plan: Plan, what: str, *, instead: str = INSTEAD) -> None:
    """Refuse to do with a network of the sites' own what only their program can.

    Args:
        plan: The plan.
        what: What brainfed can't do, a verb.
        instead: What to do.

    Raises:
        PlanError: The plan's network is external.
    """
    if plan.network.architecture is Architecture.EXTERNAL:
        raise PlanError(
            f"The network of this federation is the sites' own: brainfed can't {what} it",
            expected="a network of brainfed's (unet-2d, unet-3d)",
            found='architecture = "external"',
            where="network.architecture",
            hint=instead,
        )


def check_external(plan: Plan) -> None:
    """Refuse weights of another program for a network that brainfed trains itself.

    Raises:
        PlanError: The plan's network is one of brainfed's.
    """
    if plan.network.architecture is not Architecture.EXTERNAL:
        raise PlanError(
            "The network of this federation is trained by brainfed",
            expected='architecture = "external" for weights of your own program',
            found=f'architecture = "{plan.network.architecture}"',
            where="network.architecture",
            hint="`brainfed train-round`, then `brainfed export` without --weights",
        )


def n_parameters(table: TensorTable) -> int:
    """The number of values in all tensors."""
    return sum(math.prod(shape) for shape in table.values())


def network_digest(plan: Plan) -> str:
    """SHA-256 (hexadecimal) of the plan's table `network` and of what travels of its tensors."""
    content = {
        "network": render(plan, ("network",)),
        "tensors": [[name, *shape] for name, shape in tensor_table(plan).items()],
    }
    return hashlib.sha256(canonical.dumps(content)).hexdigest()
