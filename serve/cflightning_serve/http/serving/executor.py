"""Where an answer is computed: small ones in the event loop, large ones in a thread."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

_Answer = TypeVar("_Answer")

SMALL = 1 << 15
"""Rows of a table that an answer may read in the event loop: about half a millisecond for 64 factors. Handing over to a
thread and back costs a tenth of that, and under load far more."""
LARGE = 2 * SMALL
"""For what never runs in the event loop."""


class Work:
    """Threads for large questions; as many as the process has cores, the rest wait.

    A question that is given up while it waits is never computed. One that is being computed holds its thread to the
    end, so that there are never more of them than threads. No thread keeps the process from ending.
    """

    def __init__(self) -> None:
        self._cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._free = asyncio.Semaphore(self._cores)
        self._started = 0
        self._questions: SimpleQueue[tuple[asyncio.Future[Any], Callable[[], Any]] | None] = SimpleQueue()

    async def run(self, rows: int, ask: Callable[[], _Answer]) -> _Answer:
        """Compute an answer.

        Args:
            rows: of a table that are read for it, about.
            ask: computes it.
        """
        if rows <= SMALL:
            return ask()
        await self._free.acquire()
        future: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        self._questions.put((future, ask))
        if self._started < self._cores:
            self._started += 1
            threading.Thread(target=self._answer, name=f"work-{self._started}", daemon=True).start()
        try:
            return await future
        finally:
            del future, ask  # an error holds this frame, which would hold the error and the question

    def stop(self) -> None:
        """End the threads, each when it has computed what it is at."""
        for _ in range(self._started):
            self._questions.put(None)

    def _answer(self) -> None:
        """Answer one question after the other, in a thread."""
        while (question := self._questions.get()) is not None:
            future, ask = question
            answer: Any = None
            failed: BaseException | None = None
            try:
                answer = ask()
            except BaseException as error:
                failed = error
            with suppress(RuntimeError):  # the event loop has ended
                future.get_loop().call_soon_threadsafe(self._finish, future, answer, failed)
            del question, future, ask, answer, failed

    def _finish(self, future: asyncio.Future[Any], answer: Any, failed: BaseException | None) -> None:
        self._free.release()
        if future.cancelled():
            return
        if failed is None:
            future.set_result(answer)
        else:
            future.set_exception(failed)
