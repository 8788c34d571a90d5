"""`EmbeddingDot`: a dot product with biases and a sigmoid range."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from cflightning.errors import ConfigError
from cflightning.models.network import DotProductTables, RatingScale, ScoringNetwork, embedding_table

BIAS_SHARE = 0.1
"""Default weight of a squared bias in the squared norms."""


class EmbeddingDot(ScoringNetwork):
    """``scale(b + b_u + b_i + <p_u, q_i>)`` (Koren, Bell & Volinsky 2009, eq. 4; Howard & Gugger 2020, ch. 8).

    Args:
        num_users: Number of user indices, the unknown user included.
        num_items: Number of item indices, the unknown item included.
        dim: Latent factors.
        rating_range: Lowest and highest rating, or None for no scaling and no clipping.
        mean_rating: Rating at which the global bias starts; None for the middle of the range.
        sigmoid: Whether a sigmoid maps logits into the range.
        margin: Widening of the sigmoid's range on each side, as a share of the range.
        std: Standard deviation of the initial factors.
        autoencoder: Whether the network is a linear autoencoder and has an encoder, zeros at first.

    Attributes:
        encoder: float32 [num_items, dim] of a linear autoencoder: the vector of any user is the sum of its rows for the
            user's items. None for another network.
    """

    encoder: Tensor | None

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
        autoencoder: bool = False,
    ) -> None:
        super().__init__(num_users, num_items, RatingScale(rating_range, sigmoid, margin))
        if dim < 1:
            raise ConfigError(f"--model.dim: must be at least 1, got {dim}")
        self.dim = dim
        self.user_factors = embedding_table(num_users, dim, std)
        self.item_factors = embedding_table(num_items, dim, std)
        self.user_bias = embedding_table(num_users, 1, 0.0)
        self.item_bias = embedding_table(num_items, 1, 0.0)
        start = 0.0 if mean_rating is None else self.scale.inverse(mean_rating)
        self.global_bias = nn.Parameter(torch.tensor(start, dtype=torch.float32))
        self.register_buffer("encoder", torch.zeros(num_items, dim) if autoencoder else None)

    def logit(self, user: Tensor, item: Tensor) -> Tensor:
        """Return the logits of pairs: int64 [batch] user and item indices -> float32 [batch]."""
        dot = (self.user_factors(user) * self.item_factors(item)).sum(-1)
        logits: Tensor = dot + self.user_bias(user).squeeze(-1) + self.item_bias(item).squeeze(-1) + self.global_bias
        return logits

    def catalogue(self, user: Tensor) -> Tensor:
        """Return the logits with every item: int64 [batch] user indices -> float32 [batch, num_items]."""
        # linear() rather than a product with a transpose: it reads the table as it lies, in torch and in ONNX.
        dot = nn.functional.linear(self.user_factors(user), self.item_factors.weight, self.item_bias.weight.squeeze(-1))
        logits: Tensor = dot + self.user_bias(user) + self.global_bias
        return logits

    def item_vectors(self) -> Tensor:
        """Return the item factors: float32 [num_items, dim]."""
        return self.item_factors.weight

    def squared_norms(self, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        """Return squared factors and a tenth of the squared biases: int64 [batch] twice -> float32 [batch] twice."""
        _, users, items = self.scores_and_norms(user, item)
        return users, items

    def scores_and_norms(
        self,
        user: Tensor,
        item: Tensor,
        means: Mapping[str, Tensor] | None = None,
        bias_shares: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return scores (rating units) and both squared norms: int64 [batch] twice -> float32 [batch] three times.

        Args:
            user: int64 [batch], user indices.
            item: int64 [batch], item indices.
            means: Prior means that are subtracted in the norms, by name of the table (`user_factors`, …); default zero.
            bias_shares: float32 [batch] twice, weights of squared user and item biases in the norms; None for a tenth.
        """
        prior_means = means or {}
        tables = self.user_factors.weight, self.item_factors.weight, self.user_bias.weight, self.item_bias.weight
        columns = {"user_factors": user, "item_factors": item, "user_bias": user, "item_bias": item}
        looked_up = [
            mean[index] if (mean := prior_means.get(name)) is not None else None for name, index in columns.items()
        ]
        shares = bias_shares or (BIAS_SHARE, BIAS_SHARE)
        logits, users, items = LogitsAndNorms.apply(*tables, user, item, *shares, *looked_up)  # type: ignore[no-untyped-call]
        return self.scale(logits + self.global_bias), users, items

    def tables(self) -> DotProductTables:
        """Return the network's own tables, without a copy."""
        return DotProductTables(
            self.user_factors.weight.detach(),
            self.item_factors.weight.detach(),
            self.user_bias.weight.detach().squeeze(-1),
            self.item_bias.weight.detach().squeeze(-1),
            self.global_bias.detach(),
        )

    def set_tables(self, tables: DotProductTables) -> None:
        """Copy tables into the network, so that it has their logits.

        Args:
            tables: Tables of as many users and items and of at most this dim; further factors become zero.
        """
        with torch.no_grad():
            for table, new in zip(self.tables()[:2], tables[:2], strict=True):
                table.zero_()[:, : new.shape[1]] = new
            for table, new in zip(self.tables()[2:], tables[2:], strict=True):
                table.copy_(new)


def encoder_of(network: ScoringNetwork) -> Tensor | None:
    """Return the encoder of a linear autoencoder, float32 [num_items, dim]; None for any other network."""
    return network.encoder if isinstance(network, EmbeddingDot) else None


class _Context(FunctionCtx):
    saved_tensors: tuple[Tensor, ...]
    sizes: tuple[int, int]
    shares: tuple[Tensor | float, Tensor | float]


class LogitsAndNorms(torch.autograd.Function):
    """Logits without the global bias and squared norms of pairs, with a hand-written gradient.

    Each vector is looked up once, and each table's gradient is filled once. With autograd of the plain formula a
    training step takes 1.5 times as long on a CPU; `torch.compile` of that is as fast as this, after 20 s of compiling.
    """

    @staticmethod
    def forward(
        ctx: _Context, users: Tensor, items: Tensor, user_bias: Tensor, item_bias: Tensor, user: Tensor, item: Tensor,
        user_share: Tensor | float, item_share: Tensor | float, *means: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """Return logits and the squared norms of users and of items: float32 [batch] three times."""
        p, q, a, b = users[user], items[item], user_bias[user, 0], item_bias[item, 0]
        dot = torch.linalg.vecdot
        logits = dot(p, q) + a + b
        # The penalty is on the differences from the prior means.
        residuals = [
            row if mean is None else row - mean.view_as(row) for row, mean in zip((p, q, a, b), means, strict=True)
        ]
        ctx.save_for_backward(p, q, user, item, *residuals)
        ctx.sizes, ctx.shares = (len(users), len(items)), (user_share, item_share)
        s, t, c, d = residuals
        return logits, dot(s, s) + user_share * c * c, dot(t, t) + item_share * d * d

    @staticmethod
    def backward(ctx: _Context, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the four tables, and None for the other arguments."""
        p, q, user, item, s, t, c, d = ctx.saved_tensors
        logits, users, items = gradients
        user_share, item_share = ctx.shares

        def fill(size: int, index: Tensor, gradient: Tensor) -> Tensor:
            filled = gradient.new_zeros(size, gradient.shape[1]).index_add_(0, index, gradient)
            filled[0] = 0  # index 0 stays zero
            return filled

        return (
            fill(ctx.sizes[0], user, torch.addcmul(q * logits[:, None], s, 2 * users[:, None])),
            fill(ctx.sizes[1], item, torch.addcmul(p * logits[:, None], t, 2 * items[:, None])),
            fill(ctx.sizes[0], user, (logits + 2 * user_share * users * c)[:, None]),
            fill(ctx.sizes[1], item, (logits + 2 * item_share * items * d)[:, None]),
            *[None] * 8,
        )
