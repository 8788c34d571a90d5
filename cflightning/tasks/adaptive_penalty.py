"""Adaptive penalty: validation ratings raise or lower the L2 penalty during training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cflightning.models.embedding_dot import EmbeddingDot

MAX_RATINGS = 4096
"""Maximum number of validation ratings per update; an update takes about 1 ms."""
UPDATES_PER_EPOCH = 2
"""Number of updates per epoch."""
PRIOR_STD = 0.6
"""Standard deviation of the prior of a slope, a normal distribution around 1: few ratings change nothing."""
LOG_LOW, LOG_HIGH = math.log(0.86), math.log(1.3)
"""Range of the logarithm of the slope in which a penalty stays; good fits have .87 to 1.25 while factors grow."""
GAIN = 3.0
"""Power of the slope's excess over the range by which a penalty is divided."""
WARMUP, LOWERING_WARMUP = 0.2, 0.25
"""Shares of training before which no penalty changes, and before which none is lowered: factors have to grow first."""
FACTOR_RANGE, SVDPP_RANGE = (0.1, 8.0), (1.0, 30.0)
"""Ranges of the multiples; the upper ends leave practically no factors and no SVD++ terms."""


class Slope(NamedTuple):
    """Regression slope of the ratings on a part of the scores.

    Attributes:
        value: Posterior mean, 0.2 to 5; below 1 the part overfits, above 1 it underfits.
        std: Posterior standard deviation.
    """

    value: float
    std: float


class AdaptivePenalty:
    """Multiples of the penalties on factors and on SVD++ terms, adapted to the errors on validation ratings.

    No default strength fits tables whose factors explain much, little, or nothing. The strength is right if the
    regression slope of the validation ratings on the factor term of the scores is about 1 (calibration slope: Cox 1958;
    Copas 1983): near 0 the factors are noise, at 2 and more they are shrunk too much. The same slope is computed for
    what the SVD++ terms contribute. If SVD++ terms overfit, their penalty is raised first, and that on the factors only
    if this does not help; so where the choice of items carries no information, the terms vanish and the factors stay.

    Args:
        user: int64 [n], user indices.
        item: int64 [n], item indices.
        rating: float32 [n], rating units.

    Attributes:
        factors: Multiple of the penalty on factors.
        svdpp: Multiple of the penalty on the SVD++ terms of factors.
    """

    def __init__(self, user: Tensor, item: Tensor, rating: Tensor) -> None:
        self.user, self.item, self.rating = user, item, rating
        self.factors = self.svdpp = 1.0

    @property
    def state(self) -> dict[str, float]:
        """State for a checkpoint."""
        return {"factors": self.factors, "svdpp": self.svdpp}

    def load(self, state: Mapping[str, float]) -> None:
        """Restore the state of a checkpoint."""
        self.factors, self.svdpp = state.get("factors", 1.0), state.get("svdpp", 1.0)

    def update(self, network: EmbeddingDot, means: Mapping[str, Tensor] | None, share: float) -> None:
        """Measure the slopes and adapt the multiples.

        Args:
            network: Network in training.
            means: Prior means of its tables by name; None without SVD++ terms.
            share: Share of training that is done.
        """
        if share < WARMUP:
            return
        factors, svdpp = self.slopes(network, means)
        excess = 0.0 if svdpp is None else min(math.log(svdpp.value) - LOG_LOW, 0.0)
        if excess == 0 or self.svdpp >= SVDPP_RANGE[1]:
            beyond = min(math.log(factors.value) - LOG_LOW, 0.0)
            if share >= LOWERING_WARMUP:  # by the lower bound, as the slope of tiny factors is uncertain
                beyond += max(math.log(max(factors.value - factors.std, 1.0)) - LOG_HIGH, 0.0)
            self.factors = _clip(self.factors * math.exp(-GAIN * beyond), FACTOR_RANGE)
        self.svdpp = _clip(self.svdpp * math.exp(-GAIN * excess), SVDPP_RANGE)

    def slopes(self, network: EmbeddingDot, means: Mapping[str, Tensor] | None) -> tuple[Slope, Slope | None]:
        """Return the slopes of the factor term and of the SVD++ terms' contribution to it; None without these."""
        with torch.no_grad():
            p, q = network.user_factors(self.user), network.item_factors(self.item)
            logit = network.logit(self.user, self.item)
            scores = network.scale(logit)
            derivative = network.scale.slope(scores)
            scores = scores if network.rating_range is None else scores.clamp(*network.rating_range)
            error = _float64(self.rating - scores)
            term = (p * q).sum(-1)
            if means is None:
                return regression_slope(_float64(term * derivative), error), None
            residuals = [
                vectors - mean[index] if (mean := means.get(name)) is not None else vectors
                for vectors, name, index in ((p, "user_factors", self.user), (q, "item_factors", self.item))
            ]
            contribution = term - (residuals[0] * residuals[1]).sum(-1)
            factors, svdpp = (regression_slope(_float64(part * derivative), error) for part in (term, contribution))
        return factors, svdpp


def regression_slope(part: np.ndarray, error: np.ndarray) -> Slope:
    """Return the slope of the ratings on a part of the scores by least squares, with a normal prior around 1.

    Args:
        part: float64 [n], rating units.
        error: float64 [n], rating units, ratings minus scores.
    """
    # Sums by numpy: the same bits on any number of threads.
    squares, noise = float((part * part).sum()), float((error * error).sum()) / max(error.size, 1)
    if squares == 0 or noise == 0:
        return Slope(1.0, PRIOR_STD)
    precision, prior_precision = squares / noise, 1 / PRIOR_STD**2
    estimate = 1 + float((part * error).sum()) / squares
    mean = (estimate * precision + prior_precision) / (precision + prior_precision)
    return Slope(_clip(mean, (0.2, 5.0)), (precision + prior_precision) ** -0.5)


def _float64(values: Tensor) -> np.ndarray:
    return values.double().cpu().numpy()


def _clip(value: float, limits: tuple[float, float]) -> float:
    return min(max(value, limits[0]), limits[1])
