"""L2 penalty on looked-up embedding vectors, weighted by the number of their ratings, and on their biases."""

from typing import NamedTuple

from torch import Tensor

BIAS_L2 = 0.3
"""Default penalty on a squared bias, whatever the number of its ratings, in units of the squared rating range.

It is in the middle of the estimates of `tasks.regularisation.initial_penalties`."""
REFERENCE_COUNT = 50.0
"""Number of ratings at which a vector's penalty has weight 1."""


class Penalty(NamedTuple):
    """Strength of the L2 penalty.

    Attributes:
        l2: Penalty on a squared vector, in units of the squared rating range.
        exponent: See `count_weights`.
    """

    l2: float
    exponent: float


def count_weights(counts: Tensor, exponent: float) -> Tensor:
    """Return the weight of a vector's penalty at each look-up: ``(max(n, 1) / 50) ** -exponent``.

    A vector with n ratings is looked up n times an epoch, so its penalty adds up to ``n ** (1 - exponent)``: exponent 0
    is the classic L2 on looked-up vectors (Funk 2006), 1 does not depend on n, like weight decay. At 0.5 one strength
    fits tables of very different density: with 0 the best strengths of four data sets differed by a factor of three,
    with 0.5 all were the same.

    Args:
        counts: int64 [rows of the table], training ratings of each user or item.
        exponent: 0 to 1.

    Returns:
        float32 [rows of the table].
    """
    return (counts.clamp(min=1).float() / REFERENCE_COUNT) ** -exponent
