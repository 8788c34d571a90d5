"""The model of the fastai book's collaborative-filtering chapter: a dot product, biases and a sigmoid range."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cflightning.errors import ConfigError
from cflightning.models.network import FoldedTables, RatingNetwork, RatingScale, table


class EmbeddingDot(RatingNetwork):
    """``scale(b + b_u + b_i + <p_u, q_i>)`` (Koren, Bell & Volinsky 2009, eq. 4; Howard & Gugger 2020, ch. 8).

    Args:
        num_users: Rows of the user tables, the unknown row included.
        num_items: Rows of the item tables, the unknown row included.
        dim: Latent factors.
        rating_range: Lowest and highest rating, or None for no scaling and no clipping.
        mean_rating: Where the global bias starts; None for the middle.
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
        """Logits of pairs: int64 [batch] rows twice -> float32 [batch]."""
        dot = (self.user_factors(user) * self.item_factors(item)).sum(-1)
        logits: Tensor = dot + self.user_bias(user).squeeze(-1) + self.item_bias(item).squeeze(-1) + self.global_bias
        return logits

    def catalogue(self, user: Tensor) -> Tensor:
        """Logits with every item: int64 [batch] rows -> float32 [batch, num_items]."""
        # linear() rather than a product with a transpose: it reads the table as it lies, in torch and in ONNX.
        dot = nn.functional.linear(self.user_factors(user), self.item_factors.weight, self.item_bias.weight.squeeze(-1))
        logits: Tensor = dot + self.user_bias(user) + self.global_bias
        return logits

    def item_vectors(self) -> Tensor:
        """Item factors: float32 [num_items, dim]."""
        return self.item_factors.weight

    def squared_norms(self, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        """Factors, and a tenth of the biases: int64 [batch] rows twice -> float32 [batch] twice."""
        users = self.user_factors(user).square().sum(-1) + 0.1 * self.user_bias(user).squeeze(-1).square()
        items = self.item_factors(item).square().sum(-1) + 0.1 * self.item_bias(item).squeeze(-1).square()
        return users, items

    def fold(self) -> FoldedTables:
        """Its own tables."""
        return FoldedTables(
            self.user_factors.weight.detach(),
            self.item_factors.weight.detach(),
            self.user_bias.weight.detach().squeeze(-1),
            self.item_bias.weight.detach().squeeze(-1),
            self.global_bias.detach(),
        )
