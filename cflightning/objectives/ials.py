"""iALS: implicit alternating least squares (Hu, Koren & Volinsky 2008; Rendle et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Self

import torch
from torch import Tensor

from cflightning.models.network import DotProductTables
from cflightning.objectives.base import DIM_RANGE, RankingObjective
from cflightning.objectives.fold_in import DEFAULT_EXPONENT, DEFAULT_L2, LeastSquaresFoldIn, default_weight
from cflightning.objectives.settings import RankingSettings, SearchRange, TableSize, log_range
from cflightning.objectives.solver import RankingSolver
from cflightning.solvers.ials import AlternatingLeastSquares
from cflightning.utils.csr import Csr
from cflightning.utils.interactions import make_interactions


@dataclass(frozen=True, kw_only=True)
class IalsSettings(RankingSettings):
    """Settings of iALS.

    Attributes:
        weight: Weight of every pair without an interaction; None for a default by the size of the catalogue.
        l2: Penalty on squared vectors.
        exponent: Exponent of the penalty's growth with the number of interactions.
        block: Number of factors that are solved at once (Rendle et al. 2021).
    """

    weight: float | None = None
    l2: float = DEFAULT_L2
    exponent: float = DEFAULT_EXPONENT
    block: int = 64

    def resolve(self, size: TableSize) -> Self:
        """Return the settings with the default weight, if none is given."""
        return replace(self, weight=default_weight(size.items)) if self.weight is None else self


class IalsSolver(RankingSolver[IalsSettings]):
    """iALS from a truncated SVD; an epoch solves for all users, then for all items."""

    default_epochs = 3

    def prepare(self) -> None:
        """Set up the iteration."""
        network = self.network
        user, item, weight = self.interactions[:3]
        interactions = make_interactions(user, item, network.num_users, network.num_items, weight)
        self.iteration = AlternatingLeastSquares(interactions, threads=self.threads, **asdict(self.settings))

    def train_epoch(self, epoch: int, num_epochs: int) -> None:
        """Solve for all users, then for all items; the first epoch starts from the SVD."""
        users, items = self.network.tables()[:2]
        if epoch == 0:
            for table, start in zip((users, items), self.iteration.start(self.dim, self.seed), strict=True):
                table.copy_(start)
        self.iteration.sweep(users, items)

    def loss(self) -> float:
        """Return the objective per interaction."""
        return self.iteration.loss(*self.network.tables()[:2]) / max(len(self.interactions.user), 1)


class Ials(RankingObjective):
    """Weighted squared error of all pairs of users and items, solved for users and items in turn."""

    name = "ials"
    settings_class = IalsSettings
    solver = IalsSolver

    def search_space(self, size: TableSize, *, by_autograd: bool) -> dict[str, SearchRange]:
        """Return the ranges of `tune`: weight, penalty, dim and number of epochs."""
        return {
            "model.ranking.weight": log_range(default_weight(size.items), 4),
            "model.ranking.l2": log_range(DEFAULT_L2, 4),
            "model.dim": DIM_RANGE,
            "trainer.max_epochs": SearchRange(2, 8),
        }

    @torch.inference_mode(False)  # threads of solvers do not inherit it
    @torch.no_grad()
    def fold_in_for_evaluation(
        self, settings: Mapping[str, float], tables: DotProductTables, seen: Csr, counts: Tensor, threads: int = 1
    ) -> Tensor:
        """Return a user's vector of the last epoch, solved exactly; see `RankingObjective`."""
        items = tables.item_vectors.detach().cpu().float()
        complete = self._complete(settings, len(items))
        no_pairs = torch.empty(0, dtype=torch.int32)
        nothing = make_interactions(no_pairs, no_pairs, 1, len(items))
        iteration = AlternatingLeastSquares(nothing, threads=threads, **asdict(complete))
        return iteration.fold_in(items, torch.split(seen.indices, seen.counts.tolist()))

    def bundle_fold_in_settings(self, settings: Mapping[str, float], num_items: int) -> LeastSquaresFoldIn:
        """Return the settings of training, with which a new user gets the vector that training would give."""
        complete = self._complete(settings, num_items)
        assert complete.weight is not None
        return LeastSquaresFoldIn(complete.weight, complete.l2, complete.exponent, rescale=False)

    def _complete(self, settings: Mapping[str, float], num_items: int) -> IalsSettings:
        size = TableSize(interactions=0, users=0, items=num_items)  # the default weight depends on the items alone
        return IalsSettings.make(settings, self.name).resolve(size)
