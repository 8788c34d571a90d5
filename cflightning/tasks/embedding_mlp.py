"""The task of `EmbeddingMLP`."""

from __future__ import annotations

from typing import Any

from cflightning.models.embedding_mlp import EmbeddingMLP
from cflightning.tasks.rating import RecommenderTask
from cflightning.utils.arguments import Arguments


class EmbeddingMLPTask(RecommenderTask):
    """Concatenated user and item embeddings through a small multi-layer perceptron (fastai's `EmbeddingNN`).

    For comparison: it was less accurate than the dot product on every table that was tried (Rendle et al. 2020, "Neural
    collaborative filtering vs. matrix factorization revisited"), and on small ones hardly better than biases alone.

    Args:
        dim: Width of each embedding.
        hidden: Widths of the hidden layers.
        std: Standard deviation of the initial embeddings.
        kwargs: As for `NetworkTask`.
    """

    def __init__(self, dim: int = 64, hidden: tuple[int, ...] = (100, 50), std: float = 0.01, **kwargs: Any) -> None:
        check = Arguments("model", locals())
        check.whole("dim", 1)
        check.number("std", 0)
        if not isinstance(hidden, list | tuple) or not all(isinstance(one, int) and one >= 1 for one in hidden):
            raise check.refuse("hidden", "be widths of at least 1")
        super().__init__(**kwargs)
        self.dim = dim
        self.hidden = hidden
        self.std = std
        self.save_hyperparameters()

    def build_network(
        self, num_users: int, num_items: int, rating_range: tuple[float, float] | None, mean_rating: float | None
    ) -> EmbeddingMLP:
        """Make an `EmbeddingMLP`."""
        return EmbeddingMLP(
            num_users, num_items, self.dim, self.hidden, rating_range, mean_rating, self.sigmoid, self.margin,
            std=self.std,
        )  # fmt: skip
