"""EASE: how much each item says of each other one, in closed form."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from cflightning.errors import ConfigError, DataError
from cflightning.solvers.cooccurrence import cooccurrences
from cflightning.solvers.interactions import Interactions, Side
from cflightning.solvers.sparse import product
from cflightning.utils.thread_pool import Threads

LIMIT = 25_000
"""Items at most, if nothing else is said: three tables of 2.5 GB."""


def ease(sides: Interactions, l2: float = 500.0, *, limit: int = LIMIT, threads: int = 1) -> Tensor:
    """The weights B that minimise ``|X - X B|^2 + l2 |B|^2`` with a zero diagonal (Steck 2019, eq. 8).

    With P the inverse of ``X^T X + l2 I``, B_ij is ``-P_ij / P_jj``. Time grows with the cube of the items, memory with
    their square.

    Args:
        sides: who has what; values are not looked at.
        l2: penalty, in interactions; 200 to 1,000 suit most tables.
        limit: items at most.
        threads: of the counting. The inverse is LAPACK's, on torch's own threads: their number changes the last bits.

    Returns:
        float32 [num_items, num_items]; zeros for row 0 and for items without users.

    Raises:
        ConfigError: `l2` is not above 0, or there are more items than `limit`.
    """
    num_items = len(sides.items.counts)
    if not l2 > 0:
        raise ConfigError(f"ease: l2 must be above 0, got {l2}")
    if num_items > limit:
        gigabytes = 3 * 4 * num_items**2 / 1e9
        raise ConfigError(
            f"ease: there must be at most {limit} items, got {num_items}, which take {gigabytes:.0f} GB; "
            "raise limit, or use item neighbours or factors"
        )
    weights = torch.empty(num_items, num_items)
    with Threads(threads) as pool:
        for first, counts in cooccurrences(sides, pool):
            weights[first : first + len(counts)] = counts
        weights.diagonal().add_(l2)
        weights = torch.cholesky_inverse(torch.linalg.cholesky(weights))
    weights /= -weights.diagonal().clone()
    return weights.fill_diagonal_(0)


def item_scores(weights: Tensor, users: Side, *, block: int = 256, threads: int = 1) -> Iterator[Tensor]:
    """Scores ``X B`` of users, a block at a time, fit for `metrics.top_k.rank_scores`.

    Args:
        weights: float32 [num_items, num_items].
        users: the items of every user; new ones are as good as those that the weights were made from.
        block: users at a time.
        threads: any number gives the same bits.

    Yields:
        float32 [users, num_items].

    Raises:
        DataError: a user has an item that the weights do not know.
    """
    if len(users.rows) and (most := int(users.rows.max())) >= len(weights):
        raise DataError(f"item_scores: items must be below {len(weights)}, as many as the weights have, got {most}")
    ones = torch.ones(block), torch.ones(len(weights))
    for begin in range(0, len(users.offsets) - 1, block):
        some = users.part(begin, begin + block)
        with Threads(threads) as pool:
            yield product(some, ones[0][: len(some.offsets) - 1], ones[1], weights, pool)
