"""Work shared by threads so that any number of them gives the same bits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

ROWS = 4096
"""Rows of a matrix product at a time."""
STRIP = 128
"""Columns of a Gram matrix at a time."""


class Threads:
    """A few threads that take parts of a job, as a context; torch itself keeps to one thread in each.

    What a part is does not depend on how many threads there are, and no part is shared.

    Args:
        count: how many.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count, initializer=lambda: torch.set_num_threads(1))

    def __enter__(self) -> Threads:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pool.shutdown()
        torch.set_num_threads(torch.get_num_threads())  # MKL's number is the process's: the pool has set it to 1

    def call(self, kernel: Callable[..., None], *arguments: Any) -> None:
        """Run a compiled kernel, whose first argument counts the parts that are taken, on every thread."""
        taken = np.zeros(1, np.int64)
        for job in [self._pool.submit(kernel, taken, *arguments) for _ in range(self.count)]:
            job.result()

    def each(self, function: Callable[..., None], parts: Iterable[Any]) -> None:
        """Call a function with every part."""
        for job in [self._pool.submit(function, part) for part in parts]:
            job.result()

    def gram(self, table: Tensor) -> Tensor:
        """``table^T table``: float32 [n, width] -> float64 [width, width], the upper triangle alone computed."""
        width = table.shape[1]
        total = torch.zeros(width, width, dtype=torch.float64)

        def strip(begin: int) -> None:
            for first in range(0, len(table), ROWS):  # sums of many are in double precision
                rows = table[first : first + ROWS]
                total[begin : begin + STRIP, begin:] += rows[:, begin : begin + STRIP].mT @ rows[:, begin:]

        self.each(strip, range(0, width, STRIP))
        return total.triu() + total.triu(1).mT

    def product(self, table: Tensor, matrix: Tensor) -> Tensor:
        """``table matrix``: float32 [n, k] and [k, m] -> float32 [n, m]."""
        out = table.new_empty(len(table), matrix.shape[1])

        def some(begin: int) -> None:
            torch.mm(table[begin : begin + ROWS], matrix, out=out[begin : begin + ROWS])

        self.each(some, range(0, len(table), ROWS))
        return out
