"""Popularity: the same recommendations for everyone, the baseline of every ranking model."""

from __future__ import annotations

import torch
from torch import Tensor

from cflightning.utils.interactions import Interactions


def popularity(interactions: Interactions) -> Tensor:
    """Return the share of users who have each item; a pair that occurs twice counts twice.

    As a dot product it is a bias without vectors: pass it to `metrics.top_k.rank_all` as `item_bias`, with
    vectors of dim 0.

    Args:
        interactions: Interactions of the training part.

    Returns:
        float32 [num_items], 0 for index 0.
    """
    users = int((interactions.by_user.counts > 0).sum())
    return interactions.by_item.counts.to(torch.float32) / max(users, 1)
