"""Squared error of ratings: the objective of rating models."""

from __future__ import annotations

import math

from torch import Tensor

from cflightning.models.penalty import Penalty
from cflightning.objectives.base import Objective
from cflightning.objectives.settings import SearchRange


class Mse(Objective):
    """Squared error of ratings, with an L2 penalty on the vectors that each rating looks up."""

    name = "mse"

    def loss(self, score: Tensor, rating: Tensor) -> Tensor:
        """Return the summed squared error, squared rating units: float32 [batch] twice, rating units -> []."""
        return (score - rating).square().sum()

    def default_penalty(self, *, svdpp: bool, users: int | None = None, items: int | None = None) -> Penalty:
        """Return the penalty on which four data sets of very different size and density agree.

        With SVD++ terms the exponent grows with the ratio of items to users, as most vectors are then of items with few
        ratings. On slices of the training parts of four data sets with .6 to 16 items per user, .75 instead of .6 gains
        .0027 RMSE on MovieLens latest small (16) and .85 another .0011, and .75 costs .0028 on MovieLens 1M (.6).

        Args:
            svdpp: Whether there are SVD++ terms.
            users: Number of known users; None before the table is read.
            items: Number of known items; likewise.
        """
        if not svdpp:
            return Penalty(0.008, 0.5)
        if users is None or items is None:
            return Penalty(0.02, 0.6)
        return Penalty(0.02, min(max(0.6 + 0.06 * math.log2(max(items, 1) / max(users, 1)), 0.6), 0.85))

    def search_space(self, penalty: Penalty) -> dict[str, SearchRange]:
        """Return the ranges in which `tune` searches by default: option without `--` -> range.

        They are narrow, as a search makes few trials: on three data sets l2 at a third or three times the default costs
        one to three percent. The learning rate is left out: the fused engine derives it from the number of epochs, and
        the best other one gained a third of a percent at most. Steps of dim are wide, as each dim is compiled.

        Args:
            penalty: Penalty around which to search.
        """
        l2, exponent = penalty
        return {
            "model.l2": SearchRange(l2 / 2, l2 * 2, log=True),
            "model.l2_exponent": SearchRange(max(round(exponent - 0.2, 3), 0.0), round(exponent + 0.2, 3)),
            "model.dim": SearchRange(32, 192, step=32),
            "trainer.max_epochs": SearchRange(6, 24, log=True),
        }
