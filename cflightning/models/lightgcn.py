"""LightGCN smoothing with one hop: the vectors of its neighbours are added to each vector, in training or after it.

LightGCN with one layer (He et al. 2020, eq. 3), without its averaging of layers::

    P' = P + c A Q        Q' = Q + c A^T P        A = Du^-1/2 X Di^-1/2,  X[u, i] = 1 if u has chosen i

P' and Q' are plain tables again, so export and serving need no graph. The map of both tables is symmetric: its gradient
is the same map of the gradients, without a transpose.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cflightning.errors import DataError
from cflightning.utils.csr import Csr, csr_from_pairs


class _Graph(NamedTuple):
    users: Csr
    items: Csr
    user_weight: Tensor  # float32 [num_users, 1], du^-1/2
    item_weight: Tensor
    share: float

    def __call__(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        # In place: the sums are fresh, and they are as large as the tables.
        to_users = self.users.sums(items * self.item_weight).mul_(self.user_weight * self.share)
        to_items = self.items.sums(users * self.user_weight).mul_(self.item_weight * self.share)
        return to_users.add_(users), to_items.add_(items)


class _Smooth(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, users: Tensor, items: Tensor, graph: _Graph) -> tuple[Tensor, Tensor]:
        ctx.graph = graph
        return graph(users, items)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return *_Smooth.apply(*gradients, ctx.graph), None  # type: ignore[no-untyped-call]


class Smoothing(nn.Module):
    """Adds to every vector of two tables a share of the normalised sum of its neighbours' vectors.

    Users and items without interactions stay as they are, and so does index 0. One core adds about 45 million vectors
    of 64 columns a second, two per interaction and as many for a gradient: little for a large batch, much for a small
    one.

    Args:
        user: integers [n], user indices; pairs with index 0 are left out.
        item: integers [n], item indices.
        num_users: Number of user indices, the unknown user included.
        num_items: Number of item indices, the unknown item included.
        share: c, weight of the neighbours' sum.

    Raises:
        DataError: The columns differ in length.
    """

    def __init__(self, user: Tensor, item: Tensor, num_users: int, num_items: int, share: float = 1.0) -> None:
        super().__init__()
        if user.shape != item.shape or user.dim() != 1:
            raise DataError(f"Smoothing: must be two columns of one length, got {[*user.shape]} and {[*item.shape]}")
        self.share = share
        known = (user > 0) & (item > 0)
        user, item = user[known].int(), item[known].int()
        self.num_users, self.num_items = num_users, num_items
        sides = {"users": (user, item, num_users, num_items), "items": (item, user, num_items, num_users)}
        for name, side in sides.items():
            matrix = csr_from_pairs(*side)
            weight = matrix.counts.clamp(min=1).float().pow(-0.5)[:, None]
            parts = {"indices": matrix.indices, "offsets": matrix.offsets, "weight": weight}
            for part, tensor in parts.items():
                # Checkpoints need no interactions.
                self.register_buffer(f"{name}_{part}", tensor, persistent=False)

    def _graph(self) -> _Graph:
        held = dict(self.named_buffers())
        users, items = (
            Csr(held[f"{name}_indices"], held[f"{name}_offsets"], size)
            for name, size in (("users", self.num_items), ("items", self.num_users))
        )
        return _Graph(users, items, held["users_weight"], held["items_weight"], self.share)

    def forward(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Return the smoothed tables: float32 [num_users, dim] and [num_items, dim] -> the same shapes."""
        smoothed: tuple[Tensor, Tensor] = _Smooth.apply(users, items, self._graph())  # type: ignore[no-untyped-call]
        return smoothed
