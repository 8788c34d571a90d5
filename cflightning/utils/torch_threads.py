"""Control of torch's own threads: one thread where a result must not depend on their number, and a check for forks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import torch

from cflightning.errors import ConfigError

_threads = SimpleNamespace(used=False, lost=False)
"""State of this process: `used`, it has computed on several threads; `lost`, it was forked from a process that had."""


def _after_fork() -> None:
    _threads.lost = _threads.used or _threads.lost


os.register_at_fork(after_in_child=_after_fork)


def use_threads() -> None:
    """Record that torch computes on several threads from here on, if it does.

    Raises:
        ConfigError: this process was forked from one that has done so. A fork copies the thread pool without its
            threads, so the first parallel loop would wait forever.
    """
    if _threads.lost:
        raise ConfigError(
            "--trainer.strategy: this process was forked from one that had computed on several threads and would hang; "
            "use ddp_spawn in a script, or ddp_notebook in a fresh interpreter before any training in it "
            "(with multiprocessing: the start method spawn)"
        )
    _threads.used = _threads.used or torch.get_num_threads() > 1


@contextmanager
def one_thread() -> Iterator[None]:
    """Make torch, and the BLAS and LAPACK that it calls, compute on one thread.

    Blocked decompositions and long sums are divided by the number of threads, so their last bits depend on it. Meant
    for matrices as wide as a model has factors, for which a second thread gains little.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
