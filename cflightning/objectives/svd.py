"""Degree-scaled SVD of the interaction matrix (Shen et al. 2021), without gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from cflightning.models.network import DotProductTables
from cflightning.objectives.base import RankingObjective
from cflightning.objectives.settings import RankingSettings, SearchRange, TableSize
from cflightning.objectives.solver import RankingSolver, restore_tensor
from cflightning.solvers import subspace, svd
from cflightning.utils.csr import Csr
from cflightning.utils.interactions import make_interactions


@dataclass(frozen=True, kw_only=True)
class SvdSettings(RankingSettings):
    """Powers of the numbers of interactions by which the matrix and the scores are divided, see `solvers.svd`.

    Attributes:
        user_power: Power of a user's number of interactions, for the matrix.
        item_power: Power of an item's number of interactions, for the matrix.
        score_power: Power of an item's number of interactions, for its scores.
    """

    user_power: float = 0.3
    item_power: float = 0.5
    score_power: float = 0.4


class SvdSolver(RankingSolver[SvdSettings]):
    """Truncated SVD by subspace iteration; an epoch is one iteration."""

    refuses_weights = True
    default_epochs = 2

    def prepare(self) -> None:
        """Set up the iteration."""
        matrix = make_interactions(*self.interactions[:2], self.network.num_users, self.network.num_items)
        options = asdict(self.settings)
        self.iteration = svd.DegreeScaledSVD(matrix, self.dim, seed=self.seed, threads=self.threads, **options)
        self._captured = 0.0

    def train_epoch(self, epoch: int, num_epochs: int) -> None:
        """Iterate once and write the vectors into the network."""
        self._captured = self.iteration.sweep()
        for table, vectors in zip(self.network.tables()[:2], self.iteration.vectors(), strict=True):
            table.copy_(vectors)

    def loss(self) -> float:
        """Return the share of the scaled matrix's squared norm that the vectors do not capture."""
        return 1 - self._captured

    @property
    def state(self) -> dict[str, Tensor]:
        """The subspace, which is wider than the vectors."""
        basis = self.iteration.basis
        return {} if basis is None else {"basis": basis}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore the subspace."""
        if state:
            width = subspace.width(self.dim)
            self.iteration.basis = restore_tensor(state, "basis", (self.network.num_items, width))


class Svd(RankingObjective):
    """Squared error of the degree-scaled interaction matrix at a given rank."""

    name = "svd"
    settings_class = SvdSettings
    solver = SvdSolver

    def search_space(self, size: TableSize, *, by_autograd: bool) -> dict[str, SearchRange]:
        """Return the ranges of `tune`: the powers and dim."""
        return {
            "model.ranking.user_power": SearchRange(0.0, 0.6),
            "model.ranking.item_power": SearchRange(0.2, 0.8),
            "model.ranking.score_power": SearchRange(0.0, 0.6),
            "model.dim": SearchRange(16, 256, step=16),
        }

    @torch.inference_mode(False)  # threads of solvers do not inherit it
    @torch.no_grad()
    def fold_in_for_evaluation(
        self, settings: Mapping[str, float], tables: DotProductTables, seen: Csr, counts: Tensor, threads: int = 1
    ) -> Tensor:
        """Return the projection of a user's interactions, exactly as in training; see `RankingObjective`."""
        complete = SvdSettings.make(settings, self.name)
        return svd.fold_in(
            tables.item_vectors.detach().cpu().float(), seen, counts, item_power=complete.item_power,
            score_power=complete.score_power, threads=threads,
        )  # fmt: skip
