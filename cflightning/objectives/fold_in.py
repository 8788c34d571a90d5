"""The least-squares problem by which a bundle folds in users from their interactions."""

from __future__ import annotations

from typing import NamedTuple

DEFAULT_L2 = 0.015
"""Default penalty of iALS."""
DEFAULT_EXPONENT = 1.0
"""Default exponent of the growth of iALS' penalty with the number of interactions."""


class LeastSquaresFoldIn(NamedTuple):
    """Weights of the least-squares problem, see `solvers.ials`.

    Attributes:
        weight: Weight of every item that the user has not chosen.
        l2: Penalty.
        exponent: Exponent of the penalty's growth with the number of interactions.
        rescale: Whether the item vectors are not those of iALS: they are then scaled to a mean length of 1 first, and
            solutions to the mean length of a user vector.
    """

    weight: float
    l2: float = DEFAULT_L2
    exponent: float = DEFAULT_EXPONENT
    rescale: bool = True


def default_weight(num_items: int) -> float:
    """Return the weight of an unobserved pair for which all of them together weigh the same on every catalogue.

    Args:
        num_items: Number of item indices, the unknown item included.
    """
    return min(300 / max(num_items, 1), 0.3)
