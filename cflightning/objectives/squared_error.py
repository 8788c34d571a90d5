"""Squared error on the ratings."""

from torch import Tensor


def squared_error(score: Tensor, rating: Tensor) -> Tensor:
    """Sum of the squared errors.

    Args:
        score: float32 [batch], rating units.
        rating: float32 [batch], rating units.

    Returns:
        float32 [], squared rating units.
    """
    return (score - rating).square().sum()
