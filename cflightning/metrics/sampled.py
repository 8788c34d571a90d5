"""Ranks among sampled candidates: for comparison with published figures, and for nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from cflightning.errors import ConfigError, DataError, TrainingError

FIGURES = ("sampled_hr", "sampled_ndcg", "sampled_mrr")
"""What :class:`SampledFigures` measures."""


def sampled_ranks(item: Tensor, score: Tensor, negatives: Tensor, negative_scores: Tensor) -> Tensor:
    """Ranks of true items among their sampled negatives: how many are strictly better, and half of the ties.

    The candidates are a set, as in the code of He et al. 2017: a negative that is there twice counts once, and the true
    item among its own negatives not at all. (Among the published ones of MovieLens 1M 156 users have it there.) With
    half of the ties no order of the candidates is worth anything: a model that scores all alike has the middle rank.

    Args:
        item: int64 [users], the true item's row; none of them row 0.
        score: float [users], its score.
        negatives: int64 [users, n], rows; row 0 for "no item", where a user has fewer.
        negative_scores: float [users, n], their scores.

    Returns:
        float64 [users], from 0 (float32 on Apple's GPUs); a multiple of 1/2.

    Raises:
        DataError: shapes do not fit together, or a true item is row 0.
        TrainingError: a score is not a number.
    """
    users = item.shape
    if not (score.shape == users == negatives.shape[:1] and negatives.shape == negative_scores.shape):
        shapes = ", ".join(str([*column.shape]) for column in (item, score, negatives, negative_scores))
        raise DataError(f"sampled_ranks: must be [users] twice and [users, n] twice, got {shapes}")
    if unknown := int((item < 1).sum()):
        raise DataError(f"sampled_ranks: true items must be known, got {unknown} of row 0")
    negatives, order = negatives.sort(1)
    negative_scores = negative_scores.gather(1, order)
    counted = (negatives > 0) & (negatives != item[:, None])
    counted[:, 1:] &= negatives[:, 1:] != negatives[:, :-1]
    if bad := int((score.isnan() | (negative_scores.isnan() & counted).any(1)).sum()):
        raise TrainingError(f"sampled_ranks: scores must be numbers, got NaN for {bad} of {len(item)} users")
    better = (counted & (negative_scores > score[:, None])).sum(1)
    ties = (counted & (negative_scores == score[:, None])).sum(1)
    return better + ties.to(torch.float32 if item.device.type == "mps" else torch.float64) / 2


class SampledFigures(Metric):
    """Leave-one-out with sampled candidates (He et al. 2017, "Neural Collaborative Filtering", section 4.1).

    For each user the true item is ranked among 99 or so items that the user has not used. With rank r from 0, see
    :func:`sampled_ranks`: `sampled_hr@k` is the share of users with r < k, `sampled_ndcg@k` the mean of
    ``1 / log2(r + 2)`` of these, `sampled_mrr@k` of ``1 / (r + 1)``.

    They are far above the figures over the whole catalogue and need not put two models in the same order (Krichene &
    Rendle 2020, "On Sampled Metrics for Item Recommendation"); hence names of their own. Sums are kept in double
    precision and added over devices. With no users all are NaN.

    Args:
        ks: Lengths of list to look at.
    """

    full_state_update = False
    sums: Tensor
    users: Tensor

    def __init__(self, ks: Sequence[int] = (10,)) -> None:
        super().__init__()
        if not ks or min(ks) < 1:
            raise ConfigError(f"ks: must be at least 1 each, and there must be one, got {[*ks]}")
        self.ks = tuple(ks)
        # Apple's GPUs have no float64, and a state follows the model to its device.
        double = torch.float32 if torch.backends.mps.is_available() else torch.float64
        self.add_state("sums", torch.zeros(len(FIGURES), len(ks), dtype=double), dist_reduce_fx="sum")
        self.add_state("users", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, item: Tensor, score: Tensor, negatives: Tensor, negative_scores: Tensor) -> None:
        """Add users; see :func:`sampled_ranks`."""
        rank = sampled_ranks(item, score, negatives, negative_scores).to(self.sums.dtype)
        within = (rank < torch.tensor(self.ks, device=rank.device)[:, None]).to(rank.dtype)  # [ks, users]
        self.sums += torch.stack([within.sum(1), within @ (1 / (rank + 2).log2()), within @ (1 / (rank + 1))])
        self.users += len(rank)

    def compute(self) -> dict[str, Tensor]:
        """All figures at all ks, of all users so far."""
        means = self.sums / self.users
        return {f"{name}@{k}": means[i, j] for i, name in enumerate(FIGURES) for j, k in enumerate(self.ks)}
