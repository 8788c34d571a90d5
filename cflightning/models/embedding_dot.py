"""The model of the fastai book's collaborative-filtering chapter: a dot product, biases and a sigmoid range."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cflightning.errors import ConfigError
from cflightning.models.network import FoldedTables, RatingNetwork, RatingScale, table

BIAS_SHARE = 0.1
"""Default weight of a bias in the squared norms."""


class EmbeddingDot(RatingNetwork):
    """``scale(b + b_u + b_i + <p_u, q_i>)`` (Koren, Bell & Volinsky 2009, eq. 4; Howard & Gugger 2020, ch. 8).

    Args:
        num_users: Number of users, including the unknown one (index 0).
        num_items: Number of items, including the unknown one (index 0).
        dim: Latent factors.
        rating_range: Lowest and highest rating, or None for no scaling and no clipping.
        mean_rating: Initial global bias, rating units; None for the middle of the range.
        sigmoid: Whether to squeeze logits into the range.
        margin: Widening of the sigmoid's range, as a share of it, on each side.
        std: Standard deviation of the initial factors.
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        dim: int = 64,
        rating_range: tuple[float, float] | None = None,
        mean_rating: float | None = None,
        sigmoid: bool = True,
        margin: float = 0.0,
        std: float = 0.01,
    ) -> None:
        super().__init__(num_users, num_items, RatingScale(rating_range, sigmoid, margin))
        if dim < 1:
            raise ConfigError(f"--model.dim: must be at least 1, got {dim}")
        self.dim = dim
        self.user_factors = table(num_users, dim, std)
        self.item_factors = table(num_items, dim, std)
        self.user_bias = table(num_users, 1, 0.0)
        self.item_bias = table(num_items, 1, 0.0)
        start = 0.0 if mean_rating is None else self.scale.inverse(mean_rating)
        self.global_bias = nn.Parameter(torch.tensor(start, dtype=torch.float32))

    def logit(self, user: Tensor, item: Tensor) -> Tensor:
        """Logits of pairs: int64 [batch] indices, twice -> float32 [batch]."""
        dot = (self.user_factors(user) * self.item_factors(item)).sum(-1)
        logits: Tensor = dot + self.user_bias(user).squeeze(-1) + self.item_bias(item).squeeze(-1) + self.global_bias
        return logits

    def catalogue(self, user: Tensor) -> Tensor:
        """Logits with every item: int64 [batch] indices -> float32 [batch, num_items]."""
        # linear() instead of a product with a transpose: torch and ONNX read the table without a copy.
        dot = nn.functional.linear(self.user_factors(user), self.item_factors.weight, self.item_bias.weight.squeeze(-1))
        logits: Tensor = dot + self.user_bias(user) + self.global_bias
        return logits

    def item_vectors(self) -> Tensor:
        """Item factors: float32 [num_items, dim]."""
        return self.item_factors.weight

    def squared_norms(self, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        """Factors, and biases with weight 0.1: int64 [batch] indices, twice -> float32 [batch] twice."""
        _, users, items = self.scores_and_norms(user, item)
        return users, items

    def scores_and_norms(
        self,
        user: Tensor,
        item: Tensor,
        means: Mapping[str, Tensor] | None = None,
        bias_shares: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Scores (rating units) and both squared norms: int64 [batch] indices, twice -> float32 [batch] three times.

        Args:
            user: int64 [batch], indices.
            item: int64 [batch], indices.
            means: table name (`user_factors`, …) -> prior means, from which norms are measured; zero for the others.
            bias_shares: float32 [batch] twice, weight of a squared bias in the norms of user and item; None for a
                tenth.
        """
        given = means or {}
        tables = self.user_factors.weight, self.item_factors.weight, self.user_bias.weight, self.item_bias.weight
        rows = [mean[at] if (mean := given.get(name)) is not None else None for name, at in (
            ("user_factors", user), ("item_factors", item), ("user_bias", user), ("item_bias", item))]  # fmt: skip
        shares = bias_shares or (BIAS_SHARE, BIAS_SHARE)
        logits, users, items = _Pairs.apply(*tables, user, item, *shares, *rows)  # type: ignore[no-untyped-call]
        return self.scale(logits + self.global_bias), users, items

    def fold(self) -> FoldedTables:
        """The parameters as plain tables, without a copy."""
        return FoldedTables(
            self.user_factors.weight.detach(),
            self.item_factors.weight.detach(),
            self.user_bias.weight.detach().squeeze(-1),
            self.item_bias.weight.detach().squeeze(-1),
            self.global_bias.detach(),
        )

    def take(self, tables: FoldedTables) -> None:
        """Copy tables into this network, in place.

        Args:
            tables: tables of the same users and items with at most this dim; the remaining factors become zero.
        """
        with torch.no_grad():
            for own, given in zip(self.fold()[:2], tables[:2], strict=True):
                own.zero_()[:, : given.shape[1]] = given
            for own, given in zip(self.fold()[2:], tables[2:], strict=True):
                own.copy_(given)


class _Pairs(torch.autograd.Function):
    """Logits without the global bias, and squared norms, of pairs, with a manual gradient.

    Each vector is looked up once, and each table's gradient is filled once. With autograd, a training step takes 1.5
    times as long on a CPU; with `torch.compile`, it takes as long as this, after 20 s of compilation.
    """

    @staticmethod
    def forward(
        ctx: Any, users: Tensor, items: Tensor, user_bias: Tensor, item_bias: Tensor, user: Tensor, item: Tensor,
        user_share: Tensor | float, item_share: Tensor | float, *means: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        p, q, a, b = users[user], items[item], user_bias[user, 0], item_bias[item, 0]
        dot = torch.linalg.vecdot
        logits = dot(p, q) + a + b
        # The penalty applies to the differences from the prior means.
        differences = [
            row if mean is None else row - mean.view_as(row) for row, mean in zip((p, q, a, b), means, strict=True)
        ]
        ctx.save_for_backward(p, q, user, item, *differences)
        ctx.rows, ctx.shares = (len(users), len(items)), (user_share, item_share)
        s, t, c, d = differences
        return logits, dot(s, s) + user_share * c * c, dot(t, t) + item_share * d * d

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        p, q, user, item, s, t, c, d = ctx.saved_tensors
        logits, users, items = gradients
        user_share, item_share = ctx.shares

        def fill(rows: int, at: Tensor, change: Tensor) -> Tensor:
            filled = change.new_zeros(rows, change.shape[1]).index_add_(0, at, change)
            filled[0] = 0  # the unknown id stays zero
            return filled

        return (
            fill(ctx.rows[0], user, torch.addcmul(q * logits[:, None], s, 2 * users[:, None])),
            fill(ctx.rows[1], item, torch.addcmul(p * logits[:, None], t, 2 * items[:, None])),
            fill(ctx.rows[0], user, (logits + 2 * user_share * users * c)[:, None]),
            fill(ctx.rows[1], item, (logits + 2 * item_share * items * d)[:, None]),
            *[None] * 8,
        )
