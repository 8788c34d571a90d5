"""Heads that rank: trained by interactions, and measured by recommendations from the whole catalogue."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from cflightning.data.datamodule import RatingsDataModule
from cflightning.data.splits.split import TEST, TRAIN, VAL
from cflightning.errors import ConfigError
from cflightning.evaluation.rankings import evaluate_tables, select_eval_users
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.models.network import FoldedTables
from cflightning.objectives.base import RankingObjective
from cflightning.objectives.settings import TableSize
from cflightning.objectives.solver import InteractionColumns, RankingSolver
from cflightning.tasks.base import NetworkTask
from cflightning.tasks.head import Head
from cflightning.tasks.objective_options import SEPARATE_OPTIONS

VAL_USERS = 4096
"""Maximum number of users, evenly spaced, on whom validation measures rankings."""


def table_size(data: RatingsDataModule) -> TableSize:
    """Return the size of the training part."""
    return TableSize(data.split.sizes[TRAIN], data.num_users, data.num_items)


def interaction_columns(data: RatingsDataModule) -> InteractionColumns:
    """Return the interactions of the training part."""
    user, item = (torch.from_numpy(column) for column in data.training_pairs())
    weight = data.training_weights()
    return InteractionColumns(user, item, None if weight is None else torch.from_numpy(weight))


class RankingHead(Head):
    """Measures the recommendations of a network; subclasses train it.

    Args:
        task: Task of the head.
        objective: Objective of the network.
        skip_empty: Whether a part without known users and items is skipped instead of an error.
    """

    def __init__(self, task: NetworkTask, objective: RankingObjective, *, skip_empty: bool = False) -> None:
        self.task, self.objective, self.skip_empty = task, objective, skip_empty

    @property
    def network(self) -> EmbeddingDot:
        """The network whose scores rank."""
        network = self.task.network
        assert isinstance(network, EmbeddingDot)
        return network

    def on_train_start(self, data: RatingsDataModule) -> None:
        """Start nothing: this head only measures."""

    def set_settings(self, settings: Mapping[str, float]) -> None:
        """Store the complete settings of the objective in the metadata."""
        self.task.metadata = replace(self.task.metadata, ranking=dict(settings))

    def settings_used(self) -> dict[str, Any]:
        """Return the settings that training used."""
        task = self.task
        return {"dim": self.network.dim, "members": task.members, "seed": task.seed, "objective": self.objective.name,
                "ranking": dict(task.metadata.ranking)}  # fmt: skip

    def log_metrics(self, stage: str) -> None:
        """Log nDCG and the other ranking metrics: of all users in a test, of at most `VAL_USERS` in validation."""
        data = self.task.datamodule
        if data is None or self.task.trainer.sanity_checking:
            return
        for name, value in self.measure(data, stage).items():  # summed over devices already
            self.task.log(f"{stage}/{name}", value, prog_bar=name == "ndcg@10", sync_dist=True)

    def measure(self, data: RatingsDataModule, stage: str) -> dict[str, Tensor]:
        """Return the ranking metrics of a part by name; empty if the part has no users."""
        part, most = (VAL, VAL_USERS) if stage == "val" else (TEST, None)
        users = select_eval_users(data, part, self.task.trainer, most, skip_empty=self.skip_empty)
        if users is None:
            return {}
        tables = self.network.fold()
        if users.held_out:
            encoder = self.network.encoder
            if encoder is not None:
                vectors = users.seen.sums(encoder.cpu())
            else:
                vectors = self.objective.fold_in_for_evaluation(
                    self.task.metadata.ranking, tables, users.seen, torch.from_numpy(data.counts()[1]),
                    torch.get_num_threads(),
                )  # fmt: skip
            tables = tables._replace(user_vectors=vectors.to(self.task.device))
        return evaluate_tables(users, tables)

    def make_solver(
        self,
        data: RatingsDataModule,
        network: EmbeddingDot,
        options: Mapping[str, float | None],
        *,
        dim: int,
        members: int,
    ) -> RankingSolver[Any]:
        """Make the objective's solver for the training part, and store its complete settings in the metadata.

        Args:
            data: Data with the training part.
            network: Network whose tables the solver computes.
            options: Settings of the solver by name.
            dim: Latent factors in training.
            members: Number of ensemble members.

        Raises:
            ConfigError: An option is not supported by the objective, or the interactions have weights that it ignores.
        """
        objective, columns = self.objective, interaction_columns(data)
        assert objective.solver is not None
        if objective.solver.refuses_weights and columns.weight is not None:
            raise ConfigError(f"--data.table.weight: is known to --model.objective ials alone, got {objective.name}")
        settings = objective.settings_class.make(options, objective.name).resolve(table_size(data))
        self.set_settings(settings.values())
        return objective.solver(
            columns, network, settings, dim=dim, members=members, seed=self.task.seed, threads=torch.get_num_threads()
        )


class SeparateRankingHead(RankingHead):
    """Ranks by factors of its own, beside a network that predicts ratings; trained before the first epoch.

    Args:
        task: Task of the head.
        objective: Objective of the network.
        network: Network that ranks.
    """

    def __init__(self, task: NetworkTask, objective: RankingObjective, network: EmbeddingDot) -> None:
        super().__init__(task, objective, skip_empty=True)
        self._separate = network
        self._val_metrics: dict[str, Tensor] = {}

    @property
    def network(self) -> EmbeddingDot:
        """The network whose scores rank."""
        return self._separate

    def settings_used(self) -> dict[str, Any]:
        """Return the settings that training used."""
        own = {"objective": self.objective.name, "dim": self.network.dim}
        return {"objective": "multitask", "ranking": own | self.task.metadata.ranking}

    def on_train_start(self, data: RatingsDataModule) -> None:
        """Forget the metrics of another training."""
        self._val_metrics = {}

    def on_train_epoch_start(self, data: RatingsDataModule) -> None:
        """Train the whole network before ratings are learned, so that it is complete in every checkpoint."""
        task = self.task
        if task.metadata.ranking_trained:
            return
        own = self.network
        in_place = task.device.type == "cpu" and own.item_factors.weight.dtype == torch.float32
        network = own if in_place else copy.deepcopy(own).cpu().float()
        options = {name: value for name, value in task.ranking_options.items() if name not in SEPARATE_OPTIONS}
        solver = self.make_solver(data, network, options, dim=network.dim, members=1)
        visible = task.trainer.progress_bar_callback is not None and task.trainer.is_global_zero
        epochs = int(task.ranking_options.get("epochs") or solver.default_epochs)
        with torch.no_grad():
            for epoch in tqdm(range(epochs), "Ranking", leave=False, disable=not visible):
                solver.train_epoch(epoch, epochs)
        solver.close()
        if network is not own:
            own.set_tables(FoldedTables(*(table.to(task.device) for table in network.fold())))
        task.metadata = replace(task.metadata, ranking_trained=True)

    def measure(self, data: RatingsDataModule, stage: str) -> dict[str, Tensor]:
        """Return the ranking metrics; in a fit the validation metrics are computed once, as the network is complete."""
        if stage != "val" or not self.task.is_fitting:
            return super().measure(data, stage)
        self._val_metrics = self._val_metrics or super().measure(data, stage)
        return self._val_metrics
