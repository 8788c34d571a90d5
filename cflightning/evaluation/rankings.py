"""How good lists are: figures of the users of a validation or test part, for any way of scoring items."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import NamedTuple

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from cflightning.data.datamodule import RatingsDataModule
from cflightning.data.splits.split import TEST, TRAIN, VAL
from cflightning.errors import DataError
from cflightning.metrics.exposure import ExposureFigures
from cflightning.metrics.full_ranking import Ranked, rank_all, rank_scores
from cflightning.metrics.ranking import RankingFigures
from cflightning.metrics.sampled import SampledFigures
from cflightning.models.network import FoldedTables
from cflightning.utils.csr import ItemLists

log = logging.getLogger(__name__)

KS = 10, 20
"""Lengths of list that are looked at."""


class Questions(NamedTuple):
    """What this device's users are asked, and what would be right.

    Attributes:
        users: int64 [users], rows of a user table.
        seen: items that are not to be recommended, of the same users.
        relevant: items to be found, of the same users.
        candidates: int64 [users, 1 + negatives], item rows, the item to be found first and 0 for "no item"; None where
            the data has no such lists.
        share: of the users with candidates that are asked, over all devices: the others' item is in no training row.
        popularity: int64 [num_items], training users of each item.
        training_users: how many there are.
        exposed: whether to measure what all lists are like together.
        new: whether training has seen none of the users; `users` are then rows of a table of these alone, and `seen`
            is what is given of them.
    """

    users: Tensor
    seen: ItemLists
    relevant: ItemLists
    candidates: Tensor | None
    share: float
    popularity: Tensor
    training_users: int
    exposed: bool
    new: bool = False


def ask(
    data: RatingsDataModule, part: int, trainer: Trainer, most: int | None = None, *, optional: bool = False
) -> Questions | None:
    """The questions of a part: its users, each on one device.

    Lists are the best items of the whole catalogue without those that the user has in the training part (for TEST:
    nor in the validation part); what is to be found are the items of the part. Whoever is in no training row has no
    list and is left out; so is an item that is in none. Users that are held out whole (--data.split users) have lists
    without the items that are given of them.

    Args:
        data: with the part.
        part: VAL or TEST.
        trainer: knows the devices.
        most: users at most, over all devices, evenly spaced; None for all.
        optional: whether a part without a user and an item that training knows is just no reason to ask.

    Returns:
        None where no user of the part can be asked.

    Raises:
        DataError: no row of the part has a user and an item that training knows, and lists are what is wanted.
    """
    if not data.split.sizes[part]:
        return None
    new = data.split_method == "users"
    if new:
        _, seen, wanted = data.fold_in_lists(part)
    else:
        try:
            wanted = data.interactions(part)
        except DataError as error:
            if not optional:
                raise
            log.info("no lists are measured: %s", error)
            return None
        seen = data.interactions(TRAIN) if part == VAL or not data.split.sizes[VAL] else data.interactions(TRAIN, VAL)
    users = wanted.counts.nonzero().squeeze(-1)
    if most is not None and len(users) > most:
        users = users[torch.linspace(0, len(users) - 1, most).long()]
    if not len(users):
        return None
    mine = users[trainer.global_rank :: trainer.world_size]
    found = data.candidates if part == TEST else None
    candidates, share = None, 1.0
    if found is not None:
        place = torch.zeros(wanted.users, dtype=torch.int64)
        place[found.user] = torch.arange(len(found.user))
        candidates = torch.where(found.counted, found.item, 0)[place[mine]]
        share = len(users) / len(found.user)
    popularity = torch.from_numpy(data.counts()[1])
    return Questions(
        torch.arange(len(mine)) if new else mine,
        seen.take(mine),
        wanted.take(mine),
        candidates,
        share,
        popularity,
        data.num_users - 1,
        exposed=part == TEST,
        new=new,
    )


class Answers:
    """Collects the figures of lists, a block of users after the other, in the order of the questions.

    Args:
        questions: that are answered.
        device: of the lists.
    """

    def __init__(self, questions: Questions, device: torch.device | str = "cpu") -> None:
        self.questions, self.device = questions, device
        self.lists = RankingFigures(KS).to(device)
        self.exposure = ExposureFigures(questions.popularity, questions.training_users, KS).to(device)
        self.among = SampledFigures(KS).to(device)
        self.begin = 0

    def add(self, ranked: Ranked, candidate_scores: Tensor | None) -> None:
        """The next users: their lists, and the scores of their candidates (float [users, 1 + negatives])."""
        questions, begin = self.questions, self.begin
        self.begin = end = begin + len(ranked.item)
        self.lists.update(ranked.item, questions.relevant.take(torch.arange(begin, end)).to(self.device))
        if questions.exposed:
            self.exposure.update(ranked.item)
        if questions.candidates is not None and candidate_scores is not None:
            item = questions.candidates[begin:end].to(self.device)
            known = item[:, 0] > 0
            item, score = item[known], candidate_scores[known]
            self.among.update(item[:, 0], score[:, 0], item[:, 1:], score[:, 1:])

    def figures(self) -> dict[str, Tensor]:
        """Of the users of all devices: name -> float64 []; of `RankingFigures` and, for a test part, `ExposureFigures`.

        Where the data has candidates for its test items, the plain names (`hr@10`, `ndcg@10`) are of the ranks among
        these, as its protocol has it, and those of the whole catalogue are `full_hr@10` and so on. An item that is in
        no training row is then a miss, so that the figures are of all users as published ones are.
        """
        found = self.lists.compute() | (self.exposure.compute() if self.questions.exposed else {})
        if self.questions.candidates is None:
            return found
        share = self.questions.share
        among = {name.removeprefix("sampled_"): value * share for name, value in self.among.compute().items()}
        return {f"full_{name}": value for name, value in found.items()} | among


def figures_of_tables(questions: Questions, tables: FoldedTables) -> dict[str, Tensor]:
    """Figures of a dot product, whose users are those of `Questions.users`; see `Answers.figures`."""
    users, items, bias = tables.user_vectors, tables.item_vectors, tables.item_bias
    device = items.device
    answers = Answers(questions, device)
    mine = users[questions.users.to(device)]
    for ranked in rank_all(mine, items, bias, questions.seen.to(device), max(KS)):
        scores = None
        if questions.candidates is not None:
            item = questions.candidates[answers.begin : answers.begin + len(ranked.item)].to(device)
            some = mine[answers.begin : answers.begin + len(ranked.item), :, None]
            scores = (items[item] @ some).squeeze(-1) + bias[item]
        answers.add(ranked, scores)
    return answers.figures()


def figures_of_scores(questions: Questions, blocks: Iterable[Tensor]) -> dict[str, Tensor]:
    """Figures of whatever scores the whole catalogue; see `Answers.figures`.

    Args:
        questions: that are answered.
        blocks: float32 [some users, num_items], in the order of the questions.
    """
    answers = Answers(questions)
    for scores in blocks:
        part = torch.arange(answers.begin, answers.begin + len(scores))
        candidates = None if questions.candidates is None else scores.gather(1, questions.candidates[part])
        answers.add(rank_scores(scores, questions.seen.take(part), max(KS)), candidates)
    return answers.figures()
