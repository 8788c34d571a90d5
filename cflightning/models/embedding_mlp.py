"""`EmbeddingMLP`: concatenated embeddings through a small multi-layer perceptron, like fastai's `EmbeddingNN`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from cflightning.errors import ConfigError
from cflightning.models.network import RatingScale, ScoringNetwork, embedding_table


class EmbeddingMLP(ScoringNetwork):
    """``scale(MLP([p_u, q_i]))`` with ReLU between the layers.

    A learned similarity instead of the dot product, for comparison: it is usually *less* accurate (Rendle et al. 2020,
    "Neural collaborative filtering vs. matrix factorization revisited") and slower to search.

    Args:
        num_users: Number of user indices, the unknown user included.
        num_items: Number of item indices, the unknown item included.
        dim: Width of each embedding.
        hidden: Widths of the hidden layers.
        rating_range: Lowest and highest rating, or None for no scaling and no clipping.
        mean_rating: Rating at which the last bias starts; None for the middle of the range.
        sigmoid: Whether a sigmoid maps logits into the range.
        margin: Widening of the sigmoid's range on each side, as a share of the range.
        std: Standard deviation of the initial embeddings.
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        dim: int = 64,
        hidden: Sequence[int] = (100, 50),
        rating_range: tuple[float, float] | None = None,
        mean_rating: float | None = None,
        sigmoid: bool = True,
        margin: float = 0.0,
        std: float = 0.05,
    ) -> None:
        super().__init__(num_users, num_items, RatingScale(rating_range, sigmoid, margin))
        if not hidden or min(hidden) < 1 or dim < 1:
            raise ConfigError(f"--model.dim and --model.hidden: must be positive, got {dim}, {tuple(hidden)}")
        self.dim = dim
        self.user_factors = embedding_table(num_users, dim, std)
        self.item_factors = embedding_table(num_items, dim, std)
        self.first = nn.Linear(2 * dim, hidden[0])
        widths = [*hidden, 1]
        self.rest = nn.Sequential(*(layer for pair in pairwise(widths) for layer in (nn.ReLU(), nn.Linear(*pair))))
        if mean_rating is not None:
            nn.init.constant_(self.rest[-1].bias, self.scale.inverse(mean_rating))  # type: ignore[arg-type]

    def logit(self, user: Tensor, item: Tensor) -> Tensor:
        """Return the logits of pairs: int64 [batch] user and item indices -> float32 [batch]."""
        pair = torch.cat([self.user_factors(user), self.item_factors(item)], dim=-1)
        logits: Tensor = self.rest(self.first(pair)).squeeze(-1)
        return logits

    def catalogue(self, user: Tensor) -> Tensor:
        """Return the logits with every item: int64 [batch] user indices -> float32 [batch, num_items].

        The first layer is linear in the concatenation, so each side passes through it once instead of once per pair.
        """
        split = nn.functional.linear
        users = split(self.user_factors(user), self.first.weight[:, : self.dim])
        items = split(self.item_factors.weight, self.first.weight[:, self.dim :], self.first.bias)
        logits: Tensor = self.rest(users.unsqueeze(1) + items.unsqueeze(0)).squeeze(-1)
        return logits

    def item_vectors(self) -> Tensor:
        """Return the item embeddings: float32 [num_items, dim]."""
        return self.item_factors.weight

    def squared_norms(self, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        """Return the squared embeddings: int64 [batch] user and item indices -> float32 [batch] twice."""
        return self.user_factors(user).square().sum(-1), self.item_factors(item).square().sum(-1)
