"""EASE: a linear item-item model in closed form."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from cflightning.errors import ConfigError, DataError
from cflightning.solvers.cooccurrence import cooccurrences
from cflightning.solvers.sparse import scaled_product
from cflightning.utils.csr import Csr
from cflightning.utils.interactions import Interactions
from cflightning.utils.thread_pool import ThreadPool

MAX_ITEMS = 25_000
"""Maximum number of items: three tables of 2.5 GB."""


def ease(interactions: Interactions, l2: float = 500.0, *, threads: int = 1) -> Tensor:
    """Compute the weights B that minimise ``|X - X B|^2 + l2 |B|^2`` with a zero diagonal (Steck 2019, eq. 8).

    With P the inverse of ``X^T X + l2 I``, B_ij is ``-P_ij / P_jj``. The time grows with the cube of the number of
    items, the memory with its square.

    Args:
        interactions: Interactions of the training part; values are ignored.
        l2: L2 penalty, in interactions; 200 to 1,000 suit most data sets.
        threads: Threads that count co-occurrences. LAPACK computes the inverse on torch's threads, whose number changes
            the last bits.

    Returns:
        float32 [num_items, num_items]; zeros for index 0 and for items without users.

    Raises:
        ConfigError: `l2` is not above 0, or there are more than `MAX_ITEMS` items.
    """
    num_items = interactions.by_item.num_rows
    if not l2 > 0:
        raise ConfigError(f"ease: l2 must be above 0, got {l2}")
    if num_items > MAX_ITEMS:
        gigabytes = 3 * 4 * num_items**2 / 1e9
        raise ConfigError(
            f"ease: there must be at most {MAX_ITEMS} items, got {num_items}, which take {gigabytes:.0f} GB; "
            "use item neighbours or factors"
        )
    weights = torch.empty(num_items, num_items)
    with ThreadPool(threads) as pool:
        for first, counts in cooccurrences(interactions, pool):
            weights[first : first + len(counts)] = counts
        weights.diagonal().add_(l2)
        weights = torch.cholesky_inverse(torch.linalg.cholesky(weights))
    weights /= -weights.diagonal().clone()
    return weights.fill_diagonal_(0)


def item_scores(weights: Tensor, users: Csr, *, block: int = 256, threads: int = 1) -> Iterator[Tensor]:
    """Compute the scores ``X B`` of users in blocks, for `metrics.top_k.rank_scores`.

    Args:
        weights: float32 [num_items, num_items].
        users: The items of every user; users without training data are scored in the same way.
        block: Users of a block.
        threads: Number of threads; the result does not depend on it, bit for bit.

    Yields:
        float32 [users, num_items].

    Raises:
        DataError: A user has an item that the weights lack.
    """
    if len(users.indices) and (largest := int(users.indices.max())) >= len(weights):
        raise DataError(f"item_scores: items must be below {len(weights)}, as many as the weights have, got {largest}")
    for begin in range(0, users.num_rows, block):
        part = users.part(begin, begin + block)
        with ThreadPool(threads) as pool:
            yield scaled_product(part, torch.ones(part.num_rows), torch.ones(len(weights)), weights, pool)
