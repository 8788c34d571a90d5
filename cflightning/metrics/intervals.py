"""Confidence intervals over users: of RMSE and MAE by a bootstrap, of means of users by the normal distribution."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

LEVEL = 0.95
"""Confidence level of the intervals."""
MAX_CLUSTERS = 2_000
"""Number of users above which groups of users are drawn: the error of the intervals grows by 1 %, the cost no more."""


def error_sums(user: np.ndarray, rating: np.ndarray, *scores: np.ndarray) -> np.ndarray:
    """Return the sums over the rows of each user from which RMSE and MAE are computed.

    Args:
        user: integers [n], any numbers from 0.
        rating: float [n], rating units.
        scores: float [n] each, rating units; of one or more models.

    Returns:
        float64 [users with rows, 1 + 2 * models]: number of rows; then squared and absolute errors of each model.
    """
    columns: list[np.ndarray] = [np.bincount(user)]
    for score in scores:
        error = score.astype(np.float64) - rating
        columns += [np.bincount(user, error**2), np.bincount(user, np.abs(error))]
    sums = np.stack(columns, axis=1)  # float64, as the errors are
    return sums[columns[0] > 0]


def rmse_and_mae(sums: np.ndarray, model: int = 0) -> np.ndarray:
    """Return RMSE and MAE of one model from the sums of `error_sums`.

    Args:
        sums: float64 [..., 1 + 2 * models].
        model: Position of the model.

    Returns:
        float64 [..., 2].
    """
    means = sums[..., 1 + 2 * model : 3 + 2 * model] / sums[..., :1]
    return np.stack([np.sqrt(means[..., 0]), means[..., 1]], axis=-1)


def resample(sums: np.ndarray, replicates: int = 1000, seed: int = 0, max_clusters: int = MAX_CLUSTERS) -> np.ndarray:
    """Return the totals of bootstrap samples of users, drawn with replacement.

    The ratings of one user are correlated, so intervals from resampled rows would be too narrow. Users are drawn with
    all their rows (cluster bootstrap; Davison & Hinkley 1997, "Bootstrap Methods and their Application", section 3.8).
    All columns share the samples, so differences of two models are paired.

    Args:
        sums: float64 [users, columns].
        replicates: Number of samples.
        seed: Seed of the samples.
        max_clusters: Number of users above which random groups of users are drawn.

    Returns:
        float64 [replicates, columns].
    """
    rng = np.random.default_rng(seed)
    if len(sums) > max_clusters:  # random groups of users are as independent as users are
        group = rng.permutation(len(sums)) % max_clusters
        sums = np.stack([np.bincount(group, column) for column in sums.T], axis=1)
    users = len(sums)
    totals = np.empty((replicates, sums.shape[1]))
    for replicate in totals:  # about 20 µs each
        replicate[:] = np.bincount(rng.integers(0, users, users), minlength=users) @ sums
    return totals


def percentile_interval(replicates: np.ndarray) -> tuple[float, float]:
    """Return the percentile interval of a metric, from its values in the samples: float64 [replicates]."""
    low, high = np.quantile(replicates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def normal_interval(users: float, total: float, squares: float) -> tuple[float, float] | None:
    """Return the interval of a mean over users, by the normal distribution: mean ± 1.96 standard errors.

    A bootstrap of a mean has this distribution as its limit; sums suffice for it, and are added over devices.

    Args:
        users: Number of users.
        total: Sum of their values.
        squares: Sum of the squares of their values.

    Returns:
        Lower and upper end; None for fewer than two users.
    """
    if users < 2:
        return None
    mean = total / users
    variance = max(squares - total * mean, 0.0) / (users - 1)  # rounding of equal values may make it negative
    margin = NormalDist().inv_cdf((1 + LEVEL) / 2) * math.sqrt(variance / users)
    return mean - margin, mean + margin
