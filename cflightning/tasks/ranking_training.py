"""Ranking heads that train the served network: by a solver, or by a sampled loss and autograd."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from cflightning.data.datamodule import RatingsDataModule
from cflightning.engines.base import Engine, EngineSpec
from cflightning.engines.full_batch import FullBatch, FullBatchLoader, StateOptimizer
from cflightning.errors import ConfigError
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.objectives.base import RankingObjective
from cflightning.objectives.registry import sampled_loss_names
from cflightning.objectives.sampled_loss import SampledLoss
from cflightning.objectives.solver import RankingSolver
from cflightning.tasks.base import NetworkTask
from cflightning.tasks.head import BatchLoss
from cflightning.tasks.ranking import RankingHead, interaction_columns, table_size

SOLVER_KEY = "cflightning_solver"
"""Key of a checkpoint under which the state of a solver is stored to resume training."""


class SolverEngine(Engine):
    """Trains the served network by a solver; the batch is the training part.

    Args:
        solver: Solver of the objective.
        num_epochs: Epochs of the run; None or -1 if their number is open.
        world_size: Number of processes.
    """

    def __init__(self, solver: RankingSolver[Any], num_epochs: int | None, world_size: int) -> None:
        self.solver, self.world_size = solver, world_size
        self.num_epochs = num_epochs if num_epochs and num_epochs > 0 else solver.default_epochs

    def train_batch(self, batch: FullBatch, learning_rate: float) -> float:
        """Train for an epoch; returns this process's share of the loss, as if summed over interactions."""
        self.solver.train_epoch(batch.epoch, self.num_epochs)
        return self.solver.loss() * batch.total / self.world_size

    def close(self) -> None:
        """Shut down the solver's threads."""
        self.solver.close()


class SolverRankingHead(RankingHead):
    """Trains the served network by the objective's solver, an epoch of the Trainer for an epoch of the solver."""

    transient = ("solver",)
    resume_keys = (SOLVER_KEY,)

    def __init__(self, task: NetworkTask, objective: RankingObjective) -> None:
        super().__init__(task, objective)
        self.solver: RankingSolver[Any] | None = None

    def select_engine(self, data: RatingsDataModule) -> EngineSpec:
        """Return the solver as an engine.

        Raises:
            ConfigError: An option has no meaning with the objective, or the device is not a CPU.
        """
        task, name = self.task, self.objective.name
        engines = ("auto",) if self.objective.sampled_loss is None else ("auto", "fused")
        for option, value, allowed in (("engine", task.engine, engines), ("optimizer", task.optimizer, (None,)),
                                       ("lr_scheduler", task.lr_scheduler, (None,))):  # fmt: skip
            if value not in allowed:
                raise ConfigError(f"--model.{option}: has no meaning with --model.objective {name}, got {value}")
        network = self.network
        network.requires_grad_(False)
        network.global_bias.requires_grad_(True)  # DDP refuses a module without any; nothing ever goes backward
        if task.trainer.strategy.root_device.type != "cpu":
            raise ConfigError(
                f"--model.objective {name}: runs on the CPU; give --trainer.accelerator cpu, "
                f"or choose one of {', '.join(sampled_loss_names())}"
            )
        optimizer = partial(StateOptimizer, network)
        return EngineSpec(name, FullBatchLoader, optimizer, lambda *_: 0.0, has_svdpp_terms=False, scheduled=False)

    def on_train_start(self, data: RatingsDataModule) -> None:
        """Start the solver."""
        self.task.start_engine(partial(self._make_engine, data))

    def _make_engine(self, data: RatingsDataModule, loader: FullBatchLoader, optimizer: StateOptimizer) -> SolverEngine:
        task = self.task
        known = self.objective.settings_class.defaults()
        general = {"l2": task.l2, "learning_rate": task.learning_rate}
        options = {name: value for name, value in general.items() if value is not None and name in known}
        self.solver = self.make_solver(
            data, self.network, options | task.ranking_options, dim=task.training_dim, members=task.members
        )
        self.solver.load(task.resume_state.pop(SOLVER_KEY, {}))
        return SolverEngine(self.solver, task.trainer.max_epochs, loader.world_size)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the solver's state."""
        if self.solver is not None:
            checkpoint[SOLVER_KEY] = self.solver.state


class SampledRankingHead(RankingHead):
    """Trains by the objective's sampled loss, by autograd."""

    transient = ("sampled_loss",)

    def __init__(self, task: NetworkTask, objective: RankingObjective) -> None:
        super().__init__(task, objective)
        self.sampled_loss: SampledLoss[Any] | None = None

    def select_engine(self, data: RatingsDataModule) -> None:
        """Set up the loss and the batches of interactions.

        Raises:
            ConfigError: An option is not supported by the objective.
        """
        task, name = self.task, self.objective.name
        if task.engine not in ("auto", "autograd"):
            raise ConfigError(f"--model.engine: must be autograd for --model.objective {name} here, got {task.engine}")
        if task.members > 1 or data.training_weights() is not None:
            option = "--model.members" if task.members > 1 else "--data.table.weight"
            raise ConfigError(f"{option}: is not known to --model.objective {name} by autograd; leave it out")
        options = ({} if task.l2 is None else {"l2": task.l2}) | dict(task.ranking_options)
        assert self.objective.sampled_loss is not None
        settings = self.objective.settings_class.make(options, name, by_autograd=True).resolve(table_size(data))
        self.set_settings(settings.values(by_autograd=True))
        loss = self.objective.sampled_loss(settings, interaction_columns(data), table_size(data))
        for parameter in loss.unused_parameters:  # or several devices would wait for their gradients
            self._trained.get_parameter(parameter).requires_grad_(False)
        data.train_loader = loss.loader(torch.from_numpy(data.counts()[1]))
        self.sampled_loss = loss

    @property
    def _trained(self) -> EmbeddingDot:
        [network] = self.task.ensemble.factorised
        return network

    def on_train_start(self, data: RatingsDataModule) -> None:
        """Move the smoothing to the device."""
        if self.sampled_loss is not None and self.sampled_loss.smoothing is not None:
            self.sampled_loss.smoothing.to(self.task.device)

    def batch_loss(self, batch: Any) -> BatchLoss:
        """Return the loss of a batch of interactions."""
        assert self.sampled_loss is not None
        loss = self.sampled_loss.loss(self._trained, batch)
        return BatchLoss(loss, loss, batch.total)

    def sync_served_network(self) -> None:
        """Write normalised and smoothed vectors into the served network."""
        loss = self.sampled_loss
        if loss is None or not loss.serves_other_tables(loss.settings.smooth):
            return
        with torch.no_grad():
            users, items = loss.tables(self._trained)
            self.network.set_tables(self._trained.fold()._replace(user_vectors=users, item_vectors=items))
