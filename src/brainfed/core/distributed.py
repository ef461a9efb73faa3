"""Several processes of one site that share each batch, as torchrun starts them.

Imported under torchrun alone: it is the one part of brainfed that opens sockets, between the site's
own processes, where and how torchrun was told to.
"""

import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta

import torch
import torch.distributed.nn
from torch import Tensor, distributed, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from brainfed.errors import ResourceError, UsageError

LONGEST_WAIT = timedelta(days=1)
"""For another process: the first one scores all validation cases while the others wait."""


class Launched:
    """The processes that torchrun started, as `core.team.Team` wants them."""

    def __init__(self, store: Store, rank: int, n_ranks: int) -> None:
        """Know of the others; `begin` begins the work with them."""
        self.rank, self.n_ranks = rank, n_ranks
        self.device = torch.device("cpu")
        """Where this process computes, once it has begun."""
        self._store = store

    def begin(self, device: str | None) -> None:
        """Choose the device of this process, and take part in the work.

        Args:
            device: `cpu` or `cuda`; CUDA where there is one if None. Each process takes the GPU of
                its number on this machine.

        Raises:
            ResourceError: More processes on this machine than GPUs.
            UsageError: A single GPU was named.
        """
        self.device = _device_of_this(int(os.environ["LOCAL_RANK"]), device)
        distributed.init_process_group(
            "nccl" if self.device.type == "cuda" else "gloo",
            store=PrefixStore("group", self._store),
            rank=self.rank,
            world_size=self.n_ranks,
            timeout=LONGEST_WAIT,
        )

    def reduce(self, sums: Tensor) -> Tensor:
        """Sums over all processes; their gradient goes to each part."""
        found: Tensor = torch.distributed.nn.all_reduce(sums)  # type: ignore[no-untyped-call]
        return found

    def shared(self, module: nn.Module) -> nn.Module:
        """The module with its gradients averaged over all processes.

        Each process finds the gradient of the whole loss by its own rows, times the number of
        processes, since all of them ask for the gradient of the same sums: the mean is the sum of
        the parts, which is the gradient.
        """
        return nn.parallel.DistributedDataParallel(module, broadcast_buffers=False)

    def greatest(self, number: int) -> int:
        """The greatest of the numbers of all processes; it waits for them."""
        found = torch.tensor(number, device=self.device)
        distributed.all_reduce(found, distributed.ReduceOp.MAX)
        return int(found.item())

    def speaks(self) -> bool:
        """Whether this process is the first to have something to say about an error."""
        return int(self._store.add("brainfed-errors", 1)) == 1


@contextlib.contextmanager
def launched() -> Iterator[Launched]:
    """Meet the processes that torchrun started; whatever they began is ended afterwards."""
    store, rank, n_ranks = next(rendezvous("env://", timeout=LONGEST_WAIT))
    store.set_timeout(LONGEST_WAIT)
    try:
        yield Launched(store, rank, n_ranks)
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def is_lost_peer(error: BaseException) -> bool:
    """Whether this error only says that another process has ended."""
    if isinstance(error, distributed.DistBackendError):
        return True
    words = ("gloo", "Connection closed by peer", "Connection reset by peer")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def _device_of_this(number: int, device: str | None) -> torch.device:
    n_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device not in (None, "cpu", "cuda"):
        raise UsageError(
            "Under torchrun each process has a GPU of its own",
            expected="cpu or cuda",
            found=device,
            where="--device",
            hint="CUDA_VISIBLE_DEVICES chooses among the GPUs",
        )
    if device == "cpu" or (device is None and not n_cuda):
        return torch.device("cpu")
    if number >= n_cuda:
        raise ResourceError(
            "There are more processes on this machine than GPUs",
            expected=f"torchrun --nproc-per-node={n_cuda}" if n_cuda else "--device cpu",
            found=f"process {number + 1}",
            where="torchrun",
            hint="start as many as there are GPUs",
        )
    chosen = torch.device(f"cuda:{number}")
    torch.cuda.set_device(chosen)
    return chosen
