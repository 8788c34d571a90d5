"""The network contract: a function of (user index, item index) in rating units."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cflightning.errors import ConfigError


class FoldedTables(NamedTuple):
    """A dot-product network as plain tables: ``logit = global_bias + user_bias + item_bias + <user, item>``.

    Attributes:
        user_vectors: float32 [num_users, dim].
        item_vectors: float32 [num_items, dim].
        user_bias: float32 [num_users].
        item_bias: float32 [num_items].
        global_bias: float32 [].
    """

    user_vectors: Tensor
    item_vectors: Tensor
    user_bias: Tensor
    item_bias: Tensor
    global_bias: Tensor


class RatingScale(nn.Module):
    """Maps logits to rating units.

    With `sigmoid`, ``low + (high - low) * sigmoid(logit)`` on the range widened by `margin` on both sides (a sigmoid
    reaches its ends only at infinity, so without a margin it cannot predict the highest and lowest ratings; fastai's
    book uses 0 to 5.5 for 1 to 5). Without `sigmoid`, the logit itself. Outside of training, results are clipped to
    `rating_range`.

    Args:
        rating_range: Lowest and highest rating, or None for no scaling and no clipping.
        sigmoid: Whether to apply the sigmoid.
        margin: Widening of the sigmoid's range, as a share of it, on each side.
    """

    def __init__(self, rating_range: tuple[float, float] | None, sigmoid: bool = True, margin: float = 0.0) -> None:
        super().__init__()
        if rating_range is not None and not rating_range[0] < rating_range[1]:
            raise ConfigError(f"--data.rating_range: must be low < high, got {rating_range}")
        if margin < 0:
            raise ConfigError(f"--model.margin: must not be negative, got {margin}")
        self.rating_range = rating_range
        self.sigmoid = sigmoid and rating_range is not None
        self.margin = margin if self.sigmoid else 0.0
        low, high = rating_range or (0.0, 1.0)
        self.low, self.high = low - self.margin * (high - low), high + self.margin * (high - low)

    def forward(self, logit: Tensor) -> Tensor:
        """Convert logits of any shape to rating units."""
        score = self.low + (self.high - self.low) * torch.sigmoid(logit) if self.sigmoid else logit
        if self.training or self.rating_range is None or (self.sigmoid and self.margin == 0):
            return score
        return score.clamp(*self.rating_range)

    def slope(self, rating: Tensor | float) -> Tensor | float:
        """Derivative of the score with respect to the logit where the score is `rating`: rating units, any shape."""
        return (rating - self.low) * (self.high - rating) / (self.high - self.low) if self.sigmoid else 1.0

    def inverse(self, rating: float) -> float:
        """Logit of a rating; ratings at or beyond the ends of the range are first moved inside."""
        if not self.sigmoid:
            return rating
        share = (rating - self.low) / (self.high - self.low)
        share = min(max(share, 1e-3), 1 - 1e-3)
        return math.log(share / (1 - share))


class RatingNetwork(nn.Module, ABC):
    """A network that predicts ratings.

    Index 0 of every table is the unknown user or item; its vector is zero and stays zero.

    Args:
        num_users: Number of users, including the unknown one (index 0).
        num_items: Number of items, including the unknown one (index 0).
        scale: Map from logits to rating units.
    """

    def __init__(self, num_users: int, num_items: int, scale: RatingScale) -> None:
        super().__init__()
        if num_users < 1 or num_items < 1:
            raise ValueError(
                f"num_users and num_items: must be at least 1 (the unknown id), got {num_users}, {num_items}"
            )
        self.num_users = num_users
        self.num_items = num_items
        self.scale = scale

    @property
    def rating_range(self) -> tuple[float, float] | None:
        """Lowest and highest score, rating units."""
        return self.scale.rating_range

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        """Score pairs.

        Args:
            user: int64 [batch], indices.
            item: int64 [batch], indices.

        Returns:
            float32 [batch], rating units.
        """
        scores: Tensor = self.scale(self.logit(user, item))
        return scores

    @abstractmethod
    def logit(self, user: Tensor, item: Tensor) -> Tensor:
        """Like `forward`, before the scale: float32 [batch], logits."""

    @abstractmethod
    def catalogue(self, user: Tensor) -> Tensor:
        """Logits of users with every item: int64 [batch] indices -> float32 [batch, num_items]."""

    @abstractmethod
    def item_vectors(self) -> Tensor:
        """Vectors that define the similarity of items: float32 [num_items, dim]."""

    @abstractmethod
    def squared_norms(self, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        """Squared norms of the parameters that each rating uses, for a penalty.

        Biases have a weight of a tenth: they are few and well determined.

        Args:
            user: int64 [batch], indices.
            item: int64 [batch], indices.

        Returns:
            float32 [batch] of the user's parameters, and of the item's.
        """

    def scores_and_norms(
        self,
        user: Tensor,
        item: Tensor,
        means: Mapping[str, Tensor] | None = None,
        bias_shares: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`forward` and `squared_norms` in one call, for training; overridden to look parameters up once only.

        The backward pass of every lookup fills a whole table.

        Args:
            user: int64 [batch], indices.
            item: int64 [batch], indices.
            means: table name -> prior means, from which the norms are measured; only for networks with an SVD++ term.
            bias_shares: float32 [batch] twice, weight of a squared bias in the norms of user and item; None for a
                tenth. Networks without biases ignore it.
        """
        if means:
            raise NotImplementedError(f"{type(self).__name__} has no prior means")
        return self(user, item), *self.squared_norms(user, item)

    def fold(self) -> FoldedTables | None:
        """The network as plain tables, or None if it is not a dot product."""
        return None


def table(rows: int, dim: int, std: float) -> nn.Embedding:
    """Create an embedding with normally distributed entries and a zero vector at index 0.

    torch's global generator is used; tasks seed it. `nn.init` on the whole table would fill index 0 too.
    """
    embedding = nn.Embedding(rows, dim, padding_idx=0)
    with torch.no_grad():
        nn.init.normal_(embedding.weight, std=std) if std else nn.init.zeros_(embedding.weight)
        embedding.weight[0] = 0
    return embedding
