"""The bias-only baseline: predictions from the global mean, user biases and item biases."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import repeat

import numpy as np

CHUNK_ROWS = 1 << 16
"""Rows at a time; their temporary columns stay in the cache of the processor."""
TOLERANCE = 1e-3
"""Largest last change of the predictions, as a share of the standard deviation of ratings; RMSE is exact to 1e-4."""
MAX_ROUNDS = 100
"""Limit of the rounds; five to twenty are usual."""
MIN_VARIANCE = 1e-8
"""Lower limit of a variance, as a share of that of the ratings, against division by zero."""


@dataclass(frozen=True)
class BiasBaseline:
    """Global mean, user biases and item biases, with the variances of each.

    Attributes:
        mean: Rating units.
        user: float64 [users], rating units; 0 for users without training row.
        item: float64 [items], rating units; 0 for items without training row.
        rating_range: Range to which scores are clipped.
        user_variance: Variance of the user biases, squared rating units.
        item_variance: Variance of the item biases.
        noise_variance: Residual variance.
    """

    mean: float
    user: np.ndarray
    item: np.ndarray
    rating_range: tuple[float, float]
    user_variance: float
    item_variance: float
    noise_variance: float

    def score(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Return the scores of pairs: integers [n] each -> float64 [n], rating units."""
        scores: np.ndarray = np.clip(self.mean + self.user.take(user) + self.item.take(item), *self.rating_range)
        return scores


def fit_baseline(
    user: np.ndarray,
    item: np.ndarray,
    rating: np.ndarray,
    train: np.ndarray,
    num_users: int,
    num_items: int,
    rating_range: tuple[float, float] | None = None,
    *,
    chunk_rows: int = CHUNK_ROWS,
    tolerance: float = TOLERANCE,
    max_rounds: int = MAX_ROUNDS,
) -> BiasBaseline:
    """Fit the baseline, with shrinkage estimated from the training part.

    A rating is mean + user bias + item bias + noise (Koren 2010, "Factor in the neighbors", section 2.1). Each bias is
    a shrunk mean of residuals, ``sum of residuals / (count + lambda)``, users and items in turn. Koren chooses the
    lambdas by trial. Here each is noise variance / bias variance, and the three variances are estimated along with the
    biases by expectation-maximisation, with independent posteriors of the biases (empirical Bayes: every round raises
    a lower bound of the marginal likelihood). So there is no setting, and no row is held out.

    The mean is that of the model, the rating of an average item by an average user: it is below the mean rating if
    good items are rated more often.

    A round is two passes over the rows. No value is stored for each row, so the memory is that of users and items: 20
    million rows of a million users take 80 MB and 5 s.

    Args:
        user: integers [rows], below `num_users`.
        item: integers [rows], below `num_items`.
        rating: float32 or float64 [rows], rating units.
        train: bool [rows], the training rows; at least one.
        num_users: Number of users.
        num_items: Number of items.
        rating_range: Range to which scores are clipped; None for the lowest and highest training rating.
        chunk_rows: Rows at a time.
        tolerance: Largest last change of the predictions, as a share of the standard deviation of ratings.
        max_rounds: Limit of the rounds.
    """
    chunk = max(chunk_rows, num_users + num_items)  # a chunk costs a vector of users or of items as well
    chunks = [slice(begin, begin + chunk) for begin in range(0, len(rating), chunk)]
    columns, sizes = (user, item), (num_users, num_items)

    def sums(side: int, values: Iterable[np.ndarray | float]) -> np.ndarray:
        """Sum a value over the training rows of each user or item; the values come chunk by chunk."""
        total = np.zeros(sizes[side])
        for rows, value in zip(chunks, values, strict=False):
            total += np.bincount(columns[side][rows], value * train[rows], sizes[side])
        return total

    plain_mean = rating.mean(dtype=np.float64, where=train)  # centred values keep all digits in sums
    squares = float(sum(((rating[rows] - plain_mean) ** 2) @ train[rows] for rows in chunks))
    counts = [sums(side, repeat(1.0)) for side in (0, 1)]
    totals = [sums(side, (rating[rows] - plain_mean for rows in chunks)) for side in (0, 1)]
    n = float(counts[0].sum())
    floor = MIN_VARIANCE * (squares / n or 1.0)
    mean, biases = 0.0, [np.zeros(size) for size in sizes]
    noise, variances = max(squares / n / 2, floor), [max(squares / n / 4, floor)] * 2
    for _ in range(max_rounds):
        mean_before, change, posterior = mean, 0.0, 0.0
        for side, other in ((1, 0), (0, 1)):
            other_biases = sums(side, (biases[other].take(columns[other][rows]) for rows in chunks))
            count, weight = counts[side], counts[side] + noise / variances[side]
            trained = count > 0
            bias = (totals[side] - mean * count - other_biases) / weight
            # The mean of the biases moves to the global mean: predictions stay, and the penalty falls.
            shift = float(bias[trained].mean())
            bias = np.where(trained, bias - shift, 0.0)
            mean += shift
            change += float(count @ (bias - biases[side]) ** 2)
            variance = noise / weight  # posterior variance of each bias
            posterior += float(count @ variance)
            variances[side] = max(float((bias**2 + variance)[trained].mean()), floor)
            biases[side] = bias
        # Squared residuals without another pass: `other_biases` has, for each user, those of its items.
        squared = squares + n * mean**2 + 2 * float(biases[0] @ other_biases)
        for bias, count, total in zip(biases, counts, totals, strict=True):
            squared += float(bias @ (count * (bias + 2 * mean) - 2 * total))
        noise = max((squared + posterior) / n, floor)
        if change + n * (mean - mean_before) ** 2 <= tolerance**2 * squares:
            break
    if rating_range is None:
        lowest, highest = rating.min(where=train, initial=np.inf), rating.max(where=train, initial=-np.inf)
        rating_range = float(lowest), float(highest)
    users, items = variances
    return BiasBaseline(float(plain_mean) + mean, biases[0], biases[1], rating_range, users, items, noise)
