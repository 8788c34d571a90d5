"""How good the lists of a network are: figures of the users of a validation or test part."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from cflightning.data.candidates import Candidates
from cflightning.data.datamodule import RatingsDataModule
from cflightning.data.split import TEST, TRAIN, VAL
from cflightning.errors import ConfigError
from cflightning.metrics.exposure import ExposureFigures
from cflightning.metrics.full_ranking import rank_all
from cflightning.metrics.ranking import RankingFigures
from cflightning.metrics.sampled import SampledFigures
from cflightning.models.network import RatingNetwork

KS = 10, 20
"""Lengths of list that are looked at."""


def ranking_figures(
    network: RatingNetwork, data: RatingsDataModule, part: int, trainer: Trainer, most: int | None = None
) -> dict[str, Tensor]:
    """Figures of the users who have rows in a part, each on one device and summed over all.

    Lists are the best items of the whole catalogue without those that the user has in the training part (for TEST:
    nor in the validation part); what is to be found are the items of the part. Whoever is in no training row has no
    list and is left out.

    Where the data has candidates for its test items, the plain names (`hr@10`, `ndcg@10`) are of the ranks among these,
    as its protocol has it, and those of the whole catalogue are `full_hr@10` and so on.

    Args:
        network: of the dot-product family.
        data: with the part.
        part: VAL or TEST.
        trainer: knows the devices.
        most: users at most, evenly spaced; None for all.

    Returns:
        name -> float64 []; of :class:`RankingFigures` and, for TEST, :class:`ExposureFigures`. Empty where the part has
        no user.
    """
    tables = network.fold()
    if tables is None:
        raise ConfigError(f"{type(network).__name__}: must be a dot product to rank the whole catalogue")
    device = tables.item_vectors.device
    wanted = data.interactions(part)
    seen = data.interactions(TRAIN) if part == VAL or not data.split.sizes[VAL] else data.interactions(TRAIN, VAL)
    users = wanted.counts.nonzero().squeeze(-1)
    if most is not None and len(users) > most:
        users = users[torch.linspace(0, len(users) - 1, most).long()]
    if not len(users):
        return {}
    mine = users[trainer.global_rank :: trainer.world_size]
    lists = RankingFigures(KS).to(device)
    popularity = torch.from_numpy(data.counts()[1])
    exposure = ExposureFigures(popularity, data.num_users - 1, KS).to(device)
    relevant = wanted.take(mine).to(device)
    found = rank_all(
        tables.user_vectors[mine.to(device)], tables.item_vectors, tables.item_bias, seen.take(mine).to(device), max(KS)
    )
    begin = 0
    for ranked in found:
        end = begin + len(ranked.item)
        rows = torch.arange(begin, end, device=device)
        lists.update(ranked.item, relevant.take(rows))
        exposure.update(ranked.item)
        begin = end
    figures = lists.compute() | (exposure.compute() if part == TEST else {})
    candidates = data.candidates if part == TEST else None
    if candidates is None:
        return figures
    among = _among(network, candidates, trainer, KS)
    return {f"full_{name}": value for name, value in figures.items()} | among


def _among(network: RatingNetwork, candidates: Candidates, trainer: Trainer, ks: Sequence[int]) -> dict[str, Tensor]:
    """Figures of the ranks among candidates; a user whose item is unknown is left out."""
    known = candidates.item[:, 0] > 0
    mine = slice(trainer.global_rank, None, trainer.world_size)
    user, item, counted = (column[known][mine] for column in candidates)
    tables = network.fold()
    assert tables is not None
    device = tables.item_vectors.device
    item, user = item.to(device), user.to(device)
    scores = (tables.item_vectors[item] @ tables.user_vectors[user][:, :, None]).squeeze(-1) + tables.item_bias[item]
    item = torch.where(counted.to(device), item, 0)
    figures = SampledFigures(ks).to(device)
    figures.update(item[:, 0], scores[:, 0], item[:, 1:], scores[:, 1:])
    return {name.removeprefix("sampled_"): value for name, value in figures.compute().items()}
