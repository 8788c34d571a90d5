"""The interface of engines, which train networks in place of autograd."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from cflightning.data.loaders.batches import EpochLoader
from cflightning.engines.svdpp_prior import SvdppPrior, SvdppSides
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.models.penalty import Penalty
from cflightning.models.svdpp import SvdppTerm

DEFAULT_EPOCHS = 10
"""Default number of epochs of training by gradients."""
DEFAULT_SWEEPS = 128
"""Default number of epochs of Gibbs sampling, where an epoch is a sweep."""


class Engine(ABC):
    """A replacement of autograd: it updates the tables of networks itself, in every process of the Trainer.

    An engine is made for one fit. The Trainer takes its dataloader, and its optimiser, which holds its state; then the
    fit calls `start`, with arguments that depend on the engine.

    Attributes:
        name: Name in checkpoints.
        scheduled: Whether the learning rate follows a schedule.
        svdpp_term_class: Class of the SVD++ terms that are trained beside the engine; None if it has none, or its own.
        penalty_scale: Multiple of the penalty on factors from the next batch on; engines without a penalty ignore it.
    """

    name: str
    scheduled: ClassVar[bool] = True
    svdpp_term_class: type[SvdppTerm] | None = None
    penalty_scale = 1.0

    @abstractmethod
    def make_loader(self, user: Tensor, item: Tensor, rating: Tensor, **options: Any) -> EpochLoader:
        """Make the dataloader, with the arguments of `RatingLoader`.

        Its batches have an attribute `total`, the number of training rows over all processes.
        """

    @abstractmethod
    def make_optimizer(self, learning_rate: float) -> torch.optim.Optimizer:
        """Make the optimiser, which holds the engine's state."""

    def default_learning_rate(self, num_epochs: int | None, svdpp: SvdppSides) -> float:
        """Return the peak learning rate if none is given; 0 if the engine has none.

        Args:
            num_epochs: Epochs of the run; None or -1 if their number is open.
            svdpp: Sides that have an SVD++ term.
        """
        return 0.0

    @abstractmethod
    def train_batch(self, batch: Any, learning_rate: float) -> float | Tensor:
        """Train on a batch of the engine's dataloader.

        Returns:
            Sum of the logged loss over this process's rows, float64 []: squared errors of ratings in squared rating
            units, or the loss of a ranking solver.
        """

    @abstractmethod
    def close(self) -> None:
        """Release what the engine holds, such as its thread pool; it trains no more."""


@dataclass(frozen=True)
class EngineInputs:
    """Settings and SVD++ priors with which an engine of ratings starts.

    Attributes:
        priors: SVD++ priors of the engine's networks, in their order; empty without SVD++ terms.
        build_members: Makes the untrained networks of an ensemble, for engines that train their members themselves.
        dim: Latent factors in training; the served network may have fewer.
        penalty: L2 penalty on factors.
        bias_l2: L2 penalties on user biases and on item biases, in units of the squared rating range.
        svdpp: Sides that have an SVD++ term.
        seed: Seed of the engine's random draws.
        threads: Number of threads.
        num_epochs: Epochs of the run; None or -1 if their number is open.
    """

    priors: Sequence[SvdppPrior]
    build_members: Callable[[], Sequence[EmbeddingDot]]
    dim: int
    penalty: Penalty
    bias_l2: tuple[float, float]
    svdpp: SvdppSides
    seed: int
    threads: int
    num_epochs: int | None


class EngineOptimizer(torch.optim.Optimizer):
    """The state of an engine in the form that Lightning saves and restores; the closure of `step` does the update."""

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Call the closure without gradients."""
        with torch.no_grad():
            return None if closure is None else closure()
