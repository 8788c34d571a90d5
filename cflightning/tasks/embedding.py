"""The rating tasks of the project's networks."""

from __future__ import annotations

from typing import Any

from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.models.embedding_mlp import EmbeddingMLP
from cflightning.tasks.bags import Bags
from cflightning.tasks.rating import RatingTask


class EmbeddingDotTask(RatingTask):
    """Dot product of user and item factors plus biases, squeezed into the rating range.

    Args:
        dim: Latent factors.
        std: Standard deviation of the initial factors; None for 0.01, with bags 0.06.
        bags: What else says who a user is: `user`, the items that the user has rated, whatever the rating (SVD++, Koren
            2008); `both`, the users of an item for the item, too (Rendle, Zhang & Koren 2019). Better by far wherever
            users and items have more than a few ratings, for twice the time and memory of training; what comes out is
            the same plain dot product.
        kwargs: As for `RatingTask`.
    """

    def __init__(self, dim: int = 64, std: float | None = None, bags: Bags = "both", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dim = dim
        self.std = std
        self.bags = bags
        self.save_hyperparameters()

    def build_network(
        self, num_users: int, num_items: int, rating_range: tuple[float, float], mean_rating: float
    ) -> EmbeddingDot:
        """An `EmbeddingDot`."""
        std = (0.01 if self.bags == "none" else 0.06) if self.std is None else self.std
        return EmbeddingDot(
            num_users, num_items, self.dim, rating_range, mean_rating, self.sigmoid, self.margin, std=std
        )


class EmbeddingMLPTask(RatingTask):
    """Concatenated user and item embeddings through a small multi-layer perceptron (fastai's `EmbeddingNN`).

    Args:
        dim: Width of each embedding.
        hidden: Widths of the hidden layers.
        std: Standard deviation of the initial embeddings.
        kwargs: As for `RatingTask`.
    """

    def __init__(self, dim: int = 64, hidden: tuple[int, ...] = (100, 50), std: float = 0.01, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dim = dim
        self.hidden = hidden
        self.std = std
        self.save_hyperparameters()

    def build_network(
        self, num_users: int, num_items: int, rating_range: tuple[float, float], mean_rating: float
    ) -> EmbeddingMLP:
        """An `EmbeddingMLP`."""
        return EmbeddingMLP(
            num_users,
            num_items,
            self.dim,
            self.hidden,
            rating_range,
            mean_rating,
            self.sigmoid,
            self.margin,
            std=self.std,
        )
