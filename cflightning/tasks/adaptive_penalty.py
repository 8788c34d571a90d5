"""Held-out rows set the strength of the penalties while training goes on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cflightning.models.embedding_dot import EmbeddingDot

ROWS = 4096
"""That are looked at, at most: a look takes a millisecond."""
LOOKS = 2
"""An epoch."""
DOUBT = 0.6
"""Standard deviation of the number to be found before a row has been looked at, around 1: few rows move nothing."""
TOO_LARGE, TOO_SMALL = math.log(0.86), math.log(1.3)
"""Between these nothing is done. A fit that needs no help is seen at .87 to 1.25, since factors are still growing."""
GAIN = 3.0
"""A penalty is multiplied by what is found beyond them to the power of -GAIN."""
BEGIN, LOWER_FROM = 0.2, 0.25
"""Shares of the training before which no penalty is moved, or none is lowered: factors have to grow first."""
ROW_RANGE, BAG_RANGE = (0.1, 8.0), (1.0, 30.0)
"""How far the penalties go, as multiples. At the upper ends there are no factors, or no bags, left to speak of."""


class Multiple(NamedTuple):
    """By what number a part of the scores should be multiplied.

    Attributes:
        value: 0.2 to 5.
        doubt: its standard deviation.
    """

    value: float
    doubt: float


class AdaptivePenalty:
    """Multiples of the penalties on factors and on the vectors in bags, by the errors on held-out rows.

    One default strength cannot fit tables whose factors predict much, little, or nothing at all. What tells them apart
    is by what number the factors' part of the scores would have to be multiplied to predict held-out rows best (least
    squares, one number): about 1 where the penalty is right, near 0 where the factors have learnt noise, 2 and more
    where they are held down. The same of what the bags have brought into it. Bags that have learnt noise are penalised
    first, and the factors only once it is not them; so where the choice of items says nothing, bags are switched
    off and the factors stay.

    Args:
        user: int64 [n], rows.
        item: int64 [n], rows.
        rating: float32 [n], rating units.

    Attributes:
        rows: multiple of the penalty on factors.
        bags: multiple of the penalty on the vectors in the factors' bags.
    """

    def __init__(self, user: Tensor, item: Tensor, rating: Tensor) -> None:
        self.user, self.item, self.rating = user, item, rating
        self.rows = self.bags = 1.0

    @property
    def state(self) -> dict[str, float]:
        """What a checkpoint has to hold."""
        return {"rows": self.rows, "bags": self.bags}

    def load(self, state: Mapping[str, float]) -> None:
        """Go on from a checkpoint."""
        self.rows, self.bags = state.get("rows", 1.0), state.get("bags", 1.0)

    def look(self, network: EmbeddingDot, means: Mapping[str, Tensor] | None, share: float) -> None:
        """Measure, and move the multiples.

        Args:
            network: that is trained.
            means: prior means of its tables, by name, where there are bags.
            share: of the training that is done.
        """
        if share < BEGIN:
            return
        factors, of_bags = self.wanted(network, means)
        excess = 0.0 if of_bags is None else min(math.log(of_bags.value) - TOO_LARGE, 0.0)
        if excess == 0 or self.bags >= BAG_RANGE[1]:
            beyond = min(math.log(factors.value) - TOO_LARGE, 0.0)
            if share >= LOWER_FROM:  # and only as far as is sure: factors near nothing may look as if held down
                beyond += max(math.log(max(factors.value - factors.doubt, 1.0)) - TOO_SMALL, 0.0)
            self.rows = _within(self.rows * math.exp(-GAIN * beyond), ROW_RANGE)
        self.bags = _within(self.bags * math.exp(-GAIN * excess), BAG_RANGE)

    def wanted(self, network: EmbeddingDot, means: Mapping[str, Tensor] | None) -> tuple[Multiple, Multiple | None]:
        """By what number the factors' part should be multiplied, and what bags bring into it; None without bags."""
        with torch.no_grad():
            p, q = network.user_factors(self.user), network.item_factors(self.item)
            logit = network.logit(self.user, self.item)
            scores = network.scale(logit)
            slope = network.scale.slope(scores)
            scores = scores if network.rating_range is None else scores.clamp(*network.rating_range)
            error = _numbers(self.rating - scores)
            factors = (p * q).sum(-1)
            rest = None
            if means is not None:
                own = [
                    row - mean[at] if (mean := means.get(name)) is not None else row
                    for row, name, at in ((p, "user_factors", self.user), (q, "item_factors", self.item))
                ]
                rest = (own[0] * own[1]).sum(-1)
            parts = [factors] if rest is None else [factors, factors - rest]
            found = [find_multiple(_numbers(part * slope), error) for part in parts]
        return found[0], found[1] if rest is not None else None


def find_multiple(part: np.ndarray, error: np.ndarray) -> Multiple:
    """The least-squares multiple of a part of the scores, given their errors, drawn to 1 as few rows know little.

    Args:
        part: float64 [n], rating units.
        error: float64 [n], rating units, of the scores with the part as it is.
    """
    # Sums by numpy: the same bits on any number of threads.
    squares, noise = float((part * part).sum()), float((error * error).sum()) / max(error.size, 1)
    if squares == 0 or noise == 0:
        return Multiple(1.0, DOUBT)
    precision, before = squares / noise, 1 / DOUBT**2
    found = 1 + float((part * error).sum()) / squares
    value = (found * precision + before) / (precision + before)
    return Multiple(_within(value, (0.2, 5.0)), (precision + before) ** -0.5)


def _numbers(values: Tensor) -> np.ndarray:
    return values.double().cpu().numpy()


def _within(value: float, limits: tuple[float, float]) -> float:
    return min(max(value, limits[0]), limits[1])
