"""What settings are chosen by."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple


class Goal(NamedTuple):
    """A figure of the validation slice.

    Attributes:
        metric: as it is logged.
        mode: whether the least or the greatest is the best.
        title: for people.
    """

    metric: str
    mode: Literal["min", "max"]
    title: str

    @property
    def column(self) -> str:
        """Its name in tables."""
        return self.metric.replace("/", "_")

    @property
    def worst(self) -> float:
        """What everything is better than."""
        return math.inf if self.mode == "min" else -math.inf

    def cost(self, value: float) -> float:
        """Lower is better."""
        return value if self.mode == "min" else -value

    def better(self, value: float, other: float) -> float:
        """By how much the one is better than the other."""
        return self.cost(other) - self.cost(value)


RATINGS = Goal("val/rmse", "min", "val RMSE")
LISTS = Goal("val/ndcg@10", "max", "val nDCG@10")
