"""L2 on looked-up rows, weighted by how often a row is rated, and on their biases."""

from typing import NamedTuple

from torch import Tensor

BIAS_L2 = 0.3
"""What a squared bias costs, however often its row is rated, in units of the squared rating range: the middle of what
tables say (see `tasks.shrinkage`), for those who ask none."""


class Penalty(NamedTuple):
    """How much looked-up rows cost.

    Attributes:
        l2: Of a squared row, in units of the squared rating range.
        exponent: See `count_weights`.
    """

    l2: float
    exponent: float


def count_weights(counts: Tensor, exponent: float, reference: float = 50.0) -> Tensor:
    """Weight of a row's penalty each time it is looked up: ``(max(n, 1) / reference) ** -exponent``.

    A row that is rated n times is looked up n times an epoch, so its penalty adds up to ``n ** (1 - exponent)``:
    exponent 0 is the classic L2 on looked-up rows (Funk 2006), 1 does not depend on n, like weight decay. Between them,
    at 0.5, one strength fits tables of very different density: with 0 the best strength of four data sets
    spread over a factor of three, with 0.5 it was the same for all.

    Args:
        counts: int64 [rows], ratings of each row in the training part.
        exponent: 0 to 1.
        reference: count at which the weight is 1.

    Returns:
        float32 [rows].
    """
    return (counts.clamp(min=1).float() / reference) ** -exponent
