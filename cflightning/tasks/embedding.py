"""The rating tasks of the project's networks."""

from __future__ import annotations

from typing import Any

from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.models.embedding_mlp import EmbeddingMLP
from cflightning.tasks.rating import RatingTask


class EmbeddingDotTask(RatingTask):
    """Dot product of user and item factors plus biases, squeezed into the rating range.

    Args:
        dim: Latent factors.
        std: Standard deviation of the initial factors.
        kwargs: As for `RatingTask`.
    """

    def __init__(self, dim: int = 64, std: float = 0.01, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dim = dim
        self.std = std
        self.save_hyperparameters()

    def build_network(
        self, num_users: int, num_items: int, rating_range: tuple[float, float], mean_rating: float
    ) -> EmbeddingDot:
        """An `EmbeddingDot`."""
        return EmbeddingDot(
            num_users, num_items, self.dim, rating_range, mean_rating, self.sigmoid, self.margin, std=self.std
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
