"""Fold-in from ratings by damped Newton steps, in double precision.

The vector x minimises the squared error of scores and a quadratic penalty::

    sum over ratings of (score(<z_j, x> + base_j) - rating_j)^2 + x' A x - 2 b' x
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cflightning.models.network import RatingScale
from cflightning_export.fold_in.spec import FoldInSpec

MAX_STEPS = 50
MAX_STEP_LENGTH = 1e-9
"""Largest component of a step below which it is the last one, in link units."""
MIN_STEP_LENGTH = 1e-12
"""Largest component of a step below which it is not halved again, in link units."""
ROUNDING = 1e-12
"""Relative rounding error of the minimised sum."""

Floats = NDArray[np.float64]


class RatedVectors(NamedTuple):
    """The ratings of a user, or of an item.

    Attributes:
        z: float64 [n, dim + 1], vectors of the rated ids, and a last column of 1.
        base: float64 [n], logits without x.
        rating: float64 [n], rating units.
        scale: scale of the network.
    """

    z: Floats
    base: Floats
    rating: Floats
    scale: RatingScale

    def errors_and_slopes(self, x: Floats) -> tuple[Floats, Floats, Floats]:
        """Return errors of scores, and first and second derivatives of the scores by the logits: float64 [n] each."""
        logit = self.z @ x + self.base
        if not self.scale.sigmoid:
            return logit - self.rating, np.ones(len(logit)), np.zeros(len(logit))
        width, share = self.scale.high - self.scale.low, 1 / (1 + np.exp(-logit))
        slope = width * share * (1 - share)
        return self.scale.low + width * share - self.rating, slope, slope * (1 - 2 * share)


def minimise(
    ratings: RatedVectors,
    penalty: Floats,
    pull: Floats,
    start: Floats,
    *,
    max_steps: int = MAX_STEPS,
    max_step_length: float = MAX_STEP_LENGTH,
) -> Floats:
    """Minimise the sum at the top of this module, with at least half of Gauss and Newton's curvature.

    A step that raises the sum is halved until it does not.

    Args:
        ratings: the ratings.
        penalty: A, float64 [dim + 1, dim + 1], positive definite.
        pull: b, float64 [dim + 1].
        start: float64 [dim + 1].
        max_steps: number of steps at most.
        max_step_length: largest component of the last step, in link units.

    Returns:
        float64 [dim + 1].
    """

    def cost(x: Floats, error: Floats) -> float:
        return float(error @ error + x @ penalty @ x - 2 * pull @ x)

    x, (error, slope, second) = start, ratings.errors_and_slopes(start)
    value = cost(x, error)
    for _ in range(max_steps):
        curvature = np.maximum(slope**2 + error * second, slope**2 / 2)
        gradient = ratings.z.T @ (slope * error) + penalty @ x - pull
        step = np.linalg.solve((ratings.z * curvature[:, None]).T @ ratings.z + penalty, gradient)
        before, point = value, x
        while True:
            x = point - step
            error, slope, second = ratings.errors_and_slopes(x)
            value = cost(x, error)
            if value <= before + ROUNDING * abs(before) or abs(step).max() < MIN_STEP_LENGTH:
                break
            step /= 2
        if abs(step).max() < max_step_length:
            break
    return x


def fold_in(spec: FoldInSpec, index: NDArray[np.int64], rating: NDArray[np.float32]) -> Floats:
    """Compute the vector of a new user or item.

    Args:
        spec: the rated side and the prior.
        index: int64 [n], indices of known ids.
        rating: float32 [n], rating units; NaN stands for liked.

    Returns:
        float64 [dim + 1], factors and then bias.
    """
    target = np.where(np.isnan(rating), spec.liked_rating, rating.astype(np.float64))
    z = np.column_stack([spec.vectors[index].astype(np.float64), np.ones(len(index))])
    base = spec.bias[index].astype(np.float64) + spec.global_bias
    penalty, mean = spec.prior.precision(), spec.prior.mean_after(index)
    return minimise(RatedVectors(z, base, target, spec.scale), penalty, penalty @ mean, mean)
