"""What all lists of recommendations are like together: coverage, novelty, and how unevenly items are shown."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from cflightning.errors import ConfigError, DataError

FIGURES = ("coverage", "gini", "novelty", "popularity")
"""What :func:`exposure_figures` measures, in its order."""


def exposures(top: Tensor, num_items: int, ks: Sequence[int] = (10, 20)) -> Tensor:
    """How often each item is recommended; counts of several batches of users add up.

    Args:
        top: int64 [users, width], recommended item rows, the best first; 0 for "no item", which is not counted.
        num_items: rows of the item table, the unknown row included.
        ks: lengths of list to look at.

    Returns:
        int64 [ks, num_items].

    Raises:
        ConfigError: a k is below 1 or above the lists' width.
        DataError: a row is out of range.
    """
    if not ks or min(ks) < 1 or max(ks) > top.shape[1]:
        raise ConfigError(f"ks: must each be at least 1 and at most the lists' width {top.shape[1]}, got {[*ks]}")
    if bad := int(((top < 0) | (top >= num_items)).sum()):
        raise DataError(f"exposures: items must be at least 0 and below {num_items}, got {bad} others")
    counts = torch.stack([torch.bincount(top[:, :k].flatten(), minlength=num_items) for k in ks])
    counts[:, 0] = 0
    return counts


def exposure_figures(exposure: Tensor, popularity: Tensor, users: int, double: torch.dtype = torch.float64) -> Tensor:
    """Figures of all lists together, from how often each item is in one.

    Items are all but the unknown row, n of them, recommended or not.

    - ``coverage``: share of the items that are recommended to anyone (catalogue coverage; Ge, Delgado-Battenfeld &
      Jannach 2010).
    - ``gini``: Gini coefficient of the exposures, ``sum (2i - n - 1) x_i / (n sum x)`` with x ascending: 0 if all
      items are shown alike, ``1 - 1/n`` if only one is. So RecBole's `GiniIndex` and LensKit's `ListGini`; Shani &
      Gunawardana (2011, section 8.3.3) divide by n - 1, so that theirs reaches 1.
    - ``novelty``: mean self-information of what is recommended, ``log2(users / users of the item)``, bits (Zhou et
      al. 2010, "Solving the apparent diversity-accuracy dilemma"; Vargas & Castells 2011). An item that nobody used
      counts as used by one, as in RecTools' `MeanInvUserFreq`.
    - ``popularity``: mean popularity percentile of what is recommended: the share of items less popular, and half of
      those as popular, itself included. Items drawn at random give 0.5, the most popular ones nearly 1. (LensKit's
      `MeanPopRank` has the same rank among items with users, and 0 for others.)

    The means go over recommended places, which are users' means where all lists are full.

    Args:
        exposure: int64 [..., num_items], from :func:`exposures`.
        popularity: integers [num_items], training users of each item.
        users: how many users training had.
        double: type to compute in.

    Returns:
        [..., figures] of type `double`, in the order of :data:`FIGURES`; NaN for all but coverage where nothing was
        recommended.

    Raises:
        DataError: the two are not of as many items.
    """
    if exposure.shape[-1:] != popularity.shape:
        raise DataError(f"exposure_figures: items must be as many, got {exposure.shape[-1]} and {[*popularity.shape]}")
    shown, used = exposure[..., 1:], popularity[1:].long()
    n = shown.shape[-1]
    total = shown.sum(-1, keepdim=True).to(double)
    place = torch.arange(1, n + 1, device=shown.device)
    uneven = ((2 * place - n - 1) * shown.sort(-1).values).sum(-1)  # whole numbers: exact
    bits = (max(users, 1) / used.clamp(min=1).to(double)).log2()
    _, alike, count = torch.unique(used, return_inverse=True, return_counts=True)
    percentile = ((count.cumsum(0) - count.to(double) / 2) / max(n, 1))[alike]
    share = shown.to(double) / total
    covered = (shown > 0).sum(-1).to(double) / n
    return torch.stack([covered, uneven / (n * total.squeeze(-1)), share @ bits, share @ percentile], -1)


class ExposureFigures(Metric):
    """:func:`exposure_figures` at several lengths of list: `coverage@10`, `novelty@10` and so on.

    The counts of items are added over devices, so the result is that of one pass over all users, however they were
    shared out.

    Args:
        popularity: int64 [num_items], training users of each item; the unknown row included.
        users: How many users training had.
        ks: Lengths of list to look at.
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
        """Add users: int64 [users, width], recommended item rows, the best first; 0 for "no item"."""
        self.counts += exposures(top, len(self.popularity), self.ks)

    def compute(self) -> dict[str, Tensor]:
        """All figures at all ks, of all users so far."""
        # Apple's GPUs have no float64.
        double = torch.float32 if self.counts.device.type == "mps" else torch.float64
        figures = exposure_figures(self.counts, self.popularity, self.training_users, double)
        return {f"{name}@{k}": figures[j, i] for i, name in enumerate(FIGURES) for j, k in enumerate(self.ks)}
