"""How sure a test error is: a bootstrap over users."""

from __future__ import annotations

import numpy as np

COVERAGE = 0.95
GROUPS = 2_000
"""More users than this are drawn in groups: the intervals' own error grows by a hundredth, the cost no more."""


def error_sums(user: np.ndarray, rating: np.ndarray, *scores: np.ndarray) -> np.ndarray:
    """What RMSE and MAE are made of, summed over the rows of each user.

    Args:
        user: integers [n], any numbers from 0.
        rating: float [n], rating units.
        scores: float [n] each, rating units; of one model or more.

    Returns:
        float64 [users with rows, 1 + 2 * models]: rows; then squared and absolute errors of each model.
    """
    columns: list[np.ndarray] = [np.bincount(user)]
    for score in scores:
        error = score.astype(np.float64) - rating
        columns += [np.bincount(user, error**2), np.bincount(user, np.abs(error))]
    sums = np.stack(columns, axis=1)  # float64, as the errors are
    return sums[columns[0] > 0]


def rmse_and_mae(sums: np.ndarray, model: int = 0) -> np.ndarray:
    """Both errors of a model from sums as above: float64 [..., 1 + 2 * models] -> float64 [..., 2]."""
    means = sums[..., 1 + 2 * model : 3 + 2 * model] / sums[..., :1]
    return np.stack([np.sqrt(means[..., 0]), means[..., 1]], axis=-1)


def resample(sums: np.ndarray, replicates: int = 1000, seed: int = 0) -> np.ndarray:
    """Totals of users drawn anew, with replacement.

    The ratings of one user hang together, by taste and by mood, so rows are not drawn for themselves: that would give
    intervals that are too narrow. What is drawn is users, with all their rows (the cluster bootstrap; Davison and
    Hinkley 1997, "Bootstrap Methods and their Application", section 3.8). All columns are drawn alike, so that
    differences of two models are paired.

    Args:
        sums: float64 [users, columns].
        replicates: how often.
        seed: of the draws.

    Returns:
        float64 [replicates, columns].
    """
    rng = np.random.default_rng(seed)
    if len(sums) > GROUPS:  # groups of users that were put together at random are as independent as users are
        group = rng.permutation(len(sums)) % GROUPS
        sums = np.stack([np.bincount(group, column) for column in sums.T], axis=1)
    users = len(sums)
    drawn = np.empty((replicates, sums.shape[1]))
    for replicate in drawn:  # replicates, never rows: some 20 µs each
        replicate[:] = np.bincount(rng.integers(0, users, users), minlength=users) @ sums
    return drawn


def interval(replicates: np.ndarray) -> tuple[float, float]:
    """The percentile interval of a figure: its 2.5 % and 97.5 % points among the replicates, float64 [replicates]."""
    low, high = np.quantile(replicates, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return float(low), float(high)
