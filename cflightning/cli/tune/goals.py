"""The validation metric that a search optimises."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple


class Goal(NamedTuple):
    """A validation metric and its direction.

    Attributes:
        metric: Its logged name.
        mode: `min` if lower is better, otherwise `max`.
        title: Its name in printed lines.
    """

    metric: str
    mode: Literal["min", "max"]
    title: str

    @property
    def column(self) -> str:
        """Column name of the metric in a table."""
        return self.metric.replace("/", "_")

    @property
    def worst(self) -> float:
        """The value that every other one is better than."""
        return math.inf if self.mode == "min" else -math.inf

    def cost(self, value: float) -> float:
        """Return the value with the sign for which lower is better."""
        return value if self.mode == "min" else -value

    def gain(self, value: float, other: float) -> float:
        """Return by how much a value is better than another one."""
        return self.cost(other) - self.cost(value)


RATINGS = Goal("val/rmse", "min", "val RMSE")
RANKINGS = Goal("val/ndcg@10", "max", "val nDCG@10")
