"""What both fused steps share: the constants of their rule and the tables that lie beside the factors. No compiler."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cflightning.models.penalty import BIAS_L2

BIAS, V_FACTORS, V_BIAS, STEP, L2, L2_BIAS = range(6)
"""Columns of a side table: bias, both accumulators, h, what a rating costs its row and its row's bias (penalties)."""
SIDE_WIDTH = 8  # 32 bytes: never across a cache line
GPU_BLOCK = 64
"""Ratings that keep their order on a GPU: 256 bytes of each column, whole sectors."""


class Rule(NamedTuple):
    """Constants of the update; one set fits tables of very different size, density and scale.

    Attributes:
        bias_rate: Rate of the biases, as a multiple.
        global_rate: Rate of the global bias, as a multiple (plain SGD).
        l2: Penalty on looked-up rows, in units of the squared rating range.
        l2_exponent: A row rated n times has weight (n / 50) ** -l2_exponent.
        step_exponent: A row rated n times has its step multiplied by (n / 80) ** step_exponent.
        eps: Added to the root of an accumulator.
    """

    l2: float = 0.008
    l2_exponent: float = 0.5
    bias_rate: float = 2.5
    global_rate: float = 0.01
    step_exponent: float = 0.15
    eps: float = 0.007


def aligned(rows: int, columns: int) -> NDArray[np.float32]:
    """Zeros that start at a cache line: float32 [rows, columns]."""
    raw = np.zeros(rows * columns + 16, np.float32)
    skip = (-raw.ctypes.data // 4) % 16
    return raw[skip : skip + rows * columns].reshape(rows, columns)


def side_table(
    counts: NDArray[np.int64], bias: NDArray[np.float32], rule: Rule, bias_l2: float = BIAS_L2
) -> NDArray[np.float32]:
    """A side table: int64 [rows], float32 [rows] -> float32 [rows, SIDE_WIDTH].

    Args:
        counts: ratings of every row.
        bias: where the biases start.
        rule: constants of the step.
        bias_l2: see `objectives.penalty`.
    """
    side = aligned(counts.size, SIDE_WIDTH)
    n = np.maximum(counts, 1)
    side[:, BIAS] = bias
    side[:, STEP] = (n / 80) ** rule.step_exponent
    side[:, L2] = 2 * rule.l2 * (n / 50) ** -rule.l2_exponent
    side[:, L2_BIAS] = 2 * bias_l2 / n
    return side
