"""Ranking baselines: popularity, item neighbours, EASE, and the order of predicted ratings."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from cflightning.data.datamodule import RatingsDataModule
from cflightning.data.splits.split import TEST
from cflightning.evaluation.rankings import EvalUsers, evaluate_scores, evaluate_tables, select_eval_users
from cflightning.models.network import FoldedTables
from cflightning.solvers.ease import ease, item_scores
from cflightning.solvers.low_rank_ease import LinearTables, LowRankEase
from cflightning.solvers.neighbours import item_neighbours
from cflightning.solvers.popularity import popularity
from cflightning.utils.interactions import Interactions, make_interactions

EASE_MAX_ITEMS = 4000
"""Largest catalogue for exact EASE, whose time is cubic in the number of items: some seconds."""
EASE_RANK = 512
"""Rank of EASE for larger catalogues."""
MIN_DEFICIT = 0.01
"""Share of the model's nDCG@10 by which a baseline must be better for a warning."""
COLUMNS = {"HR@10": "hr@10", "nDCG@10": "ndcg@10", "nDCG@20": "ndcg@20", "recall@20": "recall@20",
           "coverage@10": "coverage@10"}  # fmt: skip
"""Columns of the printed table: title -> metric."""
BASELINES = {
    "popularity": "popularity",
    "item-knn": "item neighbours",
    "ease": "EASE",
    "ratings": "predicted ratings",
}
"""Baselines: name in metrics -> title in the printed table."""


class RankingBaselines(Callback):
    """Adds the ranking metrics of baselines, fitted on the same training rows, to every test of rankings.

    Logged, and so returned by `Trainer.test`, are `test/popularity/ndcg@10` and all other metrics of:

    - `popularity`: the same items for every user;
    - `item-knn`: items of the same users (cosine similarity, 100 neighbours);
    - `ease`: EASE (Steck 2019); of rank `EASE_RANK` for catalogues of more than `EASE_MAX_ITEMS` items;
    - `ratings`: the items with the highest predicted ratings, if the model predicts ratings and the users are not held
      out.

    Args:
        neighbours: Neighbours of each item.
        ease_l2: L2 penalty of EASE, in interactions.
    """

    def __init__(self, neighbours: int = 100, ease_l2: float = 500.0) -> None:
        self.neighbours = neighbours
        self.ease_l2 = ease_l2

    def on_test_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Evaluate the baselines; every process evaluates its share of the users."""
        data = getattr(trainer, "datamodule", None)
        if not getattr(pl_module, "predicts_rankings", False) or not isinstance(data, RatingsDataModule):
            return
        eval_users = select_eval_users(data, TEST, trainer, skip_empty=pl_module.predicts_ratings)
        if eval_users is None:
            return
        tables = pl_module.network.fold() if pl_module.predicts_ratings and not eval_users.held_out else None
        for name, metrics in self._evaluate(eval_users, data, tables):
            for metric, value in metrics.items():
                # Values are equal on all processes; Lightning requires sync_dist.
                pl_module.log(f"test/{name}/{metric}", value, sync_dist=True)

    def _evaluate(
        self, eval_users: EvalUsers, data: RatingsDataModule, rating_tables: FoldedTables | None
    ) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
        user, item = (torch.from_numpy(index) for index in data.training_pairs())
        training = make_interactions(user, item, data.num_users, data.num_items)
        threads, seen = torch.get_num_threads(), eval_users.seen
        users = len(eval_users.users) if eval_users.held_out else data.num_users
        no_vectors = torch.zeros(users, 0), torch.zeros(data.num_items, 0)
        by_popularity = FoldedTables(*no_vectors, torch.zeros(users), popularity(training), torch.zeros(()))
        yield "popularity", evaluate_tables(eval_users, by_popularity)
        neighbours = item_neighbours(training, self.neighbours, threads=threads)
        yield "item-knn", evaluate_scores(eval_users, neighbours.scores(seen, threads=threads))
        if data.num_items - 1 <= EASE_MAX_ITEMS:
            weights = ease(training, self.ease_l2, threads=threads)
            yield "ease", evaluate_scores(eval_users, item_scores(weights, seen, threads=threads))
        else:
            of_users, encoder, vectors = _low_rank_ease(training, self.ease_l2, threads)
            if eval_users.held_out:
                of_users = seen.sums(encoder)
            zeros = torch.zeros(len(of_users)), torch.zeros(len(vectors)), torch.zeros(())
            yield "ease", evaluate_tables(eval_users, FoldedTables(of_users, vectors, *zeros))
        if rating_tables is not None:
            yield "ratings", evaluate_tables(eval_users, rating_tables)


@torch.inference_mode(False)  # threads of solvers do not inherit it
@torch.no_grad()
def _low_rank_ease(training: Interactions, l2: float, threads: int) -> LinearTables:
    solver = LowRankEase(training, EASE_RANK, l2=l2, user_power=0, dropout=0, threads=threads)
    for _ in range(2):
        solver.sweep()
    return solver.tables()


def comparison_lines(metrics: Mapping[str, float]) -> list[str]:
    """Format the ranking metrics of a test and of its baselines as a table.

    Args:
        metrics: Logged name -> value; those of `test/…` are shown.
    """
    columns = {title: name for title, name in COLUMNS.items() if f"test/{name}" in metrics}
    if "ndcg@10" not in columns.values():
        return []
    rows = {"this model": "test/"} | {title: f"test/{name}/" for name, title in BASELINES.items()}
    lines = [f"{'recommendations':<22}" + "".join(f"{title:>12}" for title in columns)]
    for title, prefix in rows.items():
        values = [metrics.get(prefix + name) for name in columns.values()]
        if values[0] is not None:
            cells = "".join(f"{'' if value is None else f'{value:.4f}':>12}" for value in values)
            lines.append(f"  {title:<20}{cells}")
    own = metrics["test/ndcg@10"]
    better = {
        title: value / own - 1 if own else math.inf
        for name, title in BASELINES.items()
        if (value := metrics.get(f"test/{name}/ndcg@10", 0.0)) > (1 + MIN_DEFICIT) * own
    }
    if better:
        listed = " and ".join(f"{title} (by {share:.1%})" for title, share in better.items())
        lines.append(f"recommendations of {listed} have a higher nDCG@10; docs/ranking.md lists other objectives")
    return lines
