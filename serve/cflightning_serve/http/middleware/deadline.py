"""A bound on how long a task takes, which can be moved and brought forward; ``asyncio.timeout`` costs twice as much."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any


class Deadline:
    """``with Deadline(seconds) as deadline:`` cancels its body, awaits and all, when the time is up.

    Args:
        seconds: from entering.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._task: asyncio.Task[Any] | None = None
        self._cut = False
        self.passed = False
        """Whether the body was cut off by time."""

    def __enter__(self) -> Deadline:
        """Start the clock."""
        loop = asyncio.get_running_loop()
        self._task = asyncio.current_task(loop)
        self._timer = loop.call_later(self._seconds, self._pass)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Stop the clock; swallow the cancellation that it caused itself, no other."""
        self._timer.cancel()
        task, self._task = self._task, None
        if not self._cut or kind is not asyncio.CancelledError or task is None:
            return False
        return task.uncancel() == 0

    def extend(self, seconds: float) -> None:
        """Start the clock anew, with so many seconds more than before."""
        self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._seconds + seconds, self._pass)

    def cut(self) -> None:
        """Cancel the body now, if it has not ended."""
        if self._task is not None and not self._cut:
            self._cut = True
            self._task.cancel()

    def _pass(self) -> None:
        self.passed = True
        self.cut()
