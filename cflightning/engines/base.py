"""The interface of engines, and the data that a task and an engine exchange."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cflightning.data.loaders.batches import EpochLoader
from cflightning.engines.svdpp_prior import SvdppPrior, SvdppSides
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.models.penalty import Penalty

DEFAULT_EPOCHS = 10
"""Default number of epochs of training by gradients."""
DEFAULT_SWEEPS = 128
"""Default number of epochs of Gibbs sampling, where an epoch is a sweep."""


@dataclass(frozen=True)
class EngineContext:
    """The settings of a training run that an engine reads when it starts.

    Attributes:
        networks: Networks that the engine trains in place, one per ensemble member.
        priors: SVD++ priors of these networks, in their order; empty without SVD++ terms.
        init_members: Makes the untrained networks of an ensemble, for engines that train their members themselves.
        dim: Latent factors in training; the served network may have fewer.
        penalty: L2 penalty on factors.
        bias_l2: L2 penalties on user biases and on item biases, in units of the squared rating range.
        svdpp: Sides that have an SVD++ term.
        seed: Seed of the engine's random draws.
        threads: Number of threads.
        num_epochs: Epochs of the run; None or -1 if their number is open.
    """

    networks: Sequence[EmbeddingDot]
    priors: Sequence[SvdppPrior]
    init_members: Callable[[], Sequence[EmbeddingDot]]
    dim: int
    penalty: Penalty
    bias_l2: tuple[float, float]
    svdpp: SvdppSides
    seed: int
    threads: int
    num_epochs: int | None


class Engine(ABC):
    """A replacement of autograd: it updates the tables of networks itself, in every process of the Trainer.

    Attributes:
        penalty_scale: Multiple of the penalty on factors from the next batch on; engines without a penalty ignore it.
    """

    penalty_scale = 1.0

    @abstractmethod
    def train_batch(self, batch: Any, learning_rate: float) -> float | Tensor:
        """Train on a batch of the loader that the engine's `EngineSpec` makes.

        Returns:
            Sum of the logged loss over this process's rows, float64 []: squared errors of ratings in squared rating
            units, or the loss of a ranking solver.
        """

    @abstractmethod
    def close(self) -> None:
        """Release what the engine holds, such as its thread pool; it trains no more."""


class EngineGroup(Engine):
    """Several engines that train on the same batches, each with its own network.

    Args:
        engines: At least one.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        self.engines = engines

    def train_batch(self, batch: Any, learning_rate: float) -> float | Tensor:
        """Train every network on the batch; returns the mean of their sums of squared errors, squared rating units."""
        for engine in self.engines:
            engine.penalty_scale = self.penalty_scale
        return sum(engine.train_batch(batch, learning_rate) for engine in self.engines) / len(self.engines)

    def close(self) -> None:
        """Close all engines."""
        for engine in self.engines:
            engine.close()


class EngineOptimizer(torch.optim.Optimizer):
    """The state of an engine in the form that Lightning saves and restores; the closure of `step` does the update."""

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Call the closure without gradients."""
        with torch.no_grad():
            return None if closure is None else closure()


@dataclass(frozen=True)
class EngineSpec:
    """The parts of an engine, in the order in which the Trainer needs them.

    Attributes:
        name: Name of the engine in checkpoints.
        make_loader: Makes the dataloader, with the arguments of `RatingLoader`. Its batches have an attribute `total`,
            the number of ratings over all processes.
        make_optimizer: Makes the optimiser, which holds the engine's state, from a learning rate.
        default_learning_rate: Learning rate for a number of epochs (None or -1 if open) and the sides with SVD++ terms.
        make_engine: Starts the engine with the dataloader and the optimiser; None for a solver, which its head starts.
        has_svdpp_terms: Whether SVD++ terms are trained beside the engine; False if it trains its own, or has none.
        compiled_svdpp: Whether these terms are the compiled ones.
        scheduled: Whether the learning rate follows a schedule.
    """

    name: str
    make_loader: Callable[..., EpochLoader]
    make_optimizer: Callable[[float], torch.optim.Optimizer]
    default_learning_rate: Callable[[int | None, SvdppSides], float]
    make_engine: Callable[[EngineContext, Any, Any], Engine] | None = None
    has_svdpp_terms: bool = True
    compiled_svdpp: bool = False
    scheduled: bool = True
