"""Where an answer is computed: small ones in the event loop, large ones in a thread."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

from anyio import CapacityLimiter, to_thread

_Answer = TypeVar("_Answer")

SMALL = 1 << 15
"""Rows of a table that an answer may read in the event loop: about half a millisecond for 64 factors. Handing over to a
thread and back costs a tenth of that, and under load far more."""


class Work:
    """Threads for large questions; as many as the process has cores, the rest wait."""

    def __init__(self) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._limiter = CapacityLimiter(cores)

    async def run(self, rows: int, ask: Callable[[], _Answer]) -> _Answer:
        """Compute an answer.

        Args:
            rows: of a table that are read for it, about.
            ask: computes it; runs on to its end where the request is given up, and holds its thread for so long.
        """
        if rows <= SMALL:
            return ask()
        return await to_thread.run_sync(ask, abandon_on_cancel=True, limiter=self._limiter)
