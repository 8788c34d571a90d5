"""The update rule that the fused steps on CPU and GPU share: its constants and its state per user and item.

A state table has a line of `STATE_WIDTH` float32 numbers for every user (or item) index: its bias, the accumulators of
row-wise AdaGrad, and the constants of its steps and penalties. See `fused_dot` for the rule.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cflightning.models.penalty import BIAS_L2, REFERENCE_COUNT, Penalty

BIAS, V_FACTORS, V_BIAS, STEP, L2, L2_BIAS = range(6)
"""Columns of a state table: bias, accumulators of factors and bias, step scale h, penalties per rating of factors and
bias."""
STATE_WIDTH = 8
"""Columns of a state table with its padding: 32 bytes, which never cross a cache line."""
GPU_BLOCK = 64
"""Ratings of a block, which keep their order on a GPU: 256 bytes of each column, whole memory sectors."""


@dataclass(frozen=True)
class AdagradConfig:
    """Constants of the update rule; one set fits data sets of very different size, density and rating scale.

    Attributes:
        bias_rate: Learning rate of the biases, as a multiple of that of the factors.
        global_rate: Learning rate of the global bias (plain SGD), likewise.
        step_exponent: The steps of an index with n ratings are multiplied by (n / 80) ** step_exponent.
        eps: Number added to the root of an accumulator.
    """

    bias_rate: float = 2.5
    global_rate: float = 0.01
    step_exponent: float = 0.15
    eps: float = 0.007


ADAGRAD = AdagradConfig()
"""The constants in use."""


def aligned_zeros(rows: int, columns: int) -> NDArray[np.float32]:
    """Allocate zeros that start at a cache line: float32 [rows, columns]."""
    raw = np.zeros(rows * columns + 16, np.float32)
    skip = (-raw.ctypes.data // 4) % 16
    return raw[skip : skip + rows * columns].reshape(rows, columns)


def make_state_table(
    counts: NDArray[np.int64], bias: NDArray[np.float32], penalty: Penalty, bias_l2: float = BIAS_L2
) -> NDArray[np.float32]:
    """Make the state table of one side.

    Args:
        counts: int64 [n], numbers of ratings.
        bias: float32 [n], initial biases.
        penalty: L2 penalty on factors.
        bias_l2: L2 penalty on biases, in units of the squared rating range.

    Returns:
        float32 [n, STATE_WIDTH], aligned to a cache line.
    """
    state = aligned_zeros(counts.size, STATE_WIDTH)
    n = np.maximum(counts, 1)
    state[:, BIAS] = bias
    state[:, STEP] = (n / 80) ** ADAGRAD.step_exponent
    state[:, L2] = 2 * penalty.l2 * (n / REFERENCE_COUNT) ** -penalty.exponent
    state[:, L2_BIAS] = 2 * bias_l2 / n
    return state
