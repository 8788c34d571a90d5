"""Ranks among sampled candidates, for comparison with published results only."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cflightning.errors import DataError, TrainingError
from cflightning.metrics.ranking import UserMeans

METRICS = ("sampled_hr", "sampled_ndcg", "sampled_mrr")
"""Metrics of :class:`SampledMetrics`."""


def sampled_ranks(item: Tensor, score: Tensor, negatives: Tensor, negative_scores: Tensor) -> Tensor:
    """Return ranks of relevant items among sampled negatives: the number of better ones plus half of the ties.

    The candidates are a set, as in the code of He et al. 2017: a repeated negative counts once, and the relevant item
    among its own negatives not at all. (In the published candidates of MovieLens 1M, that is so for 156 users.) With
    half of the ties the order of the candidates is irrelevant: a constant model has the middle rank.

    Args:
        item: int64 [users], index of the relevant item, never 0.
        score: float [users], its score.
        negatives: int64 [users, n], item indices; 0 for "no item", if a user has fewer.
        negative_scores: float [users, n], their scores.

    Returns:
        float64 [users], from 0 (float32 on Apple's GPUs); a multiple of 1/2.

    Raises:
        DataError: The shapes do not match, or a relevant item is unknown.
        TrainingError: A score is NaN.
    """
    users = item.shape
    if not (score.shape == users == negatives.shape[:1] and negatives.shape == negative_scores.shape):
        shapes = ", ".join(str([*column.shape]) for column in (item, score, negatives, negative_scores))
        raise DataError(f"sampled_ranks: must be [users] twice and [users, n] twice, got {shapes}")
    if unknown := int((item < 1).sum()):
        raise DataError(f"sampled_ranks: relevant items must be known, got {unknown} of index 0")
    negatives, order = negatives.sort(1)
    negative_scores = negative_scores.gather(1, order)
    counted = (negatives > 0) & (negatives != item[:, None])
    counted[:, 1:] &= negatives[:, 1:] != negatives[:, :-1]
    if bad := int((score.isnan() | (negative_scores.isnan() & counted).any(1)).sum()):
        raise TrainingError(f"sampled_ranks: scores must be numbers, got NaN for {bad} of {len(item)} users")
    better = (counted & (negative_scores > score[:, None])).sum(1)
    ties = (counted & (negative_scores == score[:, None])).sum(1)
    return better + ties.to(torch.float32 if item.device.type == "mps" else torch.float64) / 2


class SampledMetrics(UserMeans):
    """Leave-one-out with sampled candidates (He et al. 2017, "Neural Collaborative Filtering", section 4.1).

    For each user the relevant item is ranked among about 99 items that the user has not used. With rank r from 0, see
    :func:`sampled_ranks`: `sampled_hr@k` is the share of users with r < k, `sampled_ndcg@k` the mean of
    ``1 / log2(r + 2)`` for these, `sampled_mrr@k` of ``1 / (r + 1)``.

    The values are far above those over the whole catalogue and can order two models differently (Krichene & Rendle
    2020, "On Sampled Metrics for Item Recommendation"); hence the separate names.

    Args:
        ks: Cut-offs.
    """

    def __init__(self, ks: Sequence[int] = (10,)) -> None:
        super().__init__(METRICS, ks)

    def update(self, item: Tensor, score: Tensor, negatives: Tensor, negative_scores: Tensor) -> None:
        """Add users; see :func:`sampled_ranks`."""
        rank = sampled_ranks(item, score, negatives, negative_scores).to(self.sums.dtype)
        within = (rank < torch.tensor(self.ks, device=rank.device)[:, None]).to(rank.dtype)  # [ks, users]
        self.user_values = torch.stack([within, within / (rank + 2).log2(), within / (rank + 1)])
        self.sums += self.user_values.sum(-1)
        self.users += len(rank)
