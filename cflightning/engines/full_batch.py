"""Engines that see all rows in every step: a batch is the table, and an epoch a sweep over it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cflightning.data.loaders.ratings import EpochLoader
from cflightning.models.embedding_dot import EmbeddingDot


class Sweep(NamedTuple):
    """A batch: all ratings.

    Attributes:
        total: how many.
    """

    total: int


class SweepLoader(EpochLoader):
    """All ratings, as one batch.

    Args:
        user: int32 [n], rows.
        item: int32 [n], rows.
        rating: float32 [n], rating units.
        seed: of whatever the engine draws.
        rank: this process's number.
        world_size: number of processes.
    """

    def __init__(
        self, user: Tensor, item: Tensor, rating: Tensor, *, seed: int = 0, rank: int = 0, world_size: int = 1, **_: Any
    ) -> None:
        self.columns = user, item, rating
        self.seed, self.rank, self.world_size = seed, rank, world_size

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Sweep]:
        self._start, self._served = 0, 1
        yield Sweep(len(self.columns[0]))


class Memory(torch.optim.Optimizer):
    """What an engine has to remember, where Lightning saves and restores it; `step` runs the closure.

    Args:
        network: that answers.
        lr: learning rate of the engine, if it has one.
    """

    def __init__(self, network: EmbeddingDot, lr: float) -> None:
        super().__init__(network.parameters(), {"lr": lr})
        self.place = network.user_factors.weight

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Run the closure without gradients."""
        with torch.no_grad():
            return closure() if closure is not None else None
