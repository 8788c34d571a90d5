"""Heads that measure rankings: recommendations from the whole catalogue against held-out interactions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cflightning.data.datamodule import RatingsDataModule
from cflightning.data.splits.split import TEST, VAL
from cflightning.evaluation.rankings import EvalUsers, RankingResult, evaluate_tables, select_eval_users
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.models.network import DotProductTables
from cflightning.objectives.base import RankingObjective
from cflightning.tasks.head import Head
from cflightning.tasks.rating import RecommenderTask

VAL_USERS = 4096
"""Maximum number of users, evenly spaced, on whom validation measures rankings."""


def ranking_tables(
    objective: RankingObjective, settings: Mapping[str, float], network: EmbeddingDot, users: EvalUsers
) -> DotProductTables:
    """Return the tables of a network whose users are those of an evaluation: held-out ones are folded in.

    Args:
        objective: Objective of the network.
        settings: Complete settings of the objective.
        network: The network.
        users: Users of the evaluation.
    """
    tables = network.tables()
    if not users.held_out:
        return tables
    if network.encoder is not None:
        vectors = users.seen.sums(network.encoder.cpu())
    else:
        vectors = objective.fold_in_for_evaluation(
            settings, tables, users.seen, users.popularity, torch.get_num_threads()
        )
    return tables._replace(user_vectors=vectors.to(tables.item_vectors.device))


class RankingHead(Head):
    """Ranking metrics of a network.

    Args:
        task: Task of the head.
        objective: Objective of the network.
        network: Network whose scores rank.
        skip_empty: Whether a part without known users and items is skipped instead of an error.
    """

    def __init__(
        self, task: RecommenderTask, objective: RankingObjective, network: EmbeddingDot, *, skip_empty: bool = False
    ) -> None:
        self.task, self.objective, self.network, self.skip_empty = task, objective, network, skip_empty
        self._test: RankingResult | None = None

    def settings_used(self) -> dict[str, Any]:
        """Return the settings that training used, every default resolved."""
        task = self.task
        return {"dim": self.network.dim, "members": task.members, "seed": task.seed, "objective": self.objective.name,
                "ranking": task.metadata.ranking | self._compared()}  # fmt: skip

    def _compared(self) -> dict[str, Any]:
        """Return the models that were compared by validation rows, if there was a choice."""
        metadata = self.task.metadata
        return {"compared": metadata.ranking_trials} if metadata.ranking_trials else {}

    def on_evaluation_start(self) -> None:
        """Discard the result of a test that was interrupted."""
        self._test = None

    def evaluate_rankings(self) -> RankingResult | None:
        """Return the evaluation of all test users, which is computed once in a test."""
        data = self.task.datamodule
        if self._test is None and data is not None:
            self._test = self.evaluate(data, TEST)
        return self._test

    def log_metrics(self, prefix: str) -> None:
        """Log nDCG and the other ranking metrics: of all users in a test, of at most `VAL_USERS` in validation."""
        data = self.task.datamodule
        if data is None or self.task.trainer.sanity_checking:
            return
        for name, value in self.measure(data, prefix).items():  # summed over devices already
            self.task.log(f"{prefix}/{name}", value, prog_bar=name == "ndcg@10", sync_dist=True)
        self._test = None  # its arrays are large

    def measure(self, data: RatingsDataModule, prefix: str) -> dict[str, Tensor]:
        """Return the ranking metrics of a part by name; empty if the part has no users."""
        result = self.evaluate(data, VAL, VAL_USERS) if prefix == "val" else self.evaluate_rankings()
        return {} if result is None else result.metrics

    def evaluate(self, data: RatingsDataModule, part: int, limit: int | None = None) -> RankingResult | None:
        """Evaluate the recommendations for the users of a part.

        Args:
            data: The data.
            part: VAL or TEST.
            limit: Largest number of users; None for all.

        Returns:
            The result; None if the part has no users.
        """
        users = select_eval_users(data, part, self.task.trainer, limit, skip_empty=self.skip_empty)
        if users is None:
            return None
        tables = ranking_tables(self.objective, self.task.metadata.ranking, self.network, users)
        return evaluate_tables(users, tables)


class SeparateRankingHead(RankingHead):
    """Ranking metrics of a network beside the one that predicts ratings; it is trained before the first epoch.

    Args:
        task: Task of the head.
        objective: Objective of the network.
        network: Network whose scores rank.
    """

    def __init__(self, task: RecommenderTask, objective: RankingObjective, network: EmbeddingDot) -> None:
        super().__init__(task, objective, network, skip_empty=True)

    def settings_used(self) -> dict[str, Any]:
        """Return the settings that training used, every default resolved."""
        metadata = self.task.metadata
        own = {"objective": self.objective.name, "dim": self.network.dim}
        return {"objective": "multitask", "ranking": own | metadata.ranking | self._compared()}

    def measure(self, data: RatingsDataModule, prefix: str) -> dict[str, Tensor]:
        """Return the ranking metrics; in a fit the validation metrics are computed once, as the network is complete."""
        fit = self.task.current_fit
        if prefix != "val" or not self.task.is_fitting or fit is None:
            return super().measure(data, prefix)
        fit.ranking_metrics = fit.ranking_metrics or super().measure(data, prefix)
        return fit.ranking_metrics
