"""Regression slope of ratings on a part of the scores, by ridge regression."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Slope(NamedTuple):
    """Posterior of a regression slope.

    Attributes:
        value: Mean.
        std: Standard deviation.
    """

    value: float
    std: float


def regression_slope(part: np.ndarray, error: np.ndarray, prior: Slope) -> Slope:
    """Return the slope of the ratings on a part of the scores by least squares, with a normal prior.

    Args:
        part: float64 [n], rating units.
        error: float64 [n], rating units, ratings minus the scores in which the part has the slope `prior.value`.
        prior: Mean and standard deviation of the prior.
    """
    # Sums by numpy: the same bits on any number of threads.
    squares, noise = float((part * part).sum()), float((error * error).sum()) / max(error.size, 1)
    if squares == 0 or noise == 0:
        return prior
    precision, prior_precision = squares / noise, 1 / prior.std**2
    estimate = prior.value + float((part * error).sum()) / squares
    mean = (estimate * precision + prior.value * prior_precision) / (precision + prior_precision)
    return Slope(mean, (precision + prior_precision) ** -0.5)
