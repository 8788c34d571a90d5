"""How good lists of recommendations are: hit rate, recall, precision, nDCG, MAP and MRR at k."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from cflightning.errors import ConfigError, DataError
from cflightning.metrics.item_lists import ItemLists, hits

FIGURES = ("hr", "recall", "capped_recall", "precision", "ndcg", "map", "mrr")
"""What :func:`user_figures` measures, in its order."""


def user_figures(
    hit: Tensor, relevant: Tensor, ks: Sequence[int] = (10, 20), double: torch.dtype = torch.float64
) -> Tensor:
    """Figures of every user, from which of the recommended items are relevant.

    With h_r = 1 if the item at rank r (from 1) is relevant and 0 otherwise, n relevant items, and all sums over ranks
    1 to k:

    - ``hr``: 1 if any h_r is, the hit rate. With one relevant item a user, as where the last one is left out, it is
      recall too (He et al. 2017).
    - ``recall``: ``sum h_r / n``. NGCF, LightGCN and all that compare with them; Microsoft's recommenders, trec_eval. A
      user with more than k relevant items cannot reach 1.
    - ``capped_recall``: ``sum h_r / min(n, k)``. Mult-VAE (Liang et al. 2018, section 4.2) and all that compare with
      it: EASE, RecVAE, iALS (Rendle et al. 2022); LensKit. They write `Recall@k` as well.
    - ``precision``: ``sum h_r / k``, also where a list has fewer items than that (Microsoft's recommenders, trec_eval's
      `P`); LensKit divides by the list's length.
    - ``ndcg``: ``sum h_r / log2(r + 1)``, divided by what it is with all of the first min(n, k) ranks relevant
      (Järvelin & Kekäläinen 2002, with binary gains and the discount that is usual today; LightGCN's code, trec_eval's
      `ndcg_cut`). Some divide by the ideal of all k ranks whatever n is, which gives less, or by that of the hits
      found, which gives more.
    - ``map``: average precision, ``sum h_r * precision@r / min(n, k)``: 1 for a perfect list. So Kaggle's MAP@k,
      `map_at_k` of Microsoft's recommenders, LensKit where lists are full. trec_eval's `map_cut`, ranx and Microsoft's
      `map`, which is the MAP of their benchmark table, divide by n: less where n is above k.
    - ``mrr``: 1 / rank of the first relevant item, or 0 if it is beyond k (Voorhees 1999; trec_eval's `recip_rank`, but
      that looks at the whole list).

    Args:
        hit: bool [users, width], by rank; width at least every k. See :func:`~cflightning.metrics.item_lists.hits`.
        relevant: integers [users], relevant items of each, those that are not in the list included.
        ks: lengths of list to look at.
        double: type to compute in.

    Returns:
        [figures, ks, users] of type `double`, in the order of :data:`FIGURES`; 0 for a user without relevant items,
        who is not to be counted.

    Raises:
        ConfigError: a k is below 1 or above the lists' width.
        DataError: there are not as many users in both.
    """
    users, width = hit.shape
    _check(ks, width)
    if relevant.shape != (users,):
        raise DataError(f"user_figures: relevant must be a number for each of {users} users, got {[*relevant.shape]}")
    k = torch.tensor(ks, device=hit.device)
    rank = torch.arange(1, width + 1, device=hit.device)
    within = (rank[:, None] <= k).to(double)  # [width, ks]
    discount = 1 / (rank + 1).to(double).log2()
    h = hit.to(double)
    n = relevant.clamp(min=1)[:, None]
    reachable = torch.minimum(n, k)  # [users, ks]
    found = h @ within
    precision_of_hits = (h.cumsum(1) * h).div_(rank)
    # argmax gives the first of equal values; without any hit it gives rank 1, hence the product with `any`.
    first = hit.to(torch.uint8).argmax(1, keepdim=True) + 1 if width else n
    return torch.stack(
        [
            (found > 0).to(double),
            found / n,
            found / reachable,
            found / k,
            h @ (discount[:, None] * within) / discount.cumsum(0)[reachable - 1],
            precision_of_hits @ within / reachable,
            (hit.any(1, keepdim=True) & (first <= k)).to(double) / first,
        ]
    ).mT


class RankingFigures(Metric):
    """Means over users of :func:`user_figures`; `hr@10`, `ndcg@10` and so on.

    A user without relevant items is not counted. Sums are kept in double precision and added over devices, so the
    result is that of one pass over all users, however they were shared out. With no users all are NaN.

    Args:
        ks: Lengths of list to look at.
    """

    full_state_update = False
    sums: Tensor
    users: Tensor

    def __init__(self, ks: Sequence[int] = (10, 20)) -> None:
        super().__init__()
        _check(ks)
        self.ks = tuple(ks)
        # Apple's GPUs have no float64, and a state follows the model to its device.
        double = torch.float32 if torch.backends.mps.is_available() else torch.float64
        self.add_state("sums", torch.zeros(len(FIGURES), len(ks), dtype=double), dist_reduce_fx="sum")
        self.add_state("users", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, top: Tensor, relevant: ItemLists) -> None:
        """Add users.

        Args:
            top: int64 [users, width], recommended item rows, the best first; 0 for "no item". Width at least every k.
            relevant: items of the same users.
        """
        counts = relevant.counts
        self.sums += user_figures(hits(top, relevant), counts, self.ks, self.sums.dtype).sum(-1)
        self.users += (counts > 0).sum()

    def compute(self) -> dict[str, Tensor]:
        """All figures at all ks, of all users so far."""
        means = self.sums / self.users
        return {f"{name}@{k}": means[i, j] for i, name in enumerate(FIGURES) for j, k in enumerate(self.ks)}


def _check(ks: Sequence[int], width: int | None = None) -> None:
    if not ks or min(ks) < 1:
        raise ConfigError(f"ks: must be at least 1 each, and there must be one, got {[*ks]}")
    if width is not None and max(ks) > width:
        raise ConfigError(f"ks: lists must be as long as every k, got {width} items for {max(ks)}; rank more of them")
