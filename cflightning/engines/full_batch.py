"""Engines that see the whole training part in every step, which is an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import Tensor

from cflightning.data.loaders.batches import EpochLoader
from cflightning.engines.base import Engine, EngineOptimizer
from cflightning.models.embedding_dot import EmbeddingDot


class FullBatch(NamedTuple):
    """The batch of all ratings.

    Attributes:
        epoch: Number of the epoch, from 0.
        total: Number of ratings.
    """

    epoch: int
    total: int


class FullBatchLoader(EpochLoader):
    """Dataloader of one batch per epoch, the training part.

    Args:
        user: int32 [n], user indices.
        item: int32 [n], item indices.
        rating: float32 [n], rating units.
        seed: Seed of the engine's random draws.
        rank: Rank of this process.
        world_size: Number of processes.
    """

    def __init__(
        self, user: Tensor, item: Tensor, rating: Tensor, *, seed: int = 0, rank: int = 0, world_size: int = 1, **_: Any
    ) -> None:
        self.columns = user, item, rating
        self.seed, self.rank, self.world_size = seed, rank, world_size

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[FullBatch]:
        self._start, self._served = 0, 1
        yield FullBatch(self._epoch, len(self.columns[0]))


class FullBatchOptimizer(EngineOptimizer):
    """Optimiser that holds the state of a full-batch engine.

    Args:
        network: The served network.
        lr: Learning rate of the engine, if it has one.

    Attributes:
        state_owner: The parameter under which torch stores the state.
    """

    def __init__(self, network: EmbeddingDot, lr: float) -> None:
        super().__init__(network.parameters(), {"lr": lr})
        self.state_owner = network.user_factors.weight


class FullBatchEngine(Engine):
    """An engine whose batch is the training part.

    Args:
        network: The served network.
    """

    scheduled = False

    def __init__(self, network: EmbeddingDot) -> None:
        self.network = network

    def make_loader(self, user: Tensor, item: Tensor, rating: Tensor, **options: Any) -> FullBatchLoader:
        """Make a dataloader of one batch per epoch."""
        return FullBatchLoader(user, item, rating, **options)

    def make_optimizer(self, learning_rate: float) -> FullBatchOptimizer:
        """Make the optimiser that holds the engine's state."""
        return FullBatchOptimizer(self.network, learning_rate)
