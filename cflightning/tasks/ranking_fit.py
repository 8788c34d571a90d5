"""Fits of rankings: by a solver, or by a sampled loss and autograd."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from cflightning.checkpoint.format import SOLVER_KEY
from cflightning.data.datamodule import RatingsDataModule
from cflightning.data.loaders.interactions import InteractionBatch
from cflightning.engines.full_batch import FullBatch
from cflightning.engines.solver import SolverEngine
from cflightning.errors import ConfigError
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.objectives.base import RankingObjective
from cflightning.objectives.registry import sampled_loss_names
from cflightning.objectives.sampled_loss import SampledLoss
from cflightning.objectives.solver import RankingSolver
from cflightning.tasks.base import NetworkTask
from cflightning.tasks.fit import Fit
from cflightning.tasks.ranking_data import interaction_columns, table_size


class SolverFit(Fit):
    """Trains the served network by the objective's solver, an epoch of the Trainer for an epoch of the solver.

    Args:
        task: Task whose network ranks.
        objective: Objective of the network.
        options: The options of `--model.ranking`.

    Raises:
        ConfigError: An option has no meaning with the objective, or the device is not a CPU.
    """

    engine: SolverEngine

    def __init__(self, task: NetworkTask, objective: RankingObjective, options: Mapping[str, Any]) -> None:
        engines = ("auto",) if objective.sampled_loss is None else ("auto", "fused")
        for option, value, allowed in (("engine", task.engine, engines), ("optimizer", task.optimizer, (None,)),
                                       ("lr_scheduler", task.lr_scheduler, (None,))):  # fmt: skip
            if value not in allowed:
                raise ConfigError(
                    f"--model.{option}: has no meaning with --model.objective {objective.name}, got {value}"
                )
        network = task.network
        assert isinstance(network, EmbeddingDot)
        network.requires_grad_(False)
        network.global_bias.requires_grad_(True)  # DDP refuses a module without any; nothing ever goes backward
        if task.trainer.strategy.root_device.type != "cpu":
            raise ConfigError(
                f"--model.objective {objective.name}: runs on the CPU; give --trainer.accelerator cpu, "
                f"or choose one of {', '.join(sampled_loss_names())}"
            )
        super().__init__(task, SolverEngine(objective.name, network))
        self.objective, self.network, self.options = objective, network, options
        self.solver: RankingSolver[Any] | None = None

    def on_train_start(self, data: RatingsDataModule) -> None:
        """Make the solver, restore its state, and start the engine."""
        task = self.task
        known = self.objective.settings_class.defaults()
        general = {"l2": task.l2, "learning_rate": task.learning_rate}
        options = {name: value for name, value in general.items() if value is not None and name in known}
        self.solver = self.objective.make_solver(
            interaction_columns(data), table_size(data), self.network, {**options, **self.options},
            dim=task.training_dim, members=task.members, seed=task.seed,
        )  # fmt: skip
        task.metadata = replace(task.metadata, ranking=self.solver.settings.values())
        self.solver.load(task.resume_state.pop(SOLVER_KEY, {}))
        self.engine.start(self.solver, task.trainer.max_epochs, task.trainer.world_size)

    def train_batch(self, batch: FullBatch) -> None:
        """Train for an epoch."""
        self.step_engine(self.engine, batch)

    def state(self) -> dict[str, Any]:
        """Return the solver's state."""
        return {} if self.solver is None else {SOLVER_KEY: self.solver.state}


class SampledLossFit(Fit):
    """Trains by the objective's sampled loss and autograd.

    Args:
        task: Task whose network ranks.
        objective: Objective of the network.
        data: Data of the fit.
        options: The options of `--model.ranking`.

    Raises:
        ConfigError: An option is not supported by the objective.
    """

    def __init__(
        self, task: NetworkTask, objective: RankingObjective, data: RatingsDataModule, options: Mapping[str, Any]
    ) -> None:
        name = objective.name
        if task.engine not in ("auto", "autograd"):
            raise ConfigError(f"--model.engine: must be autograd for --model.objective {name} here, got {task.engine}")
        if task.members > 1 or data.training_weights() is not None:
            option = "--model.members" if task.members > 1 else "--data.table.weight"
            raise ConfigError(f"{option}: is not known to --model.objective {name} by autograd; leave it out")
        general = {} if task.l2 is None else {"l2": task.l2}
        assert objective.sampled_loss is not None
        settings = objective.settings_class.make({**general, **options}, name, by_autograd=True)
        settings = settings.resolve(table_size(data))
        task.metadata = replace(task.metadata, ranking=settings.values(by_autograd=True))
        loss: SampledLoss[Any] = objective.sampled_loss(settings, interaction_columns(data), table_size(data))
        super().__init__(task, make_loader=loss.loader(torch.from_numpy(data.counts()[1])))
        self.sampled_loss = loss
        [self.network] = task.ensemble.dot_products
        for parameter in loss.unused_parameters:  # or several devices would wait for their gradients
            self.network.get_parameter(parameter).requires_grad_(False)

    def on_train_start(self, data: RatingsDataModule) -> None:
        """Move the smoothing to the device."""
        if self.sampled_loss.smoothing is not None:
            self.sampled_loss.smoothing.to(self.task.device)

    def train_batch(self, batch: InteractionBatch) -> Tensor:
        """Return the loss of a batch of interactions."""
        loss = self.sampled_loss.loss(self.network, batch)
        self.add_loss(loss.detach(), batch.total)
        return loss

    def write_served_network(self) -> None:
        """Write normalised and smoothed vectors into the served network."""
        loss, served = self.sampled_loss, self.task.network
        if not loss.serves_other_tables(loss.settings.smooth) or not isinstance(served, EmbeddingDot):
            return
        with torch.no_grad():
            users, items = loss.tables(self.network)
            served.set_tables(self.network.tables()._replace(user_vectors=users, item_vectors=items))
