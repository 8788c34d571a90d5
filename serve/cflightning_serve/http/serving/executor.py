"""Executor of computations: short ones in the event loop, long ones in threads."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")

INLINE_LIMIT = 1 << 15
"""Cost up to which a computation runs in the event loop. The unit of cost is one table row read: this many take half a
millisecond for 64 factors. Handing over to a thread and back takes a tenth of that, and far more under load."""
ALWAYS_THREAD = 1 << 62
"""Cost of a computation that never runs in the event loop."""
ID_COST = 16
"""Cost of looking up an id, or of writing a number as JSON."""
ITEM_COST = 300
"""Cost of writing an item with title and numbers as JSON."""


class Executor:
    """A pool of one thread per core for long computations.

    A computation whose caller is cancelled while it waits for a thread never runs. A running one occupies its thread to
    the end, so there are never more of them than threads. The threads do not keep the process alive.

    Args:
        inline_limit: cost up to which a computation runs in the event loop.
    """

    def __init__(self, inline_limit: int = INLINE_LIMIT) -> None:
        self._inline_limit = inline_limit
        self._max_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._idle = asyncio.Semaphore(self._max_threads)
        self._num_threads = 0
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    async def run(self, cost: int, function: Callable[[], T]) -> T:
        """Run a computation and return its result.

        Args:
            cost: estimated cost, see ``INLINE_LIMIT``.
            function: the computation.
        """
        if cost <= self._inline_limit:
            return function()
        await self._idle.acquire()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.put(partial(self._compute, future, function))
        if self._num_threads < self._max_threads:
            self._num_threads += 1
            threading.Thread(target=self._work, name=f"executor-{self._num_threads}", daemon=True).start()
        try:
            return await future
        finally:
            del future, function  # an exception refers to this frame, which would keep exception and request alive

    def stop(self) -> None:
        """End the threads, each after its current computation."""
        for _ in range(self._num_threads):
            self._jobs.put(None)

    def _work(self) -> None:
        """Run one computation after the other, in a thread."""
        while (job := self._jobs.get()) is not None:
            job()
            del job

    def _compute(self, future: asyncio.Future[T], function: Callable[[], T]) -> None:
        loop = future.get_loop()
        with suppress(RuntimeError):  # the event loop is closed
            try:
                result = function()
            except BaseException as error:
                loop.call_soon_threadsafe(self._fail, future, error)
            else:
                loop.call_soon_threadsafe(self._finish, future, result)
        del future, function  # as in `run`

    def _finish(self, future: asyncio.Future[T], result: T) -> None:
        self._idle.release()
        if not future.cancelled():
            future.set_result(result)

    def _fail(self, future: asyncio.Future[T], error: BaseException) -> None:
        self._idle.release()
        if not future.cancelled():
            future.set_exception(error)
