"""EASE of low rank (Steck 2019, 2020): a linear autoencoder of interactions, in closed form."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Self

from torch import Tensor

from cflightning.errors import ConfigError
from cflightning.objectives.base import RankingObjective
from cflightning.objectives.settings import RankingSettings, SearchRange, TableSize, log_range
from cflightning.objectives.solver import RankingSolver, restore_table
from cflightning.solvers.low_rank_ease import LowRankEase
from cflightning.utils.interactions import make_interactions


@dataclass(frozen=True, kw_only=True)
class EaseSettings(RankingSettings):
    """Settings of low-rank EASE, see `solvers.low_rank_ease`.

    Attributes:
        l2: Ridge, in interactions; None for a default that grows with the interactions per user and item.
        user_power: Power of a user's number of interactions by which the user's rows of the matrix are divided.
        item_power: Power of an item's number of interactions by which the item's column is divided; 0.5 suits large
            sparse catalogues, with an l2 of about 3.
        dropout: Share of the interactions that are hidden in effect; regularises popular items.
        rating_weight: Difference between the weights of an interaction with the highest and with the lowest rating,
            whose mean is 1; 0 for weights that do not depend on ratings. Without effect beside a column of weights.
    """

    l2: float | None = None
    user_power: float = 0.2
    item_power: float = 0.0
    dropout: float = 0.2
    rating_weight: float = 0.5

    def resolve(self, size: TableSize) -> Self:
        """Return the settings with the default ridge, if none is given."""
        return replace(self, l2=default_l2(size)) if self.l2 is None else self


def default_l2(size: TableSize) -> float:
    """Return the default ridge: 40 times the root of the (geometric) mean interactions of users and of items."""
    return 40 * math.sqrt(size.interactions / math.sqrt(max(size.users - 1, 1) * max(size.items - 1, 1)))


class EaseSolver(RankingSolver[EaseSettings]):
    """The closed form in the first epoch; every epoch is one iteration of its truncated SVD."""

    default_epochs = 2

    def prepare(self) -> None:
        """Invert the regularised Gram matrix."""
        user, item, weight, rating = self.interactions
        if not 0 <= self.settings.rating_weight <= 2:
            raise ConfigError(f"--model.ranking.rating_weight: must be 0 to 2, got {self.settings.rating_weight}")
        if rating is None or weight is not None:
            self.settings = replace(self.settings, rating_weight=0.0)
        elif self.settings.rating_weight:
            weight = 1 + self.settings.rating_weight * (rating - 0.5)
        matrix = make_interactions(user, item, self.network.num_users, self.network.num_items, weight)
        options = {name: value for name, value in asdict(self.settings).items() if name != "rating_weight"}
        self.iteration = LowRankEase(matrix, self.dim, seed=self.seed, threads=self.threads, **options)
        self._loss = 0.0

    def train_epoch(self, epoch: int, num_epochs: int) -> None:
        """Iterate once and write the tables into the network."""
        self._loss = self.iteration.sweep()
        users, encoder, items = self.iteration.tables()
        assert self.network.encoder is not None
        for table, new in zip((*self.network.tables()[:2], self.network.encoder), (users, items, encoder), strict=True):
            table.copy_(new)

    def loss(self) -> float:
        """Return the squared error of the scores as a share of the squared norm of the scaled matrix."""
        return self._loss

    @property
    def state(self) -> dict[str, Tensor]:
        """The subspace, which is wider than the vectors."""
        basis = self.iteration.basis
        return {} if basis is None else {"basis": basis}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore the subspace."""
        if state:
            self.iteration.basis = restore_table(state, "basis", self.network.num_items)


class Ease(RankingObjective):
    """Squared error of a linear autoencoder of interactions, with a zero diagonal, at a given rank."""

    name = "ease"
    settings_class = EaseSettings
    solver = EaseSolver
    autoencoder = True
    default_dim = separate_dim = 256

    def search_space(self, size: TableSize, *, by_autograd: bool) -> dict[str, SearchRange]:
        """Return the ranges of `tune`: the ridge, the exponents, dropout and dim."""
        return {
            "model.ranking.l2": log_range(default_l2(size), 8),
            "model.ranking.user_power": SearchRange(0.0, 0.5),
            "model.ranking.item_power": SearchRange(0.0, 0.6),
            "model.ranking.dropout": SearchRange(0.0, 0.5),
            "model.ranking.rating_weight": SearchRange(0.0, 2.0),
            "model.dim": SearchRange(64, 512, step=64),
        }
