"""Popularity: the same list for everyone, and the baseline that every ranker has to beat."""

from __future__ import annotations

import torch
from torch import Tensor

from cflightning.solvers.interactions import Interactions


def popularity(sides: Interactions) -> Tensor:
    """Which share of the users has each item, counting a pair that is there twice twice.

    As a dot product it is a bias without vectors: give it to `metrics.top_k.rank_all` as `item_bias`, with
    vectors of dim 0.

    Args:
        sides: who has what.

    Returns:
        float32 [num_items], 0 for row 0.
    """
    users = int((sides.users.counts > 0).sum())
    return sides.items.counts.to(torch.float32) / max(users, 1)
