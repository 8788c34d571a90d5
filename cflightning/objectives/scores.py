"""Scores of choices and of negatives from the vectors of a batch, as ranking objectives take them."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from cflightning.errors import ConfigError


def normalised(users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of length 1, whose products are cosines: float32 [..., dim] twice; rows of zeros stay so."""
    return normalize(users, dim=-1), normalize(items, dim=-1)


def drop(vectors: Tensor, share: float, generator: torch.Generator | None = None) -> Tensor:
    """Set a share of the entries to 0 and scale the others up by as much (Srivastava et al. 2014).

    Args:
        vectors: float32 [batch, dim].
        share: of the entries, from 0 to below 1.
        generator: what decides which; on the vectors' device.

    Raises:
        ConfigError: the share is out of its range.
    """
    if not 0 <= share < 1:
        raise ConfigError(f"drop: share must be at least 0 and below 1, got {share}")
    if share == 0:
        return vectors
    kept = torch.rand(vectors.shape, generator=generator, device=vectors.device) >= share
    return vectors * kept / (1 - share)


def pair_scores(users: Tensor, items: Tensor, negatives: Tensor, hits: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Dot products of every user with the own item and with negatives.

    Shared negatives cost one product of two matrices; own ones are looked up one by one, which for m of them takes many
    times as long.

    Args:
        users: float32 [batch, dim].
        items: float32 [batch, dim].
        negatives: float32 [m, dim], shared by the batch, or [batch, m, dim].
        hits: bool [batch, m], negatives that are the choice itself: they get -inf and take no part.

    Returns:
        float32 [batch] and [batch, m].
    """
    positive = torch.linalg.vecdot(users, items)
    if negatives.dim() == 2:
        scores = users @ negatives.mT
    else:
        scores = torch.linalg.vecdot(users[:, None], negatives)
    return positive, scores if hits is None else scores.masked_fill(hits, -math.inf)
