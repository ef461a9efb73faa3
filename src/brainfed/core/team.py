"""The processes that train together: one, or those that torchrun started (`core.distributed`)."""

from typing import Protocol

from torch import Tensor, nn


class Team(Protocol):
    """What a process needs of the others; without any, the methods give back what they got."""

    @property
    def rank(self) -> int:
        """Of this process, from 0; that one alone writes and prints."""

    @property
    def n_ranks(self) -> int:
        """How many there are."""

    def reduce(self, sums: Tensor) -> Tensor:
        """Sums over all processes; their gradient goes to each part."""

    def shared(self, module: nn.Module) -> nn.Module:
        """The module with its gradients averaged over all processes."""

    def greatest(self, number: int) -> int:
        """The greatest of the numbers of all processes; it waits for them."""


class Alone:
    """The only process there is."""

    rank = 0
    n_ranks = 1

    def reduce(self, sums: Tensor) -> Tensor:
        """The sums."""
        return sums

    def shared(self, module: nn.Module) -> nn.Module:
        """The module."""
        return module

    def greatest(self, number: int) -> int:
        """The number."""
        return number
