"""How strong the penalties are to begin with, as the table itself says."""

from __future__ import annotations

import logging
import math
from typing import NamedTuple

from cflightning.data.datamodule import RatingsDataModule
from cflightning.data.splits.split import TRAIN
from cflightning.metrics.baseline import fit_baseline
from cflightning.models.network import RatingScale

log = logging.getLogger(__name__)
ROWS = 1 << 17
"""Of the training part, evenly spaced, are asked: variances need no more."""
MOST = 100.0
"""A bias that costs this much is zero already."""


NARROW = 0.13
"""Standard deviation of what biases leave, as a share of the rating range, below which l2 is lowered with it."""
FAR = 0.02
"""And below which a few far ratings must have stretched the range."""


class BiasPenalty(NamedTuple):
    """What a training part says.

    Attributes:
        bias_l2: what a squared bias costs, of users and of items, in units of the squared rating range.
        l2: multiple of the default l2, at most 1.
    """

    bias_l2: tuple[float, float]
    l2: float


def find_bias_penalty(data: RatingsDataModule, scale: RatingScale) -> BiasPenalty:
    """Ask the training part of a table.

    *Biases.* A bias drawn from N(0, v) under noise of variance s costs s / v times its square where a rating costs its
    squared error (Koren 2010, section 2.1; ridge regression as a Bayesian's). Both variances are those of the bias-only
    baseline, which estimates them from the training part; here they are turned from rating units into those of the
    logit, by the slope of the scale at the mean rating.

    *Factors.* A penalty on both sides cuts the singular values of what biases leave (Srebro, Rennie & Jaakkola 2004),
    and those of noise grow with its standard deviation. So one l2 does for noises of an eighth to a quarter of the
    range, which ratings on a scale have; where a few far values stretch the range, it would cut everything.

    Args:
        data: whose training part is asked.
        scale: of the network.
    """
    table, train = data.table, data.split.parts == TRAIN
    every = slice(None, None, math.ceil(data.split.sizes[TRAIN] / ROWS))
    if not train[every].any():
        every = slice(None)
    found = fit_baseline(
        table.user.codes[every], table.item.codes[every], table.ratings[every], train[every],
        len(table.user.ids), len(table.item.ids), data.rating_range,
    )  # fmt: skip
    low, high = data.rating_range
    slope = float(scale.slope(data.mean_rating)) / (high - low)
    user, item = (
        min(found.noise_variance / variance * slope**2, MOST) for variance in (found.user_variance, found.item_variance)
    )
    noise = math.sqrt(found.noise_variance)
    if noise < FAR * (high - low):
        log.warning(
            "%s: ratings range from %g to %g, but all that users and items leave to explain is %.3g: a few far ratings "
            "may have stretched the range, which costs accuracy; look at them, or try --model.sigmoid false",
            data.table.name, low, high, noise,
        )  # fmt: skip
    return BiasPenalty((user, item), min(noise / (high - low) / NARROW, 1.0))
