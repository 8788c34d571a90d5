"""Synthetic ratings with known factors, whose noise floor bounds the RMSE of any model."""

from __future__ import annotations

import numpy as np

from cflightning.data.ids import Id, IdColumn
from cflightning.data.table import RatingTable
from cflightning.errors import DataError


def synthetic_ratings(
    num_users: int = 1000,
    num_items: int = 500,
    num_ratings: int = 50_000,
    *,
    dim: int = 4,
    noise: float = 0.5,
    rating_range: tuple[float, float] = (1.0, 5.0),
    popularity: float = 1.0,
    seed: int = 0,
) -> RatingTable:
    """Sample a ratings table from random factors, biases and Gaussian noise.

    Each true rating is ``low + (high - low) * sigmoid(b + b_u + b_i + <p_u, q_i>)``; noise is added to it and nothing
    is clipped or rounded, so the RMSE of the true ratings on any rows is the noise floor of those rows.

    Args:
        num_users: Number of users; each has at least one rating.
        num_items: Number of items.
        num_ratings: Number of distinct (user, item) pairs.
        dim: Number of latent factors.
        noise: Standard deviation of the noise, rating units.
        rating_range: Lowest and highest true rating.
        popularity: Exponent of the power law of items: the item of rank r is sampled in proportion to r^-popularity.
        seed: Random seed; the same seed gives the same table.

    Returns:
        Table with ids 1 … n, timestamps in row order, and `noise_floor` (squared noise of each row, float64 [rows]).

    Raises:
        DataError: More ratings than half of all pairs, or fewer than users.
    """
    if not num_users <= num_ratings <= num_users * num_items // 2:
        raise DataError(
            f"synthetic: num_ratings must lie between num_users and half of all pairs, got {num_ratings:,} for "
            f"{num_users:,} users and {num_items:,} items; change --data.synthetic"
        )
    rng = np.random.default_rng(seed)
    weight = np.arange(1, num_items + 1) ** -popularity
    pairs = np.empty(0, dtype=np.int64)
    users = np.arange(num_users)  # one rating for each user, then users sampled uniformly
    while len(pairs) < num_ratings:
        items = rng.choice(num_items, size=len(users), p=weight / weight.sum())
        pairs = np.concatenate([pairs, users * num_items + items])
        _, first = np.unique(pairs, return_index=True)
        pairs = pairs[np.sort(first)]
        users = rng.integers(num_users, size=max(1000, num_ratings // 4))
    user, item = np.divmod(pairs[:num_ratings], num_items)
    order = rng.permutation(num_ratings)
    user, item = user[order], item[order]

    user_factors, item_factors = rng.normal(size=(num_users, dim)), rng.normal(size=(num_items, dim))
    logit = (user_factors[user] * item_factors[item]).sum(1) / np.sqrt(dim)
    logit += 0.5 * rng.normal(size=num_users)[user] + 0.5 * rng.normal(size=num_items)[item] + 0.5
    low, high = rating_range
    error = rng.normal(scale=noise, size=num_ratings) if noise else np.zeros(num_ratings)
    rating = low + (high - low) / (1 + np.exp(-logit)) + error
    titles: dict[Id, str] = {i: f"Item {i}" for i in range(1, num_items + 1)}
    return RatingTable(
        IdColumn.encode(user + 1),
        IdColumn.encode(item + 1),
        rating.astype(np.float32),
        np.arange(num_ratings, dtype=np.int64),
        "synthetic",
        titles,
        noise_floor=error**2,
        unique=True,
    )
