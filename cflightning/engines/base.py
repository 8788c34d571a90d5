"""Engines: what trains a network's tables in place of autograd, under the same Trainer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cflightning.data.loaders.ratings import EpochLoader
from cflightning.models.svdpp import SvdppTerm

EPOCHS = 10
"""Of a training, where no number is given."""
SWEEPS = 128
"""And of one by sampling, where an epoch is a sweep."""


class Engine(ABC):
    """Trains the tables of a network by itself, on every process of the Trainer.

    Attributes:
        strength: multiple of the penalty on factors from the next step on; engines without one do not look.
    """

    strength = 1.0

    @abstractmethod
    def run(self, step: Any, learning_rate: float) -> float | Tensor:
        """Take a step, a batch of the plan's loader.

        Returns:
            Sum of the squared errors of this process's ratings, squared rating units (float64 []).
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of threads."""


class Together(Engine):
    """Several engines on the same batches, each with a network of its own.

    Args:
        engines: one or more.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        self.engines = engines

    def run(self, step: Any, learning_rate: float) -> float | Tensor:
        """Let each take the step; the mean of their sums of squared errors, squared rating units."""
        for engine in self.engines:
            engine.strength = self.strength
        return sum(engine.run(step, learning_rate) for engine in self.engines) / len(self.engines)

    def close(self) -> None:
        """Close all."""
        for engine in self.engines:
            engine.close()


class Plan(NamedTuple):
    """How an engine is set up, in the order in which the Trainer asks.

    Attributes:
        name: of the engine, for checkpoints.
        loader: makes the batches; called as `BatchLoader` is. A batch has a `total`, its ratings over all processes.
        optimizer: makes the engine's memory, where Lightning saves and restores it, for a learning rate.
        rate: the learning rate where none is given; by the number of epochs, which may be open (None or -1).
        start: makes the engine from the loader and the memory.
        bag: says which kind of bag is as fast as the engine; None where the engine has bags of its own.
        scheduled: whether the learning rate follows a schedule.
    """

    name: str
    loader: Callable[..., EpochLoader]
    optimizer: Callable[[float], torch.optim.Optimizer]
    rate: Callable[[int | None], float]
    start: Callable[[Any, Any], Engine]
    bag: Callable[[], type[SvdppTerm]] | None = lambda: SvdppTerm
    scheduled: bool = True
