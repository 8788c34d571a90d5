"""LightGCN smoothing with one hop: a share of its neighbours' vectors is added to each vector.

LightGCN with one layer (He et al. 2020, eq. 3), without its averaging of layers::

    P' = P + c A Q        Q' = Q + c A^T P        A = Du^-1/2 X Di^-1/2,  X[u, i] = 1 if u has chosen i

P' and Q' are plain tables again, so export and serving need no graph. `Smoothing` computes both in training, by
autograd; `smooth_items` computes Q' after it, by the compiled product.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from cflightning.errors import DataError
from cflightning.solvers.sparse import scaled_product
from cflightning.utils.csr import Csr
from cflightning.utils.interactions import Interactions
from cflightning.utils.thread_pool import ThreadPool


def degree_scale(matrix: Csr) -> Tensor:
    """Return ``D^-1/2`` of the rows of a matrix: float32 [num_rows], 1 for rows without entries."""
    return matrix.counts.clamp(min=1).float().rsqrt()


class _Graph(NamedTuple):
    by_user: Csr
    by_item: Csr
    user_scale: Tensor  # float32 [num_users, 1]
    item_scale: Tensor
    share: float

    def __call__(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        # In place: the sums are fresh, and they are as large as the tables.
        to_users = self.by_user.sums(items * self.item_scale).mul_(self.user_scale * self.share)
        to_items = self.by_item.sums(users * self.user_scale).mul_(self.item_scale * self.share)
        return to_users.add_(users), to_items.add_(items)


class _Context(FunctionCtx):
    graph: _Graph


class _Smooth(torch.autograd.Function):
    """The map of both tables, which is symmetric: its gradient is the same map of the gradients."""

    @staticmethod
    def forward(ctx: _Context, users: Tensor, items: Tensor, graph: _Graph) -> tuple[Tensor, Tensor]:
        ctx.graph = graph
        return graph(users, items)

    @staticmethod
    def backward(ctx: _Context, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return *_Smooth.apply(*gradients, ctx.graph), None  # type: ignore[no-untyped-call]


class Smoothing(nn.Module):
    """Adds to every vector of two tables a share of the normalised sum of its neighbours' vectors.

    Users and items without interactions stay as they are, and so does index 0. One core adds about 45 million vectors
    of 64 columns a second, two per interaction and as many for a gradient: little for a large batch, much for a small
    one.

    Args:
        interactions: Interactions of the training part, X; values are ignored.
        share: c, weight of the neighbours' sum.
    """

    def __init__(self, interactions: Interactions, share: float = 1.0) -> None:
        super().__init__()
        self.share = share
        self.num_users, self.num_items = interactions.by_user.num_rows, interactions.by_item.num_rows
        for name, matrix in zip(("user", "item"), interactions, strict=True):
            parts = {"indices": matrix.indices, "offsets": matrix.offsets, "scale": degree_scale(matrix)[:, None]}
            for part, tensor in parts.items():
                # Checkpoints need no interactions.
                self.register_buffer(f"{name}_{part}", tensor, persistent=False)

    def forward(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Return the smoothed tables: float32 [num_users, dim] and [num_items, dim] -> the same shapes."""
        buffers = dict(self.named_buffers())
        by_user, by_item = (
            Csr(buffers[f"{name}_indices"], buffers[f"{name}_offsets"], size)
            for name, size in (("user", self.num_items), ("item", self.num_users))
        )
        graph = _Graph(by_user, by_item, buffers["user_scale"], buffers["item_scale"], self.share)
        smoothed: tuple[Tensor, Tensor] = _Smooth.apply(users, items, graph)  # type: ignore[no-untyped-call]
        return smoothed


def smooth_items(
    user_vectors: Tensor, item_vectors: Tensor, interactions: Interactions, share: float, *, threads: int = 1
) -> Tensor:
    """Add a share of the vectors of its users to each item vector.

    For vectors of length 1 that a ranking loss has trained, see `objectives.softmax`: a share of .15 raises recall@20
    on Gowalla at dim 64 by .016. Smoothing users too, or a second hop, lowers it.

    Args:
        user_vectors: float32 [num_users, dim], P.
        item_vectors: float32 [num_items, dim], Q.
        interactions: Interactions of the training part, X; values are ignored.
        share: c, weight of the sum over users.
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
    user_scale, item_scale = map(degree_scale, interactions)
    with ThreadPool(threads) as pool:
        return items + share * scaled_product(interactions.by_item, item_scale, user_scale, users, pool)
