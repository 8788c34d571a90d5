"""The interface of networks: functions of a user index and an item index, in rating units."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cflightning.errors import ConfigError


class DotProductTables(NamedTuple):
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
    """Map from logits to rating units.

    With `sigmoid` it is ``low + (high - low) * sigmoid(logit)`` on the range widened by `margin` on both sides: a
    sigmoid reaches its ends only at infinity, so without widening it cannot predict the best and worst ratings
    (fastai's book takes 0 to 5.5 for 1 to 5). Without `sigmoid` it is the logit itself. Outside training the result is
    clipped to `rating_range` wherever it could leave it.

    Args:
        rating_range: Lowest and highest rating, or None for no scaling and no clipping.
        sigmoid: Whether a sigmoid maps logits into the range.
        margin: Widening of the sigmoid's range on each side, as a share of the range.
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
        """Map logits of any shape to rating units."""
        score = self.low + (self.high - self.low) * torch.sigmoid(logit) if self.sigmoid else logit
        if self.training or self.rating_range is None or (self.sigmoid and self.margin == 0):
            return score
        return score.clamp(*self.rating_range)

    def slope(self, rating: Tensor | float) -> Tensor | float:
        """Return the derivative of the score by its logit at the score `rating`: rating units, any shape."""
        return (rating - self.low) * (self.high - rating) / (self.high - self.low) if self.sigmoid else 1.0

    def inverse(self, rating: float) -> float:
        """Return the logit of a rating; one at or beyond the ends of the range is moved inside first."""
        if not self.sigmoid:
            return rating
        share = (rating - self.low) / (self.high - self.low)
        share = min(max(share, 1e-3), 1 - 1e-3)
        return math.log(share / (1 - share))


class ScoringNetwork(nn.Module, ABC):
    """A network that scores pairs of a user and an item, in rating units if its scale has a rating range.

    Index 0 stands for every unknown id; its vectors are zero and stay zero.

    Args:
        num_users: Number of user indices, the unknown user included.
        num_items: Number of item indices, the unknown item included.
        scale: Map from logits to rating units.
    """

    def __init__(self, num_users: int, num_items: int, scale: RatingScale) -> None:
        super().__init__()
        if num_users < 1 or num_items < 1:
            raise ValueError(
                f"num_users and num_items: must be at least 1 (index 0, the unknown one), got {num_users}, {num_items}"
            )
        self.num_users = num_users
        self.num_items = num_items
        self.scale = scale

    @property
    def rating_range(self) -> tuple[float, float] | None:
        """Lowest and highest score, rating units; None without a range."""
        return self.scale.rating_range

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        """Score pairs.

        Args:
            user: int64 [batch], user indices.
            item: int64 [batch], item indices.

        Returns:
            float32 [batch], rating units.
        """
        scores: Tensor = self.scale(self.logit(user, item))
        return scores

    @abstractmethod
    def logit(self, user: Tensor, item: Tensor) -> Tensor:
        """Return the scores before the scale: float32 [batch], logits."""

    @abstractmethod
    def catalogue(self, user: Tensor) -> Tensor:
        """Return the logits of users with every item: int64 [batch] user indices -> float32 [batch, num_items]."""

    @abstractmethod
    def item_vectors(self) -> Tensor:
        """Return the vectors whose cosine is the similarity of items: float32 [num_items, dim]."""

    @abstractmethod
    def squared_norms(self, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        """Return the squared norms of the vectors that each rating looks up, for a penalty.

        Biases count a tenth: they are few and well determined, and those of rare users and items are useful.

        Args:
            user: int64 [batch], user indices.
            item: int64 [batch], item indices.

        Returns:
            float32 [batch] of the user's vectors, and of the item's.
        """

    def scores_and_norms(
        self,
        user: Tensor,
        item: Tensor,
        means: Mapping[str, Tensor] | None = None,
        bias_shares: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return `forward` and `squared_norms` in one, for training.

        A network overrides it to look vectors up once: the backward pass of every look-up fills a whole table.

        Args:
            user: int64 [batch], user indices.
            item: int64 [batch], item indices.
            means: Prior means that are subtracted in the norms, by name of the table; for networks with SVD++ terms.
            bias_shares: float32 [batch] twice, weights of squared user and item biases in the norms; None for a tenth.
                Networks without biases ignore them.
        """
        if means:
            raise NotImplementedError(f"{type(self).__name__} has no prior means")
        return self(user, item), *self.squared_norms(user, item)

    def tables(self) -> DotProductTables | None:
        """Return the network as plain tables, or None if it is not a dot product."""
        return None


def embedding_table(num_indices: int, dim: int, std: float) -> nn.Embedding:
    """Make an embedding with normal entries and zeros at index 0.

    The entries are drawn from torch's global generator, which tasks seed. `nn.init` would fill index 0 as well.
    """
    embedding = nn.Embedding(num_indices, dim, padding_idx=0)
    with torch.no_grad():
        nn.init.normal_(embedding.weight, std=std) if std else nn.init.zeros_(embedding.weight)
        embedding.weight[0] = 0
    return embedding
