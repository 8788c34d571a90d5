"""Control of torch's own threads where its linear algebra must give the same bits on any number of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch, and the BLAS and LAPACK that it calls, compute on one thread.

    Blocked decompositions and long sums are cut by the number of threads, so their last bits depend on it. Meant for
    matrices as wide as a model has factors, where a second thread gains little.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
