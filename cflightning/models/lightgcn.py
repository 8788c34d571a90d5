"""One-hop smoothing: the vectors of what a row has met are added to its own, in training or after it.

LightGCN with one layer (He et al. 2020, eq. 3) and all its parts kept::

    P' = P + c A Q        Q' = Q + c A^T P        A = Du^-a X Di^-b,  X[u, i] = 1 where u has chosen i

P' and Q' are plain tables again, so whatever comes after training need not know of it. The map of both tables is
symmetric: its gradient is the same map, of the gradients, and no transpose is ever made.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cflightning.errors import ConfigError, DataError
from cflightning.models.svdpp import Neighbours, neighbours


class _Graph(NamedTuple):
    users: Neighbours
    items: Neighbours
    user_weight: Tensor  # float32 [num_users, 1], du^-a
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
    """Adds to every row of two tables a share of the vectors that it has met.

    Whoever has met nobody stays as it is, and so does row 0, the unknown one. One core adds about 45 million rows of 64
    columns a second, two for each choice, and as many for a gradient: small against a large batch, not a small one.

    Args:
        user: integers [n], rows; pairs with row 0 are left out.
        item: integers [n], rows.
        num_users: rows of the user table.
        num_items: rows of the item table.
        share: c, what the neighbours' sum counts.
        exponents: a and b, of the users' and the items' degrees; .5 and .5 is the symmetric normalisation of LightGCN.

    Raises:
        DataError: the columns differ in length.
        ConfigError: an exponent is not within 0 to 1.
    """

    def __init__(
        self,
        user: Tensor,
        item: Tensor,
        num_users: int,
        num_items: int,
        share: float = 1.0,
        exponents: tuple[float, float] = (0.5, 0.5),
    ) -> None:
        super().__init__()
        if user.shape != item.shape or user.dim() != 1:
            raise DataError(f"Smoothing: must be two columns of one length, got {[*user.shape]} and {[*item.shape]}")
        if not all(0 <= exponent <= 1 for exponent in exponents):
            raise ConfigError(f"Smoothing: exponents must be 0 to 1, got {exponents}")
        self.share = share
        known = (user > 0) & (item > 0)
        user, item = user[known].int(), item[known].int()
        sides = (user, item, num_users), (item, user, num_items)
        for name, side, exponent in zip(("users", "items"), sides, exponents, strict=True):
            met = neighbours(*side)
            weight = met.counts.clamp(min=1).float().pow(-exponent)[:, None]
            for part, tensor in zip(("rows", "offsets", "counts", "weight"), (*met, weight), strict=True):
                # What the ratings say need not be in a checkpoint.
                self.register_buffer(f"{name}_{part}", tensor, persistent=False)

    def _graph(self) -> _Graph:
        held = dict(self.named_buffers())
        users, items = (
            Neighbours(*(held[f"{name}_{part}"] for part in Neighbours._fields)) for name in ("users", "items")
        )
        return _Graph(users, items, held["users_weight"], held["items_weight"], self.share)

    def forward(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """The smoothed tables: float32 [num_users, dim] and [num_items, dim] -> the same."""
        smoothed: tuple[Tensor, Tensor] = _Smooth.apply(users, items, self._graph())  # type: ignore[no-untyped-call]
        return smoothed
