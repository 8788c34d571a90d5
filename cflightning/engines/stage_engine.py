"""The common part of the fused engines on CPU and GPU: state tables, penalties, learning rates, and ensembles.

A stage is an eighth of an epoch and a batch of the Trainer.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cflightning.engines.base import Engine, EngineOptimizer
from cflightning.engines.svdpp_prior import ProximalStep, SvdppPrior, SvdppSides
from cflightning.kernels.adagrad import ADAGRAD, BIAS, L2, V_BIAS, V_FACTORS, make_state_table
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.models.penalty import BIAS_L2, Penalty

STAGES = 8
"""Stages of an epoch. On the CPU also the number of cells of a stage."""


class RowwiseAdagrad(EngineOptimizer):
    """State of the fused engines: one sum of squared gradients per embedding vector and per bias.

    Args:
        networks: Networks to train.
        lr: Peak learning rate.
    """

    def __init__(self, networks: Sequence[EmbeddingDot], lr: float) -> None:
        parameters = [parameter for network in networks for parameter in network.parameters()]
        super().__init__(parameters, {"lr": lr})
        for parameter in parameters:
            if parameter.ndim:
                self.state[parameter]["sum"] = torch.zeros(len(parameter))


class StepSizes(NamedTuple):
    """Learning rates of a stage, and AdaGrad's epsilon.

    Attributes:
        factors: Learning rate of factors.
        biases: Learning rate of user and item biases.
        global_bias: Learning rate of the global bias.
        eps: Number added to the root of an accumulator.
    """

    factors: float
    biases: float
    global_bias: float
    eps: float


class StageDescent(ABC):
    """Gradient descent of one network by stages, without its kernel.

    Args:
        network: Network to train in place; its tables lie on `device`.
        counts: int64 [num_users] and [num_items], numbers of ratings.
        optimizer: Optimiser with the accumulators; afterwards they share memory with the state tables.
        penalty: L2 penalty on factors.
        bias_l2: L2 penalties on user biases and on item biases.
        prior: SVD++ terms, towards which a `ProximalStep` pulls the vectors; else the kernel pulls towards zero.
        device: Device of the kernel.

    Attributes:
        penalty_scale: Multiple of the penalty on factors from the next stage on.
        states: float32 [num_users, STATE_WIDTH] and [num_items, STATE_WIDTH], see `kernels.adagrad`.
    """

    def __init__(
        self,
        network: EmbeddingDot,
        counts: Sequence[NDArray[np.int64]],
        optimizer: RowwiseAdagrad,
        penalty: Penalty,
        *,
        bias_l2: tuple[float, float] = (BIAS_L2, BIAS_L2),
        prior: SvdppPrior | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        factors, biases = (network.user_factors, network.item_factors), (network.user_bias, network.item_bias)
        self.factors = [table.weight.detach() for table in factors]
        self.biases = [table.weight.detach() for table in biases]
        self.states: list[Tensor] = []
        for count, bias, l2, *tables in zip(counts, self.biases, bias_l2, factors, biases, strict=True):
            state = torch.from_numpy(make_state_table(count, bias.squeeze(-1).cpu().numpy(), penalty, l2)).to(device)
            for column, table in zip((V_FACTORS, V_BIAS), tables, strict=True):
                state[:, column] = optimizer.state[table.weight]["sum"].to(device)
                optimizer.state[table.weight]["sum"] = state[:, column]  # shared memory from here on
            self.states.append(state)
        self.penalties = [state[:, L2].clone() for state in self.states]
        self.penalty_scale = self._applied_scale = 1.0
        self.proximal_step: ProximalStep | None = None
        if prior is not None:
            numbers = [torch.from_numpy(count).to(device) for count in counts]
            self.proximal_step = ProximalStep(network, prior, self.states, numbers, STAGES)
        self.gradient_factor = 2 * (1 + 2 * network.scale.margin) ** 2
        self.squared_unit = (network.scale.high - network.scale.low) ** 2

    @abstractmethod
    def train_batch(self, stage: Any, learning_rate: float) -> float | Tensor:
        """Train on this process's ratings of a stage.

        Returns:
            Sum of their squared errors, squared rating units: float64 [].
        """

    def close(self) -> None:
        """Release threads."""
        return

    def step_sizes(self, learning_rate: float) -> StepSizes:
        """Return the learning rates of all parameters of a stage."""
        rates = learning_rate, learning_rate * ADAGRAD.bias_rate, learning_rate * ADAGRAD.global_rate
        return StepSizes(*rates, ADAGRAD.eps)

    def set_penalties(self) -> None:
        """Set the kernel's penalties to `penalty_scale` times their initial values."""
        if self.proximal_step is None and self.penalty_scale != self._applied_scale:
            self._applied_scale = self.penalty_scale
            for state, penalty in zip(self.states, self.penalties, strict=True):
                state[:, L2] = self.penalty_scale * penalty

    def finish_stage(self, learning_rate: float) -> None:
        """Take the proximal step, and copy the biases into the network, so that it can be evaluated at any time."""
        if self.proximal_step is not None:
            self.proximal_step.step(learning_rate, self.penalty_scale)
        for bias, state in zip(self.biases, self.states, strict=True):
            bias.squeeze(-1).copy_(state[:, BIAS])


class StageEngine(Engine):
    """A fused engine: gradient descent of several networks on the same stages.

    Args:
        networks: Networks to train, at least one.

    Attributes:
        descents: The gradient descent of each network, once the engine has started.
    """

    name = "fused"

    def __init__(self, networks: Sequence[EmbeddingDot]) -> None:
        self.networks = networks
        self.descents: Sequence[StageDescent] = ()

    def make_optimizer(self, learning_rate: float) -> RowwiseAdagrad:
        """Make row-wise AdaGrad for all networks."""
        return RowwiseAdagrad(self.networks, learning_rate)

    def default_learning_rate(self, num_epochs: int | None, svdpp: SvdppSides) -> float:
        """Return the peak learning rate if none is given."""
        return fused_learning_rate(num_epochs, svdpp)

    def train_batch(self, stage: Any, learning_rate: float) -> float | Tensor:
        """Train every network on the stage; returns the mean of their sums of squared errors, squared rating units."""
        for descent in self.descents:
            descent.penalty_scale = self.penalty_scale
        return sum(descent.train_batch(stage, learning_rate) for descent in self.descents) / len(self.descents)

    def close(self) -> None:
        """Release threads and tables."""
        for descent in self.descents:
            descent.close()
        self.descents = ()


def fused_learning_rate(num_epochs: int | None, svdpp: SvdppSides = "none") -> float:
    """Peak learning rate, lower for more epochs; chosen on validation parts at 8 and 10 epochs."""
    rate = 0.075 if svdpp == "none" else 0.1
    return rate * math.sqrt(10 / num_epochs) if num_epochs and num_epochs > 0 else rate
