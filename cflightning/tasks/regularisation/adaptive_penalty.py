"""Adaptive penalty: validation ratings raise or lower the L2 penalty during training."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.tasks.regularisation.ridge import Slope, regression_slope

MAX_RATINGS = 4096
"""Maximum number of validation ratings per update; an update takes about 1 ms."""
UPDATES_PER_EPOCH = 2
"""Number of updates per epoch."""
PRIOR = Slope(1.0, 0.6)
"""Prior of a slope: few ratings change nothing."""
SLOPE_RANGE = (0.2, 5.0)
"""Range to which measured slopes are clipped."""
LOG_LOW, LOG_HIGH = math.log(0.86), math.log(1.3)
"""Range of the logarithm of the slope in which a penalty stays; good fits have .87 to 1.25 while factors grow."""
GAIN = 3.0
"""Power of the slope's excess over the range by which a penalty is divided."""
WARMUP, LOWERING_WARMUP = 0.2, 0.25
"""Shares of training before which no penalty changes, and before which none is lowered: factors have to grow first."""
FACTOR_RANGE, SVDPP_RANGE = (0.1, 8.0), (1.0, 30.0)
"""Ranges of the multiples; the upper ends leave practically no factors and no SVD++ terms."""


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
        factor_scale: Multiple of the penalty on factors.
        svdpp_scale: Multiple of the penalty on the SVD++ terms of factors.
    """

    def __init__(self, user: Tensor, item: Tensor, rating: Tensor) -> None:
        self.user, self.item, self.rating = user, item, rating
        self.factor_scale = self.svdpp_scale = 1.0

    @property
    def state(self) -> dict[str, float]:
        """State for a checkpoint."""
        return {"factors": self.factor_scale, "svdpp": self.svdpp_scale}

    def load(self, state: Mapping[str, float]) -> None:
        """Restore the state of a checkpoint."""
        self.factor_scale, self.svdpp_scale = state.get("factors", 1.0), state.get("svdpp", 1.0)

    def update(self, network: EmbeddingDot, means: Mapping[str, Tensor] | None, progress: float) -> None:
        """Measure the slopes and adapt the multiples.

        Args:
            network: Network in training.
            means: Prior means of its tables by name; None without SVD++ terms.
            progress: Share of training that is done.
        """
        if progress < WARMUP:
            return
        factors, svdpp = self.slopes(network, means)
        svdpp_overfit = 0.0 if svdpp is None else min(math.log(svdpp.value) - LOG_LOW, 0.0)
        if svdpp_overfit == 0 or self.svdpp_scale >= SVDPP_RANGE[1]:
            factor_misfit = min(math.log(factors.value) - LOG_LOW, 0.0)
            if progress >= LOWERING_WARMUP:  # by the lower bound, as the slope of tiny factors is uncertain
                factor_misfit += max(math.log(max(factors.value - factors.std, 1.0)) - LOG_HIGH, 0.0)
            self.factor_scale = _clip(self.factor_scale * math.exp(-GAIN * factor_misfit), FACTOR_RANGE)
        self.svdpp_scale = _clip(self.svdpp_scale * math.exp(-GAIN * svdpp_overfit), SVDPP_RANGE)

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
                return _measured_slope(term * derivative, error), None
            residuals = [
                vectors - mean[index] if (mean := means.get(name)) is not None else vectors
                for vectors, name, index in ((p, "user_factors", self.user), (q, "item_factors", self.item))
            ]
            contribution = term - (residuals[0] * residuals[1]).sum(-1)
            return _measured_slope(term * derivative, error), _measured_slope(contribution * derivative, error)


def _measured_slope(part: Tensor, error: np.ndarray) -> Slope:
    slope = regression_slope(_float64(part), error, PRIOR)
    return slope._replace(value=_clip(slope.value, SLOPE_RANGE))


def _float64(values: Tensor) -> np.ndarray:
    return values.double().cpu().numpy()


def _clip(value: float, limits: tuple[float, float]) -> float:
    return min(max(value, limits[0]), limits[1])
