"""L2 penalty on factors, weighted by the number of ratings, and on biases."""

from typing import NamedTuple

from torch import Tensor

BIAS_L2 = 0.3
"""Default penalty of a squared bias, whatever its number of ratings, in units of the squared rating range: typical of
the values that `tasks.bias_penalty` estimates."""


class Penalty(NamedTuple):
    """L2 penalty on factors.

    Attributes:
        l2: Penalty of a squared vector, in units of the squared rating range.
        exponent: Exponent of `count_weights`.
    """

    l2: float
    exponent: float


def count_weights(counts: Tensor, exponent: float, reference: float = 50.0) -> Tensor:
    """Weight of a vector's penalty at each lookup: ``(max(n, 1) / reference) ** -exponent``.

    A user or item with n ratings is looked up n times per epoch, so its penalty adds up to ``n ** (1 - exponent)``:
    exponent 0 is the classic L2 penalty (Funk 2006), 1 is independent of n, like weight decay. At 0.5, one strength
    suits tables of very different density: the best strengths of four data sets differed by a factor of three with 0,
    and agreed with 0.5.

    Args:
        counts: int64 [n], training ratings of each user or item.
        exponent: 0 to 1.
        reference: count at which the weight is 1.

    Returns:
        float32 [n].
    """
    return (counts.clamp(min=1).float() / reference) ** -exponent
