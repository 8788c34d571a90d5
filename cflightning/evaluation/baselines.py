"""Ranking baselines (popularity, item neighbours, EASE, the order of predicted ratings), and intervals of nDCG@10."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from cflightning.data.datamodule import RatingsDataModule
from cflightning.evaluation.rankings import EvalUsers, RankingResult, evaluate_scores, evaluate_tables
from cflightning.metrics.intervals import normal_interval
from cflightning.models.network import DotProductTables
from cflightning.solvers.ease import ease, item_scores
from cflightning.solvers.low_rank_ease import LinearTables, LowRankEase
from cflightning.solvers.neighbours import item_neighbours
from cflightning.solvers.popularity import popularity
from cflightning.utils.interactions import Interactions, make_interactions

EASE_MAX_ITEMS = 4000
"""Largest catalogue for exact EASE, whose time is cubic in the number of items: some seconds."""
EASE_RANK = 512
"""Rank of EASE for larger catalogues."""
WARNING_MARGIN = 0.01
"""Margin above the model's nDCG@10, as a share of it, at which a baseline is named in a warning."""
NDCG = "ndcg@10"
"""Metric by which models are compared."""
COLUMNS = {"HR@10": "hr@10", "nDCG@10": NDCG, "nDCG@20": "ndcg@20", "recall@20": "recall@20",
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
    """Adds the ranking metrics of baselines, and confidence intervals of nDCG@10, to every test of rankings.

    Logged, and so returned by `Trainer.test`, are:

    - `test/ndcg@10_low`, `test/ndcg@10_high`: 95 % interval of the model's mean over users, by the normal distribution.
      Left out for a single user.
    - `test/ndcg@10_gain`: nDCG@10 of the model minus that of the best baseline, with `_low` and `_high`; paired, so
      this interval is much narrower.
    - `test/popularity/ndcg@10` and all other metrics of baselines, fitted on the same training rows:

        - `popularity`: the same items for every user;
        - `item-knn`: items of the same users (cosine similarity, 100 neighbours);
        - `ease`: EASE (Steck 2019); of rank `EASE_RANK` for catalogues of more than `EASE_MAX_ITEMS` items;
        - `ratings`: the items with the highest predicted ratings, if the model predicts ratings and the users are not
          held out.

    Args:
        neighbours: Neighbours of each item.
        ease_l2: L2 penalty of EASE, in interactions.
    """

    def __init__(self, neighbours: int = 100, ease_l2: float = 500.0) -> None:
        self.neighbours = neighbours
        self.ease_l2 = ease_l2

    def on_test_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Evaluate the baselines and compare the model with the best; every process has its share of the users."""
        data = getattr(trainer, "datamodule", None)
        if not getattr(pl_module, "predicts_rankings", False) or not isinstance(data, RatingsDataModule):
            return
        model: RankingResult | None = pl_module.evaluate_rankings()
        if model is None:
            return
        tables = pl_module.network.tables() if pl_module.predicts_ratings and not model.users.held_out else None
        logged: dict[str, Tensor] = {}
        baselines = []
        for name, baseline in self._evaluate(model.users, data, tables):
            logged |= {f"test/{name}/{metric}": value for metric, value in baseline.metrics.items()}
            baselines.append(baseline)
        logged |= {f"test/{NDCG}{name}": value for name, value in _compare(model, baselines, trainer).items()}
        pl_module.log_dict(logged, sync_dist=True)  # equal on all processes; Lightning requires sync_dist

    def _evaluate(
        self, eval_users: EvalUsers, data: RatingsDataModule, rating_tables: DotProductTables | None
    ) -> Iterator[tuple[str, RankingResult]]:
        user, item = (torch.from_numpy(index) for index in data.training_pairs())
        training = make_interactions(user, item, data.num_users, data.num_items)
        threads, seen = torch.get_num_threads(), eval_users.seen
        users = len(eval_users.users) if eval_users.held_out else data.num_users
        no_vectors = torch.zeros(users, 0), torch.zeros(data.num_items, 0)
        by_popularity = DotProductTables(*no_vectors, torch.zeros(users), popularity(training), torch.zeros(()))
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
            yield "ease", evaluate_tables(eval_users, DotProductTables(of_users, vectors, *zeros))
        if rating_tables is not None:
            yield "ratings", evaluate_tables(eval_users, rating_tables)


@torch.inference_mode(False)  # threads of solvers do not inherit it
@torch.no_grad()
def _low_rank_ease(training: Interactions, l2: float, threads: int) -> LinearTables:
    solver = LowRankEase(training, EASE_RANK, l2=l2, user_power=0, dropout=0, threads=threads)
    for _ in range(2):
        solver.sweep()
    return solver.tables()


def _compare(model: RankingResult, baselines: Iterable[RankingResult], trainer: Trainer) -> dict[str, Tensor]:
    """Return the intervals of nDCG@10, and the gain over the best baseline, by the ends of their names."""
    best = max(baselines, key=lambda baseline: float(baseline.metrics[NDCG]))
    columns = {"": model.ndcg, "_gain": model.ndcg - best.ndcg}
    # Users whose relevant item has no training row count as zeros, as in the metric.
    users = len(model.ndcg) / model.users.candidate_share
    rows = [[users, float(column.sum()), float(column.square().sum())] for column in columns.values()]
    device = trainer.strategy.root_device
    double = torch.float32 if device.type == "mps" else torch.float64
    sums = trainer.strategy.reduce(torch.tensor(rows, dtype=double, device=device), reduce_op="sum").tolist()
    compared = {"_gain": float(model.metrics[NDCG]) - float(best.metrics[NDCG])}
    for name, row in zip(columns, sums, strict=True):
        if (interval := normal_interval(*row)) is not None:
            compared[f"{name}_low"] = max(interval[0], -1.0 if name else 0.0)
            compared[f"{name}_high"] = min(interval[1], 1.0)
    return {name: torch.tensor(value, dtype=double) for name, value in compared.items()}


def comparison_lines(metrics: Mapping[str, float]) -> list[str]:
    """Format the ranking metrics of a test and of its baselines as a table, with intervals of nDCG@10 below.

    Args:
        metrics: Logged name -> value; those of `test/…` are shown.
    """
    columns = {title: name for title, name in COLUMNS.items() if f"test/{name}" in metrics}
    if NDCG not in columns.values():
        return []
    rows = {"this model": "test/"} | {title: f"test/{name}/" for name, title in BASELINES.items()}
    lines = [f"{'recommendations':<22}" + "".join(f"{title:>12}" for title in columns)]
    for title, prefix in rows.items():
        values = [metrics.get(prefix + name) for name in columns.values()]
        if prefix + NDCG in metrics:
            cells = "".join(f"{'' if value is None else f'{value:.4f}':>12}" for value in values)
            lines.append(f"  {title:<20}{cells}")
    ndcg = metrics[f"test/{NDCG}"]
    baselines = {title: metrics.get(f"test/{name}/{NDCG}", 0.0) for name, title in BASELINES.items()}
    if f"test/{NDCG}_low" in metrics:
        lines.append(_interval_line(metrics, max(baselines, key=lambda title: baselines[title])))
    better = {title: value for title, value in baselines.items() if value > (1 + WARNING_MARGIN) * ndcg}
    if better:
        listed = " and ".join(
            title + (f" (by {value / ndcg - 1:.1%})" if ndcg else "") for title, value in better.items()
        )
        lines.append(f"recommendations of {listed} have a higher nDCG@10; docs/ranking.md lists other objectives")
    return lines


def _interval_line(metrics: Mapping[str, float], best: str) -> str:
    low, high, gain_low, gain_high = (
        metrics[f"test/{NDCG}{name}_{end}"] for name in ("", "_gain") for end in ("low", "high")
    )
    gain, relation = metrics[f"test/{NDCG}_gain"], "above"
    if gain < 0:
        gain, gain_low, gain_high, relation = -gain, -gain_high, -gain_low, "below"
    return (
        f"nDCG@10 {metrics[f'test/{NDCG}']:.4f} [{low:.4f}, {high:.4f}], {relation} {best} by "
        f"{gain:.4f} [{gain_low:.4f}, {gain_high:.4f}]; brackets: 95 % intervals over users"
    )
