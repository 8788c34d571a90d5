"""Calibration of rating predictions: whether ratings that are predicted as 4 are 4 on average."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

Z = 1.959964
"""Half-width of a 95 % interval in standard errors."""


class Calibration(NamedTuple):
    """Test rows in bins of the score, lowest first; all arrays are [bins], ratings and scores in rating units.

    Attributes:
        rows: int64, number of rows.
        score: float64, mean score.
        rating: float64, mean rating.
        rating_low: float64, lower end of the 95 % interval of the mean rating; NaN if one user has all the rows.
        rating_high: float64, upper end.
    """

    rows: np.ndarray
    score: np.ndarray
    rating: np.ndarray
    rating_low: np.ndarray
    rating_high: np.ndarray

    @property
    def error(self) -> float:
        """Mean absolute difference of mean score and mean rating, weighted by rows; rating units."""
        return float(np.average(np.abs(self.score - self.rating), weights=self.rows))


def calibrate(score: np.ndarray, rating: np.ndarray, user: np.ndarray, bins: int = 10) -> Calibration:
    """Compare scores with ratings in bins of equal count.

    The bins are those of ``pandas.qcut(score, bins, duplicates="drop")``: equal scores are in one bin, since their
    order is that of the file; so there can be fewer bins, of less equal count.

    The interval of a mean rating is that of a linearised cluster variance over users, since the ratings of one user
    are correlated.

    Args:
        score: float [n], rating units; at least one row.
        rating: float [n], rating units.
        user: integers [n], any numbers from 0.
        bins: Number of bins.
    """
    order = np.argsort(score)
    sorted_scores = score[order].astype(np.float64)
    last = (len(score) - 1) * np.arange(1, bins + 1) // bins  # last row of each bin, if all scores differ
    ends = np.unique(np.searchsorted(sorted_scores, sorted_scores[last], side="right"))
    rows = []
    for begin, end in zip([0, *ends], ends, strict=False):
        ratings, users = rating[order[begin:end]].astype(np.float64), user[order[begin:end]]
        mean = ratings.mean()
        residual = np.bincount(users, ratings - mean)
        distinct = np.count_nonzero(np.bincount(users))
        variance = residual @ residual * distinct / (distinct - 1) if distinct > 1 else np.nan
        margin = Z * np.sqrt(variance) / len(ratings)
        rows.append((end - begin, sorted_scores[begin:end].mean(), mean, mean - margin, mean + margin))
    return Calibration(*(np.array(column) for column in zip(*rows, strict=True)))
