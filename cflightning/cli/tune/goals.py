"""The validation metric that a search optimises."""

from __future__ import annotations

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

    def cost(self, value: float) -> float:
        """Return the value with the sign for which lower is better."""
        return value if self.mode == "min" else -value


RATINGS = Goal("val/rmse", "min", "val RMSE")
RANKINGS = Goal("val/ndcg@10", "max", "val nDCG@10")
