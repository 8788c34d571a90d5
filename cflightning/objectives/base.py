"""The interface of objectives."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from cflightning.errors import ConfigError
from cflightning.kernels.availability import kernels_available
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.models.network import DotProductTables
from cflightning.objectives.fold_in import LeastSquaresFoldIn, default_weight
from cflightning.objectives.sampled_loss import SampledLoss
from cflightning.objectives.settings import RankingSettings, SearchRange, TableSize, log_range
from cflightning.objectives.solver import InteractionColumns, RankingSolver
from cflightning.solvers import logistic
from cflightning.utils.csr import Csr

DIM_RANGE = SearchRange(32, 128, step=32)
"""Range of dim in which `tune` searches by default."""
SAMPLED_EPOCHS = 20
"""Default number of epochs of ranking objectives by autograd."""


class Objective(ABC):
    """An objective of training with its settings, defaults, search space and fold-in; each is one file."""

    name: ClassVar[str]
    """Value of `--model.objective`."""


class RankingObjective(Objective):
    """An objective of interactions. It has a solver for the CPU, a sampled loss for autograd, or both."""

    settings_class: ClassVar[type[RankingSettings]]
    """Settings of the objective with their defaults, for the solver and for autograd."""
    solver: ClassVar[type[RankingSolver[Any]] | None] = None
    """Optimiser of the objective on the CPU without autograd."""
    sampled_loss: ClassVar[type[SampledLoss[Any]] | None] = None
    """Loss of the objective by autograd."""
    autoencoder: ClassVar[bool] = False
    """True if the network is a linear autoencoder, whose encoder folds in new users."""
    default_dim: ClassVar[int] = 64
    """Latent factors by default."""
    separate_dim: ClassVar[int] = 48
    """Latent factors by default beside a model that predicts ratings: close to the best on slices of four data sets."""

    def setting_names(self) -> list[str]:
        """Return the names of all settings, for messages."""
        return [field.name for field in fields(self.settings_class)]

    def trains_by_autograd(self, engine: str, device: str) -> bool:
        """Return whether the sampled loss trains instead of the solver.

        Args:
            engine: Value of `--model.engine`.
            device: Type of the training device, such as `cpu`.
        """
        if self.sampled_loss is None:
            return False
        return self.solver is None or engine == "autograd" or device != "cpu" or not kernels_available()

    def default_epochs(self, *, by_autograd: bool) -> int:
        """Return the number of epochs if none is given.

        Args:
            by_autograd: Whether autograd is requested, by the engine or the device.
        """
        if self.solver is None or (by_autograd and self.sampled_loss is not None):
            return SAMPLED_EPOCHS
        return self.solver.default_epochs

    def make_solver(
        self,
        interactions: InteractionColumns,
        size: TableSize,
        network: EmbeddingDot,
        options: Mapping[str, float | None],
        *,
        dim: int,
        members: int = 1,
        seed: int = 0,
    ) -> RankingSolver[Any]:
        """Make the solver of the objective.

        Args:
            interactions: Interactions of the training part.
            size: Size of the training part.
            network: Network whose tables the solver computes.
            options: Settings by name; missing ones have their defaults.
            dim: Latent factors in training.
            members: Number of ensemble members.
            seed: Seed of all random draws.

        Raises:
            ConfigError: An option is not supported by the objective, or the interactions have weights that it ignores.
        """
        assert self.solver is not None
        if self.solver.refuses_weights and interactions.weight is not None:
            raise ConfigError(
                f"--data.table.weight: is known to --model.objective ease and ials alone, got {self.name}"
            )
        settings = self.settings_class.make(options, self.name).resolve(size)
        threads = torch.get_num_threads()
        return self.solver(interactions, network, settings, dim=dim, members=members, seed=seed, threads=threads)

    def search_space(self, size: TableSize, *, by_autograd: bool) -> dict[str, SearchRange]:
        """Return the ranges in which `tune` searches by default: option without `--` -> range.

        They are wider than those of ratings, as the defaults of ranking objectives fit a table less closely.

        Args:
            size: Size of the training part.
            by_autograd: Whether the sampled loss trains.
        """
        return {"model.dim": DIM_RANGE}

    def gradient_search_space(self, settings: dict[str, SearchRange], *, by_autograd: bool) -> dict[str, SearchRange]:
        """Return the search space of an objective that is trained by gradients.

        Args:
            settings: Ranges of the objective's own settings, by their names in `--model.ranking`.
            by_autograd: Whether the sampled loss trains; it has the learning rate of the task.
        """
        rate: dict[str, SearchRange] = {"model.learning_rate": SearchRange(0.003, 0.1, log=True)} if by_autograd else {}
        epochs = SearchRange(10, 40, log=True) if by_autograd else SearchRange(8, 48, log=True)
        if not by_autograd:
            settings = settings | {"learning_rate": log_range(0.1, 4)}
        own = {f"model.ranking.{name}": one for name, one in settings.items()}
        return own | {"model.dim": DIM_RANGE} | rate | {"trainer.max_epochs": epochs}

    @torch.inference_mode(False)  # threads of solvers do not inherit it
    @torch.no_grad()
    def fold_in_for_evaluation(
        self, settings: Mapping[str, float], tables: DotProductTables, seen: Csr, counts: Tensor, threads: int = 1
    ) -> Tensor:
        """Return the vectors by which held-out users are measured, from their items, with all item vectors fixed.

        By default they minimise the cross-entropy of the user's items against the catalogue, see `solvers.logistic`:
        with item vectors of bpr and softmax this ranks better than a least-squares solution or the mean of the item
        vectors. A bundle folds in new users by another problem, see `bundle_fold_in_settings`.

        Args:
            settings: Complete settings of the objective.
            tables: Trained tables; only those of items are used.
            seen: Items of every user, without index 0.
            counts: int64 [num_items], training interactions of each item.
            threads: Number of threads of closed-form solvers, which does not change the result. Cross-entropy runs on
                torch's threads, whose number may change the last bits.

        Returns:
            float32 [users, dim], on the CPU; zeros for a user without items.
        """
        items, bias = (table.detach().cpu().float() for table in (tables.item_vectors, tables.item_bias))
        return logistic.fold_in(items, bias, seen)

    def bundle_fold_in_settings(self, settings: Mapping[str, float], num_items: int) -> LeastSquaresFoldIn:
        """Return the settings of the least-squares problem by which a bundle folds in new users.

        Held-out users are measured by another problem, see `fold_in_for_evaluation`; for iALS both are the same.

        Args:
            settings: Settings of the objective; missing ones have their defaults.
            num_items: Number of item indices, the unknown item included.
        """
        return LeastSquaresFoldIn(default_weight(num_items))
