"""The interface of fits: what trains the networks of a task, from the start of a fit to its end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cflightning.data.datamodule import RatingsDataModule
from cflightning.data.loaders.batches import EpochLoader
from cflightning.data.loaders.ratings import RatingLoader
from cflightning.engines.base import Engine
from cflightning.tasks.base import NetworkTask
from cflightning.tasks.optimizers import step_schedules


class Fit(ABC):
    """The training of a task's networks during one `Trainer.fit`, by an engine or autograd, with penalties and priors.

    Methods named after Lightning's hooks are called by them.

    Args:
        task: Task whose networks are trained.
        engine: Engine that trains; None for autograd.
        make_loader: Makes the dataloader for autograd, with the arguments of `RatingLoader`.

    Attributes:
        ranking_metrics: Validation metrics of a separate ranking network, which are computed once in a fit.
    """

    def __init__(
        self,
        task: NetworkTask,
        engine: Engine | None = None,
        make_loader: Callable[..., EpochLoader] = RatingLoader,
    ) -> None:
        self.task, self.engine = task, engine
        self.make_loader = make_loader if engine is None else engine.make_loader
        self.ranking_metrics: dict[str, Tensor] = {}
        self._loss_sum: Tensor | None = None
        self._loss_count = 0
        self._updated_step = -1  # step of the last `update_served_network`

    @property
    def engine_name(self) -> str:
        """Name of the engine in checkpoints."""
        return "autograd" if self.engine is None else self.engine.name

    @abstractmethod
    def on_train_start(self, data: RatingsDataModule) -> None:
        """Prepare the first step, when optimisers are restored and the networks are on the device."""

    def on_train_batch_start(self, batch_idx: int) -> None:
        """Adapt penalties between batches."""
        return

    @abstractmethod
    def train_batch(self, batch: Any) -> Tensor | None:
        """Train on a batch.

        Args:
            batch: Batch of the dataloader.

        Returns:
            Loss for autograd, summed over the batch on this device: float32 []; None if an engine has made the step.
        """

    def on_train_end(self) -> None:
        """Shut down the engine."""
        if self.engine is not None:
            self.engine.close()

    def on_fit_end(self) -> None:
        """Finish the checkpoints of the fit."""
        return

    def write_served_network(self) -> None:
        """Write the current result of training into the served network, if other networks are trained."""
        return

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint stores to resume training, beside networks and optimisers."""
        return {}

    # Steps -----------------------------------------------------------------------------------------------------------

    def step_engine(self, engine: Engine, batch: Any) -> None:
        """Train on a batch by an engine, with Lightning's counts of steps and the schedules."""
        optimizer: Any = self.task.optimizers()
        rate = optimizer.param_groups[0]["lr"]
        loss = optimizer.step(closure=lambda: engine.train_batch(batch, rate))
        self.add_loss(torch.as_tensor(loss, dtype=torch.float64), batch.total)
        step_schedules(self.task.trainer, "step")

    def add_loss(self, loss: Tensor, count: int) -> None:
        """Add the loss of a batch to that of the epoch.

        Args:
            loss: float [], sum over the batch on this device.
            count: Number of summands, over all devices.
        """
        self._loss_sum = loss if self._loss_sum is None else self._loss_sum + loss  # without a copy to the host
        self._loss_count += count

    def pop_mean_loss(self) -> Tensor | None:
        """Return this device's share of the mean loss of the epoch, and start a new mean; None without a batch."""
        mean = None if self._loss_sum is None else self._loss_sum / self._loss_count
        self._loss_sum, self._loss_count = None, 0
        return mean

    def update_served_network(self) -> None:
        """Call `write_served_network` unless the networks are still those of the last call."""
        trainer = self.task.attached_trainer
        step = -1 if trainer is None else trainer.global_step
        if step != self._updated_step:
            self.write_served_network()
            self._updated_step = step
