"""Initial penalties, estimated from the training part."""

from __future__ import annotations

import logging
import math
from typing import NamedTuple

from cflightning.data.datamodule import RatingsDataModule
from cflightning.data.splits.split import TRAIN
from cflightning.metrics.baseline import fit_baseline
from cflightning.models.network import RatingScale

log = logging.getLogger(__name__)
MAX_ROWS = 1 << 17
"""Approximate number of training rows, evenly spaced, from which variances are estimated."""
MAX_BIAS_L2 = 100.0
"""Upper limit of the penalty on biases; at this value a bias is practically zero."""
NARROW_NOISE = 0.13
"""Residual standard deviation of the bias-only model, as a share of the rating range, below which l2 is reduced."""
OUTLIER_NOISE = 0.02
"""The same share below which a few outliers must have stretched the rating range."""


class InitialPenalties(NamedTuple):
    """Penalties that suit the variances of a training part.

    Attributes:
        bias_l2: Penalty on squared user biases and on squared item biases, in units of the squared rating range.
        noise_scale: Multiple of the default l2, at most 1.
    """

    bias_l2: tuple[float, float]
    noise_scale: float


def estimate_penalties(data: RatingsDataModule, scale: RatingScale, max_rows: int = MAX_ROWS) -> InitialPenalties:
    """Estimate the penalties from the variances of the bias-only model.

    *Biases.* A bias drawn from N(0, v) under noise of variance s has the penalty s / v relative to the squared error
    (Koren 2010, section 2.1; ridge regression as a normal prior). The bias-only baseline estimates both variances; the
    slope of the scale at the mean rating converts them from rating units to those of the logit.

    *Factors.* A penalty on both sides soft-thresholds the singular values of the residuals of the biases (Srebro,
    Rennie & Jaakkola 2004), and those of noise are proportional to its standard deviation. So one l2 suits noise of an
    eighth to a quarter of the range, as rating scales have; where a few outliers stretch the range, it would remove all
    factors.

    Args:
        data: Data with the training part.
        scale: Scale of the network.
        max_rows: Approximate number of training rows that are used.
    """
    table, train = data.table, data.split.parts == TRAIN
    every = slice(None, None, math.ceil(data.split.sizes[TRAIN] / max_rows))
    if not train[every].any():
        every = slice(None)
    fitted = fit_baseline(
        table.user.codes[every], table.item.codes[every], table.ratings[every], train[every],
        len(table.user.ids), len(table.item.ids), data.rating_range,
    )  # fmt: skip
    low, high = data.rating_range
    slope = float(scale.slope(data.mean_rating)) / (high - low)
    user, item = (
        min(fitted.noise_variance / variance * slope**2, MAX_BIAS_L2)
        for variance in (fitted.user_variance, fitted.item_variance)
    )
    noise = math.sqrt(fitted.noise_variance)
    if noise < OUTLIER_NOISE * (high - low):
        log.warning(
            "%s: ratings range from %g to %g, but the residuals of user and item biases have a standard deviation of "
            "only %.3g: a few outliers may have stretched the range, which costs accuracy; check them, or try "
            "--model.sigmoid false",
            data.table.name, low, high, noise,
        )  # fmt: skip
    return InitialPenalties((user, item), min(noise / (high - low) / NARROW_NOISE, 1.0))
