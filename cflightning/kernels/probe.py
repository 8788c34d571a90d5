"""The smallest kernel, by which it is found out whether compiling works."""

from __future__ import annotations

from typing import Any

import numpy as np

from cflightning.kernels.compiling import compiled
from cflightning.kernels.fused_dot import _take

take: Any = _take


@compiled(nogil=True)
def _add(taken: Any, numbers: Any) -> Any:
    total = np.float32(0)
    while True:
        number: Any = take(taken)
        if number >= numbers.size:
            break
        total += numbers[number]
    return total


def works() -> bool:
    """Whether it compiles, and sums as it must."""
    return float(_add(np.zeros(1, np.int64), np.ones(3, np.float32))) == 3.0
