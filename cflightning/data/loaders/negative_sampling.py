"""Negatives: items that stand for all that were not chosen, drawn in one call for a batch.

An item that the user has chosen elsewhere may be among them: where there are many items this is rare, and what is drawn
says the same of all of them. Only that a choice is held against itself must not be: see `hits`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from cflightning.errors import ConfigError, DataError


class Drawn(NamedTuple):
    """Negatives of a batch.

    Attributes:
        items: int64 [batch, m], rows; or [m], shared by the batch.
        log_q: float32 of the same shape, log of the probability that a draw is that item; None where all are alike.
    """

    items: Tensor
    log_q: Tensor | None = None


class Negatives(ABC):
    """A way of drawing them."""

    @abstractmethod
    def draw(self, item: Tensor, generator: torch.Generator) -> Drawn:
        """Negatives for a whole batch, that of all devices.

        Args:
            item: int64 [batch], rows of the items chosen.
            generator: on the CPU, whatever the device of the rows: so draws are the same everywhere.
        """


class UniformNegatives(Negatives):
    """Every item but the unknown one is as likely as any other.

    Args:
        num_items: rows of the item table, the unknown row included.
        m: how many for each choice, or for each batch.
        shared: one draw for the whole batch.

    Raises:
        ConfigError: there is no item, or `m` is below 1.
    """

    def __init__(self, num_items: int, m: int, shared: bool = False) -> None:
        if num_items < 2 or m < 1:
            raise ConfigError(
                "UniformNegatives: there must be an item beside the unknown one, and m must be at least 1, "
                f"got {num_items} rows and {m}"
            )
        self.num_items, self.m, self.shared = num_items, m, shared

    def draw(self, item: Tensor, generator: torch.Generator) -> Drawn:
        """See `Negatives.draw`."""
        shape = (self.m,) if self.shared else (len(item), self.m)
        return Drawn(torch.randint(1, self.num_items, shape, generator=generator).to(item.device))


class BatchNegatives(Negatives):
    """The items chosen in the same batch, shared by it; each is as likely as it is popular (Yi et al. 2019).

    Args:
        counts: int64 [num_items], how often each item is chosen in the training part.
    """

    def __init__(self, counts: Tensor) -> None:
        self.log_q = (counts / counts.sum().clamp(min=1)).log()

    def draw(self, item: Tensor, generator: torch.Generator) -> Drawn:
        """See `Negatives.draw`; draws nothing.

        Raises:
            DataError: an item was never chosen in the training part.
        """
        self.log_q = self.log_q.to(item.device)
        log_q = self.log_q[item]
        if bad := int(log_q.isinf().sum()):
            raise DataError(f"BatchNegatives: every item of a batch must be one of the training part, got {bad} others")
        return Drawn(item, log_q)


def hits(item: Tensor, negatives: Tensor) -> Tensor:
    """Which negatives are the choice itself: int64 [batch], int64 [batch, m] or [m] -> bool [batch, m]."""
    return item[:, None] == negatives
