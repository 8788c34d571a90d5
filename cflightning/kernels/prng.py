"""A pseudo-random number generator for compiled code: xorshift64* (Marsaglia 2003; Vigna 2016).

A state is a uint64 other than 0. Every kernel makes its own states from a seed and the number of a cell, so that the
draws do not depend on the number of threads.
"""

from __future__ import annotations

import numpy as np

from cflightning.kernels.compiling import compiled


@compiled(inline="always")
def seed_state(seed):
    """Make a state from a small seed: uint64 -> uint64, not 0."""
    return (seed * np.uint64(0x9E3779B97F4A7C15)) | np.uint64(1)


@compiled(inline="always")
def next_state(state):
    """Return the state after a state: uint64 -> uint64."""
    state ^= state << np.uint64(13)
    state ^= state >> np.uint64(7)
    state ^= state << np.uint64(17)
    return state


@compiled(inline="always")
def bounded(state, n):
    """Turn a state into a number in [0, n), without division (Lemire 2019): uint64, int64 -> int64."""
    high = (state * np.uint64(0x2545F4914F6CDD1D)) >> np.uint64(32)
    return np.int64((high * np.uint64(n)) >> np.uint64(32))


@compiled(nogil=True)
def shuffle(column, state):
    """Shuffle an array in place (Fisher-Yates); returns the state after it."""
    for n in range(column.size - 1, 0, -1):
        state = next_state(state)
        m = bounded(state, n + 1)
        column[n], column[m] = column[m], column[n]
    return state
