"""Where training and evaluation compute, and what to say when it doesn't suffice."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from brainfed.errors import ResourceError
from brainfed.plan import Plan


def choose_device(name: str | None = None) -> torch.device:
    """The device of this name (`cpu`, `cuda`, `cuda:1`); without one, CUDA where there is one.

    Raises:
        ResourceError: No such device on this machine.
    """
    n_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    known = ["cpu", *(["cuda"] if n_cuda else []), *(f"cuda:{number}" for number in range(n_cuda))]
    if name is None:
        return torch.device("cuda" if n_cuda else "cpu")
    if name not in known:
        raise ResourceError(
            "This machine has no such device",
            expected=" or ".join(known),
            found=name,
            where="--device",
            hint="leave --device out to take the best there is",
        )
    return torch.device(name)


@contextmanager
def threads(number: int | None) -> Iterator[None]:
    """Compute with this many CPU threads inside; None leaves the number as it is."""
    before = torch.get_num_threads()
    if number is not None:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def memory_errors(plan: Plan) -> Iterator[None]:
    """Turn running out of memory inside into a ResourceError that names what to make smaller."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # On the CPU torch has no class of its own for it, only this sentence.
        of_memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not of_memory and "allocate memory" not in str(error):
            raise
        raise ResourceError(
            "The memory of the device is too small for this plan",
            expected="room for one batch, or a smaller training.batch or network.channels",
            found=f"training.batch {plan.training.batch}, "
            f"network.channels {list(plan.network.channels)}",
            where="the plan",
            hint="close other programs, or ask the coordinator for a plan with smaller ones",
        ) from None


@contextmanager
def room_for_cases() -> Iterator[None]:
    """Turn running out of memory while cases are read inside into a ResourceError."""
    try:
        yield
    except MemoryError:
        raise ResourceError(
            "The training and validation cases don't fit into the memory together",
            expected="room for all of them: 2 bytes a voxel and modality",
            hint="close other programs, or use a machine with more memory",
        ) from None
