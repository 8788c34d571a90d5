"""Whether ratings that were predicted as 4 are 4 on average."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

Z = 1.959964
"""Standard errors on each side of a 95 % interval."""


class Calibration(NamedTuple):
    """Rows in bins by their score, lowest first; all arrays are [bins], ratings and scores in rating units.

    Attributes:
        rows: int64, how many.
        score_low: float64, lowest score of the bin.
        score_high: float64, highest.
        score: float64, mean score.
        rating: float64, mean rating.
        rating_low: float64, 95 % interval of the mean rating; NaN where one user has all the rows.
        rating_high: float64, its upper end.
    """

    rows: np.ndarray
    score_low: np.ndarray
    score_high: np.ndarray
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

    The bins are those of ``pandas.qcut(score, bins, duplicates="drop")``: equal scores stay together, since their
    order would be that of the file; so there may be fewer bins, and less equal ones.

    The interval of a bin's mean rating counts users, not rows (a linearised cluster variance), since the ratings of
    one user hang together.

    Args:
        score: float [n], rating units; at least one row.
        rating: float [n], rating units.
        user: integers [n], any numbers from 0.
        bins: how many.
    """
    order = np.argsort(score)
    sorted_scores = score[order].astype(np.float64)
    last = (len(score) - 1) * np.arange(1, bins + 1) // bins  # of each bin, if all scores differ
    ends = np.unique(np.searchsorted(sorted_scores, sorted_scores[last], side="right"))
    found = []
    for begin, end in zip([0, *ends], ends, strict=False):
        ratings, users = rating[order[begin:end]].astype(np.float64), user[order[begin:end]]
        mean = ratings.mean()
        off = np.bincount(users, ratings - mean)
        distinct = np.count_nonzero(np.bincount(users))
        margin = Z * np.sqrt(off @ off * distinct / (distinct - 1)) / len(ratings) if distinct > 1 else np.nan
        scores = sorted_scores[begin:end]
        found.append((end - begin, scores[0], scores[-1], scores.mean(), mean, mean - margin, mean + margin))
    return Calibration(*(np.array(column) for column in zip(*found, strict=True)))
