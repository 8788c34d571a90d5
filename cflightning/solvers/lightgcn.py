"""One hop of LightGCN smoothing of trained item vectors."""

from __future__ import annotations

from torch import Tensor

from cflightning.errors import DataError
from cflightning.solvers.interactions import Interactions
from cflightning.solvers.sparse import scaled_product
from cflightning.utils.thread_pool import ThreadPool


def smooth_items(
    user_vectors: Tensor, item_vectors: Tensor, interactions: Interactions, share: float, *, threads: int = 1
) -> Tensor:
    """Add a share of the vectors of its users to each item vector.

    One layer of LightGCN (He et al. 2020, eq. 7 and 11) after training instead of during it, for items::

        Q' = Q + share D_i^-1/2 X^T D_u^-1/2 P

    For vectors of length 1 that a ranking loss has trained, see `objectives.softmax`: a share of .15 raises recall@20
    on Gowalla at dim 64 by .016. Smoothing users too, or a second hop, lowers it.

    Args:
        user_vectors: float32 [num_users, dim], P.
        item_vectors: float32 [num_items, dim], Q.
        interactions: Interactions of the training part, X; values are ignored.
        share: Share of the sum over users.
        threads: Number of threads; the result does not depend on it, bit for bit.

    Returns:
        float32 [num_items, dim], Q'; items without interactions are unchanged.

    Raises:
        DataError: The tables have other sizes.
    """
    sizes = interactions.by_user.num_rows, interactions.by_item.num_rows
    if (len(user_vectors), len(item_vectors)) != sizes or user_vectors.shape[1:] != item_vectors.shape[1:]:
        raise DataError(
            f"smooth_items: vectors must be [{sizes[0]}, dim] and [{sizes[1]}, dim], "
            f"got {[*user_vectors.shape]} and {[*item_vectors.shape]}"
        )
    users, items = user_vectors.detach().float(), item_vectors.detach().float()
    user_scale, item_scale = (matrix.counts.clamp(min=1).float().rsqrt() for matrix in interactions)
    with ThreadPool(threads) as pool:
        return items + share * scaled_product(interactions.by_item, item_scale, user_scale, users, pool)
