"""What lists are worth: beside those of popularity, of item neighbours, of EASE, and of the predicted ratings."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from cflightning.data.datamodule import RatingsDataModule
from cflightning.data.splits.split import TEST
from cflightning.evaluation.rankings import Questions, ask, figures_of_scores, figures_of_tables
from cflightning.models.network import FoldedTables
from cflightning.solvers.ease import ease, item_scores
from cflightning.solvers.interactions import Side, interactions
from cflightning.solvers.neighbours import item_neighbours
from cflightning.solvers.popularity import popularity
from cflightning.utils.csr import ItemLists

log = logging.getLogger(__name__)

EASE_ITEMS = 4000
"""Items at most for EASE, whose time grows with the cube: some seconds."""
SHOWN = {"HR@10": "hr@10", "nDCG@10": "ndcg@10", "nDCG@20": "ndcg@20", "recall@20": "recall@20",
         "coverage@10": "coverage@10"}  # fmt: skip
"""Columns of the table that people see, and the figures in them."""
OTHERS = {"popularity": "popularity", "item-knn": "item neighbours", "ease": "EASE", "ratings": "by predicted rating"}
"""Names in figures, and in the table."""


class Comparison(Callback):
    """Adds to every test of lists those of simple rankers, learnt from the same training rows.

    Logged, and so returned by `Trainer.test`, are `test/popularity/ndcg@10` and all other figures likewise of:

    - `popularity`: the same items for everyone;
    - `item-knn`: items that the same users chose (cosine, 100 neighbours);
    - `ease`: EASE (Steck 2019), where there are at most `EASE_ITEMS` items;
    - `ratings`: the items whose predicted rating is highest, where ratings are predicted as well, but not for users
      that training has not seen.

    Args:
        neighbours: of each item.
        ease_l2: penalty of EASE, in interactions.
    """

    def __init__(self, neighbours: int = 100, ease_l2: float = 500.0) -> None:
        self.neighbours = neighbours
        self.ease_l2 = ease_l2

    def on_test_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Measure, and log what comes out; every process does its share of the users."""
        data = getattr(trainer, "datamodule", None)
        if not getattr(pl_module, "predicts_rankings", False) or not isinstance(data, RatingsDataModule):
            return
        questions = ask(data, TEST, trainer, optional=pl_module.predicts_ratings)
        if questions is None:
            return
        for name, figures in self._measure(questions, data, pl_module):
            for figure, value in figures.items():
                pl_module.log(f"test/{name}/{figure}", value, sync_dist=True)  # equal numbers; Lightning asks for it

    def _measure(
        self, questions: Questions, data: RatingsDataModule, task: Any
    ) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
        user, item = (torch.from_numpy(rows) for rows in data.training_pairs())
        sides = interactions(user, item, data.num_users, data.num_items)
        threads, mine = torch.get_num_threads(), _side(questions.seen)
        rows = len(questions.users) if questions.new else data.num_users
        nothing = torch.zeros(rows, 0), torch.zeros(data.num_items, 0)
        alike = FoldedTables(*nothing, torch.zeros(rows), popularity(sides), torch.zeros(()))
        yield "popularity", figures_of_tables(questions, alike)
        near = item_neighbours(sides, self.neighbours, threads=threads)
        yield "item-knn", figures_of_scores(questions, near.scores(mine, threads=threads))
        if data.num_items - 1 <= EASE_ITEMS:
            weights = ease(sides, self.ease_l2, threads=threads)
            yield "ease", figures_of_scores(questions, item_scores(weights, mine, threads=threads))
        else:
            log.info("EASE is left out: %d items are more than %d", data.num_items - 1, EASE_ITEMS)
        tables = task.network.fold() if task.predicts_ratings and not questions.new else None
        if tables is not None:
            yield "ratings", figures_of_tables(questions, tables)


def _side(lists: ItemLists) -> Side:
    return Side(lists.items, lists.offsets)


def comparison_lines(figures: Mapping[str, float]) -> list[str]:
    """The lists of a test beside the others, as a table for people.

    Args:
        figures: metric name -> value; whatever is there of `test/…`.
    """
    columns = {title: name for title, name in SHOWN.items() if f"test/{name}" in figures}
    if "ndcg@10" not in columns.values():
        return []
    rows = {"lists of this model": "test/"} | {f"  {title}": f"test/{name}/" for name, title in OTHERS.items()}
    lines = [" " * 22 + "".join(f"{title:>12}" for title in columns)]
    for title, prefix in rows.items():
        values = [figures.get(prefix + name) for name in columns.values()]
        if values[0] is not None:
            lines.append(f"{title:<22}" + "".join(f"{'' if value is None else f'{value:.4f}':>12}" for value in values))
    return lines
