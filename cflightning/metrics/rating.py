"""RMSE and MAE of rating predictions."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


def error_totals(score: Tensor, rating: Tensor, double: torch.dtype = torch.float64) -> Tensor:
    """Return the sums from which RMSE and MAE are computed.

    Args:
        score: float32 [n], rating units.
        rating: float32 [n], rating units.
        double: Type of the sums.

    Returns:
        [3] of type `double`: sum of squared errors, sum of absolute errors, count.
    """
    error = score.to(double) - rating.to(double)
    return torch.stack([error.square().sum(), error.abs().sum(), error.new_tensor(len(error))])


class RatingErrors(Metric):
    """Root mean squared error and mean absolute error, rating units.

    Sums are in double precision and added over devices, so the result is that of one pass over all rows, however they
    were distributed. Without rows both are NaN.
    """

    full_state_update = False
    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Apple's GPUs have no float64, and a state follows the model to its device.
        double = torch.float32 if torch.backends.mps.is_available() else torch.float64
        self.add_state("sums", torch.zeros(3, dtype=double), dist_reduce_fx="sum")

    def update(self, score: Tensor, rating: Tensor) -> None:
        """Add rows: scores and ratings, float32 [n] each, rating units."""
        self.sums += error_totals(score, rating, self.sums.dtype)

    def compute(self) -> dict[str, Tensor]:
        """Return `rmse` and `mae` over all rows so far."""
        squared, absolute, count = self.sums
        return {"rmse": (squared / count).sqrt(), "mae": absolute / count}
