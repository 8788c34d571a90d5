"""Ranking metrics at k: hit rate, recall, precision, nDCG, MAP and MRR.

A metric is a function of :class:`Relevance` with the decorator :func:`ranking_metric`; its name appears as `name@k`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from cflightning.errors import ConfigError, DataError
from cflightning.utils.csr import Csr

TABLE_CELLS = 1 << 22
"""Cells of the table of relevant items, one byte each, so that it stays in the cache of the processor."""


class Relevance(NamedTuple):
    """Relevance of the recommended items of some users, at several cut-offs.

    In formulas, h_r is 1 if the item at rank r (from 1) is relevant and otherwise 0; n is the number of relevant items
    of the user; sums are over ranks 1 to k.

    Attributes:
        hits: float [users, width], h_r by rank.
        rank: int64 [width], from 1.
        within: float [width, ks], 1 where the rank is at most k.
        k: int64 [ks], the cut-offs.
        relevant: int64 [users, 1], n, at least 1.
        hits_at_k: float [users, ks], ``sum h_r``.
        reachable: int64 [users, ks], ``min(n, k)``.
    """

    hits: Tensor
    rank: Tensor
    within: Tensor
    k: Tensor
    relevant: Tensor
    hits_at_k: Tensor
    reachable: Tensor


UserMetric = Callable[[Relevance], Tensor]
METRICS: dict[str, UserMetric] = {}
"""Metrics of a user by name: Relevance -> float [users, ks]."""


def ranking_metric(function: UserMetric) -> UserMetric:
    """Register a metric under the name of its function."""
    METRICS[function.__name__] = function
    return function


@ranking_metric
def hr(lists: Relevance) -> Tensor:
    """Hit rate: 1 if any h_r is 1.

    With one relevant item for each user, as in leave-one-out, it equals recall (He et al. 2017).
    """
    return (lists.hits_at_k > 0).to(lists.hits.dtype)


@ranking_metric
def recall(lists: Relevance) -> Tensor:
    """Recall: ``sum h_r / n``.

    Used by NGCF, LightGCN and the papers that compare with them; equals `recall_at_k` of Microsoft's recommenders and
    trec_eval's `recall`. A user with more than k relevant items cannot reach 1.
    """
    return lists.hits_at_k / lists.relevant


@ranking_metric
def capped_recall(lists: Relevance) -> Tensor:
    """Recall relative to its maximum at k: ``sum h_r / min(n, k)``.

    Used by Mult-VAE (Liang et al. 2018, section 4.2), the papers that compare with it (EASE, RecVAE, iALS of Rendle et
    al. 2022) and LensKit, all of which write `Recall@k` as well.
    """
    return lists.hits_at_k / lists.reachable


@ranking_metric
def precision(lists: Relevance) -> Tensor:
    """Precision: ``sum h_r / k``, also for a list with fewer than k items.

    Equals `precision_at_k` of Microsoft's recommenders and trec_eval's `P`; LensKit divides by the length of the list.
    """
    return lists.hits_at_k / lists.k


@ranking_metric
def ndcg(lists: Relevance) -> Tensor:
    """Normalised discounted cumulative gain: ``sum h_r / log2(r + 1)``, divided by its value for min(n, k) hits on top.

    Defined by Järvelin & Kekäläinen 2002, here with binary gains and the discount that is usual today; equals nDCG of
    LightGCN's code and trec_eval's `ndcg_cut`. Some libraries divide by the ideal of all k ranks whatever n is, which
    gives less, or by that of the hits in the list, which gives more.
    """
    discount = 1 / (lists.rank + 1).to(lists.hits.dtype).log2()
    return lists.hits @ (discount[:, None] * lists.within) / discount.cumsum(0)[lists.reachable - 1]


@ranking_metric
def map(lists: Relevance) -> Tensor:
    """Average precision: ``sum h_r * precision@r / min(n, k)``; its mean over users is MAP.

    Equals Kaggle's MAP@k, `map_at_k` of Microsoft's recommenders, and LensKit's for full lists. trec_eval's `map_cut`,
    ranx and Microsoft's `map`, which is the MAP of their benchmark table, divide by n: less where n is above k.
    """
    precision_at_hits = (lists.hits.cumsum(1) * lists.hits).div_(lists.rank)
    return precision_at_hits @ lists.within / lists.reachable


@ranking_metric
def mrr(lists: Relevance) -> Tensor:
    """Reciprocal rank: 1 / rank of the first relevant item, or 0 if it is beyond k; its mean over users is MRR.

    Defined by Voorhees 1999; trec_eval's `recip_rank` is the same without a cut-off.
    """
    # argmax returns the first of equal values; without any hit it returns rank 1, hence the product.
    first = lists.hits.argmax(1, keepdim=True) + 1
    return ((lists.hits_at_k > 0) & (first <= lists.k)).to(lists.hits.dtype) / first


def is_relevant(top: Tensor, relevant: Csr, cells: int = TABLE_CELLS) -> Tensor:
    """Return which recommended items are relevant.

    Relevant items are marked in a table of a few users at a time and read back: three times as fast as a search among
    sorted pairs, and without a table of all users and items.

    Args:
        top: int64 [users, width], item indices, each once for a user; 0 for "no item", which is never relevant.
        relevant: Relevant items of the same users.
        cells: Cells of the table.

    Returns:
        bool [users, width].

    Raises:
        DataError: The numbers of users differ.
    """
    if len(top) != relevant.num_rows:
        raise DataError(
            f"is_relevant: users must be as many, got {len(top)} lists and relevant items of {relevant.num_rows}"
        )
    hit = torch.empty(top.shape, dtype=torch.bool, device=top.device)
    users = min(max(cells // max(relevant.num_columns, 1), 1), len(top))
    marks = torch.zeros(users, relevant.num_columns, dtype=torch.bool, device=top.device)
    for begin in range(0, len(top), max(users, 1)):
        block = top[begin : begin + users]
        owner, item = relevant.pairs(begin, begin + len(block))
        marked = owner * relevant.num_columns + item
        marks.view(-1)[marked] = True
        torch.gather(marks[: len(block)], 1, block, out=hit[begin : begin + users])
        marks.view(-1)[marked] = False
    return hit


def user_metrics(
    hit: Tensor, relevant: Tensor, ks: Sequence[int] = (10, 20), double: torch.dtype = torch.float64
) -> Tensor:
    """Return all metrics of every user.

    Args:
        hit: bool [users, width], by rank; width at least every k. See :func:`is_relevant`.
        relevant: integers [users], number of relevant items, including those that are not in the list.
        ks: Cut-offs.
        double: Type of the result.

    Returns:
        [metrics, ks, users] of type `double`, in the order of :data:`METRICS`; 0 for a user without relevant items, who
        is to be left out of means.

    Raises:
        ConfigError: A k is below 1 or above the width.
        DataError: The numbers of users differ.
    """
    users, width = hit.shape
    check_cutoffs(ks, width)
    if relevant.shape != (users,):
        raise DataError(f"user_metrics: relevant must be a number for each of {users} users, got {[*relevant.shape]}")
    k = torch.tensor(ks, device=hit.device)
    rank = torch.arange(1, width + 1, device=hit.device)
    hits, within, n = hit.to(double), (rank[:, None] <= k).to(double), relevant.clamp(min=1)[:, None]
    lists = Relevance(hits, rank, within, k, n, hits @ within, torch.minimum(n, k))
    return torch.stack([metric(lists) for metric in METRICS.values()]).mT


class UserMeans(Metric):
    """Means over users of metrics at cut-offs.

    Sums are in double precision and added over devices, so the result is that of one pass over all users, however they
    were distributed. Without users all metrics are NaN.

    Args:
        names: Names of the metrics.
        ks: Cut-offs.

    Attributes:
        user_values: float64 [metrics, ks, users], metrics of every user of the last update.
    """

    full_state_update = False
    sums: Tensor
    users: Tensor

    def __init__(self, names: Iterable[str], ks: Sequence[int]) -> None:
        super().__init__()
        check_cutoffs(ks)
        self.names, self.ks = tuple(names), tuple(ks)
        # Apple's GPUs have no float64, and a state follows the model to its device.
        double = torch.float32 if torch.backends.mps.is_available() else torch.float64
        self.add_state("sums", torch.zeros(len(self.names), len(ks), dtype=double), dist_reduce_fx="sum")
        self.add_state("users", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.user_values = torch.zeros(*self.sums.shape, 0, dtype=double)

    def compute(self) -> dict[str, Tensor]:
        """Return all metrics at all cut-offs, over all users so far."""
        means = self.sums / self.users
        return {f"{name}@{k}": means[i, j] for i, name in enumerate(self.names) for j, k in enumerate(self.ks)}


class RankingMetrics(UserMeans):
    """Means of :func:`user_metrics` over the users with relevant items: `hr@10`, `ndcg@10` and so on.

    Args:
        ks: Cut-offs.
    """

    def __init__(self, ks: Sequence[int] = (10, 20)) -> None:
        super().__init__(METRICS, ks)

    def update(self, top: Tensor, relevant: Csr) -> None:
        """Add users.

        Args:
            top: int64 [users, width], indices of recommended items, best first; 0 for "no item".
            relevant: Relevant items of the same users.
        """
        counts = relevant.counts
        self.user_values = user_metrics(is_relevant(top, relevant), counts, self.ks, self.sums.dtype)
        self.sums += self.user_values.sum(-1)
        self.users += (counts > 0).sum()


def check_cutoffs(ks: Sequence[int], width: int | None = None) -> None:
    """Raise a ConfigError if a cut-off is below 1 or above the width of the lists."""
    if not ks or min(ks) < 1:
        raise ConfigError(f"ks: must be one or more cut-offs of at least 1, got {[*ks]}")
    if width is not None and max(ks) > width:
        raise ConfigError(f"ks: lists must be as long as every k, got {width} items for {max(ks)}; rank more of them")
