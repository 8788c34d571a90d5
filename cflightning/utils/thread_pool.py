"""A thread pool for work whose result must not depend on the number of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

BLOCK_ROWS = 4096
"""Rows of a matrix product that a thread takes at a time."""
STRIP = 128
"""Columns of a Gram matrix that a thread takes at a time."""
Part = TypeVar("Part")


class ThreadPool:
    """Threads that take parts of a job, as a context manager; torch uses one thread in each of them.

    The parts do not depend on the number of threads and no part is shared, so the result is the same, bit for bit.

    Args:
        count: number of threads.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count, initializer=lambda: torch.set_num_threads(1))

    def __enter__(self) -> ThreadPool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pool.shutdown()
        torch.set_num_threads(torch.get_num_threads())  # MKL's number is per process, and the pool has set it to 1

    def run_kernel(self, kernel: Callable[..., None], *arguments: object) -> None:
        """Run a compiled kernel on every thread; its first argument counts the parts that are taken."""
        taken = np.zeros(1, np.int64)
        for job in [self._pool.submit(kernel, taken, *arguments) for _ in range(self.count)]:
            job.result()

    def for_each(self, function: Callable[[Part], None], parts: Iterable[Part]) -> None:
        """Call a function with every part."""
        for job in [self._pool.submit(function, part) for part in parts]:
            job.result()

    def gram(self, table: Tensor) -> Tensor:
        """``table^T table``: float32 [n, width] -> float64 [width, width]; only the upper triangle is computed."""
        width = table.shape[1]
        total = torch.zeros(width, width, dtype=torch.float64)

        def add_strip(begin: int) -> None:
            for first in range(0, len(table), BLOCK_ROWS):  # long sums are in double precision
                rows = table[first : first + BLOCK_ROWS]
                total[begin : begin + STRIP, begin:] += rows[:, begin : begin + STRIP].mT @ rows[:, begin:]

        self.for_each(add_strip, range(0, width, STRIP))
        return total.triu() + total.triu(1).mT

    def product(self, table: Tensor, matrix: Tensor) -> Tensor:
        """``table matrix``: float32 [n, k] and [k, m] -> float32 [n, m]."""
        out = table.new_empty(len(table), matrix.shape[1])

        def multiply(begin: int) -> None:
            torch.mm(table[begin : begin + BLOCK_ROWS], matrix, out=out[begin : begin + BLOCK_ROWS])

        self.for_each(multiply, range(0, len(table), BLOCK_ROWS))
        return out

    def transposed_product(self, table: Tensor, other: Tensor) -> Tensor:
        """``table^T other``: float32 [n, k] and [n, m] -> float32 [k, m], summed in double precision by blocks."""
        total = torch.zeros(table.shape[1], other.shape[1], dtype=torch.float64)

        def add_strip(begin: int) -> None:
            for first in range(0, len(table), BLOCK_ROWS):
                rows = slice(first, first + BLOCK_ROWS)
                total[begin : begin + STRIP] += table[rows, begin : begin + STRIP].mT @ other[rows]

        self.for_each(add_strip, range(0, table.shape[1], STRIP))
        return total.float()
