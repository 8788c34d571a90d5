"""The interface of heads, which measure a network by ratings or by rankings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor

from cflightning.data.loaders.ratings import RatingBatch
from cflightning.evaluation.rankings import RankingResult


class Head(ABC):
    """The part of a task that measures a network, by ratings or by rankings."""

    @abstractmethod
    def settings_used(self) -> dict[str, Any]:
        """Return the settings that training used, every default resolved, as plain data."""

    def resolved_options(self) -> dict[str, Any]:
        """Return the values of options of the command line that training derived: option without `--` -> value."""
        return {}

    def on_evaluation_start(self) -> None:
        """Start a pass over a validation or test part."""
        return

    def evaluate_batch(self, batch: RatingBatch) -> Tensor | None:
        """Add a batch to the metrics, and return its scores if it was scored: float32 [batch]."""
        return None

    def evaluate_rankings(self) -> RankingResult | None:
        """Return the evaluation of recommendations in the test that runs; None if there are none."""
        return None

    @abstractmethod
    def log_metrics(self, prefix: str) -> None:
        """Log the metrics of the part, as `prefix/name`.

        Args:
            prefix: `val` or `test`.
        """
