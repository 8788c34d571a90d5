"""Metrics of all recommendations together: coverage, Gini, novelty and popularity."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from cflightning.errors import DataError
from cflightning.metrics.ranking import check_cutoffs

METRICS = ("coverage", "gini", "novelty", "popularity")
"""Metrics of :func:`exposure_metrics`, in its order."""


def count_exposures(top: Tensor, num_items: int, ks: Sequence[int] = (10, 20)) -> Tensor:
    """Count how often each item is recommended; counts of several batches of users can be added.

    Args:
        top: int64 [users, width], indices of recommended items, best first; 0 for "no item", which is not counted.
        num_items: Number of item embeddings, including that of unknown items.
        ks: Cut-offs.

    Returns:
        int64 [ks, num_items].

    Raises:
        ConfigError: A k is below 1 or above the width of the lists.
        DataError: An index is out of range.
    """
    check_cutoffs(ks, top.shape[1])
    if bad := int(((top < 0) | (top >= num_items)).sum()):
        raise DataError(f"count_exposures: items must be at least 0 and below {num_items}, got {bad} others")
    counts = torch.stack([torch.bincount(top[:, :k].flatten(), minlength=num_items) for k in ks])
    counts[:, 0] = 0
    return counts


def exposure_metrics(exposures: Tensor, popularity: Tensor, users: int, double: torch.dtype = torch.float64) -> Tensor:
    """Return the metrics of all recommendations from how often each item is recommended.

    Items are all known ones, n of them, recommended or not.

    - ``coverage``: share of the items that are recommended to any user (catalogue coverage; Ge, Delgado-Battenfeld &
      Jannach 2010).
    - ``gini``: Gini coefficient of the exposures, ``sum (2i - n - 1) x_i / (n sum x)`` with x ascending: 0 if all
      items are shown equally often, ``1 - 1/n`` if only one is. So RecBole's `GiniIndex` and LensKit's `ListGini`;
      Shani & Gunawardana (2011, section 8.3.3) divide by n - 1, so that theirs reaches 1.
    - ``novelty``: mean self-information of recommended items, ``log2(users / users of the item)``, bits (Zhou et
      al. 2010, "Solving the apparent diversity-accuracy dilemma"; Vargas & Castells 2011). An item without users
      counts as having one, as in RecTools' `MeanInvUserFreq`.
    - ``popularity``: mean popularity percentile of recommended items: the share of less popular items plus half of the
      equally popular ones, itself included. Random items give 0.5, the most popular ones nearly 1. (LensKit's
      `MeanPopRank` has the same rank among items with users, and 0 for others.)

    Means are over recommended places, which equal means over users if all lists are full.

    Args:
        exposures: int64 [..., num_items], from :func:`count_exposures`.
        popularity: integers [num_items], training users of each item.
        users: Number of training users.
        double: Type of the result.

    Returns:
        [..., metrics] of type `double`, in the order of :data:`METRICS`; NaN for all but coverage if nothing was
        recommended.

    Raises:
        DataError: The numbers of items differ.
    """
    if exposures.shape[-1:] != popularity.shape:
        raise DataError(f"exposure_metrics: items must be as many, got {exposures.shape[-1]} and {[*popularity.shape]}")
    shown, users_of_item = exposures[..., 1:], popularity[1:].long()
    n = shown.shape[-1]
    total = shown.sum(-1, keepdim=True).to(double)
    position = torch.arange(1, n + 1, device=shown.device)
    inequality = ((2 * position - n - 1) * shown.sort(-1).values).sum(-1)  # integers: exact
    bits = (max(users, 1) / users_of_item.clamp(min=1).to(double)).log2()
    _, group, size = torch.unique(users_of_item, return_inverse=True, return_counts=True)
    percentile = ((size.cumsum(0) - size.to(double) / 2) / max(n, 1))[group]
    share = shown.to(double) / total
    covered = (shown > 0).sum(-1).to(double) / n
    return torch.stack([covered, inequality / (n * total.squeeze(-1)), share @ bits, share @ percentile], -1)


class ExposureMetrics(Metric):
    """:func:`exposure_metrics` at several cut-offs: `coverage@10`, `novelty@10` and so on.

    The counts of items are added over devices, so the result is that of one pass over all users, however they were
    distributed.

    Args:
        popularity: int64 [num_items], training users of each item, index 0 for unknown items.
        users: Number of training users.
        ks: Cut-offs.
    """

    full_state_update = False
    popularity: Tensor
    counts: Tensor

    def __init__(self, popularity: Tensor, users: int, ks: Sequence[int] = (10, 20)) -> None:
        super().__init__()
        self.ks, self.training_users = tuple(ks), users
        self.register_buffer("popularity", popularity.clone(), persistent=False)
        self.add_state("counts", torch.zeros(len(ks), len(popularity), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, top: Tensor) -> None:
        """Add users: int64 [users, width], indices of recommended items, best first; 0 for "no item"."""
        self.counts += count_exposures(top, len(self.popularity), self.ks)

    def compute(self) -> dict[str, Tensor]:
        """Return all metrics at all cut-offs, over all users so far."""
        # Apple's GPUs have no float64.
        double = torch.float32 if self.counts.device.type == "mps" else torch.float64
        metrics = exposure_metrics(self.counts, self.popularity, self.training_users, double)
        return {f"{name}@{k}": metrics[j, i] for i, name in enumerate(METRICS) for j, k in enumerate(self.ks)}
