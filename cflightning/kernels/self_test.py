"""Self-test: numba compiles a small kernel on this machine, and its result is right."""

from __future__ import annotations

import numpy as np

from cflightning.kernels.compiling import compiled
from cflightning.kernels.simd import take_next


@compiled(nogil=True)
def _add(taken, numbers):
    total = np.float32(0)
    while True:
        number: int = take_next(taken)
        if number >= numbers.size:
            break
        total += numbers[number]
    return total


def numba_computes_correctly() -> bool:
    """Return whether the kernel compiles and its sum is right."""
    return float(_add(np.zeros(1, np.int64), np.ones(3, np.float32))) == 3.0
